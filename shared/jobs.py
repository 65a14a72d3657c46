"""A job's record and the state changes that clients may cause: create, cancel, delete."""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from shared import quotas
from shared.clock import iso
from shared.errors import (
    BudgetSpent,
    ChatBusy,
    Damaged,
    JobLive,
    JobNotFound,
    KeyMismatch,
    QueueFull,
    RateLimited,
    TooManyJobs,
    TooManyStreams,
)
from shared.events import Answer, dump, load
from shared.keys import ARQ_JOB, Keys
from shared.milestones import Milestones
from shared.prices import Rates
from shared.queue import arq_payload
from shared.quotas import Quota
from shared.redis import ConnectionError, Multiplexer, RedisError, Scripts, is_damage
from shared.requests import JobRequest
from shared.spent import Spent
from shared.streams import NO_BID, Bid
from shared.structured import reading

logger = logging.getLogger(__name__)

Status = Literal["queued", "running", "completed", "failed", "cancelled"]
STATUSES: Final[tuple[Status, ...]] = ("queued", "running", "completed", "failed", "cancelled")
LIVE: Final = frozenset(("queued", "running"))

CancelOutcome = Literal["cancelled_before_start", "cancelled", "cancelling", "already_finished"]

LIVE_TTL_S: Final = 7 * 86_400
"""A live job's keys expire all the same, should everything that could end it be gone for good."""

IDEMPOTENCY_S: Final = 86_400
"""How long an Idempotency-Key stands for its job, whatever becomes of that."""

SCAN: Final = 200
MOST_SCANS: Final = 5
"""A list by status looks at a thousand jobs at most; the page may be short, its cursor goes on."""

DEFAULT_QUOTA: Final = Quota()

ID_PREFIX: Final = "job_"
_ID: Final = re.compile(r"job_[0-9a-f]{32}")


def new_job_id() -> str:
    """Return an id of 128 random bits: nobody guesses another's job."""
    return ID_PREFIX + secrets.token_hex(16)


@dataclass(slots=True)
class Job:
    """A job's record. Times are Redis' clock in ms; the text lives in the log."""

    id: str
    owner: str
    status: Status
    provider: str
    model: str
    attempt: int
    base: int
    """The attempt with which the text begins: an earlier one when attempts were continued."""
    created_ms: int
    started_ms: int | None = None
    first_token_ms: int | None = None
    finished_ms: int | None = None
    finish_reason: str | None = None
    spent: Spent = field(default_factory=Spent)
    """What its attempts have taken, all of them together."""
    error: dict[str, Any] | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    json: bool = False
    """Whether the answer is to be JSON."""
    reasoning_blocks: list[dict[str, str]] = field(default_factory=list)
    """Thinking with its signatures: a follow-up turn gives it back in the assistant's message."""
    leave_grace_s: float | None = None
    """How long nobody may read the job before it is cancelled; None when that is no reason."""

    traceparent: str = ""
    """The span that submitted it, as W3C writes it."""

    server: str = ""
    """The event server that its log is on; empty for the one with its record."""

    face: dict[str, Any] = field(default_factory=dict)
    """What the API that it was asked through keeps of its request beside the job's."""

    @property
    def live(self) -> bool:
        return self.status in LIVE

    def view(self, answer: Answer | None, events_url: str) -> dict[str, Any]:
        """Return what the owner sees (contract §2); without the text's fields where there is no answer."""
        written = (
            {}
            if answer is None
            else {
                "text": answer.text,
                "reasoning": answer.reasoning,
                "tool_calls": answer.tool_calls,
                "reasoning_blocks": self.reasoning_blocks,
                "parsed": reading(answer.text) if self.json else None,
            }
        )
        cost_usd = None if self.live else self.spent.cost_usd
        return {
            "id": self.id,
            "status": self.status,
            "provider": self.provider,
            "model": self.model,
            **written,
            "finish_reason": self.finish_reason,
            "usage": None if self.live else self.spent.usage().shown(),
            "cost_usd": None if cost_usd is None else float(cost_usd),
            "attempts": self.attempt,
            "error": self.error,
            "created_at": iso(self.created_ms),
            "started_at": iso(self.started_ms),
            "first_token_at": iso(self.first_token_ms),
            "finished_at": iso(self.finished_ms),
            "metadata": self.metadata,
            "events_url": events_url,
        }


