"""arq's Worker, woken by the queue and claiming by lease.

Kept from arq: the queue and its format, the function registry, the task table, the health line, cron, signals'
entry. Replaced: polling (252 ms to start a job; here 3), jobs that run on in the queue (an idle worker never
started the 101st), the in-progress key (a killed worker's job waited 310 s), exits when Redis blinks, and one
CancelledError for abort, timeout and deploy alike.
"""

import asyncio
import logging
import random
import signal
from typing import Any, Final

from arq.connections import ArqRedis
from arq.worker import Worker, func

from shared import logs
from shared.exposition import Exposition
from shared.queue import GENERATE, Claim, from_payload, to_payload
from shared.redis import REDIS_FAULTS, connect_blocking, pool_for_arq
from worker.attempt import Attempt
from worker.port import Port
from worker.workshop import Workshop

logger = logging.getLogger(__name__)

LOOK_S: Final = 1.0
"""Longest wait for a wake-up before the queue is looked at all the same."""

CLAIM_S: Final = 2.0
"""A claim whose reply stays away is taken for lost, and what it claimed is given back."""

HEALTH_S: Final = 10
FINISH_S: Final = 5.0
"""How long a stopping worker waits for its attempts to be handed over before it leaves them to its lease."""


async def generate(ctx: dict[str, Any], job_id: str) -> None:
    """The arq function behind every job. The job's record and log say the rest."""
    workshop: Workshop = ctx["workshop"]
    await workshop.run(ctx["attempt"])


