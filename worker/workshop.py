"""What all attempts of one worker share, and the way each of them goes."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from pydantic import ValidationError

from shared import logs
from shared.backlog import Backlog
from shared.clock import mono_s
from shared.errors import Damaged
from shared.hour import Hour, Tally
from shared.keys import Keys
from shared.log import Log
from shared.metrics import CANCELLED, FIRST, LISTEN, Models, WorkerMetrics
from shared.orphans import OrphanedRuns
from shared.presence import Presence
from shared.prices import Prices, Usage
from shared.queue import Claim, Full, Queue
from shared.redis import REDIS_FAULTS, DataError, Scripts, connect, info, is_damage, problem
from shared.requests import JobRequest
from shared.settings import Settings
from shared.spent import OPEN, UNASKED
from shared.subscriber import Subscriber
from worker.attempt import Attempt, Failed, HandedOver, Lost, Outcome, Stop, Timeouts
from worker.checker import Checker
from worker.compactor import Compactor
from worker.failures import CODES
from worker.leases import Lease, Reaper
from worker.orphans import Orphans
from worker.pace import Paces
from worker.providers.base import Provider
from worker.providers.registry import Providers
from worker.reporter import Reporter
from worker.retries import LOOK_AGAIN_S, RUN_LOST, Step, listen_again, next_step, no_room, refusal
from worker.slots import KEPT_S, Slots
from worker.writer import Writer

if TYPE_CHECKING:
    from shared.traces import Traces

logger = logging.getLogger(__name__)

T = TypeVar("T")

WATCH_S: Final = 0.1
"""Resolution of the attempts' clocks."""

HELD_S: Final = 2.0
"""Between two looks at what Redis thinks we hold; what is found twice is let go."""

LISTEN_S: Final = 1.0
LEAVE_S: Final = 2.0

READERS_S: Final = 0.5
"""Between two looks for readers of jobs that mind: what a closed tab costs beyond its grace."""

COMMAND_TIMEOUT_S: Final = 5.0
"""Workers wait for Redis; only API processes have a client to tell."""

LEADING_TIMEOUT: Final = 0.3
"""The same where it is about who holds what, as a share of the lease: a renewal that gets no answer has time for two
more, over a new connection."""

PROBE_S: Final = 0.8
"""What Redis may take to answer for a probe."""

RETRY_LONGEST_S: Final = 1.0
MAX_EARLY_CANCELS: Final = 1_000
LONGEST_ID: Final = 64


SCRIPTS_CODES: Final = ("worker_lost", "log_lost", "job_damaged")
"""What jobs fail with that scripts end by themselves."""

UNREADABLE: Final = JobRequest.model_construct(provider="", model="", messages=[])
"""Stands for a stored request that this version cannot read: its job fails, and its reader is told."""


def _readable(claim: Claim) -> JobRequest:
    try:
        return JobRequest.model_validate_json(claim.request)
    except ValidationError:
        return UNREADABLE


