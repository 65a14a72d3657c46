"""Tells Redis which jobs are read in this process, for as long as they are and their grace after."""

import asyncio
import logging
import secrets
from contextlib import suppress
from typing import Final

from shared.presence import Presence
from shared.redis import REDIS_FAULTS

logger = logging.getLogger(__name__)

RENEW_S: Final = 1.0
SLACK_S: Final = 2.0
"""How much longer than its renewal a word holds: a late loop is no closed tab."""


class Attendance:
    """Counts readers of the jobs that mind; those of other jobs are nobody's business."""

    def __init__(self, presence: Presence) -> None:
        self._presence = presence
        self._process = secrets.token_hex(8)
        self._graces: dict[str, float] = {}
        self._readers: dict[str, int] = {}
        self._leaving: dict[str, float] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="attendance")

    async def stop(self) -> None:
        """Leave with a word for each job that is still read here: its readers come back elsewhere."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with suppress(*REDIS_FAULTS):
            await self._say(self._graces | self._leaving)

    def enter(self, job_id: str, grace_s: float | None) -> None:
        """Count one more reader of a job; None is a job that does not mind."""
        if grace_s is None:
            return
        self._graces[job_id] = grace_s
        self._readers[job_id] = self._readers.get(job_id, 0) + 1
        self._leaving.pop(job_id, None)
        self._changed.set()

    def leave(self, job_id: str, *, for_good: bool = False) -> None:
        """Count one reader less; behind the last one the job's grace begins, unless that one does not come back."""
        if job_id not in self._readers:
            return
        self._readers[job_id] -= 1
        if self._readers[job_id] == 0:
            del self._readers[job_id]
            grace_s = self._graces.pop(job_id)
            self._leaving[job_id] = 0.0 if for_good else grace_s
            self._changed.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S if self._graces else None):
                    await self._changed.wait()
            self._changed.clear()
            leaving, self._leaving = self._leaving, {}
            held = {job_id: grace_s + RENEW_S + SLACK_S for job_id, grace_s in self._graces.items()}
            try:
                await self._say(held | leaving)
            except REDIS_FAULTS as error:
                logger.warning("readers not told (%s)", type(error).__name__)
                self._leaving = leaving | self._leaving
                await asyncio.sleep(RENEW_S / 4)
                self._changed.set()

    async def _say(self, jobs: dict[str, float]) -> None:
        if jobs:
            await self._presence.attend(self._process, jobs)
