"""One connection to Redis as bytes in and replies out.

`shared.address` reads the URL and makes the TLS context, hiredis takes replies apart; between the two this is a
protocol of its own. redis-py's way of reading wakes a task, arms a time-out and passes six layers a reply: with it, a
command cost its process 150–200 µs, and messages were a fifth of an API process' time.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, Final, Protocol

import hiredis
from redis import exceptions as errors
from redis.exceptions import (
    BusyLoadingError,
    ConnectionError,
    DataError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

from shared.address import Where, tls
from shared.clock import mono_s

REDIS_FAULTS: Final = (RedisError, OSError)
"""What a command raises when Redis is away, slow, full or refuses."""

CONNECT_TIMEOUT_S: Final = 0.5
"""For the connection, and once more for what is said on it first."""

_ERRORS: Final = {"NOSCRIPT": NoScriptError, "READONLY": ReadOnlyError, "LOADING": BusyLoadingError}


def _introduction(where: Where) -> list[tuple[Any, ...]]:
    """Return what is said first on a connection."""
    said: list[tuple[Any, ...]] = []
    if where.get("password") is not None:
        user = (where["username"],) if where.get("username") else ()
        said.append(("AUTH", *user, where["password"]))
    if where.get("db"):
        said.append(("SELECT", where["db"]))
    return said


def _why(error: OSError) -> str:
    """Say what is wrong in a way that helps with certificates; nothing of it is secret."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason is not None:
        return f"TLS: {error.reason.lower().replace('_', ' ')}"
    return type(error).__name__


def _error(message: str) -> Exception:
    return _ERRORS.get(message.partition(" ")[0], ResponseError)(message)


OnReply = Callable[[Any], None]
OnLost = Callable[[Exception], None]


class Way(Protocol):
    """Knows where to connect to, each time anew."""

    async def connect(self, on_reply: OnReply, on_lost: OnLost) -> "Link":
        """Return a connection to the server that is to be used now; raise one of REDIS_FAULTS when there is none."""

    async def close(self) -> None:
        """Keep nothing open but the links that were handed out."""


class Direct:
    """The way to one server that stays where it is."""

    def __init__(self, where: Where) -> None:
        self._where = where

    async def connect(self, on_reply: OnReply, on_lost: OnLost) -> "Link":
        return await Link.at(self._where, on_reply, on_lost)

    async def close(self) -> None:
        pass


class Link(asyncio.Protocol):
    """Hands every reply to `on_reply`, in order; says once, by `on_lost`, that no more will come."""

    def __init__(self, on_reply: OnReply, on_lost: OnLost) -> None:
        self.open = False
        self.heard_s = mono_s()
        self._on_reply = on_reply
        self._on_lost = on_lost
        self._replies = hiredis.Reader(replyError=_error)
        self._loop = asyncio.get_running_loop()
        self._outbox: list[bytes] = []
        self._transport: Any = None

    @classmethod
    async def at(cls, where: Where, on_reply: OnReply, on_lost: OnLost, *, primary: bool = False) -> "Link":
        """Connect, name ourselves and choose the database; raise one of redis-py's errors when that fails.

        `primary`: only to one, says the server itself.
        """
        said: asyncio.Queue[Any] = asyncio.Queue()
        link = cls(said.put_nowait, said.put_nowait)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await link._connect(where)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reply = None
                for command in (*_introduction(where), *([("ROLE",)] if primary else [])):
                    link.send(command)
                    if isinstance(reply := await said.get(), Exception):
                        raise reply
            if primary and not (isinstance(reply, list) and reply[:1] == [b"master"]):
                raise ConnectionError("it is no primary")
        except TimeoutError as error:
            raise errors.TimeoutError("Redis does not answer") from error
        except OSError as error:
            raise ConnectionError(f"cannot connect ({_why(error)})") from error
        except ValueError as error:
            raise ConnectionError(f"cannot connect ({error})") from error
        else:
            link._on_reply, link._on_lost = on_reply, on_lost
            if not link.open:
                raise ConnectionError("lost as soon as it was there")
            return link
        finally:
            if link._on_reply is not on_reply:
                link.close()

    async def _connect(self, where: Where) -> None:
        if (path := where.get("path")) is not None:
            await self._loop.create_unix_connection(lambda: self, path)
            return
        host, port = where.get("host", "127.0.0.1"), where.get("port", 6379)
        context = tls(where)
        name = host if context is not None else None
        await self._loop.create_connection(lambda: self, host, port, ssl=context, server_hostname=name)
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
        # A server that wants another certificate of ours says so only now.
        why = f" ({_why(exc)})" if isinstance(exc, ssl.SSLError) else ""
        self._lose(ConnectionError(f"connection lost{why}"))

    def _lose(self, error: Exception) -> None:
        if self.open:
            self.open = False
            self._transport.abort()
            self._on_lost(error)