class LeaseWorker(Worker):
    """One worker process: claims jobs as slots are free, runs each in a task."""

    def __init__(self, workshop: Workshop, *, handle_signals: bool = True) -> None:
        self.workshop = workshop
        self._blocking = connect_blocking(workshop.settings.redis_url, longest_wait_s=LOOK_S)
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._waiting: asyncio.Future[Any] | None = None
        self._claim_lost = False
        self._look_s = LOOK_S
        self._port = Port(self._unready, self._metrics, shows_all=workshop.settings.metrics == "open")
        self._exposition = Exposition(workshop.metrics.registry)
        super().__init__(
            functions=[func(generate, name=GENERATE)],
            queue_name=workshop.keys.queue,
            redis_pool=ArqRedis(
                pool_for_arq(workshop.settings.redis_url),
                job_serializer=to_payload,
                job_deserializer=from_payload,
                default_queue_name=workshop.keys.queue,
            ),
            max_jobs=workshop.settings.max_jobs,
            job_serializer=to_payload,
            job_deserializer=from_payload,
            ctx={"workshop": workshop},
            health_check_interval=HEALTH_S,
            handle_signals=handle_signals,
        )

    async def main(self) -> None:
        """Run until a signal, then hand over."""
        if self.workshop.settings.worker_port:
            await self._port.open(self.workshop.settings.worker_port)
        try:
            await self._work()
        finally:
            self._port.close()

    async def _work(self) -> None:
        opening, stopping = asyncio.ensure_future(self.workshop.open()), asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait((opening, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not opening.done():
            # Told to stop before Redis was there: there is nothing to hand over.
            opening.cancel()
            return
        opening.result()
        self.health_check_key = self.workshop.keys.health(self.workshop.lease.worker)
        logger.info("worker %s is ready for %d jobs at once", self.workshop.lease.worker, self.max_jobs)
        try:
            while not self._stopping.is_set():
                try:
                    await self._poll_iteration()
                    await self._until_work()
                except REDIS_FAULTS as error:
                    logger.warning("queue not read (%s)", type(error).__name__)
                    await asyncio.sleep(random.uniform(0.05, 0.3))
        finally:
            await self._leave()

    async def _poll_iteration(self) -> None:
        """Claim as many jobs as there are free slots."""
        if free := self._free_slots:
            if self._claim_lost:
                await self.workshop.release_forgotten()
                self._claim_lost = False
            self._claim_lost = True
            lease = self.workshop.lease
            settings = self.workshop.settings
            async with asyncio.timeout(CLAIM_S):
                claims = await self.workshop.queue.claim(
                    lease.worker,
                    free,
                    settings.lease_s,
                    settings.retention_s,
                    judge_readers=lease.steady,
                    servers=self.workshop.plane.usable,
                )
            self._claim_lost = False
            self.workshop.metrics.booked(claims.booked)
            self._look_s = LOOK_S if claims.opens_s is None else min(LOOK_S, claims.opens_s)
            if not claims.lease_held:
                lease.renew_soon()
            for claim in claims.claims:
                self._start(claim)
            for entry in claims.discarded:
                logger.warning("queue entry %.64r is no waiting job: dropped", entry)
        await self.heart_beat()

    @property
    def _free_slots(self) -> int:
        return self.workshop.slots.free(len(self.tasks))

    async def _until_work(self) -> None:
        """Wait for a job, or for room for one, while a slot is free, else for a slot; a signal ends either."""
        changed = self.workshop.slots.changed
        wait = self._wake_up() if self._free_slots else changed.wait()
        changed.clear()
        self._waiting = waiting = asyncio.ensure_future(wait)
        await asyncio.wait((waiting,), timeout=LOOK_S * 2)
        if self.workshop.broken.is_set():
            self._stopping.set()
        if not waiting.done():
            waiting.cancel()
        elif not waiting.cancelled():
            waiting.result()

    async def _wake_up(self) -> None:
        await self.workshop.queue.wait(self._blocking, self._look_s)

    def _start(self, claim: Claim) -> None:
        attempt = self.workshop.begin(claim)
        task = asyncio.create_task(self._run(attempt))
        self.tasks[claim.job_id] = task
        task.add_done_callback(lambda _: self._free(claim.job_id, task))

    def _free(self, job_id: str, task: asyncio.Task[Any]) -> None:
        if self.tasks.get(job_id) is task:
            del self.tasks[job_id]
        self.workshop.slots.changed.set()

    async def _run(self, attempt: Attempt) -> None:
        job_id = attempt.claim.job_id
        logs.note(job_id=job_id, attempt=attempt.claim.attempt)
        ctx = {**self.ctx, "job_id": job_id, "job_try": attempt.claim.attempt, "attempt": attempt}
        try:
            await self.functions[GENERATE].coroutine(ctx, job_id)
        except Exception:
            self.jobs_failed += 1
            logger.exception("job %s: the attempt could not be settled", job_id)
        else:
            self.jobs_complete += 1

    def handle_sig(self, signum: signal.Signals) -> None:
        """Begin to leave; a second signal ends the wait for answers (`REJOIN_DRAIN_S`), further ones change nothing."""
        if self._stopping.is_set():
            self._hurry.set()
        else:
            logger.info("stopping on %s with %d jobs", signal.Signals(signum).name, len(self.tasks))
            self._stopping.set()
            if self._waiting is not None:
                self._waiting.cancel()

    async def _unready(self) -> str | None:
        return "leaves, and takes no more jobs" if self._stopping.is_set() else await self.workshop.unready()

    async def _metrics(self, accept: str) -> tuple[bytes, str]:
        slots, held = self.workshop.metrics.slots, len(self.tasks)
        used = held - self.workshop.slots.resting
        slots.labels("used").set(used)
        slots.labels("free").set(0 if self._stopping.is_set() else max(0, self.max_jobs - used))
        waiting = [*await self.workshop.backlog.metrics(), *await self.workshop.courier.metrics()]
        return await asyncio.to_thread(self._exposition.render, accept, waiting)

    async def _leave(self) -> None:
        """Let answers end for as long as may be, hand over what runs on, wait for it, give the lease back."""
        await self._drain()
        if self.tasks:
            logger.info("handing over %d jobs", len(self.tasks))
        self.workshop.hand_over()
        if self.tasks:
            await asyncio.wait(self.tasks.values(), timeout=FINISH_S)
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        await self._blocking.close()
        await self.workshop.close()

    async def _drain(self) -> None:
        """Wait until no job is left, for `REJOIN_DRAIN_S` at most, or until somebody is in a hurry."""
        drain_s = self.workshop.settings.drain_s
        if not drain_s or not self.tasks:
            return
        reasons = (asyncio.wait(self.tasks.values()), self._hurry.wait(), self.workshop.broken.wait())
        waits = [asyncio.ensure_future(reason) for reason in reasons]
        await asyncio.wait(waits, timeout=drain_s, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def close(self) -> None:
        """Nothing is left to do: `main` leaves in order, also when it is cancelled."""
        self._pool = None


async def serve(workshop: Workshop, *, handle_signals: bool = True) -> None:
    """Run one worker until it is told to stop."""
    worker = LeaseWorker(workshop, handle_signals=handle_signals)
    await worker.async_run()
    await worker.close()
    if workshop.broken.is_set():
        raise SystemExit(1)
