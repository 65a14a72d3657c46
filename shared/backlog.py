"""What waits in Redis, for scrapes: the same figures whichever process is asked."""

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from shared.clock import mono_s
from shared.keys import Keys
from shared.redis import REDIS_FAULTS, Scripts

KEPT_S: Final = 1.0
"""How long a reading serves further scrapes."""

LONGEST_S: Final = 0.8
"""Redis' absence is news that must not come late."""

LOOKED_AT: Final = 1_000
"""Turns that are searched for the oldest job; a millisecond of Redis' time. Who has waited long is near its turn."""


class Reading(NamedTuple):
    depth: int
    blocked: int
    oldest_ms: int
    """-1 when nobody waits."""
    workers: int
    paused: int
    orphans: int


class Backlog:
    """Reads it with one script, at most once a second."""

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._scripts = scripts
        self._keys = keys
        self._read_s = -KEPT_S
        self._reading: Reading | None = None
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> Reading | None:
        """Return what waits; None when Redis is away."""
        async with self._one_at_a_time:
            if mono_s() - self._read_s >= KEPT_S:
                try:
                    async with asyncio.timeout(LONGEST_S):
                        self._reading = await self._read()
                except (*REDIS_FAULTS, TimeoutError):
                    self._reading = None
                self._read_s = mono_s()
            return self._reading

    async def _read(self) -> Reading:
        keys = self._keys
        names = [keys.queue, keys.blocked, keys.leases, keys.pauses, keys.orphans]
        return Reading(*await self._scripts.run("backlog", names, [keys.prefix, LOOKED_AT]))

    async def metrics(self) -> list[Metric]:
        return list(_families(await self.read()))


def _families(found: Reading | None) -> Iterable[Metric]:
    yield GaugeMetricFamily("rejoin_redis_up", "Whether Redis answers this process.", value=float(found is not None))
    if found is None:
        return
    yield GaugeMetricFamily("rejoin_queue_depth", "Jobs that wait for a worker, or for room.", value=found.depth)
    yield GaugeMetricFamily(
        "rejoin_queue_blocked", "Those of them that wait for room at a provider.", value=found.blocked
    )
    yield GaugeMetricFamily(
        "rejoin_queue_oldest_seconds",
        "Since the oldest waiting job was posted; 0 when none waits.",
        value=max(0, found.oldest_ms) / 1000,
    )
    yield GaugeMetricFamily("rejoin_workers", "Workers whose lease holds.", value=found.workers)
    yield GaugeMetricFamily("rejoin_paused_models", "Models that are not asked, after a 429.", value=found.paused)
    yield GaugeMetricFamily("rejoin_orphaned_runs", "Providers' runs that are to be cancelled.", value=found.orphans)
