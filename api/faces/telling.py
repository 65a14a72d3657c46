"""What a log's events mean to whoever is told an answer that cannot be taken back.

Our own readers drop what a lost attempt has sent (`restarted`). The words of other APIs have none for that: up to
its first word a lost attempt goes unnoticed, behind it `Restarted` says that what was told is void.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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


class Telling:
    """Turns the entries of one log, from its beginning, into steps; remembers what has been told."""

    def __init__(self) -> None:
        self._who = ("", "")
        self._forget()

    def _forget(self) -> None:
        self.began = False
        """Whether anything of the answer has been told."""
        self._calls: dict[int, int] = {}

    def steps(self, entry: Entry) -> Iterator[Step]:
        """Yield what the next entry means."""
        data = load(entry.data)
        if entry.event == TOKEN:
            if data["text"]:
                self.began = True
                yield Text(data["text"], bool(data.get("refusal")))
        elif entry.event == REASONING:
            if data["text"]:
                self.began = True
                yield Thought(data["text"])
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

    def _call(self, piece: dict[str, Any]) -> Iterator[Step]:
        number = self._calls.get(piece["index"])
        if number is None:
            self.began = True
            number = self._calls[piece["index"]] = len(self._calls)
            yield Call(number, piece.get("id") or f"call_{number}", piece.get("name") or "")
        if piece.get("arguments"):
            yield Arguments(number, piece["arguments"])

    def _again(self, data: dict[str, Any]) -> Iterator[Step]:
        void = self.began
        self._forget()
        self._who = (data["provider"], data["model"])
        yield Restarted(*self._who) if void else Started(*self._who)

    def _snapshot(self, state: dict[str, Any]) -> Iterator[Step]:
        """Take the state of an answer in place of the events that led to it."""
        if self.began:
            # Of a log that has lost its last writes: nobody can say what of it was told.
            self._forget()
            yield Restarted(*self._who)
        if state["reasoning"]:
            self.began = True
            yield Thought(state["reasoning"])
        if state["text"]:
            self.began = True
            refusal = state.get("refusal", "")
            if text := state["text"].removesuffix(refusal):
                yield Text(text)
            if refusal:
                yield Text(refusal, refusal=True)
        for call in state["tool_calls"]:
            yield from self._call(call)
