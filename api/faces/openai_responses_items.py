"""The items of a response's output: how each looks, and the events that tell of it."""

from collections.abc import Iterator
from typing import Any, Final, Literal, NamedTuple

ItemStatus = Literal["in_progress", "completed", "incomplete"]
Kind = Literal["output_text", "refusal", "summary_text"]


class Event(NamedTuple):
    """One event, without its number."""

    type: str
    fields: dict[str, Any]


class _Words(NamedTuple):
    """What the API calls a part of one kind, and what happens to it."""

    part: str
    text: str
    place: str
    """What counts the parts of an item."""
    field: str
    """Where the text itself stands."""
    more: dict[str, Any]
    """What stands beside the text in its events."""
    beside: dict[str, Any]
    """What stands beside it in the part."""


TOGETHER: Final = 256
"""Pieces of a text that are joined to one."""

_LOGPROBS: Final[dict[str, Any]] = {"logprobs": []}
_WORDS: Final[dict[Kind, _Words]] = {
    "output_text": _Words(
        "response.content_part",
        "response.output_text",
        "content_index",
        "text",
        _LOGPROBS,
        {"annotations": [], **_LOGPROBS},
    ),
    "refusal": _Words("response.content_part", "response.refusal", "content_index", "refusal", {}, {}),
    "summary_text": _Words(
        "response.reasoning_summary_part", "response.reasoning_summary_text", "summary_index", "text", {}, {}
    ),
}


class Growing:
    """A text, as it grows: in few pieces, as each reader of a response has its own, and a token's costs 60 bytes."""

    def __init__(self) -> None:
        self._joined: list[str] = []
        self._pieces: list[str] = []

    def add(self, piece: str) -> None:
        self._pieces.append(piece)
        if len(self._pieces) == TOGETHER:
            self._joined.append("".join(self._pieces))
            self._pieces.clear()

    @property
    def text(self) -> str:
        return "".join([*self._joined, *self._pieces])


class Part(Growing):
    """Text of one kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.kind: Final = kind

    def view(self) -> dict[str, Any]:
        words = _WORDS[self.kind]
        return {"type": self.kind, words.field: self.text, **words.beside}


class Item:
    """What all items have: their place, and that they are told of when they begin and when they end."""

    def __init__(self, id: str, index: int) -> None:
        self.id: Final = id
        self.index: Final = index
        self.status: ItemStatus = "in_progress"

    def view(self) -> dict[str, Any]:
        """Return the item as it stands."""
        raise NotImplementedError

    @property
    def open(self) -> bool:
        return self.status == "in_progress"

    def begin(self) -> Event:
        return Event("response.output_item.added", {"output_index": self.index, "item": self.view()})

    def close(self, status: ItemStatus) -> Iterator[Event]:
        """End the item, which is whole or is not."""
        yield from self._close_parts()
        self.status = status
        yield Event("response.output_item.done", {"output_index": self.index, "item": self.view()})

    def _close_parts(self) -> Iterator[Event]:
        raise NotImplementedError


class Spoken(Item):
    """A message, or thinking: parts of text, one behind the other."""

    def __init__(self, id: str, index: int, *, thought: bool) -> None:
        super().__init__(id, index)
        self.thought: Final = thought
        self.parts: list[Part] = []

    def view(self) -> dict[str, Any]:
        parts = [part.view() for part in self.parts]
        if self.thought:
            return {"id": self.id, "type": "reasoning", "status": self.status, "summary": parts}
        return {"id": self.id, "type": "message", "status": self.status, "role": "assistant", "content": parts}

    def say(self, kind: Kind, piece: str) -> Iterator[Event]:
        """Add a piece to the last part, or to a new one where that is of another kind."""
        words = _WORDS[kind]
        if not self.parts or self.parts[-1].kind != kind:
            yield from self._close_parts()
            self.parts.append(Part(kind))
            yield Event(f"{words.part}.added", {**self._place(), "part": self.parts[-1].view()})
        self.parts[-1].add(piece)
        yield Event(f"{words.text}.delta", {**self._place(), "delta": piece, **words.more})

    def _place(self) -> dict[str, Any]:
        """Return where the last part is."""
        place = _WORDS[self.parts[-1].kind].place
        return {"item_id": self.id, "output_index": self.index, place: len(self.parts) - 1}

    def _close_parts(self) -> Iterator[Event]:
        if not self.parts:
            return
        part = self.parts[-1]
        words = _WORDS[part.kind]
        yield Event(f"{words.text}.done", {**self._place(), words.field: part.text, **words.more})
        yield Event(f"{words.part}.done", {**self._place(), "part": part.view()})


class Called(Item):
    """A call of one of the client's functions."""

    def __init__(self, id: str, index: int, call_id: str, name: str) -> None:
        super().__init__(id, index)
        self._call_id = call_id
        self._name = name
        self._arguments = Growing()

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "status": self.status,
            "call_id": self._call_id,
            "name": self._name,
            "arguments": self._arguments.text,
        }

    def add(self, piece: str) -> Event:
        self._arguments.add(piece)
        return Event(
            "response.function_call_arguments.delta",
            {"item_id": self.id, "output_index": self.index, "delta": piece},
        )

    def _close_parts(self) -> Iterator[Event]:
        yield Event(
            "response.function_call_arguments.done",
            {
                "item_id": self.id,
                "output_index": self.index,
                "name": self._name,
                "arguments": self._arguments.text,
            },
        )
