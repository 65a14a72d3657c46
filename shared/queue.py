"""arq's queue, claimed by lease: who holds which job, and how it passes on.

Kept from arq: the sorted set, the job's payload under its own key, the payload's format (in JSON). What arq
does not do is done by scripts: a claimed job leaves the queue, a worker's lease covers all that it holds.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import orjson
from arq.jobs import serialize_job

from shared.booked import Booked
from shared.clock import wall_ms
from shared.errors import Damaged
from shared.keys import ARQ_JOB, Keys
from shared.limits import Limit, for_scripts, scope_of
from shared.log import Append
from shared.milestones import Milestones, milestones
from shared.prices import Rates, Usage
from shared.redis import Multiplexer, Scripts
from shared.spent import ESTIMATE, Settlement, Spent, told

GENERATE: Final = "generate"
"""The name of the arq function that runs a job. Its only argument is the job's id."""

REAP_AT_ONCE: Final = 25
"""Jobs a script requeues before it lets other clients in: some 3 ms, most of it for guessing what each has taken."""


def to_payload(value: dict[str, Any]) -> bytes:
    """arq's job serializer, in JSON: nothing is ever unpickled."""
    return orjson.dumps(value)


def from_payload(payload: bytes) -> dict[str, Any]:
    value: dict[str, Any] = orjson.loads(payload)
    return value


def arq_payload(job_id: str) -> bytes:
    """Return the queue entry of a job, as arq itself would write it."""
    return serialize_job(GENERATE, (job_id,), {}, None, wall_ms(), serializer=to_payload)


@dataclass(frozen=True, slots=True)
class Claim:
    """A job in this worker's hands, its next attempt opened in the log. Times are Redis', in ms."""

    worker: str
    job_id: str
    attempt: int
    base: int
    """The attempt whose text this one goes on from; its own number when it starts anew."""
    request: bytes
    created_ms: int
    started_ms: int
    claimed_ms: int
    log_length: int
    """Entries in the log, the attempt's opening included."""
    provider: str
    model: str
    """Who is asked now: a fallback, if the one that the request names has failed."""
    fallback: int
    """How many fallbacks have had their turn."""
    rates: Rates | None
    """What a token costs there; None when nobody knows."""
    spent: Spent
    """What the attempts before this one have taken."""
    run: bytes
    """The bookmark of the provider's own run that the text is of, and that goes on; empty without one."""
    reason: str
    """Why the attempt begins; empty for a job's first."""
    traceparent: str
    """The span that submitted the job, as W3C writes it; empty without one."""
    server: str
    """The event server that its log is on; empty for the one with its record."""
    milestones: Milestones | None
    """What is to be in that log before anything else; None where that is not elsewhere."""


def _claim(worker: str, raw_id: bytes, *rest: Any) -> Claim:
    *numbers, provider, model, fallback, rates, used, run, reason, traceparent, server, opened = rest
    fields = [worker, raw_id.decode(), *numbers, provider.decode(), model.decode(), fallback]
    fields += [None if rates is None else Rates.parse(rates), Spent.parse(used), run, reason.decode("utf-8", "replace")]
    fields += (traceparent.decode("latin-1"), server.decode(), milestones(opened, noted=False))
    return Claim(*fields)


class Claims(NamedTuple):
    lease_held: bool
    claims: list[Claim]
    discarded: list[str]
    """Entries that are no waiting jobs. The record decides, so that no payload is ever trusted."""
    opens_s: float | None
    """When some of the jobs that wait for room may find it; None: whoever makes the room will say so."""
    booked: Booked


class Full(NamedTuple):
    """There is no room for another call just now."""

    reason: str
    """`rate_limited`, `concurrency`, `requests_per_minute` or `tokens_per_minute`."""
    wait_s: float | None
    """After how long there may be some; None: when another call has ended."""


class Refusal(NamedTuple):
    """A provider's 429: nobody is to ask this model for a while."""

    asked_s: float
    """For how long, if the provider has said so; else 0."""
    first_s: float
    longest_s: float
    """How long without its word, at first and at most."""


class Renewal(NamedTuple):
    lease_held: bool
    cancels: list[str]
    now_ms: int
    """Redis' clock."""


class Reaped(NamedTuple):
    worker: str
    requeued: int
    ended: int
    more: bool
    booked: Booked


class Finished(NamedTuple):
    """A job that has ended as it was told."""

    cancel_ms: int | None
    """How long before somebody had asked for its end."""
    milestones: Milestones | None = None
    """What is to be in its log, where that is elsewhere."""


class Pause(NamedTuple):
    wait_s: float
    """For how long a model must not be asked."""
    began: bool
    """Whether that was found out by this very call."""


class Progress(NamedTuple):
    """How a call goes whose tokens are not where its record is."""

    job_id: str
    attempt: int
    first_token_ms: int | None
    """When its provider began to answer; None where that has been told."""
    usage: Usage
    """What it has taken so far, as far as one can say."""


