"""Anthropic's words for what is wrong with a request's shape."""

from collections.abc import Iterator
from typing import Any

from tests.provider.complaints import Complaint
from tests.provider.shapes import Fault, Shape

_NAMES = {"array": "list", "object": "dictionary", "number": "number", "integer": "integer", "boolean": "boolean"}


def first_fault(shape: Shape, value: Any) -> Iterator[Complaint]:
    """Yield a complaint about the first fault in a value's shape, if there is one."""
    for fault in shape(value, ()):
        yield Complaint(f"{'.'.join(map(str, fault.path))}: {_words(fault)}")
        return


def _words(fault: Fault) -> str:
    match fault.kind:
        case "unknown":
            return "Extra inputs are not permitted"
        case "missing":
            return "Field required"
        case "type":
            expected = " or ".join(_NAMES.get(name, name) for name in fault.expected.split(" or "))
            return f"Input should be a valid {expected} (type={type(fault.found).__name__})"
        case "choice":
            *some, last = [f"'{value}'" for value in fault.expected]
            return f"Input should be {', '.join(some)} or {last}" if some else f"Input should be {last}"
        case "tag":
            expected = ", ".join(f"'{value}'" for value in fault.expected)
            return f"Input tag '{fault.found}' found using 'type' does not match any of the expected tags: {expected}"
        case "minimum":
            return f"Input should be greater than or equal to {fault.expected}"
        case "maximum":
            return f"Input should be less than or equal to {fault.expected}"
        case "empty":
            return f"List should have at least {fault.expected} item after validation, not 0"
        case "pattern":
            return f"String should match pattern '^{fault.expected}$'"
