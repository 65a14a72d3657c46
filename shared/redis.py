"""Connections to Redis or Valkey, and the scripts that are Rejoin's state changes."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError, DataError, NoScriptError, RedisError, ResponseError, TimeoutError

from shared import address
from shared.link import CONNECT_TIMEOUT_S, REDIS_FAULTS, Direct, Way
from shared.multiplexer import Multiplexer
from shared.sentinel import PoolOfPrimary, Sentinels

COMMAND_TIMEOUT_S: Final = 0.8
"""An API process tells its client within a second that Redis is gone (contract §6)."""

MIN_VERSION: Final = (6, 2)
_LUA: Final = Path(__file__).parent / "lua"

_PRELUDES: Final = {
    "create": ("_now", "_quota", "_streams", "_turns", "_no_chat"),
    "answer": (
        *("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans", "_leave_chat", "_end"),
        *("_quota", "_streams", "_turns", "_lines", "_cancel", "_chat"),
    ),
    "claim": (
        *("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans", "_leave_chat", "_end"),
        *("_presence", "_room", "_turns", "_lines", "_clear", "_mend"),
    ),
    "append": ("_now", "_spread", "_log", "_append"),
    "again": ("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans", "_room"),
    "hang_up": ("_now", "_bucket", "_free", "_booked", "_settle", "_orphans"),
    "renew": ("_now",),
    "finish": (
        "_now",
        "_spread",
        "_log",
        "_bucket",
        "_free",
        "_booked",
        "_settle",
        "_append",
        "_orphans",
        "_leave_chat",
    ),
    "release": (
        *("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans"),
        *("_leave_chat", "_end", "_turns", "_clear", "_mend"),
    ),
    "abandon": (),
    "mend": ("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_turns", "_clear", "_mend"),
    "bury": ("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_turns", "_clear", "_mend"),
    "cancel": (
        *("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans", "_leave_chat", "_end"),
        *("_turns", "_lines", "_cancel"),
    ),
    "reap": (
        *("_now", "_spread", "_log", "_bucket", "_free", "_booked", "_settle", "_orphans"),
        *("_leave_chat", "_end", "_turns", "_clear", "_mend"),
    ),
    "orphans": ("_now",),
    "disown": ("_now", "_orphans"),
    "delete": ("_now", "_spread"),
    "compact": (),
    "attend": ("_now",),
    "absent": ("_now", "_presence"),
    "open": ("_now", "_streams"),
    "hold": ("_now", "_streams"),
    "issue": ("_now",),
    "overview": ("_now",),
    "tally": ("_now",),
    "revoke": ("_now",),
    "backlog": ("_now",),
    "milestones": ("_now", "_spread"),
    "sent": ("_now", "_spread"),
    "unsent": ("_now",),
    "deliver": ("_now", "_spread", "_log", "_clear"),
    "progress": (),
}

_BODIES: Final = {"answer": "create"}
"""Scripts that are another one behind other functions: a job that answers a chat is created like any."""

_RUN_WHEN_FULL: Final = (
    *("abandon", "bury", "mend", "renew", "hang_up", "finish", "release", "cancel", "reap", "orphans", "disown"),
    *("delete", "compact", "attend", "open", "hold", "revoke", "sent", "unsent", "deliver"),
)
"""They write little and free much: a full server must cost no lease, no reader its end, and keep no key alive."""


def way_to(url: str) -> Way:
    """Return the way to the server that a URL names, or to the primary that its sentinels name."""
    where = address.parse(url)
    return Sentinels(where) if where.sentinels else Direct(where.server)


def connect(url: str, *, timeout_s: float = COMMAND_TIMEOUT_S) -> Multiplexer:
    """Return a process' connection for short commands: bounded waits, no repeats of its own."""
    return Multiplexer(way_to(url), timeout_s=timeout_s)


def connect_blocking(url: str, *, longest_wait_s: float) -> Multiplexer:
    """Return a connection for one blocking command at a time, which may last `longest_wait_s`."""
    return Multiplexer(way_to(url), timeout_s=longest_wait_s + 2)


def pool_for_arq(url: str) -> BlockingConnectionPool:
    """Return what arq needs for its own few commands: its health line."""
    where = address.parse(url)
    options: dict[str, Any] = {
        "max_connections": 1,
        "timeout": COMMAND_TIMEOUT_S,
        "socket_timeout": COMMAND_TIMEOUT_S,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
        # Nothing is told of us that a user with few rights might not say.
        "lib_name": None,
        "lib_version": None,
        **where.server,
    }
    return PoolOfPrimary(Sentinels(where), options) if where.sentinels else BlockingConnectionPool(**options)


