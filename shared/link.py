"""One connection to Redis as bytes in and replies out.

redis-py opens it (URL, TLS, password, database) and hiredis takes the replies apart; between the two this is a
protocol of its own. redis-py's way of reading wakes a task, arms a time-out and passes six layers a reply: with it,
a command cost its process 150–200 µs, and messages were a fifth of an API process' time.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import hiredis
from redis import exceptions as errors
from redis.asyncio import BlockingConnectionPool, Connection
from redis.exceptions import ConnectionError, DataError, NoScriptError, ReadOnlyError, ResponseError

from shared.clock import mono_s

CONNECT_TIMEOUT_S: Final = 0.5

_ERRORS: Final = {"NOSCRIPT": NoScriptError, "READONLY": ReadOnlyError, "LOADING": ConnectionError}


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
        self._writer: Any = None
        self._transport: Any = None

    @classmethod
    async def to(cls, url: str, on_reply: Callable[[Any], None], on_lost: Callable[[Exception], None]) -> "Link":
        """Connect, or raise one of redis-py's errors."""
        options = {} if url.startswith("unix:") else {"socket_keepalive": True}
        timeouts = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": CONNECT_TIMEOUT_S}
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(url, **timeouts, **options)
        connection: Connection = pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(2 * CONNECT_TIMEOUT_S):
                await connection.connect()  # type: ignore[no-untyped-call]
        except TimeoutError as error:
            await connection.disconnect(nowait=True)
            raise errors.TimeoutError("Redis does not answer") from error
        link = cls(on_reply, on_lost)
        # Every reply to the handshake has been read: nothing is left in the stream that had the connection so far. It
        # is kept all the same: it would close the connection on its way out.
        link._writer, connection._writer, connection._reader = connection._writer, None, None
        link._transport = link._writer.transport
        link._transport.set_protocol(link)
        link.open = True
        return link

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
