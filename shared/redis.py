"""Connections to Redis or Valkey, and the scripts that are Rejoin's state changes."""

from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Connection, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, DataError, RedisError, TimeoutError

REDIS_FAULTS: Final = (RedisError, OSError)
"""What a command raises when Redis is away, slow, full or refuses."""

CONNECT_TIMEOUT_S: Final = 0.5
COMMAND_TIMEOUT_S: Final = 0.8
"""An API process tells its client within a second that Redis is gone (contract §6)."""

MIN_VERSION: Final = (6, 2)
_LUA: Final = Path(__file__).parent / "lua"

_PRELUDES: Final = {
    "create": ("_now",),
    "claim": ("_now", "_log", "_end", "_presence"),
    "append": ("_now", "_log", "_append"),
    "renew": ("_now",),
    "finish": ("_now", "_log", "_append"),
    "release": ("_now", "_log", "_end"),
    "abandon": (),
    "cancel": ("_now", "_log", "_end"),
    "reap": ("_now", "_log", "_end"),
    "delete": (),
    "compact": (),
    "attend": ("_now",),
    "absent": ("_now", "_presence"),
}

_RUN_WHEN_FULL: Final = ("abandon", "renew", "finish", "release", "cancel", "reap", "delete", "compact", "attend")
"""They write little and free much: a lease must not be lost, nor a reader left without an end, to a full server."""


def connect(url: str, *, connections: int, command_timeout_s: float = COMMAND_TIMEOUT_S) -> Redis:
    """Return a client for short commands: few connections, bounded waits, no repeats of its own.

    A connection that the server has closed meanwhile is noticed before it is used. What may be repeated after
    that is for the caller to say: a claim, for one, must not be.
    """
    pool = _pool(
        url,
        max_connections=connections,
        timeout=command_timeout_s,
        socket_timeout=command_timeout_s,
        retry=Retry(NoBackoff(), 0),
    )
    return Redis(connection_pool=pool)


def connect_blocking(url: str, *, longest_wait_s: float) -> Redis:
    """Return a client for one blocking read at a time, which may last `longest_wait_s`."""
    pool = _pool(url, max_connections=1, timeout=longest_wait_s, socket_timeout=longest_wait_s + 2)
    return Redis(connection_pool=pool)


def new_connection(url: str) -> Connection:
    """Return one unpooled connection, not connected yet, that may stay silent for ever: for a subscription."""
    connection: Connection = _pool(url).make_connection()  # type: ignore[no-untyped-call]
    return connection


def _pool(url: str, **options: Any) -> BlockingConnectionPool:
    if not url.startswith("unix:"):
        options["socket_keepalive"] = True
    return BlockingConnectionPool.from_url(url, socket_connect_timeout=CONNECT_TIMEOUT_S, **options)


@cache
def source(name: str) -> str:
    """Return a script's text, behind the functions that it shares with others."""
    parts = [*_PRELUDES[name], name]
    return "\n".join((_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in parts)


class Scripts:
    """Rejoin's state changes: each one script, atomic, safe to repeat."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._scripts = {name: redis.register_script(source(name)) for name in _PRELUDES}

    async def run(self, name: str, keys: list[str], args: list[Any], *, again: bool = False) -> Any:
        """Run one of them; raise one of REDIS_FAULTS when Redis is away or refuses.

        `again`: run it once more, at once, when the connection broke: it may have run, and may run twice.
        """
        try:
            return await self._scripts[name](keys=keys, args=args)
        except ConnectionError:
            if not again:
                raise
        return await self._scripts[name](keys=keys, args=args)

    async def load(self) -> None:
        """Send the scripts ahead, so that no first job pays for it; let those that end things run in a full server."""
        if await _version(self._redis) >= (7, 0):
            for name in _RUN_WHEN_FULL:
                self._scripts[name] = self._redis.register_script("#!lua flags=allow-oom\n" + source(name))
        for script in self._scripts.values():
            await self._redis.script_load(script.script)


def is_full(error: Exception) -> bool:
    """Say whether a command was refused because the server has no memory left."""
    return isinstance(error, RedisError) and "OOM" in str(error)


async def _version(redis: Redis) -> tuple[int, int]:
    info = await redis.info("server")
    major, minor, *_ = str(info.get("valkey_version") or info.get("redis_version") or "0.0").split(".")
    return int(major), int(minor)


async def problem(redis: Redis) -> str | None:
    """Say in one sentence why this server must not be used, or None when it may."""
    version = await _version(redis)
    if version < MIN_VERSION:
        return f"Redis {version[0]}.{version[1]} is too old: 6.2 or later is needed."
    memory = await redis.info("memory")
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return f"maxmemory-policy is {policy}: Redis may drop jobs; set it to noeviction."
    return None


__all__ = [
    "REDIS_FAULTS",
    "ConnectionError",
    "DataError",
    "Redis",
    "RedisError",
    "Scripts",
    "TimeoutError",
    "connect",
    "connect_blocking",
    "new_connection",
    "problem",
    "source",
]