class Created(NamedTuple):
    id: str
    created_ms: int
    standings: quotas.Standings
    """How the owner stands with its limits after this one."""
    replayed: bool = False
    """Whether an earlier POST with the same Idempotency-Key made it."""
    live: bool = True
    server: str = ""
    """The event server that its log is on; empty for the one with its record."""
    kept: bool = True
    """False for a replayed one that is not there any more."""
    interrupted: tuple[str, str] | None = None
    """The job that it has ended, a waiting answer of the same chat, and the event server that the log of that is on."""
    milestones: Milestones | None = None
    """What is to be in its log, where that is elsewhere; None also where that has to be read."""


class Idempotency(NamedTuple):
    """What makes a repeated POST the same one."""

    key: str
    hash: str
    """Of what is asked for: another request under the same key is refused."""


class Turn(NamedTuple):
    """What makes a job the answer of a chat: one of them is live at a time."""

    chat: str
    retention_s: float | None
    """For how long a live answer is kept that this one interrupts; None where it is not to be interrupted."""


def _created(quota: Quota, outcome: bytes, taken: int, more_in_ms: int, live: int, *rest: Any) -> Created:
    """Read the reply of `create`, or raise what was refused."""
    standings = [quotas.posts(quota, taken, more_in_ms), quotas.live_jobs(quota, live)]
    match outcome, rest:
        case b"created", (job_id, created_ms, interrupted, position):
            queued = (b"0-1", b"queued", b'{"position":%d}' % position)
            first = Milestones(LIVE_TTL_S * 1000, [queued], noted=False) if position else None
            older = (interrupted[0].decode("utf-8", "replace"), interrupted[1].decode()) if interrupted else None
            return Created(job_id.decode(), created_ms, standings, interrupted=older, milestones=first)
        case b"replayed", (job_id, created_ms, status, server):
            is_live, kept = status.decode() in LIVE, status != b""
            return Created(
                job_id.decode(), created_ms, standings, replayed=True, live=is_live, server=server.decode(), kept=kept
            )
        case b"mismatch", _:
            raise KeyMismatch
        case b"chat", _:
            raise ChatBusy
        case b"queue", _:
            raise QueueFull("Too many jobs wait already.")
        case b"posts", (retry_in_ms,):
            raise RateLimited(standings, retry_in_ms)
        case b"jobs", _:
            raise TooManyJobs(standings)
        case b"budget", (retry_in_ms,):
            raise BudgetSpent([*standings, quotas.spend(quota, retry_in_ms)], retry_in_ms)
        case b"streams", _:
            raise TooManyStreams([*standings, quotas.streams(quota)])
    raise AssertionError(outcome)


class Page(NamedTuple):
    jobs: list[Job]
    next_cursor: int | None


