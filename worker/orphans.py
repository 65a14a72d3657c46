"""Cancels runs at their providers that nobody listens to any more: ours when their jobs end, and dead workers'."""

import asyncio
import logging
from contextlib import suppress
from typing import Any, Final

from shared.keys import Keys
from shared.orphans import OTHERS_AFTER_S, OrphanedRuns
from shared.redis import REDIS_FAULTS
from shared.subscriber import Subscriber
from worker.providers.base import Background
from worker.providers.registry import Providers
from worker.providers.run import whose

logger = logging.getLogger(__name__)

LOOK_S: Final = 2.0
"""Between two looks, should a message get lost or a provider have been out of reach."""

LEAVE_S: Final = 2.0
"""How long a worker that stops waits for the cancels that it has begun."""


class Orphans:
    """Runs in every worker. What one does not manage, another tries again: the list forgets only what is done."""

    def __init__(self, runs: OrphanedRuns, providers: Providers, subscriber: Subscriber, keys: Keys) -> None:
        self._runs = runs
        self._providers = providers
        self._subscriber = subscriber
        self._keys = keys
        self._look = asyncio.Event()
        self._cancels: set[asyncio.Task[None]] = set()

    def message(self, payload: bytes) -> None:
        """Learn that a job has ended elsewhere and left a run."""
        self._look.set()

    def gap(self) -> None:
        self._look.set()

    async def run(self) -> None:
        self._subscriber.subscribe(self._keys.orphans, self)
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._look.wait()
            self._look.clear()
            try:
                for bookmark in await self._runs.take():
                    self.cancel(bookmark)
            except REDIS_FAULTS as error:
                logger.warning("orphaned runs not looked at (%s)", type(error).__name__)

    def cancel(self, bookmark: bytes) -> None:
        """Cancel a run that is in the list, in the background."""
        task = asyncio.create_task(self._cancel(bookmark))
        self._cancels.add(task)
        task.add_done_callback(self._cancels.discard)

    async def close(self) -> None:
        """Wait for what has been begun, not for ever: others take up what is left."""
        if self._cancels:
            await asyncio.wait(self._cancels, timeout=LEAVE_S)
        for task in self._cancels:
            task.cancel()

    async def _cancel(self, bookmark: bytes) -> None:
        try:
            provider_name, run_id = whose(bookmark)
        except (KeyError, TypeError, ValueError):
            logger.warning("an orphaned run is none: forgotten")
            await self._runs.cancelled(bookmark)
            return
        try:
            provider: Any = self._providers.get(provider_name)
            if isinstance(provider, Background):
                async with asyncio.timeout(OTHERS_AFTER_S):
                    await provider.cancel(run_id)
            await self._runs.cancelled(bookmark)
        except Exception as error:
            logger.warning("a run at %s could not be cancelled yet (%s)", provider_name, type(error).__name__)
