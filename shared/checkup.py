"""What can be seen of an installation from its Redis: for an operator's eyes, never on a request's way."""

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from shared.backlog import Backlog
from shared.clock import mono_s, wall_ms
from shared.keyring import Keyring
from shared.keys import Keys
from shared.overview import Overview
from shared.redis import MIN_VERSION, Multiplexer, RedisError, Scripts, info, version

PINGS: Final = 7


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
    work: Mapping[str, Any] | None
    """What goes on (`Overview`); None on a server that is too old to be asked."""
    keys: int
    """API keys that commands have made and that are good."""


async def server(redis: Multiplexer) -> Checkup:
    """Look at a server alone, whatever is kept there. Raises REDIS_FAULTS."""
    said = await info(redis)
    round_trips_s = []
    for _ in range(PINGS):
        began_s = mono_s()
        await redis.read("PING")
        round_trips_s.append(mono_s() - began_s)
    latency_s = statistics.median(round_trips_s)
    asked_ms = wall_ms()
    seconds, microseconds = map(int, await redis.read("TIME"))
    now_ms = seconds * 1000 + microseconds // 1000
    return Checkup(
        server="Valkey" if "valkey_version" in said else "Redis",
        version=version(said),
        said=said,
        fsync=await _setting(redis, "appendfsync"),
        latency_ms=latency_s * 1000,
        ahead_s=(now_ms - asked_ms) / 1000 - latency_s / 2,
        work=None,
        keys=0,
    )


async def check(redis: Multiplexer, keys: Keys) -> Checkup:
    """Look at everything once. Raises REDIS_FAULTS."""
    seen = await server(redis)
    scripts = Scripts(redis)
    keyring = Keyring(redis, scripts, keys)
    now_ms = await keyring.now_ms()
    work = await Overview(scripts, keys, Backlog(scripts, keys)).look() if seen.version >= MIN_VERSION else None
    return replace(seen, work=work, keys=sum(key.live(now_ms) for key in await keyring.all()))


async def _setting(redis: Multiplexer, name: str) -> str | None:
    try:
        found = await redis.read("CONFIG", "GET", name)
    except RedisError:
        # Managed servers do not tell.
        return None
    return found[1].decode() if found else None
