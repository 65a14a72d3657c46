"""What a stream yields: one class an event, to be told apart by `match` or `isinstance`.

    match event:
        case Token(text=text): ...
        case Completed(usage=usage, cost_usd=cost_usd): ...

Fields that a newer server adds are in `data`; events that it adds are `Unknown`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """Whether a part of it is a guess."""

    @classmethod
    def of(cls, given: Mapping[str, Any] | None) -> "Usage":
        return cls(**{name: given[name] for name in cls.__dataclass_fields__ if name in given}) if given else cls()


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of a job's log. `id` is the cursor: `subscribe(job_id, last_event_id=event.id)` goes on behind it."""

    event: ClassVar[str]
    last: ClassVar[bool] = False
    """Whether the job has ended with it."""

    id: str
    data: Mapping[str, Any] = field(repr=False)
    """All that the server said."""

    @property
    def number(self) -> int:
        """The attempt that it belongs to; 0 before the first one."""
        return int(self.id.partition("-")[0])


@dataclass(frozen=True, kw_only=True)
class Queued(Event):
    event = "queued"
    position: int
    reason: str | None = None
    """Why it waits, where that is not for its turn: `concurrency`, `rate_limited`, …"""


@dataclass(frozen=True, kw_only=True)
class Started(Event):
    """An attempt begins; a later one that is started, not restarted, goes on from the text that is there."""

    event = "started"
    attempt: int
    provider: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Token(Event):
    event = "token"
    text: str
    refusal: bool = False
    """Whether the provider calls this its refusal to answer."""


@dataclass(frozen=True, kw_only=True)
class Reasoning(Event):
    event = "reasoning"
    text: str


@dataclass(frozen=True, kw_only=True)
class ToolCall(Event):
    """A piece of a call. `call_id` and `name` come with the first one; `arguments` is a piece of JSON text."""

    event = "tool_call"
    index: int
    call_id: str | None
    name: str | None
    arguments: str


@dataclass(frozen=True, kw_only=True)
class Restarted(Event):
    """The answer starts anew: drop what came before."""

    event = "restarted"
    attempt: int
    reason: str
    provider: str
    model: str


@dataclass(frozen=True, kw_only=True)
class Snapshot(Event):
    """Replaces everything before it: what it stands for is no longer kept event by event."""

    event = "snapshot"
    attempt: int
    text: str
    reasoning: str
    tool_calls: list[dict[str, Any]]
    refusal: str = ""


@dataclass(frozen=True, kw_only=True)
class Completed(Event):
    event = "completed"
    last = True
    finish_reason: str
    provider: str
    model: str
    usage: Usage
    cost_usd: float | None
    ttft_ms: int | None
    duration_ms: int | None
    parsed: Any


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    event = "failed"
    last = True
    code: str
    message: str
    retryable: bool
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Cancelled(Event):
    event = "cancelled"
    last = True
    usage: Usage


@dataclass(frozen=True, kw_only=True)
class Unknown(Event):
    """An event of a newer server; it ends nothing."""

    name: str

    @property
    def event(self) -> str:  # type: ignore[override]
        return self.name


def _tool_call(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "call_id": given.get("id"), "name": given.get("name"), "arguments": given.get("arguments", "")}


def _with_usage(given: Mapping[str, Any]) -> dict[str, Any]:
    return {**given, "usage": Usage.of(given.get("usage"))}


def _completed(given: Mapping[str, Any]) -> dict[str, Any]:
    return {"ttft_ms": None, "duration_ms": None, "cost_usd": None, "parsed": None, **_with_usage(given)}


_KINDS: Final[dict[str, tuple[type[Event], Callable[[Mapping[str, Any]], Mapping[str, Any]]]]] = {
    "queued": (Queued, dict),
    "started": (Started, dict),
    "token": (Token, dict),
    "reasoning": (Reasoning, dict),
    "tool_call": (ToolCall, _tool_call),
    "restarted": (Restarted, dict),
    "snapshot": (Snapshot, dict),
    "completed": (Completed, _completed),
    "failed": (Failed, _with_usage),
    "cancelled": (Cancelled, _with_usage),
}
_NAMES: Final = {
    kind: tuple(name for name in kind.__dataclass_fields__ if name not in ("id", "data")) for kind, _ in _KINDS.values()
}


def event_of(id: str, name: str, data: Mapping[str, Any]) -> Event:
    """Return the event of these three; fields that it does not know stay in `data`."""
    if name not in _KINDS:
        return Unknown(id=id, data=data, name=name)
    kind, shape = _KINDS[name]
    given = shape(data)
    return kind(id=id, data=data, **{field: given[field] for field in _NAMES[kind] if field in given})
