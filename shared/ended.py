"""Ended jobs whose logs are to be made smaller."""

from typing import Final, NamedTuple

from shared.keys import Keys
from shared.redis import Multiplexer

POSTPONED_MS: Final = 30_000


class EndedLog(NamedTuple):
    job_id: str
    server: str
    """Where it is."""
    numbered: bool
    """Whether its readers count its events: it stays as it is."""


class Ended:
    def __init__(self, redis: Multiplexer, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def before(self, age_s: float, limit: int) -> list[str]:
        """Return jobs that ended longer ago than `age_s` and whose logs are not compacted, oldest first."""
        raw = await self._redis.read(
            "ZRANGEBYSCORE", self._keys.ended, "-inf", await self._now_ms() - int(age_s * 1000), "LIMIT", 0, limit
        )
        return [job_id.decode("utf-8", "surrogateescape") for job_id in raw]

    async def look(self, job_id: str) -> EndedLog:
        """Say where a job's log is, and what it is like."""
        raw = await self._redis.read("HMGET", self._keys.job(job_id), "server", "numbered")
        return EndedLog(job_id, (raw[0] or b"").decode("utf-8", "replace"), raw[1] is not None)

    async def forget(self, job_id: str) -> None:
        """Have done with a log."""
        await self._redis.call("ZREM", self._keys.ended, job_id.encode("utf-8", "surrogateescape"))

    async def postpone(self, job_id: str) -> None:
        """Come back to a log after a while: the server that it is on is away."""
        await self._redis.call("ZADD", self._keys.ended, "XX", await self._now_ms() + POSTPONED_MS, job_id)

    async def _now_ms(self) -> int:
        seconds, microseconds = map(int, await self._redis.read("TIME"))
        return seconds * 1000 + microseconds // 1000
