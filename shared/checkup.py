"""What can be seen of an installation from its Redis: for an operator's eyes, never on a request's way."""

import asyncio
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from shared.clock import mono_s, wall_ms
from shared.keyring import Keyring
from shared.keys import Keys
from shared.redis import Multiplexer, RedisError, Scripts, info, version

PINGS: Final = 7
LOOKED_AT: Final = 200
"""Waiting jobs whose age is looked at, of each kind: turns say who is next, not who has come first."""


@dataclass(frozen=True, slots=True)
class Checkup:
    server: str
    version: tuple[int, int]
    said: Mapping[str, str]
    """Redis' INFO."""
    fsync: str | None
    """`appendfsync`; None where it may not be asked."""
    latency_ms: float
    ahead_s: float
    """How far Redis' clock is ahead of this machine's."""
    workers: list[str]
    """Those whose lease holds."""
    lost: list[str]
    """Those whose lease has run out, and whose jobs nobody has taken over yet."""
    waiting: int
    held_up: int
    """Those of them that wait for room at their provider."""
    oldest_s: float | None
    keys: int
    """API keys that commands have made and that are good."""


async def check(redis: Multiplexer, keys: Keys) -> Checkup:
    """Look at everything once. Raises REDIS_FAULTS."""
    said = await info(redis)
    round_trips_s = []
    for _ in range(PINGS):
        began_s = mono_s()
        await redis.read("PING")
        round_trips_s.append(mono_s() - began_s)
    latency_s = statistics.median(round_trips_s)
    asked_ms = wall_ms()
    keyring = Keyring(redis, Scripts(redis), keys)
    now_ms = await keyring.now_ms()
    ahead_s = (now_ms - asked_ms) / 1000 - latency_s / 2
    leases = {name.decode("utf-8", "replace"): int(until) for name, until in await _leases(redis, keys)}
    waiting, held_up, oldest_s = await _waiting(redis, keys, now_ms)
    return Checkup(
        server="Valkey" if "valkey_version" in said else "Redis",
        version=version(said),
        said=said,
        fsync=await _setting(redis, "appendfsync"),
        latency_ms=latency_s * 1000,
        ahead_s=ahead_s,
        workers=sorted(name for name, until_ms in leases.items() if until_ms > now_ms),
        lost=sorted(name for name, until_ms in leases.items() if until_ms <= now_ms),
        waiting=waiting,
        held_up=held_up,
        oldest_s=oldest_s,
        keys=sum(key.live(now_ms) for key in await keyring.all()),
    )


async def _leases(redis: Multiplexer, keys: Keys) -> list[tuple[bytes, float]]:
    flat = await redis.read("ZRANGE", keys.leases, 0, -1, "WITHSCORES")
    return [(name, float(until)) for name, until in zip(flat[::2], flat[1::2], strict=True)]


async def _waiting(redis: Multiplexer, keys: Keys, now_ms: int) -> tuple[int, int, float | None]:
    queued, held_up = await redis.read("ZCARD", keys.queue), await redis.read("ZCARD", keys.blocked)
    ids = [id for name in (keys.queue, keys.blocked) for id in await redis.read("ZRANGE", name, 0, LOOKED_AT - 1)]
    reads = [redis.read("HGET", keys.job(id.decode("utf-8", "replace")), "created_ms") for id in ids]
    created = [int(ms) for ms in await asyncio.gather(*reads) if ms is not None]
    return queued + held_up, held_up, (now_ms - min(created)) / 1000 if created else None


async def _setting(redis: Multiplexer, name: str) -> str | None:
    try:
        found = await redis.read("CONFIG", "GET", name)
    except RedisError:
        # Managed servers do not tell.
        return None
    return found[1].decode() if found else None