@cache
def source(name: str) -> str:
    """Return a script's text, behind the functions that it shares with others."""
    parts = [*_PRELUDES[name], _BODIES.get(name, name)]
    return "\n".join((_LUA / f"{part}.lua").read_text(encoding="utf-8") for part in parts)


class Scripts:
    """Rejoin's state changes: each one script, atomic, safe to repeat."""

    def __init__(self, redis: Multiplexer) -> None:
        self._redis = redis
        self._sources = {name: source(name) for name in _PRELUDES}
        self._shas = {name: _sha(text) for name, text in self._sources.items()}

    def sha(self, name: str) -> str:
        """Return what Redis knows a script by."""
        return self._shas[name]

    async def run(self, name: str, keys: Sequence[str], args: Sequence[Any], *, again: bool = False) -> Any:
        """Run one of them; raise one of REDIS_FAULTS when Redis is away or refuses.

        `again`: run it once more, at once, when the connection broke: it may have run, and may run twice.
        """
        try:
            return await self._run(name, keys, args)
        except ConnectionError:
            if not again:
                raise
        return await self._run(name, keys, args)

    async def _run(self, name: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            return await self._redis.call("EVALSHA", self._shas[name], len(keys), *keys, *args)
        except NoScriptError:
            await self._redis.call("SCRIPT", "LOAD", self._sources[name])
        return await self._redis.call("EVALSHA", self._shas[name], len(keys), *keys, *args)

    async def load(self) -> None:
        """Send the scripts ahead, so that no first job pays for it; let those that end things run in a full server."""
        if version(await info(self._redis)) >= (7, 0):
            for name in _RUN_WHEN_FULL:
                self._sources[name] = "#!lua flags=allow-oom\n" + source(name)
                self._shas[name] = _sha(self._sources[name])
        for text in self._sources.values():
            await self._redis.call("SCRIPT", "LOAD", text)


def _sha(text: str) -> str:
    return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def reason(fault: Exception) -> str:
    """Say why Redis cannot be used, in words for its operator: ours, or the server's."""
    said = isinstance(fault, (ConnectionError, TimeoutError, ResponseError)) and str(fault)
    return (said or type(fault).__name__)[:200]


def is_full(error: Exception) -> bool:
    """Say whether a command was refused because the server has no memory left."""
    return isinstance(error, RedisError) and "OOM" in str(error)


_OF_THE_SERVER: Final = (
    *("OOM", "READONLY", "MISCONF", "NOREPLICAS", "NOPERM", "BUSY", "LOADING", "MASTERDOWN", "CLUSTERDOWN"),
    *("NOSCRIPT", "killed", "can't run this command"),
)


def is_damage(error: Exception) -> bool:
    """Say whether a command failed by what is kept, not by Redis' state: it would fail so for ever.

    A key of the wrong type, or a record that a script can do nothing with.
    """
    said = str(error)
    if not isinstance(error, ResponseError) or any(word in said for word in _OF_THE_SERVER):
        return False
    return "WRONGTYPE" in said or "wrong kind of value" in said or "user_script" in said


async def info(redis: Multiplexer) -> dict[str, str]:
    """Return what the server says of itself."""
    text: bytes = await redis.read("INFO")
    lines = text.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def version(said: Mapping[str, str]) -> tuple[int, int]:
    """Return the version of the server behind an `info`; a Valkey's own, as it calls itself Redis 7.2."""
    major, minor, *_ = (said.get("valkey_version") or said.get("redis_version") or "0.0").split(".")
    return int(major), int(minor)


async def problem(redis: Multiplexer) -> str | None:
    """Say in one sentence why this server must not be used, or None when it may."""
    said = await info(redis)
    if version(said) < MIN_VERSION:
        return f"Redis {'.'.join(map(str, version(said)))} is too old: 6.2 or later is needed."
    policy = said.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        return f"maxmemory-policy is {policy}: Redis may drop jobs; set it to noeviction."
    return None


__all__ = [
    "REDIS_FAULTS",
    "ConnectionError",
    "DataError",
    "Multiplexer",
    "RedisError",
    "ResponseError",
    "Scripts",
    "TimeoutError",
    "connect",
    "connect_blocking",
    "info",
    "is_damage",
    "is_full",
    "pool_for_arq",
    "problem",
    "reason",
    "source",
    "way_to",
]
