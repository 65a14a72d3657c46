"""Tells Redis of calls whose tokens are on event servers what a script would else read in the log beside the record."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

from shared.clock import mono_s
from shared.plane import HOME
from shared.queue import Progress, Queue
from shared.redis import REDIS_FAULTS
from worker.attempt import Attempt
from worker.leases import Lease

logger = logging.getLogger(__name__)

TICK_S: Final = 0.1
"""How late Redis knows of an attempt's first token."""

RETRY_S: Final = 1.0


class ProgressReports:
    """First tokens soon, all running calls once a lease: an estimate lags by no more than that.

    As often as the lease is renewed, it cost the control server as much as all else of a job of twenty seconds.
    """

    def __init__(
        self, queue: Queue, lease: Lease, attempts: Mapping[str, Attempt], busy: asyncio.Event, every_s: float
    ) -> None:
        """`busy`: set while there are attempts."""
        self._queue = queue
        self._lease = lease
        self._attempts = attempts
        self._busy = busy
        self._every_s = every_s
        self._told: set[Attempt] = set()
        """Attempts whose first token Redis knows of."""

    async def run(self) -> None:
        """Report until cancelled."""
        due_s = 0.0
        while True:
            await self._busy.wait()
            await asyncio.sleep(TICK_S)
            heard = [
                attempt
                for attempt in self._attempts.values()
                if attempt.claim.server != HOME and attempt.first_token_s is not None
            ]
            all_due = mono_s() >= due_s
            if all_due:
                due_s = mono_s() + self._every_s
            news = heard if all_due else [attempt for attempt in heard if attempt not in self._told]
            self._told &= set(heard)
            if not news:
                continue
            try:
                await self._queue.report_progress(self._lease.worker, [self._progress(attempt) for attempt in news])
            except REDIS_FAULTS as error:
                logger.warning("progress not told (%s)", type(error).__name__)
                await asyncio.sleep(RETRY_S)
                continue
            self._told.update(news)

    def _progress(self, attempt: Attempt) -> Progress:
        first_token_ms = None if attempt in self._told else attempt.first_token_ms
        return Progress(attempt.claim.job_id, attempt.claim.attempt, first_token_ms, attempt.estimate())