class Workshop:
    """Opened once a worker; runs any number of attempts at once."""

    def __init__(self, settings: Settings, traces: "Traces | None" = None) -> None:
        self.settings = settings
        self._traces = traces
        self.keys = Keys(settings.key_prefix)
        # Two connections, so that a lease is renewed, and jobs are handed over, whatever an append waits for.
        self._leading = connect(settings.redis_url, timeout_s=settings.lease_s * LEADING_TIMEOUT)
        self._writing = connect(settings.redis_url, timeout_s=COMMAND_TIMEOUT_S)
        leading, writing = self._scripts = Scripts(self._leading), Scripts(self._writing)
        self.queue = Queue(self._leading, leading, self.keys, settings.limits)
        self._ends = Queue(self._writing, writing, self.keys, settings.limits)
        self._log = Log(self._writing, writing, self.keys)
        self._writer = Writer(self._log, settings.max_answer_bytes)
        self._checker = Checker()
        self._presence = Presence(leading, self.keys)
        self._prices = Prices.read(settings.prices)
        self.metrics = WorkerMetrics(Models(settings, self._prices), (*CODES, *SCRIPTS_CODES))
        self._paces = Paces(self.metrics)
        self.backlog = Backlog(leading, self.keys)
        self.tally = Tally(Hour(self._leading, leading, self.keys), self.metrics.registry)
        self._subscriber = Subscriber(settings.redis_url)
        self.attempts: dict[str, Attempt] = {}
        self.slots = Slots(settings.max_jobs)
        reporter = Reporter(self.slots, self.attempts)
        self.lease = Lease(
            self.queue, self._subscriber, self.keys, settings.lease_s,
            on_cancel=self._cancel, on_lost=self._lose_all, report=reporter.report,
        )  # fmt: skip
        self._reaper = Reaper(self.queue, self.lease, settings.max_attempts, settings.retention_s, self.metrics)
        self.compactor = Compactor(self._log)
        self.providers = Providers(settings)
        self._runs = OrphanedRuns(self._leading, leading, self.keys)
        self.orphans = Orphans(self._runs, self.providers, self._subscriber, self.keys)
        self._busy = asyncio.Event()
        """There are attempts, or were a moment ago."""
        self._early_cancels: set[str] = set()
        """Cancels that overtook the reply to their job's claim; a renewal repeats what is forgotten here."""
        self.broken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Wait for Redis, take out the lease, start the timers."""
        await self._until_redis_answers()
        await self._subscriber.start()
        server = await self._insist(lambda: info(self._leading))
        listening = await self._insist(lambda: self.lease.take(float(server.get("uptime_in_seconds", 0))))
        await asyncio.wait([listening], timeout=LISTEN_S)
        coroutines = (
            self._writer.run(),
            self.lease.keep(),
            self._reaper.run(),
            self.compactor.run(),
            self.orphans.run(),
            self._watch(),
            self._watch_readers(),
            self._watch_held(),
            self.tally.run(),
        )
        self._tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for task in self._tasks:
            task.add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """A worker without its writer, lease or clocks must not go on: it stops, and others take its jobs."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("a part of this worker has failed", exc_info=error)
            self.broken.set()

    async def close(self) -> None:
        """Give everything back: held jobs first, connections last."""
        for task in self._tasks[1:]:
            task.cancel()
        try:
            async with asyncio.timeout(LEAVE_S):
                await self.queue.leave(self.lease.worker, "worker_stopped")
        except REDIS_FAULTS as error:
            logger.warning("left without a word (%s): the lease runs out by itself", type(error).__name__)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._subscriber.stop()
        await self._checker.close()
        await self.orphans.close()
        await self.providers.close()
        await self._leading.close()
        await self._writing.close()

    def begin(self, claim: Claim) -> Attempt:
        """Take a claimed job in hand, so that whoever cancels it finds it from this moment on."""
        attempt = self._attempt(claim)
        self.attempts[claim.job_id] = attempt
        self._busy.set()
        self.metrics.attempt(claim.reason or FIRST)
        if claim.claimed_ms == claim.started_ms:
            self.metrics.waited(claim.claimed_ms - claim.created_ms)
        if claim.job_id in self._early_cancels:
            attempt.stop(Stop.CANCEL)
        return attempt

    async def run(self, attempt: Attempt) -> None:
        """Bring a job to its end, from this attempt on, or to where somebody else goes on with it."""
        claim, ours = attempt.claim, [attempt]
        if attempt.trace is not None:
            attempt.trace.note()
        logger.info("attempt at %s", claim.provider)
        try:
            await self._pick_up(attempt)
            await self._finish(ours)
        except Exception as error:
            logger.exception("job %s attempt %d could not be settled", claim.job_id, claim.attempt)
            if is_damage(error) or isinstance(error, Damaged):
                bury = partial(self.queue.bury, claim.worker, [claim.job_id])
                self.metrics.booked(await self._insist(lambda: bury(self.settings.retention_s)))
            else:
                await self._insist(lambda: self.queue.abandon(claim.worker, [claim.job_id]))
        finally:
            # Who stands there may be a later run of the same job already, claimed by this very worker.
            if self.attempts.get(claim.job_id) in ours:
                del self.attempts[claim.job_id]
            for each in ours:
                if each.trace is not None:
                    each.trace.end(None)

    async def _pick_up(self, attempt: Attempt) -> None:
        """Let an attempt go on from what earlier ones have left in the log, if it is to."""
        claim = attempt.claim
        if claim.base < claim.attempt:
            written = await self._insist(lambda: self._log.answer(claim.job_id, claim.base))
            if claim.run:
                attempt.listen_on(claim.run, written)
            else:
                attempt.go_on_from(written.text)

    async def _finish(self, ours: list[Attempt]) -> None:
        """Generate until there is an answer, or nobody is left to ask; each attempt joins `ours`."""
        attempt, tries, deaf = ours[0], 0, 0
        while True:
            outcome = await attempt.generate()
            if attempt.trace is not None:
                attempt.trace.end_call(outcome)
                if isinstance(outcome, Failed):
                    attempt.trace.end(outcome)
            # A call that is listened to again is the same call.
            tries, deaf = tries + 1, 0 if attempt.spoke else deaf + 1
            following: Attempt | Outcome | None = outcome
            if isinstance(outcome, Failed):
                self.metrics.failed(attempt.claim.provider, outcome.failure.code)
                following = await self._after(attempt, outcome, tries, deaf)
            if isinstance(following, Attempt):
                if following.claim.base == attempt.claim.base:
                    tries -= 1
                elif following.claim.fallback != attempt.claim.fallback:
                    tries = 0
                attempt = following
                ours.append(attempt)
                continue
            if following is not None:
                await self._settle(attempt, following)
            if attempt.trace is not None:
                attempt.trace.end(following or outcome)
            return

    async def _after(self, attempt: Attempt, failed: Failed, tries: int, deaf: int) -> Attempt | Outcome | None:
        """Listen or ask again, or ask the next fallback, when it is time and there is room; or return how the job ends.

        None when the job is not ours any more.
        """
        request, claim, step = attempt.request, attempt.claim, None
        if failed.listening:
            step = listen_again(request, failed.failure, claim.fallback, deaf, attempt.left_s)
        if step is None:
            failed = await self._hang_up(attempt, failed)
            why, begun = failed.failure, attempt.begun and failed.failure.code != RUN_LOST
            step = next_step(request, why, claim.fallback, tries, attempt.left_s, begun=begun)
        kept_s = KEPT_S
        while step is not None:
            kept_s -= step.wait_s
            pause = attempt.pause(step.wait_s) if kept_s >= 0 else self._rest(attempt, step.wait_s)
            if (ended := await pause) is not None:
                return ended
            following = await self._again(attempt, failed, step)
            if not isinstance(following, Full):
                return following
            step = no_room(request, step, following, attempt.left_s)
        return failed

    async def _rest(self, attempt: Attempt, wait_s: float) -> Outcome | None:
        """Wait without a slot, then for one; return how the job ends if somebody ends it meanwhile."""
        with self.slots.rest():
            ended = await attempt.pause(wait_s)
            with self.slots.claim():
                while ended is None and not self.slots.has_one(len(self.attempts)):
                    ended = await attempt.pause(LOOK_AGAIN_S)
        return ended

    async def _hang_up(self, attempt: Attempt, failed: Failed) -> Failed:
        """Free the room of a failed call; after a 429 nobody asks that model for a while, this worker included."""
        why, claim = failed.failure, attempt.claim
        refused, settlement, left = refusal(why), attempt.settlement(failed), attempt.left_run
        if refused is None and not self.settings.limits:
            return failed
        pause_s, began = await self._insist(lambda: self.queue.hang_up(claim, settlement, refused, left))
        self._book(attempt)
        if began:
            self.metrics.paused(claim.provider)
        if pause_s <= (why.retry_after_s or 0):
            return failed
        return replace(failed, failure=why._replace(retry_after_s=pause_s))

    async def _again(self, attempt: Attempt, outcome: Outcome, step: Step) -> Attempt | Full | None:
        """Open the next attempt in place of one that failed; None when the job is not ours any more."""
        goes_on, target = not step.reason, (step.provider, step.model)
        if goes_on:
            await self._append_rest(attempt)
        else:
            # With nothing left on its way: the log would refuse it, as it does to those who have lost their job.
            await self._writer.settle(attempt.log)
            attempt.log.take(whole=True)
        settlement, left = (OPEN, b"") if goes_on else (attempt.settlement(outcome), attempt.left_run)
        rates = attempt.claim.rates if step.fallback == attempt.claim.fallback else self._prices.rates(*target)
        claim = await self._insist(
            lambda: self.queue.again(attempt.claim, step.reason, *target, step.fallback, rates, settlement, left)
        )
        if claim is None:
            await self._disown(attempt)
            return None
        if not goes_on:
            self._book(attempt)
        if left:
            attempt.leave_run()
            self.orphans.cancel(left)
        if isinstance(claim, Full):
            return claim
        logs.note(attempt=claim.attempt)
        logger.info("attempt at %s, %s", claim.provider, step.reason or "which goes on")
        self.metrics.attempt(step.reason or LISTEN)
        following = self.attempts[claim.job_id] = self._attempt(claim)
        if attempt.stopped is not None:
            following.stop(attempt.stopped)
        await self._pick_up(following)
        return following

    async def unready(self) -> str | None:
        """Say why no jobs should be counted on here, or None: it holds a lease, and Redis may be used."""
        if not self.lease.worker:
            return "has not started yet"
        try:
            async with asyncio.timeout(PROBE_S):
                return await problem(self._leading)
        except (*REDIS_FAULTS, TimeoutError):
            return "Redis does not answer"

    def hand_over(self) -> None:
        """Stop every attempt so that other workers go on with the jobs."""
        for attempt in list(self.attempts.values()):
            attempt.stop(Stop.HAND_OVER)

    async def release_forgotten(self) -> None:
        """Put back what Redis thinks we hold and we do not: claimed by a script whose reply was lost."""
        for job_id in await self.queue.held(self.lease.worker) - set(self.attempts):
            logger.warning("job %s was claimed but its claim got lost: it waits again", job_id)
            retention_s = self.settings.retention_s
            released = await self.queue.release(
                job_id, self.lease.worker, "worker_stopped", retention_s=retention_s, settlement=UNASKED
            )
            if released is not None:
                self.metrics.booked(released)

    def _attempt(self, claim: Claim) -> Attempt:
        settings, request = self.settings, _readable(claim).asked_of(claim.provider, claim.model)
        timeouts = Timeouts(
            settings.first_token_timeout_s,
            settings.idle_timeout_s,
            min(request.timeout_s or settings.job_timeout_s, settings.job_timeout_s),
        )
        provider = partial(self._provider, request)
        attempt = Attempt(claim, request, provider, self._writer, self._checker, timeouts, self._paces)
        if self._traces is not None:
            # Only here: without traces nothing of theirs is imported.
            from worker.tracing import AttemptTrace

            config = self.settings.providers().get(request.provider)
            attempt.trace = AttemptTrace(self._traces, claim, request, config)
        return attempt

    def _provider(self, request: JobRequest) -> Provider:
        if not request.messages:
            raise RuntimeError("the stored request is not of this version")
        return self.providers.get(request.provider)

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write the end, or pass the job on, until Redis has taken it."""
        log, claim, retention_s = attempt.log, attempt.claim, self.settings.retention_s
        if isinstance(outcome, HandedOver):
            await self._append_rest(attempt)
            settlement = attempt.settlement(outcome)
            released = await self._insist(
                lambda: self.queue.release(
                    claim.job_id, claim.worker, "worker_stopped", claim.attempt, retention_s, settlement
                )
            )
            if released is None:
                self.metrics.fenced.inc()
                return
            self.metrics.booked(released)
            # A run is settled with the attempt that hears its end.
            if not attempt.left_run:
                self._book(attempt)
            return
        await self._writer.settle(log)
        if isinstance(outcome, Lost):
            await self._disown(attempt)
            return
        ending, left = attempt.ending(outcome), attempt.left_run
        last = log.close(ending.event, ending.data)
        end = partial(self._ends.finish, claim, ending.status, last, ending.record)
        finished = await self._insist(lambda: end(retention_s, ending.settlement, left))
        if finished is None:
            self.metrics.fenced.inc()
            logger.warning("job %s attempt %d ended %s elsewhere", claim.job_id, claim.attempt, ending.status)
            if attempt.trace is not None:
                attempt.trace.lost()
            await self._disown(attempt)
            return
        code = outcome.failure.code if isinstance(outcome, Failed) else None
        logger.info("job ended", extra={"outcome": ending.status, "code": code})
        self._book(attempt)
        self.metrics.ended(ending.status, code or "")
        if ending.status == CANCELLED and finished.cancel_ms is not None:
            self.metrics.cancel.observe(finished.cancel_ms / 1000)
        if left:
            self.orphans.cancel(left)

    def _book(self, attempt: Attempt) -> None:
        """Count what a call took, once, when a script has settled it."""
        claim, settlement = attempt.claim, attempt.settled
        if isinstance(settlement, Usage) and not attempt.booked:
            attempt.booked = True
            self.metrics.settled_at(claim.provider, claim.model, settlement, claim.rates)

    async def _append_rest(self, attempt: Attempt) -> None:
        """Append what an attempt has not appended yet, for the next one to go on from."""
        await self._writer.settle(attempt.log)
        # (Half a character is kept for the next attempt where that hears the other half.)
        if (rest := attempt.log.take(whole=attempt.run is None)) is not None:
            await self._insist(lambda: self._log.append([rest]))

    async def _disown(self, attempt: Attempt) -> None:
        """Leave the run of a job that is not ours any more to its new holder, or to nobody."""
        run, left, job_id = attempt.run, attempt.left_run, attempt.claim.job_id
        if run is not None and left and await self._insist(lambda: self._runs.disown(job_id, left, run.id)):
            self.orphans.cancel(left)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until Redis has answered; every state change may be repeated."""
        delay_s = 0.05
        while True:
            try:
                return await ask()
            except DataError:
                # Ours, not Redis': it would be the same for ever.
                raise
            except REDIS_FAULTS as error:
                if is_damage(error):
                    raise
                logger.warning("waiting for Redis (%s)", type(error).__name__)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)

    def _cancel(self, job_id: str) -> None:
        if (attempt := self.attempts.get(job_id)) is not None:
            attempt.stop(Stop.CANCEL)
        elif len(self._early_cancels) < MAX_EARLY_CANCELS and len(job_id) <= LONGEST_ID:
            self._early_cancels.add(job_id)

    def _lose_all(self) -> None:
        self.metrics.lease_losses.inc()
        for attempt in list(self.attempts.values()):
            attempt.stop(Stop.LOST)

    async def _watch(self) -> None:
        while True:
            await self._busy.wait()
            await asyncio.sleep(WATCH_S)
            if not self.attempts:
                self._busy.clear()
            self._early_cancels.clear()
            now_s = mono_s()
            for attempt in list(self.attempts.values()):
                attempt.watch(now_s)

    async def _watch_held(self) -> None:
        """Let go of jobs that Redis thinks we run and that no attempt of ours is at, whatever went wrong."""
        suspects: set[str] = set()
        while True:
            await asyncio.sleep(HELD_S)
            try:
                forgotten = await self.queue.held(self.lease.worker) - set(self.attempts)
                if again := forgotten & suspects:
                    logger.error("%d jobs are held and not run: they go the way of a lost worker's", len(again))
                    await self.queue.abandon(self.lease.worker, again)
                suspects = forgotten - again
            except REDIS_FAULTS as error:
                logger.warning("held jobs not looked at (%s)", type(error).__name__)

    async def _watch_readers(self) -> None:
        """Cancel the attempts that are to be cancelled when nobody reads them, and that nobody reads."""
        while True:
            await asyncio.sleep(READERS_S)
            minding = [id for id, attempt in self.attempts.items() if attempt.request.leave_grace_s is not None]
            # After an outage the API processes' words have run out, and their readers are still there.
            if not minding or not self.lease.steady:
                continue
            try:
                deserted = await self._presence.absent(minding)
            except REDIS_FAULTS as error:
                logger.warning("readers not looked for (%s)", type(error).__name__)
                continue
            for job_id in deserted:
                self._cancel(job_id)

    async def _until_redis_answers(self) -> None:
        """Wait for a Redis that may be used; say what is wrong meanwhile."""
        delay_s = 0.05
        while True:
            try:
                why = await problem(self._leading)
                if why is None:
                    for scripts in self._scripts:
                        await scripts.load()
                    return
            except REDIS_FAULTS as error:
                why = f"Redis does not answer ({type(error).__name__})."
            if delay_s > 0.5:
                logger.warning("waiting: %s", why)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)
