"""What strict structured output asks of a JSON schema: closed objects, and at OpenAI every property required."""

from collections.abc import Iterator
from typing import Any


def strict_fault(schema: Any) -> str | None:
    """Return what OpenAI's strict mode would say against this schema first."""
    for path, object_ in _objects(schema, ()):
        context = "In context=" + (f"({', '.join(map(repr, path))})" if len(path) != 1 else f"('{path[0]}',)")
        if object_.get("additionalProperties") is not False:
            return f"{context}, 'additionalProperties' is required to be supplied and to be false."
        required = _list(object_.get("required"))
        missing = [name for name in _dict(object_.get("properties")) if name not in required]
        if missing:
            return (
                f"{context}, 'required' is required to be supplied and to be an array including every key in "
                f"properties. Missing '{missing[0]}'."
            )
    return None


def open_object(schema: Any) -> bool:
    """Return whether an object in this schema does not say that it is closed."""
    return any(object_.get("additionalProperties") is not False for _, object_ in _objects(schema, ()))


def _objects(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Yield the object schemas in a schema, outermost first."""
    if not isinstance(schema, dict):
        return
    types = schema.get("type")
    if types == "object" or (isinstance(types, list) and "object" in types):
        yield path, schema
    for keyword in ("properties", "$defs", "definitions"):
        for name, inner in _dict(schema.get(keyword)).items():
            yield from _objects(inner, (*path, keyword, name))
    yield from _objects(schema.get("items"), (*path, "items"))
    for i, inner in enumerate(_list(schema.get("anyOf"))):
        yield from _objects(inner, (*path, "anyOf", str(i)))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
