"""Shapes of JSON: what a request may look like, field by field, and where it does not.

A shape is a function from a value and its path to the faults in it; the dialects put those into their own words.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

FaultKind = Literal["unknown", "missing", "type", "choice", "tag", "minimum", "maximum", "empty", "pattern"]
Path = tuple["str | int", ...]


class Tag(str):
    """A part of a path that only says which kind of thing was found there."""

    __slots__ = ()


class Fault(NamedTuple):
    path: Path
    kind: FaultKind
    expected: Any = None
    found: Any = None


Shape = Callable[[Any, Path], Iterator[Fault]]


def anything(value: Any, path: Path) -> Iterator[Fault]:
    return iter(())


def string(value: Any, path: Path) -> Iterator[Fault]:
    if not isinstance(value, str):
        yield Fault(path, "type", "string", value)


def matching(pattern: str) -> Shape:
    def shape(value: Any, path: Path) -> Iterator[Fault]:
        yield from string(value, path)
        if isinstance(value, str) and not re.fullmatch(pattern, value):
            yield Fault(path, "pattern", pattern, value)

    return shape


def boolean(value: Any, path: Path) -> Iterator[Fault]:
    if not isinstance(value, bool):
        yield Fault(path, "type", "boolean", value)


def integer(least: int | None = None, most: int | None = None) -> Shape:
    return _between("integer", int, least, most)


def number(least: float | None = None, most: float | None = None) -> Shape:
    return _between("number", int | float, least, most)


def _between(name: str, type_: Any, least: float | None, most: float | None) -> Shape:
    def shape(value: Any, path: Path) -> Iterator[Fault]:
        if isinstance(value, bool) or not isinstance(value, type_):
            yield Fault(path, "type", name, value)
        elif least is not None and value < least:
            yield Fault(path, "minimum", least, value)
        elif most is not None and value > most:
            yield Fault(path, "maximum", most, value)

    return shape


def mapping(value: Any, path: Path) -> Iterator[Fault]:
    if not isinstance(value, dict):
        yield Fault(path, "type", "object", value)


def choice(*allowed: str) -> Shape:
    def shape(value: Any, path: Path) -> Iterator[Fault]:
        if value not in allowed:
            yield Fault(path, "choice", allowed, value)

    return shape


def array(item: Shape, *, least: int = 0) -> Shape:
    def shape(value: Any, path: Path) -> Iterator[Fault]:
        if not isinstance(value, list):
            yield Fault(path, "type", "array", value)
            return
        if len(value) < least:
            yield Fault(path, "empty", least)
        for i, inner in enumerate(value):
            yield from item(inner, (*path, i))

    return shape


@dataclass(frozen=True)
class Record:
    """An object with these fields and no others; null stands for an optional one that is not there."""

    required: Mapping[str, Shape]
    optional: Mapping[str, Shape]

    @property
    def names(self) -> set[str]:
        return {*self.required, *self.optional}

    def __call__(self, value: Any, path: Path) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield Fault(path, "type", "object", value)
            return
        for name, inner in self.required.items():
            if value.get(name) is None:
                yield Fault((*path, name), "missing")
            else:
                yield from inner(value[name], (*path, name))
        for name in sorted(value.keys() - self.names):
            yield Fault((*path, name), "unknown")
        for name, inner in self.optional.items():
            if value.get(name) is not None:
                yield from inner(value[name], (*path, name))


def tagged(shapes: Mapping[str, Shape], *, field: str = "type", default: str | None = None) -> Shape:
    """One of several objects, told apart by a field."""

    def shape(value: Any, path: Path) -> Iterator[Fault]:
        if not isinstance(value, dict):
            yield Fault(path, "type", "object", value)
            return
        tag = value.get(field) or default
        if tag is None:
            yield Fault((*path, field), "missing")
        elif not isinstance(tag, str) or tag not in shapes:
            yield Fault((*path, field), "tag", tuple(shapes), tag)
        else:
            yield from shapes[tag](value, (*path, Tag(tag)))

    return shape


def by_type(shapes: Mapping[type, Shape]) -> Shape:
    """One of several JSON types."""

    def shape(value: Any, path: Path) -> Iterator[Fault]:
        inner = shapes.get(type(value))
        if inner is None:
            yield Fault(path, "type", " or ".join(_NAMES.get(type_, "value") for type_ in shapes), value)
        else:
            yield from inner(value, path)

    return shape


_NAMES: Mapping[type, str] = {str: "string", list: "array", dict: "object", int: "integer"}
