"""What all jobs of one worker share, and its timers. How each job goes is in `worker.course`."""

import asyncio
import logging
import random
from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import ValidationError

from shared.backlog import Backlog
from shared.clock import mono_s
from shared.courier import Courier
from shared.ended import Ended
from shared.hour import Hour, Tally
from shared.keys import Keys
from shared.metrics import FIRST, Models, WorkerMetrics
from shared.orphans import OrphanedRuns
from shared.plane import HOME, Place, Plane
from shared.presence import Presence
from shared.prices import Prices
from shared.queue import Claim, Queue
from shared.redis import REDIS_FAULTS, Scripts, connect, info, problem, reason
from shared.requests import JobRequest
from shared.settings import Settings
from shared.spent import UNASKED
from shared.subscriber import Subscriber
from worker.attempt import Attempt, Stop, Timeouts
from worker.checker import Checker
from worker.compactor import Compactor
from worker.course import Course
from worker.failures import CODES
from worker.insist import insist
from worker.leases import Lease, Reaper
from worker.orphans import Orphans
from worker.pace import Paces
from worker.progress import ProgressReports
from worker.providers.base import Provider
from worker.providers.registry import Providers
from worker.reporter import Reporter
from worker.slots import Slots
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
        leading = self._scripts = Scripts(self._leading)
        self.queue = Queue(self._leading, leading, self.keys, settings.limits)
        home = Place(HOME, self._writing, self.keys)
        self.plane = Plane(settings, home, partial(connect, timeout_s=COMMAND_TIMEOUT_S))
        self.ends = Queue(self._writing, self.plane.home.scripts, self.keys, settings.limits)
        self.courier = Courier(self.plane)
        self.writers = {place.name: Writer(place, settings.max_answer_bytes) for place in self.plane.places}
        self._checker = Checker()
        self._presence = Presence(leading, self.keys)
        self.prices = Prices.read(settings.prices)
        self.metrics = WorkerMetrics(Models(settings, self.prices), (*CODES, *SCRIPTS_CODES))
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
        self.compactor = Compactor(Ended(self._leading, self.keys), self.plane)
        self.providers = Providers(settings)
        self.runs = OrphanedRuns(self._leading, leading, self.keys)
        self.orphans = Orphans(self.runs, self.providers, self._subscriber, self.keys)
        self._busy = asyncio.Event()
        """There are attempts, or were a moment ago."""
        self._progress = ProgressReports(self.queue, self.lease, self.attempts, self._busy, settings.lease_s)
        self._early_cancels: set[str] = set()
        """Cancels that overtook the reply to their job's claim; a renewal repeats what is forgotten here."""
        self.broken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._writes: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Wait for Redis, take out the lease, start the timers."""
        await self._until_redis_answers()
        await self._subscriber.start()
        server = await insist(lambda: info(self._leading))
        listening = await insist(lambda: self.lease.take(float(server.get("uptime_in_seconds", 0))))
        await asyncio.wait([listening], timeout=LISTEN_S)
        await self.plane.start()
        if self.plane.servers:
            self._start(self.courier.sweep(), self._progress.run())
        self._writes = self._start(*[writer.run() for writer in self.writers.values()])
        self._start(
            self.lease.keep(),
            self._reaper.run(),
            self.compactor.run(),
            self.orphans.run(),
            self._watch(),
            self._watch_readers(),
            self._watch_held(),
            self.tally.run(),
        )

    def _start(self, *coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
        for task in tasks:
            task.add_done_callback(self._note_end)
        self._tasks += tasks
        return tasks

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """A worker without its writer, lease or clocks must not go on: it stops, and others take its jobs."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("a part of this worker has failed", exc_info=error)
            self.broken.set()

    async def close(self) -> None:
        """Give everything back: held jobs first, connections last."""
        for task in self._tasks:
            if task not in self._writes:
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
        await self.courier.close()
        await self.plane.stop()
        await self._leading.close()
        await self._writing.close()

    def begin(self, claim: Claim) -> Attempt:
        """Take a claimed job in hand, so that whoever cancels it finds it from this moment on."""
        attempt = self.attempt(claim)
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
        await Course(self, attempt).run()

    async def settle_log(self, attempt: Attempt) -> None:
        """Take an attempt's log out of its writer's hands: nothing of it is on its way any more."""
        await self._writer_of(attempt.claim).settle(attempt.log)

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

    def attempt(self, claim: Claim) -> Attempt:
        settings, request = self.settings, _readable(claim).asked_of(claim.provider, claim.model)
        timeouts = Timeouts(
            settings.first_token_timeout_s,
            settings.idle_timeout_s,
            min(request.timeout_s or settings.job_timeout_s, settings.job_timeout_s),
        )
        provider = partial(self._provider, request)
        writer = self._writer_of(claim)
        attempt = Attempt(claim, request, provider, writer, self._checker, timeouts, self._paces)
        if self._traces is not None:
            # Only here: without traces nothing of theirs is imported.
            from worker.tracing import AttemptTrace

            config = self.settings.providers().get(request.provider)
            attempt.trace = AttemptTrace(self._traces, claim, request, config)
        return attempt

    def _writer_of(self, claim: Claim) -> Writer:
        return self.writers.get(claim.server, self.writers[HOME])

    def _provider(self, request: JobRequest) -> Provider:
        if not request.messages:
            raise RuntimeError("the stored request is not of this version")
        return self.providers.get(request.provider)

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
                    await self._scripts.load()
                    await self.plane.home.scripts.load()
                    return
            except REDIS_FAULTS as error:
                why = f"Redis does not answer ({reason(error)})."
            if delay_s > 0.5:
                logger.warning("waiting: %s", why)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)
