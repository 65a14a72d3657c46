"""What the server tells of jobs and usage. Fields that a newer server adds are in `raw`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Self

from rejoin.answer import CalledTool
from rejoin.events import Usage


@dataclass(frozen=True, slots=True)
class JobError:
    code: str
    message: str
    retryable: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job as the server tells of it. One from a list, or from `submit`, is without its text (None)."""

    id: str
    status: str
    """`queued`, `running`, `completed`, `failed` or `cancelled`."""
    provider: str | None = None
    model: str | None = None
    text: str | None = None
    reasoning: str | None = None
    tool_calls: list[CalledTool] = field(default_factory=list)
    parsed: Any = None
    finish_reason: str | None = None
    usage: Usage | None = None
    cost_usd: float | None = None
    attempts: int = 0
    error: JobError | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    first_token_at: datetime | None = None
    finished_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    events_url: str | None = None
    """Where a browser's `EventSource` reads it without a key, for ten minutes; relative to the server."""
    outcome: str | None = None
    """What a cancel has come to: `cancelled_before_start`, `cancelled`, `cancelling` or `already_finished`."""
    replayed: bool = False
    """Whether an earlier POST with the same Idempotency-Key had made it."""
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def live(self) -> bool:
        return self.status in ("queued", "running")

    @classmethod
    def of(cls, told: Mapping[str, Any], *, replayed: bool = False) -> Self:
        plain = ("id", "status", "provider", "model", "text", "reasoning", "parsed", "finish_reason", "cost_usd")
        given: dict[str, Any] = {name: told.get(name) for name in (*plain, "outcome", "events_url")}
        for name in ("created_at", "started_at", "first_token_at", "finished_at"):
            given[name] = None if told.get(name) is None else datetime.fromisoformat(told[name])
        calls = [CalledTool(c["index"], c["id"], c["name"], c["arguments"]) for c in told.get("tool_calls") or ()]
        error = told.get("error")
        return cls(
            **given,
            tool_calls=calls,
            usage=None if told.get("usage") is None else Usage.of(told["usage"]),
            attempts=told.get("attempts") or 0,
            error=None if error is None else JobError(error["code"], error["message"], error["retryable"]),
            metadata=told.get("metadata") or {},
            replayed=replayed,
            raw=told,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageRow:
    """One group of a usage table; `day`, `model`, `owner` and `key` are those of the four that were asked for."""

    day: date | None = None
    model: str | None = None
    owner: str | None = None
    key: str | None = None
    jobs: int
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated_requests: int
    unpriced_requests: int
    cost_usd: Decimal | None
    """Exact. None where nothing had a price."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        given = {name: told[name] for name in cls.__dataclass_fields__ if name in told}
        exact = told.get("cost_usd_exact")
        given["day"] = date.fromisoformat(told["day"]) if told.get("day") else None
        return cls(**{**given, "cost_usd": None if exact is None else Decimal(exact)})


@dataclass(frozen=True, slots=True)
class UsageTable:
    since: date
    to: date
    rows: list[UsageRow]
    total: UsageRow

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        rows = [UsageRow.of(row) for row in told["data"]]
        return cls(date.fromisoformat(told["from"]), date.fromisoformat(told["to"]), rows, UsageRow.of(told["total"]))
