"""The events of a job's log: their ids, their JSON, and what several of them add up to."""

import json
import math
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from shared.errors import BadCursor, Damaged

QUEUED: Final = "queued"
STARTED: Final = "started"
TOKEN: Final = "token"
REASONING: Final = "reasoning"
TOOL_CALL: Final = "tool_call"
RESTARTED: Final = "restarted"
SNAPSHOT: Final = "snapshot"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

LAST_EVENTS: Final = frozenset((COMPLETED, FAILED, CANCELLED))
"""Exactly one of them ends every job. (`failed`, not `error`: EventSource has its own.)"""

_MERGED: Final = frozenset((TOKEN, REASONING))
_TEXT_HEAD: Final = b'{"text":"'
_TEXT_TAIL: Final = b'"}'

MAX_MERGED_BYTES: Final = 256 * 1024
"""Bound of one merged event: a 2,000-token answer is about 10 KB, so it still arrives in one."""

_ID: Final = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})")
_U64: Final = 2**64


class EventId(NamedTuple):
    """`<attempt>-<seq>`: the entry's id in the Redis Stream, and the client's cursor."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read an id strictly; raise BadCursor for what Redis might take for something else (`$`, `+`, `1`)."""
        match = _ID.fullmatch(text)
        if match is None:
            raise BadCursor("An event id is two numbers with a hyphen between them.")
        attempt, seq = int(match[1]), int(match[2])
        if attempt >= _U64 or seq >= _U64:
            raise BadCursor("An event id's numbers are below 2^64.")
        return cls(attempt, seq)

    def precedes(self, other: "EventId") -> bool:
        """Say whether nothing can stand between this id and `other`: same attempt, next seq."""
        return self.attempt == other.attempt and self.seq + 1 == other.seq


START: Final = EventId(0, 0)
"""The cursor of a reader that has seen nothing. No entry has this id: Redis refuses it."""


class Entry:
    """One event as the log holds it. `data` is one line of JSON."""

    __slots__ = ("data", "event", "id", "sse", "tail")

    def __init__(self, id: EventId, event: str, data: bytes, tail: bytes | None = None) -> None:
        self.id = id
        self.event = event
        self.data = data
        self.tail = data if tail is None else tail
        """What the log itself holds under this id: a merged entry ends with it."""
        self.sse: bytes | None = None
        """The frame for an SSE reader, made once for all readers."""

    def __repr__(self) -> str:
        return f"<Entry {self.id} {self.event}>"

    @property
    def last(self) -> bool:
        return self.event in LAST_EVENTS


def dump(value: Any) -> bytes:
    """Return `value` as one line of JSON; lone surrogates, which UTF-8 cannot carry, as `\\ud83d` escapes."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return json.dumps(value, separators=(",", ":")).encode("ascii")


def load(data: bytes) -> Any:
    """Read JSON, lone surrogates included. Raises ValueError for what is none, or is too deep."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        try:
            return json.loads(data, parse_float=_finite, parse_constant=_finite)
        except RecursionError:
            raise ValueError("too deep") from None


def _finite(number: str) -> float:
    """Return a number as JSON has them: `NaN` and `Infinity`, or what is as large, nobody else could read."""
    value = float(number)
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


def text_data(text: str) -> bytes:
    """Return the data of a `token` or `reasoning` event."""
    return dump({"text": text})


def refusal_data(text: str) -> bytes:
    """Return the data of a `token` event whose text the provider calls a refusal."""
    return dump({"refusal": True, "text": text})


def quoted_text(entry: Entry) -> bytes | None:
    """Return the text of a `token` or `reasoning` event as it stands in its JSON, with its quotes; None where the event
    says more than that, or is another one."""
    data = entry.data
    if entry.event in _MERGED and data.startswith(_TEXT_HEAD) and data.endswith(_TEXT_TAIL):
        return data[len(_TEXT_HEAD) - 1 : -1]
    return None


