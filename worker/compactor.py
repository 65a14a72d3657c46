"""Makes the logs of ended jobs small: one snapshot and the last event. Readers notice nothing but fewer events."""

import asyncio
import logging
import random
from typing import Final

from shared.log import Log
from shared.redis import REDIS_FAULTS

logger = logging.getLogger(__name__)

AGE_S: Final = 10.0
"""How long an ended log stays as it was: readers who were cut at the end go on from their own cursor."""

LOOK_S: Final = 2.5
AT_ONCE: Final = 100


class Compactor:
    """Runs in every worker; two that meet at one log do no harm."""

    def __init__(self, log: Log, age_s: float = AGE_S) -> None:
        self._log = log
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
        for job_id in await self._log.ended_before(self._age_s, AT_ONCE):
            done += await self._log.compact(job_id)
        return done