class Jobs:
    """The records of all jobs. Redis is asked by id; who may ask is decided in `api.access`."""

    def __init__(self, redis: Multiplexer, scripts: Scripts, keys: Keys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys

    async def create(
        self,
        owner: str,
        request: JobRequest,
        max_queue: int,
        *,
        quota: Quota = DEFAULT_QUOTA,
        idempotency: Idempotency | None = None,
        stream: Bid | None = None,
        can_continue: bool = False,
        rates: Rates | None = None,
        key: str | None = None,
        usage_retention_d: int = 400,
        face: Mapping[str, Any] | None = None,
        numbered: bool = False,
        turn: Turn | None = None,
        traceparent: str | None = None,
        place: Callable[[str], str] = lambda job_id: "",
    ) -> Created:
        """Create the job, its log and its queue entry in one step, or find the one that its Idempotency-Key stands for.

        Raises QueueFull, one of LimitReached, KeyMismatch, ChatBusy: then nothing was created, and the key is free.

        `stream`: it is read at once, by one more stream of its owner's. `can_continue`: its provider can go on from a
        text that an attempt has left behind. `rates`: what it costs. `key` and `usage_retention_d`: what the owner's
        ledger enters it under, and how many days it keeps that. `face`: what another API keeps of its request
        beside the job's. `numbered`: its readers count its events, so its log is never made smaller. `turn`: it
        answers a chat, and a live answer of that is cancelled in the same step. `traceparent`: the span that its
        attempts go on from. `place`: says on which event server the log of a job with this id is to be.
        """
        job_id = new_job_id()
        keys = self._keys
        names = [
            keys.job(job_id),
            keys.log(job_id),
            keys.queue,
            ARQ_JOB + job_id,
            keys.owner_jobs(owner),
            keys.created,
            keys.wake,
            keys.blocked,
            keys.live_jobs(owner),
            keys.posts(owner),
        ]
        if idempotency is not None:
            names.append(keys.idempotency(owner, idempotency.key))
        script, interrupts = "create", ""
        if turn is not None:
            script = "answer"
            names.append(keys.chat(owner, turn.chat))
            interrupts = "" if turn.retention_s is None else str(int(turn.retention_s * 1000))
        target = dump({"provider": request.provider, "model": request.model})
        record: list[str | bytes | int | float] = [
            *("priority", request.priority),
            *("provider", request.provider),
            *("model", request.model),
            *("target", target[1:-1]),
            *("request", request.model_dump_json(exclude_defaults=True, by_alias=True)),
            *("metadata", dump(request.metadata)),
            *("on_worker_lost", request.on_worker_lost),
            *("continues", int(can_continue and request.on_worker_lost == "continue")),
            *("input_estimate", request.input_estimate()),
            *("json", int(request.json_format is not None)),
            *("ledger_days", usage_retention_d),
        ]
        if server := place(job_id):
            record += ("server", server)
        if key is not None:
            record += ("key", key)
        if rates is not None:
            record += ("rates", str(rates))
        if face is not None:
            record += ("face", dump(face))
        if turn is not None:
            record += ("chat", names[-1])
        if traceparent is not None:
            record += ("traceparent", traceparent)
        if numbered:
            record += ("numbered", 1)
        if request.leave_grace_s is not None:
            record += ("leave_grace_s", request.leave_grace_s)
        limits = [quota.posts_per_minute, quota.live_jobs, "" if quota.daily_cost is None else quota.daily_cost]
        hashed = "" if idempotency is None else idempotency.hash
        args: list[Any] = [job_id, arq_payload(job_id), LIVE_TTL_S * 1000, max_queue, keys.prefix, owner, *limits]
        args += [hashed, IDEMPOTENCY_S * 1000, *(stream or NO_BID), interrupts, *record]
        try:
            reply = await self._scripts.run(script, names, args, again=True)
        except RedisError as error:
            if not is_damage(error) or not await self._scripts.run("mend", names, [keys.prefix, job_id]):
                raise
            logger.error("what stood under our names in Redis was not ours: it is replaced")
            reply = await self._scripts.run(script, names, args, again=True)
        created = _created(quota, *reply)
        return created if created.replayed else created._replace(server=server)

    async def answering(self, owner: str, chat: str) -> Job | None:
        """Return the job that answers an owner's chat; None when none is live."""
        try:
            raw = await self._redis.read("GET", self._keys.chat(owner, chat))
        except RedisError as error:
            if not is_damage(error):
                raise
            return None
        job = None if raw is None else await self._record(raw.decode("utf-8", "replace"))
        return job if job is not None and job.live and job.owner == owner else None

    async def get(self, job_id: str) -> Job:
        """Return a job's record, or raise JobNotFound."""
        if not _ID.fullmatch(job_id):
            raise JobNotFound
        job = await self._record(job_id)
        if job is None:
            raise JobNotFound
        return job

    async def request(self, job_id: str) -> JobRequest:
        """Return what a job was asked for, or raise JobNotFound."""
        raw = await self._redis.read("HGET", self._keys.job(job_id), "request")
        if raw is None:
            raise JobNotFound
        try:
            return JobRequest.model_validate_json(raw)
        except ValueError as error:
            raise Damaged("the request of a job cannot be read") from error

    async def _record(self, job_id: str) -> Job | None:
        """Return a job's record; None when there is none, or none that can be read."""
        try:
            return _decode(job_id, await self._redis.read("HMGET", self._keys.job(job_id), *_FIELDS))
        except (ArithmeticError, TypeError, ValueError) as error:
            logger.error("the record of job %s is damaged (%s)", job_id, type(error).__name__)
        except RedisError as error:
            if not is_damage(error):
                raise
            logger.error("the record of job %s is none", job_id)
        return None

    async def cancel(self, job_id: str, retention_s: float) -> CancelOutcome:
        """End a job that waits; ask the worker of one that runs; JobNotFound when there is none."""
        keys = self._keys
        names = [keys.job(job_id), keys.log(job_id)]
        args = [job_id, keys.prefix, int(retention_s * 1000)]
        try:
            reply = await self._scripts.run("cancel", names, args)
        except ConnectionError:
            reply = await self._scripts.run("cancel", names, args)
            if reply == b"already_finished" and (await self.get(job_id)).status == "cancelled":
                # By the first of the two, whose reply was lost.
                reply = b"cancelled"
        if reply == b"unknown":
            raise JobNotFound
        outcome: CancelOutcome = reply.decode()
        return outcome

    async def delete(self, job_id: str, owner: str) -> str:
        """Forget a finished job at once; JobLive while it is not finished, JobNotFound when there is none.

        Returns the event server that its log is on, where the courier deletes it; empty for one that is gone as well.
        """
        keys = self._keys
        names = [keys.job(job_id), keys.log(job_id), ARQ_JOB + job_id, keys.owner_jobs(owner)]
        reply = await self._scripts.run("delete", names, [job_id, keys.prefix])
        if reply[0] == -1:
            raise JobNotFound
        if reply[0] == 0:
            raise JobLive
        server: str = reply[1].decode()
        return server

    async def page(self, owner: str, status: Status | None, limit: int, before: int | None) -> Page:
        """Return an owner's jobs, newest first. `before` is the cursor of the page before this one.

        A page may be short, or empty, and still have a cursor: there may be more behind it.
        """
        index = self._keys.owner_jobs(owner)
        highest: str | float = "+inf" if before is None else f"({before}"
        found: list[Job] = []
        at_once = limit if status is None else max(limit, SCAN)
        last = 0
        for _ in range(MOST_SCANS):
            window = (highest, "-inf", "WITHSCORES", "LIMIT", 0, at_once)
            flat = await self._redis.read("ZREVRANGEBYSCORE", index, *window)
            rows = [(flat[i], float(flat[i + 1])) for i in range(0, len(flat), 2)]
            for job, order in await self._rows(index, rows):
                if status is None or job.status == status:
                    found.append(job)
                    if len(found) == limit:
                        return Page(found, int(order))
            if len(rows) < at_once:
                return Page(found, None)
            last = int(rows[-1][1])
            highest = f"({last}"
        return Page(found, last)

    async def _rows(self, index: str, rows: Sequence[tuple[bytes, float]]) -> list[tuple[Job, float]]:
        """Read the records of some index entries, dropping the entries whose jobs have expired."""
        if not rows:
            return []
        records = await asyncio.gather(*[self._record(raw_id.decode("utf-8", "replace")) for raw_id, _ in rows])
        jobs, expired = [], []
        for (raw_id, order), job in zip(rows, records, strict=True):
            if job is None:
                expired.append(raw_id)
            else:
                jobs.append((job, order))
        if expired:
            await self._redis.call("ZREM", index, *expired)
        return jobs


_FIELDS: Final = [
    "owner",
    "status",
    "provider",
    "model",
    "attempt",
    "base",
    "created_ms",
    "started_ms",
    "first_token_ms",
    "finished_ms",
    "finish_reason",
    "used",
    "error",
    "metadata",
    "reasoning_blocks",
    "json",
    "leave_grace_s",
    "face",
    "traceparent",
    "server",
]


def _decode(job_id: str, raw: Sequence[bytes | None]) -> Job | None:
    values = dict(zip(_FIELDS, raw, strict=True))
    if values["status"] is None or values["owner"] is None:
        return None

    def text(name: str) -> str | None:
        value = values[name]
        return None if value is None else value.decode()

    def number(name: str) -> int | None:
        value = values[name]
        return None if value is None else int(float(value))

    def json(name: str) -> Any:
        value = values[name]
        return None if value is None else load(value)

    status: Any = text("status")
    if status not in STATUSES:
        raise ValueError("no such status")
    return Job(
        id=job_id,
        owner=text("owner") or "",
        status=status,
        provider=text("provider") or "",
        model=text("model") or "",
        attempt=number("attempt") or 0,
        base=number("base") or 0,
        created_ms=number("created_ms") or 0,
        started_ms=number("started_ms"),
        first_token_ms=number("first_token_ms"),
        finished_ms=number("finished_ms"),
        finish_reason=text("finish_reason"),
        spent=Spent.parse(values["used"]),
        error=json("error"),
        metadata=json("metadata") or {},
        json=number("json") == 1,
        reasoning_blocks=json("reasoning_blocks") or [],
        leave_grace_s=json("leave_grace_s"),
        face=json("face") or {},
        traceparent=text("traceparent") or "",
        server=text("server") or "",
    )
