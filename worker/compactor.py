"""Makes the logs of ended jobs small: one snapshot and the last event. Readers notice nothing but fewer events."""

import asyncio
import logging
import random
from typing import Final

from shared.ended import Ended
from shared.plane import HOME, Plane
from shared.redis import REDIS_FAULTS, DataError, is_damage

logger = logging.getLogger(__name__)

AGE_S: Final = 10.0
"""How long an ended log stays as it was: readers who were cut at the end go on from their own cursor."""

LOOK_S: Final = 2.5
AT_ONCE: Final = 100


class Compactor:
    """Runs in every worker; two that meet at one log do no harm."""

    def __init__(self, ended: Ended, plane: Plane, age_s: float = AGE_S) -> None:
        self._ended = ended
        self._plane = plane
        self._age_s = age_s

    async def run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S * random.uniform(0.5, 1))
            try:
                while await self.run_once() == AT_ONCE:
                    pass
            except REDIS_FAULTS as error:
                logger.warning("logs not compacted (%s)", type(error).__name__)

    async def run_once(self) -> int:
        """Compact what is due now; return how many logs got smaller."""
        done = 0
        for job_id in await self._ended.before(self._age_s, AT_ONCE):
            try:
                done += await self._compact(job_id)
            except Exception as error:
                if isinstance(error, REDIS_FAULTS) and not (is_damage(error) or isinstance(error, DataError)):
                    raise
                # Nobody's log but this one is to be left as it is.
                logger.warning(
                    "the log of %.64r cannot be compacted (%s)", job_id, type(error).__name__, extra={"job_id": job_id}
                )
                await self._ended.forget(job_id)
        return done

    async def _compact(self, job_id: str) -> bool:
        """Compact one log, unless its server is away; say whether it got smaller."""
        log = await self._ended.look(job_id)
        done = False
        if not log.numbered:
            if log.server != HOME and log.server not in self._plane.reachable:
                await self._ended.postpone(job_id)
                return False
            place = self._plane.at(log.server)
            try:
                done = await place.log.compact(job_id)
            except REDIS_FAULTS as error:
                if place is self._plane.home or is_damage(error) or isinstance(error, DataError):
                    raise
                place.fell_away()
                await self._ended.postpone(job_id)
                return False
        await self._ended.forget(job_id)
        return done
