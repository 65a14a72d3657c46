"""Asking Redis until it has answered: every state change may be repeated."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from shared.redis import REDIS_FAULTS, DataError, is_damage

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_LONGEST_S: Final = 1.0


async def insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what Redis says in the end. Raises what would be the same for ever."""
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
