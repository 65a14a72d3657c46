"""Runs at providers that nobody listens to any more: each is cancelled there, by whichever worker comes first."""

from typing import Final

from shared.keys import Keys
from shared.redis import Multiplexer, Scripts

AT_ONCE: Final = 50
OTHERS_AFTER_S: Final = 5.0
"""How long a worker may take to cancel a run before another one tries (in the scripts too)."""


class OrphanedRuns:
    """The list of them. A run is named by its bookmark, which only workers read."""

    def __init__(self, redis: Multiplexer, scripts: Scripts, keys: Keys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys

    async def take(self) -> list[bytes]:
        """Return runs to cancel; others leave them alone for a while."""
        args = [AT_ONCE, int(OTHERS_AFTER_S * 1000)]
        runs: list[bytes] = await self._scripts.run("orphans", [self._keys.orphans], args)
        return runs

    async def cancelled(self, bookmark: bytes) -> None:
        """Forget one that is cancelled."""
        await self._redis.call("ZREM", self._keys.orphans, bookmark)

    async def disown(self, job_id: str, bookmark: bytes, run_id: str) -> bool:
        """Add the run of a job that is not ours any more; False when whoever has the job knows of it."""
        args = [bookmark, run_id, self._keys.prefix]
        return bool(await self._scripts.run("disown", [self._keys.job(job_id)], args) == 1)
