"""One connection to Redis as bytes in and replies out.

redis-py reads the URL and makes the TLS context, hiredis takes replies apart; between the two this is a protocol of its
own. redis-py's way of reading wakes a task, arms a time-out and passes six layers a reply: with it, a command cost its
process 150–200 µs, and messages were a fifth of an API process' time.
"""

import asyncio
import socket
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis import exceptions as errors
from redis.asyncio.connection import RedisSSLContext, SSLConnection, parse_url
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    DataError,
    NoScriptError,
    ReadOnlyError,
    ResponseError,
)

from shared.clock import mono_s

CONNECT_TIMEOUT_S: Final = 0.5
"""For the connection, and once more for what is said on it first."""

_ERRORS: Final = {"NOSCRIPT": NoScriptError, "READONLY": ReadOnlyError, "LOADING": BusyLoadingError}


def _introduction(where: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return what is said first on a connection."""
    said: list[tuple[Any, ...]] = []
    if where.get("password") is not None:
        user = (where["username"],) if where.get("username") else ()
        said.append(("AUTH", *user, where["password"]))
    if where.get("db"):
        said.append(("SELECT", where["db"]))
    return said


def _tls(where: dict[str, Any]) -> Any:
    """Return the TLS context of a `rediss:` URL, made from its `ssl_…` parameters; None for another one."""
    if where.get("connection_class") is not SSLConnection:
        return None
    asked = {name.removeprefix("ssl_"): value for name, value in where.items() if name.startswith("ssl_")}
    return RedisSSLContext(**{"cert_reqs": "required", **asked}).get()


def _error(message: str) -> Exception:
    return _ERRORS.get(message.partition(" ")[0], ResponseError)(message)


class Link(asyncio.Protocol):
    """Hands every reply to `on_reply`, in order; says once, by `on_lost`, that no more will come."""

    def __init__(self, on_reply: Callable[[Any], None], on_lost: Callable[[Exception], None]) -> None:
        self.open = False
        self.heard_s = mono_s()
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._replies = hiredis.Reader(replyError=_error)
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._transport: Any = None

    @classmethod
    async def to(cls, url: str, on_reply: Callable[[Any], None], on_lost: Callable[[Exception], None]) -> "Link":
        """Connect, name ourselves and choose the database; raise one of redis-py's errors when that fails."""
        where: dict[str, Any] = dict(parse_url(url))
        said: asyncio.Queue[Any] = asyncio.Queue()
        link = cls(said.put_nowait, said.put_nowait)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await link._connect(where)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                for command in _introduction(where):
                    link.send(command)
                    if isinstance(reply := await said.get(), Exception):
                        raise reply
        except TimeoutError as error:
            raise errors.TimeoutError("Redis does not answer") from error
        except OSError as error:
            raise ConnectionError(f"cannot connect ({type(error).__name__})") from error
        else:
            link._on_reply, link._on_lost = on_reply, on_lost
            if not link.open:
                raise ConnectionError("lost as soon as it was there")
            return link
        finally:
            if link._on_reply is not on_reply:
                link.close()

    async def _connect(self, where: dict[str, Any]) -> None:
        if (path := where.get("path")) is not None:
            await self._loop.create_unix_connection(lambda: self, path)
            return
        host, port = where.get("host", "127.0.0.1"), where.get("port", 6379)
        tls = _tls(where)
        name = host if tls is not None else None
        await self._loop.create_connection(lambda: self, host, port, ssl=tls, server_hostname=name)
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def send(self, command: tuple[Any, ...]) -> None:
        """Send a command, with all others of this turn of the loop; raise DataError for what no command can carry."""
        try:
            packed = hiredis.pack_command(command)
        except (hiredis.HiredisError, TypeError, ValueError) as error:
            raise DataError(f"cannot send a command with such arguments: {type(error).__name__}") from error
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(packed)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if self.open:
            self._transport.write(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    def close(self, why: str = "closed here") -> None:
        self._lose(ConnectionError(why))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self.open = True

    def data_received(self, data: bytes) -> None:
        self.heard_s = mono_s()
        self._replies.feed(data)
        try:
            # False is: no whole reply yet.
            while self.open and (reply := self._replies.gets()) is not False:
                self._on_reply(reply)
        except hiredis.ProtocolError as error:
            self.close(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lose(ConnectionError("connection lost"))

    def _lose(self, error: Exception) -> None:
        if self.open:
            self.open = False
            self._transport.abort()
            self._on_lost(error)