class Queue:
    """One method a state change, each one script."""

    def __init__(
        self, redis: Multiplexer, scripts: Scripts, keys: Keys, limits: Mapping[str, Limit] | None = None
    ) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._limits = for_scripts(limits or {})

    async def wait(self, blocking: Multiplexer, longest_s: float) -> None:
        """Return when a job has come, or after `longest_s`."""
        try:
            await blocking.call("BLPOP", self._keys.wake, longest_s)
        except asyncio.CancelledError:
            # Or it would pop what somebody else waits for.
            blocking.drop()
            raise

    async def register(self, worker: str, lease_s: float, report: bytes = b"") -> Renewal:
        """Take out a lease for a worker that holds nothing yet."""
        return await self._renew(worker, lease_s, report, new=True)

    async def renew(self, worker: str, lease_s: float, report: bytes = b"") -> Renewal:
        """Prolong the lease on all that the worker holds, tell of it, and learn what to cancel."""
        return await self._renew(worker, lease_s, report, new=False)

    async def _renew(self, worker: str, lease_s: float, report: bytes, *, new: bool) -> Renewal:
        keys = [self._keys.leases, self._keys.cancels(worker), self._keys.report(worker)]
        args = [worker, int(lease_s * 1000), int(new), report]
        held, cancels, now_ms = await self._scripts.run("renew", keys, args)
        return Renewal(held == 1, [job_id.decode("utf-8", "replace") for job_id in cancels], now_ms)

    async def claim(
        self,
        worker: str,
        at_most: int,
        lease_s: float,
        retention_s: float = 3600,
        *,
        judge_readers: bool = False,
        servers: Iterable[str] = (),
    ) -> Claims:
        """Take waiting jobs out of the queue, open each one's next attempt, prolong the lease.

        `judge_readers`: end those that are to be cancelled when nobody reads them and that nobody reads. `servers`: the
        event servers that this worker can write to; jobs whose logs are on others wait.
        """
        names = self._keys
        keys = [names.queue, names.wake, names.leases, names.running(worker), names.lines, names.pauses]
        times = [int(retention_s * 1000), int(judge_readers)]
        args = [worker, at_most, int(lease_s * 1000), names.prefix, ARQ_JOB, *times, self._limits, " ".join(servers)]
        held, raw_claims, raw_discarded, opens_ms, raw_booked = await self._scripts.run("claim", keys, args)
        claims, unreadable = [], []
        for raw in raw_claims:
            try:
                claims.append(_claim(worker, *raw))
            except (ArithmeticError, AttributeError, Damaged, TypeError, ValueError):
                unreadable.append(raw[0])
        booked = Booked.read(raw_booked)
        if unreadable:
            buried = await self.bury(worker, unreadable, retention_s)
            booked = Booked(booked.ended + buried.ended, booked.settled)
        discarded = [job_id.decode("utf-8", "replace") for job_id in (*raw_discarded, *unreadable)]
        return Claims(held == 1, claims, discarded, None if opens_ms < 0 else opens_ms / 1000, booked)

    async def again(
        self,
        claim: Claim,
        reason: str,
        provider: str,
        model: str,
        fallback: int,
        rates: Rates | None = None,
        settlement: Settlement = ESTIMATE,
        left: bytes = b"",
    ) -> Claim | Full | None:
        """Open the next attempt of a job that stays in this worker's hands, where there is room for it.

        None when it is not ours any more. Without a `reason` it goes on with the provider's run, from the text that is
        there, and has its room.
        `rates` are those of whom it asks, `settlement` is that of the call which failed; `left` the bookmark of a run
        that it does not go on with, and that is to be cancelled.
        """
        target = orjson.dumps({"provider": provider, "model": model})[1:-1]
        args = [claim.job_id, claim.worker, claim.attempt, reason, target, provider, model, fallback]
        args += ["" if rates is None else str(rates), self._keys.prefix, told(settlement), self._limits, left]
        keys = [self._keys.job(claim.job_id), self._keys.log(claim.job_id), self._keys.pauses]
        held, *opened = await self._scripts.run("again", keys, args)
        if held == 0:
            return None
        if held == 2:
            why, wait_ms = opened
            return Full(why.decode(), wait_ms / 1000 or None)
        attempt, length, now_ms, used, base, run, told_there = opened
        return replace(
            claim, attempt=attempt, base=base, claimed_ms=now_ms, log_length=length, reason=reason,
            provider=provider, model=model, fallback=fallback, rates=rates, spent=Spent.parse(used), run=run,
            milestones=milestones(told_there, noted=False),
        )  # fmt: skip

    async def hang_up(
        self, claim: Claim, settlement: Settlement, refusal: Refusal | None = None, left: bytes = b""
    ) -> Pause:
        """Settle a call that has failed, and free its room; return for how long its model must not be asked.

        `left`: the bookmark of its run, if that goes on: it is to be cancelled.
        """
        args: list[Any] = [claim.job_id, claim.worker, claim.attempt, self._keys.prefix, told(settlement)]
        args += (scope_of(claim.provider, claim.model), 0 if refusal is None else 1)
        args += [*(int(seconds * 1000) for seconds in refusal or (0.0, 0.0, 0.0)), left]
        ms, began = await self._scripts.run("hang_up", [self._keys.job(claim.job_id), self._keys.pauses], args)
        return Pause(ms / 1000, began == 1)

    async def held(self, worker: str) -> set[str]:
        """Return the jobs that the worker holds in Redis' eyes."""
        return {
            job_id.decode("utf-8", "replace")
            for job_id in await self._redis.read("SMEMBERS", self._keys.running(worker))
        }

    async def finish(
        self,
        claim: Claim,
        status: str,
        last: Append,
        record: dict[str, Any],
        retention_s: float,
        settlement: Settlement = ESTIMATE,
        left: bytes = b"",
    ) -> Finished | None:
        """End a job: `last` closes its log, with the last event at its end. None when it is not ours any more.

        `left`: the bookmark of the provider's run, if that goes on: it is to be cancelled.
        """
        id, worker, keys = claim.job_id, claim.worker, self._keys
        args: list[Any] = [id, worker, claim.attempt, status, int(retention_s * 1000), keys.prefix]
        args += (told(settlement), left)
        args += (last.first.seq, last.before, len(last.events))
        for event in last.events:
            args += event
        for name, value in record.items():
            args += (name, value)
        names = [keys.job(id), keys.log(id), ARQ_JOB + id, keys.running(worker), keys.cancels(worker), keys.ended]
        done, cancel_ms, *told_there = await self._scripts.run("finish", names, args)
        if done != 1:
            return None
        return Finished(None if cancel_ms < 0 else cancel_ms, milestones(told_there[0], noted=True))

    async def release(
        self,
        job_id: str,
        worker: str,
        reason: str,
        attempt: int | None = None,
        retention_s: float = 3600,
        settlement: Settlement = ESTIMATE,
        highest: int | None = None,
    ) -> Booked | None:
        """Put a job back in front of the queue without charging an attempt. None when it is not ours any more.

        One that is to be cancelled ends here instead, and is kept for the retention. `highest`: an attempt that its log
        has seen, when that is more than its record knows of: the next one is above it.
        """
        keys = self._keys
        names = [keys.job(job_id), keys.queue, keys.wake, keys.running(worker), keys.cancels(worker)]
        number = "" if attempt is None else attempt
        args = [job_id, worker, number, reason, keys.prefix, int(retention_s * 1000), told(settlement)]
        args.append("" if highest is None else highest)
        done, raw_booked = await self._scripts.run("release", names, args)
        return Booked.read(raw_booked) if done == 1 else None

    async def report_progress(self, worker: str, calls: Iterable[Progress]) -> None:
        """Keep what is to be known of calls whose tokens are on event servers, should their worker be lost."""
        args: list[Any] = [self._keys.prefix, worker]
        for job_id, attempt, first_token_ms, usage in calls:
            args += (job_id, attempt, "" if first_token_ms is None else first_token_ms, told(usage))
        await self._scripts.run("progress", [], args)

    async def abandon(self, worker: str, job_ids: Iterable[str]) -> None:
        """Let go of jobs that the worker holds and does not run: they go the way of a lost worker's."""
        lost = f"{worker}:lost"
        keys = [self._keys.leases, self._keys.running(worker), self._keys.running(lost)]
        await self._scripts.run("abandon", keys, [self._keys.prefix, worker, lost, *job_ids])

    async def bury(self, worker: str, job_ids: Iterable[str | bytes], retention_s: float) -> Booked:
        """End jobs that the worker holds and that nobody can do anything with."""
        keys = [self._keys.running(worker)]
        args = [self._keys.prefix, worker, int(retention_s * 1000), *job_ids]
        return Booked.read(await self._scripts.run("bury", keys, args))

    async def leave(self, worker: str, reason: str) -> None:
        """Give back whatever the worker still holds, then its lease. (Nobody asks a worker that leaves for figures.)"""
        for job_id in await self.held(worker):
            await self.release(job_id, worker, reason)
        # A token that this worker popped and did not use is given back; one too many costs an empty claim.
        await self._redis.call("LPUSH", self._keys.wake, 1)
        await self._redis.call("ZREM", self._keys.leases, worker)
        await self._redis.call("DEL", self._keys.cancels(worker), self._keys.report(worker))

    async def reap(self, max_attempts: int, retention_s: float, until_ms: int) -> Reaped:
        """Take the jobs of one worker whose lease has run out: requeue or end each.

        `until_ms`: how long the reaper may judge, on Redis' clock; later the script does nothing.
        """
        keys = [self._keys.leases, self._keys.queue, self._keys.wake]
        args = [self._keys.prefix, max_attempts, int(retention_s * 1000), REAP_AT_ONCE, until_ms]
        worker, requeued, ended, more, raw_booked = await self._scripts.run("reap", keys, args)
        return Reaped(worker.decode("utf-8", "replace"), requeued, ended, more == 1, Booked.read(raw_booked))
