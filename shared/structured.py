"""Answers that are to be JSON: which schemas are taken, whether an answer fits, and what a half-written one says."""

from typing import Any, Final

import jiter
import jsonschema_rs

from shared.events import load
from shared.tools import ResponseFormat

_PATTERNS: Final = jsonschema_rs.RegexOptions()
"""Patterns that take linear time: a client's schema must not keep a worker busy for ever."""


MAX_CHARACTERS: Final = 1_048_576
"""Of an answer that is to be JSON, twice the longest that a model writes: it is read and checked as one."""

MAX_DEPTH: Final = 200
"""Of its value. Readers' own limits begin at some hundreds."""


class Misfit(Exception):
    """The text is not JSON, or not of the shape that was asked for. Says nothing of the text."""


def _validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)


def is_usable(format: ResponseFormat) -> bool:
    """Say whether answers can be checked against the schema: it is one, and stands alone."""
    if format.schema_value is None:
        return True
    try:
        _validator(format.schema_value)
    except (ValueError, RecursionError):
        return False
    return True


def parsed(text: str, format: ResponseFormat) -> Any:
    """Return what the whole answer says, or raise Misfit."""
    try:
        value = load(text.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise Misfit from None
    if _too_deep(value):
        raise Misfit
    if format.schema_value is None:
        if not isinstance(value, dict):
            raise Misfit
    elif not _validator(format.schema_value).is_valid(value):
        raise Misfit
    return value


def _too_deep(value: Any) -> bool:
    layer = [value]
    for _ in range(MAX_DEPTH):
        layer = [
            inner
            for item in layer
            if isinstance(item, dict | list)
            for inner in (item.values() if isinstance(item, dict) else item)
        ]
        if not layer:
            return False
    return True


def reading(text: str) -> Any:
    """Return the best reading of JSON that is not written to its end; None when there is nothing to read."""
    try:
        return jiter.from_json(text.encode("utf-8", "surrogatepass"), partial_mode="trailing-strings")
    except (ValueError, RecursionError):
        return None
