"""The TCP connection under a response, where the server shows it: to write at once, and to bound slow readers.

ASGI has no word for either. uvicorn's `send` is a method of its request cycle, which holds the transport; behind
another server there is nothing to hold: streams go by `await send` alone, and a slow reader is left to that server's
own limits.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Any, Final

from starlette.types import Scope, Send

_SCOPE_KEY: Final = "rejoin.connection"

SEND_BUFFER_BYTES: Final = 128 * 1024
"""Kernel memory of one stream. Unbounded, a reader that does not read absorbs about 4 MB."""


def http_chunk(body: bytes) -> bytes:
    """Return a piece of a body as uvicorn's `send` would write it: driving that for each reader is half of the cost."""
    return b"%x\r\n%b\r\n" % (len(body), body)


def note_connection(scope: Scope, send: Send) -> None:
    """Keep the connection of a request where its response finds it; call it outside of all middleware."""
    scope[_SCOPE_KEY] = connection = Connection(send)
    if scope["method"] != "HEAD":
        connection.join_head()


def peer(scope: Scope) -> str | None:
    """Return the address at the other end of a request's connection, whatever proxies say; None where none is shown."""
    noted: Connection | None = scope.get(_SCOPE_KEY)
    address = None if noted is None else noted.peer()
    return address[0] if isinstance(address, tuple) else None


class Connection:
    """What a streaming response may do to its connection."""

    __slots__ = ("_cycle", "_transport", "send")

    def __init__(self, send: Send) -> None:
        self.send = send
        """The server's own: without what middleware has put in front of it, which is about the response's start."""
        cycle: Any = getattr(send, "__self__", None)
        transport = getattr(cycle, "transport", None)
        # (uvloop's transports are not asyncio's by type.)
        known = hasattr(transport, "abort") and hasattr(transport, "get_extra_info")
        self._transport: asyncio.Transport | None = transport if known else None
        shown = known and all(hasattr(cycle, name) for name in ("flow", "disconnected", "chunked_encoding"))
        self._cycle = cycle if shown else None

    def join_head(self) -> None:
        """Have the response's head leave together with its first bytes: one write, and one packet, for two.

        Each write is a system call that wakes the client; the head's was a quarter of an API process' work on a job.
        """
        if self._cycle is not None and not getattr(self._cycle, "waiting_for_100_continue", True):
            self._cycle.transport = _HeldHead(self._cycle, self._transport)

    @classmethod
    def of(cls, scope: Scope, send: Send) -> "Connection":
        """Return the connection of a request, or what `send` alone can do where none was noted."""
        noted: Connection = scope.get(_SCOPE_KEY) or cls(send)
        return noted

    def write_now(self, chunk: bytes) -> bool:
        """Write a chunk of the body (`http_chunk`; none when it is empty) without waiting, from anywhere in the loop.

        False when that is not possible just now: the client has not taken enough of what was sent, or has left. It is
        the response's task that learns of it then, where it awaits `send`. (A pipelined request takes uvicorn's eyes
        off this one: only the transport knows then that the client has left.)
        """
        cycle = self._cycle
        if cycle is None or cycle.flow.write_paused or cycle.disconnected or not cycle.chunked_encoding:
            return False
        transport = cycle.transport
        if transport.is_closing():
            return False
        if chunk:
            transport.write(chunk)
        return True

    @property
    def full(self) -> bool:
        """Whether the client has yet to take much of what was sent: whoever awaits `send` now waits for it."""
        return self._cycle is not None and self._cycle.flow.write_paused

    def peer(self) -> Any:
        return None if self._transport is None else self._transport.get_extra_info("peername")

    def bound_buffer(self) -> None:
        """Let the kernel keep a stream's worth of bytes and no more."""
        self._set(socket.SO_SNDBUF, SEND_BUFFER_BYTES)

    def close(self) -> None:
        """Send what is to be sent, then close the connection in mid-body."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection and all that is still to be sent on it: by a reset, so that the kernel forgets it too."""
        if self._transport is not None:
            self._set(socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _set(self, option: int, value: int | bytes) -> None:
        if self._transport is not None and (sock := self._transport.get_extra_info("socket")) is not None:
            # uvloop's says ValueError of a connection that is gone already.
            with suppress(OSError, ValueError):
                sock.setsockopt(socket.SOL_SOCKET, option, value)


class _HeldHead:
    """Stands before a transport until the second write."""

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: Any, transport: Any) -> None:
        self._cycle = cycle
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if not self._head:
            self._head = data
            return
        self._cycle.transport = self._transport
        self._transport.write(self._head + data)

    def close(self) -> None:
        self._cycle.transport = self._transport
        self._transport.write(self._head)
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
