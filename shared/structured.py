"""Answers that are to be JSON: which schemas are taken, whether an answer fits, and what a half-written one says."""

from typing import Any, Final

import jiter
import jsonschema_rs
import orjson

from shared.events import load
from shared.tools import ResponseFormat
from shared.weight import PATTERN_BYTES, is_moderate, weight

_PATTERNS: Final = jsonschema_rs.RegexOptions(size_limit=PATTERN_BYTES)
"""Patterns that take linear time: a client's schema must not keep a worker busy for ever."""


MAX_CHARACTERS: Final = 1_048_576
"""Of an answer that is to be JSON, twice the longest that a model writes: it is read and checked as one."""

MAX_DEPTH: Final = 200
"""Of its value, or the 254 that are written fast. Readers' own limits begin at some hundreds."""


LIGHT: Final = 200_000
"""Looks that a check may take where others wait: 1 to 5 ms, in the shapes that were tried."""


class Misfit(Exception):
    """The text is not JSON, or not of the shape that was asked for. Says nothing of the text."""


def _validator(schema: dict[str, Any]) -> Any:
    return jsonschema_rs.validator_for(schema, pattern_options=_PATTERNS, offline=True)


def is_usable(format: ResponseFormat) -> bool:
    """Say whether answers can be checked against the schema: it is one, stands alone, and is of moderate size."""
    if format.schema_value is None:
        return True
    if not is_moderate(format.schema_value):
        return False
    try:
        _validator(format.schema_value)
    except (ValueError, RecursionError):
        return False
    return True


def parsed(text: str, format: ResponseFormat) -> Any:
    """Return what the whole answer says; raise Misfit where it is no JSON, or no object where that is asked for."""
    try:
        value = load(text.encode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise Misfit from None
    if _too_deep(value) or (format.schema_value is None and not isinstance(value, dict)):
        raise Misfit
    return value


def is_light(text: str, schema: dict[str, Any]) -> bool:
    """Say whether `fits` takes no longer than others can wait."""
    parts = weight(schema)
    return parts is not None and parts * (1 + sum(map(text.count, ",:[{"))) <= LIGHT


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Say whether a value is of a schema's shape. Holds the whole process for as long as it takes."""
    return bool(_validator(schema).is_valid(value))


def _too_deep(value: Any) -> bool:
    try:
        # (It has a limit of its own, a little above ours, and finds out in a fraction of the time.)
        orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _deeper(value)
    return False


def _deeper(value: Any) -> bool:
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
