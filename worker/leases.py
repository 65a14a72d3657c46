"""The worker's lease: one timer keeps it for all jobs of the worker, and judges other workers' leases."""

import asyncio
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shared.clock import mono_s
from shared.keys import Keys
from shared.metrics import WorkerMetrics
from shared.queue import Queue
from shared.redis import REDIS_FAULTS
from shared.subscriber import Subscriber

logger = logging.getLogger(__name__)

RENEWALS: Final = 3
"""Renewals a lease: two may get lost before it runs out."""

LEAST_WAIT_S: Final = 0.1
"""What a renewal may take in any case, however short the lease."""

REAP_S: Final = 1.0
"""Between two looks at other workers' leases: what a takeover takes longer than the lease, at most."""


class Lease:
    """Holds one worker's lease and learns what to cancel: at once by message, in any case by renewal."""

    def __init__(
        self,
        queue: Queue,
        subscriber: Subscriber,
        keys: Keys,
        lease_s: float,
        on_cancel: Callable[[str], None],
        on_lost: Callable[[], None],
        report: Callable[[], bytes],
    ) -> None:
        """`report`: says what operators are to know of this worker."""
        self.worker = ""
        self._queue = queue
        self._subscriber = subscriber
        self._keys = keys
        self._lease_s = lease_s
        self._on_cancel = on_cancel
        self._on_lost = on_lost
        self._report = report
        self._renewed_s: float | None = None
        self._renewed_ms = 0
        self._steady_since_s = mono_s()
        self._renew_now = asyncio.Event()

    async def take(self, redis_up_s: float) -> asyncio.Future[None]:
        """Take out a lease under a new name. `redis_up_s`: how long Redis has been there for everybody.

        The future is done when cancels come at once; before that the renewals bring them.
        """
        worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        listening = self._subscriber.subscribe(self._keys.control(worker), self)
        try:
            async with asyncio.timeout(self._lease_s):
                renewal = await self._queue.register(worker, self._lease_s, self._report())
        except BaseException:
            self._subscriber.unsubscribe(self._keys.control(worker))
            raise
        if self.worker:
            self._subscriber.unsubscribe(self._keys.control(self.worker))
        self.worker = worker
        self._renewed_s, self._renewed_ms = mono_s(), renewal.now_ms
        self._steady_since_s = self._renewed_s - min(redis_up_s, self._lease_s)
        return listening

    @property
    def judges_until_ms(self) -> int:
        """Until when what this worker sends may judge others, on Redis' clock."""
        return self._renewed_ms + int(self._lease_s * 500)

    @property
    def steady(self) -> bool:
        """Say whether this worker may judge others: it has been in touch with Redis for one lease without a gap.

        After an outage every lease looks expired, and the owners are still there.
        """
        now_s = mono_s()
        in_touch = self._renewed_s is not None and now_s - self._renewed_s < self._lease_s
        return in_touch and now_s - self._steady_since_s >= self._lease_s

    def message(self, payload: bytes) -> None:
        self._on_cancel(payload.decode("utf-8", "replace"))

    def gap(self) -> None:
        self.renew_soon()

    def renew_soon(self) -> None:
        """Ask Redis now whether the lease is still ours, and what is to be cancelled."""
        self._renew_now.set()

    async def keep(self) -> None:
        """Renew for ever. A lease that was revoked is reported, and a new one taken out for what comes next."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._lease_s / RENEWALS):
                    await self._renew_now.wait()
            self._renew_now.clear()
            try:
                await self._renew()
            except REDIS_FAULTS as error:
                logger.warning("lease not renewed (%s)", type(error).__name__)
                self._renewed_s = None
                await asyncio.sleep(min(0.25, self._lease_s / 10))
                self._renew_now.set()

    async def _renew(self) -> None:
        renewal = await self._queue.renew(self.worker, self._lease_s, self._report())
        now_s = mono_s()
        if self._renewed_s is None or now_s - self._renewed_s > self._lease_s / 2 + LEAST_WAIT_S:
            self._steady_since_s = now_s
        self._renewed_s, self._renewed_ms = now_s, renewal.now_ms
        if not renewal.lease_held:
            logger.warning("lease of %s was revoked: its jobs run elsewhere", self.worker)
            self._on_lost()
            await self.take(0)
        for job_id in renewal.cancels:
            self._on_cancel(job_id)


class Reaper:
    """Takes over the jobs of workers that have fallen silent. Runs in every worker; the script lets one act."""

    def __init__(
        self, queue: Queue, lease: Lease, max_attempts: int, retention_s: float, metrics: WorkerMetrics
    ) -> None:
        self._queue = queue
        self._lease = lease
        self._max_attempts = max_attempts
        self._retention_s = retention_s
        self._metrics = metrics

    async def run(self) -> None:
        while True:
            await asyncio.sleep(REAP_S * random.uniform(0.5, 1))
            if not self._lease.steady:
                continue
            try:
                await self._reap()
            except REDIS_FAULTS as error:
                logger.warning("leases not looked at (%s)", type(error).__name__)

    async def _reap(self) -> None:
        while (
            reaped := await self._queue.reap(self._max_attempts, self._retention_s, self._lease.judges_until_ms)
        ).worker:
            self._metrics.takeovers.inc(reaped.requeued + reaped.ended)
            self._metrics.booked(reaped.booked)
            logger.warning(
                "worker %s is gone: %d jobs requeued, %d ended", reaped.worker, reaped.requeued, reaped.ended
            )
