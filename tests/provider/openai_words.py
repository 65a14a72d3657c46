"""OpenAI's words for what is wrong with a request's shape."""

import json
from collections.abc import Iterator
from typing import Any

from tests.provider.complaints import Complaint
from tests.provider.shapes import Fault, Path, Shape, Tag

_ARTICLES = {"array": "an array", "object": "an object", "integer": "an integer"}
_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def first_fault(shape: Shape, value: Any) -> Iterator[Complaint]:
    """Yield a complaint about the first fault in a value's shape, if there is one."""
    for fault in shape(value, ()):
        yield _complaint(fault)
        return


def _complaint(fault: Fault) -> Complaint:
    path = _path(fault.path)
    match fault.kind:
        case "unknown":
            message, code = f"Unknown parameter: '{path}'.", "unknown_parameter"
        case "missing":
            message, code = f"Missing required parameter: '{path}'.", "missing_required_parameter"
        case "type":
            found = _NAMES.get(type(fault.found), "null")
            message = f"Invalid type for '{path}': expected {_a(fault.expected)}, but got {_a(found)} instead."
            code = "invalid_type"
        case "choice" | "tag":
            *some, last = [f"'{value}'" for value in fault.expected]
            values = f"{', '.join(some)}, and {last}" if len(some) > 1 else " and ".join([*some, last])
            found = fault.found if isinstance(fault.found, str) else json.dumps(fault.found)
            message, code = f"Invalid value: '{found}'. Supported values are: {values}.", "invalid_value"
        case "minimum" | "maximum":
            below = fault.kind == "minimum"
            kind = "integer" if isinstance(fault.found, int) else "decimal"
            message = (
                f"Invalid '{path}': {kind} {'below minimum' if below else 'above maximum'} value. "
                f"Expected a value {'>=' if below else '<='} {fault.expected}, but got {fault.found} instead."
            )
            code = f"{kind}_{'below_min' if below else 'above_max'}_value"
        case "empty":
            message = (
                f"Invalid '{path}': empty array. "
                f"Expected an array with minimum length {fault.expected}, but got an empty array instead."
            )
            code = "empty_array"
        case _:
            message = (
                f"Invalid '{path}': string does not match pattern. "
                f"Expected a string that matches the pattern '{fault.expected}'."
            )
            code = "invalid_value"
    return Complaint(message, path, code)


def _path(path: Path) -> str:
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not isinstance(part, Tag):
            text += f".{part}" if text else part
    return text


def _a(name: str) -> str:
    return _ARTICLES.get(name, f"a {name}")
