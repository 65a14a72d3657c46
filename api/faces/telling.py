"""What a log's events mean to whoever is told an answer that cannot be taken back.

Our own readers drop what a lost attempt has sent (`restarted`). The words of other APIs have none for that: up to
its first word a lost attempt goes unnoticed, behind it `Restarted` says that what was told is void.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from shared.events import (
    QUEUED,
    REASONING,
    RESTARTED,
    SNAPSHOT,
    STARTED,
    TOKEN,
    TOOL_CALL,
    Entry,
    load,
)


@dataclass(frozen=True, slots=True)
class Queued:
    position: int


@dataclass(frozen=True, slots=True)
class Started:
    """Somebody works on it: told once for each attempt that has taken back nothing."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Text:
    text: str
    refusal: bool = False
    """Whether the provider calls it its refusal to answer; some APIs have words for that."""


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call begins. `number` counts them from 0, without gaps."""

    number: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """A piece of the JSON text of a call's arguments."""

    number: int
    piece: str


@dataclass(frozen=True, slots=True)
class Restarted:
    """What was told before is void."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The end of the job: `completed`, `failed` or `cancelled`, with the event's data."""

    event: str
    data: dict[str, Any]


Step = Queued | Started | Text | Thought | Call | Arguments | Restarted | Ended


class _Said:
    """What was told of one text: enough to know it again, and no more."""

    __slots__ = ("_sum", "length")

    def __init__(self) -> None:
        self.length = 0
        self._sum = 0

    def add(self, piece: str) -> None:
        self.length += len(piece)
        self._sum = _sum(piece, self._sum)

    def begins(self, text: str) -> bool:
        return len(text) >= self.length and _sum(text[: self.length]) == self._sum


def _sum(text: str, before: int = 0) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"), before)


@dataclass(slots=True)
class _Called:
    """What was told of one call."""

    number: int
    id: str | None
    arguments: _Said = field(default_factory=_Said)


class Telling:
    """Turns the entries of one log, from its beginning, into steps; remembers what has been told."""

    def __init__(self) -> None:
        self._who = ("", "")
        self._forget()

    def _forget(self) -> None:
        self.began = False
        """Whether anything of the answer has been told."""
        self._said = {TOKEN: _Said(), REASONING: _Said()}
        self._calls: dict[int, _Called] = {}

    def more(self, entry: Entry, quoted: bytes) -> None:
        """Note a text, in its quotes, that was told without asking for its steps."""
        self._said[entry.event].add(load(quoted))

    def steps(self, entry: Entry) -> Iterator[Step]:
        """Yield what the next entry means."""
        data = load(entry.data)
        if entry.event == TOKEN:
            yield from self._text(data["text"], refusal=bool(data.get("refusal")))
        elif entry.event == REASONING:
            yield from self._thought(data["text"])
        elif entry.event == TOOL_CALL:
            yield from self._call(data)
        elif entry.event == QUEUED:
            yield Queued(data["position"])
        elif entry.event == STARTED:
            self._who = (data["provider"], data["model"])
            yield Started(*self._who)
        elif entry.event == RESTARTED:
            yield from self._again(data)
        elif entry.event == SNAPSHOT:
            yield from self._snapshot(data)
        elif entry.last:
            yield Ended(entry.event, data)

    def _text(self, text: str, *, refusal: bool = False) -> Iterator[Step]:
        if text:
            self.began = True
            self._said[TOKEN].add(text)
            yield Text(text, refusal)

    def _thought(self, text: str) -> Iterator[Step]:
        if text:
            self.began = True
            self._said[REASONING].add(text)
            yield Thought(text)

    def _call(self, piece: dict[str, Any]) -> Iterator[Step]:
        called = self._calls.get(piece["index"])
        if called is None:
            self.began = True
            called = self._calls[piece["index"]] = _Called(len(self._calls), piece.get("id"))
            yield Call(called.number, called.id or f"call_{called.number}", piece.get("name") or "")
        if piece.get("arguments"):
            called.arguments.add(piece["arguments"])
            yield Arguments(called.number, piece["arguments"])

    def _again(self, data: dict[str, Any]) -> Iterator[Step]:
        void = self.began
        self._forget()
        self._who = (data["provider"], data["model"])
        yield Restarted(*self._who) if void else Started(*self._who)

    def _snapshot(self, state: dict[str, Any]) -> Iterator[Step]:
        """Take the state of an answer in place of the events that led to it: tell what of it was not told yet.

        A log becomes compact under a reader that is slow. Where what was told is no beginning of it, it is that of
        another answer: a log that has lost its last writes, or an attempt that was.
        """
        if self.began and not self._is_told_of(state):
            self._forget()
            yield Restarted(*self._who)
        # What has begun goes on before anything else begins: some APIs end a call then.
        calls = sorted(state["tool_calls"], key=lambda call: call["index"] not in self._calls)
        begun = len(self._calls)
        for call in calls[:begun]:
            rest = call["arguments"][self._calls[call["index"]].arguments.length :]
            yield from self._call({**call, "arguments": rest})
        yield from self._thought(state["reasoning"][self._said[REASONING].length :])
        text, told = state["text"], self._said[TOKEN].length
        refused_from = max(told, len(text) - len(state.get("refusal", "")))
        yield from self._text(text[told:refused_from])
        yield from self._text(text[refused_from:], refusal=True)
        for call in calls[begun:]:
            yield from self._call(call)

    def _is_told_of(self, state: dict[str, Any]) -> bool:
        """Say whether all that was told is the beginning of what this snapshot says."""
        calls = {call["index"]: call for call in state["tool_calls"]}
        return (
            self._said[TOKEN].begins(state["text"])
            and self._said[REASONING].begins(state["reasoning"])
            and all(
                (call := calls.get(index)) is not None
                and call["id"] == called.id
                and called.arguments.begins(call["arguments"])
                for index, called in self._calls.items()
            )
        )