def merge(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Join neighbours that only carry text, under the id of the last of them.

    Works on the JSON's bytes: two JSON strings joined inside their quotes are the JSON of the joined
    string. A pair of surrogates is never split over two entries (`worker.text.Surrogates`). What says more than its
    text, a refusal, stays by itself.
    """
    run: list[Entry] = []
    size = 0
    for entry in entries:
        is_text = entry.event in _MERGED and entry.data.startswith(_TEXT_HEAD)
        if run and (not is_text or entry.event != run[0].event or size + len(entry.data) > MAX_MERGED_BYTES):
            yield _joined(run)
            run, size = [], 0
        if is_text:
            run.append(entry)
            size += len(entry.data)
        else:
            yield entry
    if run:
        yield _joined(run)


def _joined(run: list[Entry]) -> Entry:
    if len(run) == 1:
        return run[0]
    inner = b"".join([entry.data[len(_TEXT_HEAD) : -len(_TEXT_TAIL)] for entry in run])
    return Entry(run[-1].id, run[-1].event, _TEXT_HEAD + inner + _TEXT_TAIL, tail=run[-1].data)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


class Answer:
    """What a job's events add up to: the state that a reader of all of them has."""

    def __init__(self, attempt: int = 0) -> None:
        self._begin(attempt)

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self._said: dict[str, list[str]] = {"text": [], "refusal": [], "reasoning": []}
        """Pieces, joined when somebody looks: there may be a hundred thousand of them."""
        self._calls: dict[int, dict[str, Any]] = {}
        self._arguments: dict[int, list[str]] = {}
        """Pieces by the call's index."""

    @property
    def text(self) -> str:
        return self._joined("text")

    @property
    def refusal(self) -> str:
        """What of the text the provider calls a refusal."""
        return self._joined("refusal")

    @property
    def reasoning(self) -> str:
        return self._joined("reasoning")

    def _joined(self, kind: str) -> str:
        pieces = self._said[kind]
        pieces[:] = ["".join(pieces)]
        return pieces[0]

    @property
    def tool_calls(self) -> list[dict[str, Any]]:
        """The calls in the order in which they began, their arguments as far as they have come."""
        for index, pieces in self._arguments.items():
            self._calls[index]["arguments"] += "".join(pieces)
        self._arguments.clear()
        return list(self._calls.values())

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Answer":
        answer = cls()
        for entry in merge(entries):
            answer.add(entry)
        return answer

    def add(self, entry: Entry) -> None:
        """Apply one event. A restart drops what earlier attempts sent; a snapshot replaces everything.

        Raises Damaged for what nobody of ours has written.
        """
        try:
            self._apply(entry)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise Damaged("a log holds what is no event") from error

    def _apply(self, entry: Entry) -> None:
        if entry.event == TOKEN:
            data = load(entry.data)
            text = _text(data["text"])
            self._said["text"].append(text)
            if data.get("refusal"):
                self._said["refusal"].append(text)
        elif entry.event == REASONING:
            self._said["reasoning"].append(_text(load(entry.data)["text"]))
        elif entry.event == TOOL_CALL:
            self._add_tool_call(load(entry.data))
        elif entry.event == STARTED:
            # A later attempt that is `started` goes on from the text that is there.
            self.attempt = entry.id.attempt
        elif entry.event == RESTARTED:
            self._begin(entry.id.attempt)
        elif entry.event == SNAPSHOT:
            state = load(entry.data)
            self.attempt = state["attempt"]
            said = _text(state["text"]), _text(state.get("refusal", "")), _text(state["reasoning"])
            self._said = dict(zip(self._said, ([text] for text in said), strict=True))
            self._calls = {call["index"]: call for call in state["tool_calls"]}
            self._arguments = {}

    def _add_tool_call(self, piece: dict[str, Any]) -> None:
        index = piece["index"]
        if index not in self._calls:
            self._calls[index] = {"index": index, "id": piece.get("id"), "name": piece.get("name"), "arguments": ""}
        self._arguments.setdefault(index, []).append(_text(piece.get("arguments", "")))

    def snapshot(self, id: EventId) -> Entry:
        """Return the event that brings a reader with an unknown cursor to this state."""
        state = {
            "attempt": self.attempt,
            "text": self.text,
            "reasoning": self.reasoning,
            "tool_calls": self.tool_calls,
            **({"refusal": self.refusal} if self.refusal else {}),
        }
        return Entry(id, SNAPSHOT, dump(state))
