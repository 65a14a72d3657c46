"""How much work a schema can make: what may be checked where others wait, and what may be asked for at all."""

from typing import Any, Final

MAX_VALUES: Final = 20_000
"""In a schema: 10,000 properties of one type each. A validator for those took 80 to 140 ms."""

MAX_PATTERNS: Final = 100
"""In a schema: half a millisecond each, at worst (`PATTERN_BYTES`)."""

LONGEST_PATTERN: Final = 1_000

PATTERN_BYTES: Final = 512 * 1024
"""Of one pattern when it is compiled."""

_DEEPEST: Final = 100

_NOTHING: Final = frozenset((
    "$schema", "$comment", "$defs", "definitions", "title", "description", "default", "examples", "deprecated",
    "readOnly", "writeOnly", "type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties", "minContains", "maxContains",
))  # fmt: skip
_VALUES: Final = frozenset(("enum", "const", "required", "dependentRequired"))
_ONE: Final = frozenset((
    "items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames",
))  # fmt: skip
_SEVERAL: Final = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_NAMED: Final = frozenset(("properties", "dependentSchemas"))
_FORMATS: Final = frozenset(("date-time", "date", "time", "duration", "email", "uuid", "uri", "ipv4", "ipv6"))


def is_moderate(schema: dict[str, Any]) -> bool:
    """Say whether a validator for a schema is made in a time that others can wait for."""
    values, patterns, left = 0, 0, list[Any]([schema])
    while left:
        match left.pop():
            case dict() as value:
                pattern, keys = value.get("pattern"), value.get("patternProperties")
                found = [pattern] if isinstance(pattern, str) else []
                found += keys if isinstance(keys, dict) else ()
                if any(len(pattern) > LONGEST_PATTERN for pattern in found):
                    return False
                patterns += len(found)
                left += value.values()
            case list() as value:
                left += value
        values += 1
        if values > MAX_VALUES or patterns > MAX_PATTERNS:
            return False
    return True


def weight(schema: dict[str, Any]) -> int | None:
    """Return how many of a schema's parts any value of an answer can meet; None where that has no such bound.

    A part meets a value at most once for each way that leads to it. Ways multiply by `$ref` alone, and without an end
    by one that comes back to itself. Keywords that cost more than a look (patterns, `uniqueItems`, `unevaluated…`),
    and all that are unknown here, have no bound.
    """
    try:
        return _Weights(schema).of(schema, 0)
    except (_Unbounded, TypeError, AttributeError):
        return None


class _Unbounded(Exception):
    pass


class _Weights:
    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[str, int] = {}
        self._open: set[str] = set()

    def of(self, schema: object, depth: int) -> int:
        if isinstance(schema, bool):
            return 1
        if not isinstance(schema, dict) or depth > _DEEPEST:
            raise _Unbounded
        return 1 + sum([self._of_keyword(name, value, depth + 1) for name, value in schema.items()])

    def _of_keyword(self, name: str, value: Any, depth: int) -> int:
        if name in _NOTHING:
            return 1
        if name in _VALUES:
            return _count(value)
        if name in _SEVERAL or (name == "items" and isinstance(value, list)):
            return sum([self.of(part, depth) for part in value])
        if name in _ONE:
            return self.of(value, depth)
        if name in _NAMED:
            return sum([self.of(part, depth) for part in value.values()])
        if name == "format" and value in _FORMATS:
            return 1
        if name == "$ref":
            return self._of_reference(value, depth)
        raise _Unbounded

    def _of_reference(self, reference: str, depth: int) -> int:
        _, _, path = reference.partition("#/")
        where, _, name = path.partition("/")
        known = self._root.get(where)
        if where not in ("$defs", "definitions") or not isinstance(known, dict) or name not in known:
            raise _Unbounded
        if reference in self._open:
            raise _Unbounded
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.of(known[name], depth)
            self._open.discard(reference)
        return self._known[reference]


def _count(value: Any) -> int:
    count, left = 0, [value]
    while left:
        count += 1
        match left.pop():
            case dict() as inner:
                left += inner.values()
            case list() as inner:
                left += inner
    return count
