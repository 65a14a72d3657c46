"""The TCP connection under a response, where the server shows it: to bound what a slow reader costs.

ASGI has no word for it. uvicorn's `send` is a method of its request cycle, which holds the transport; behind another
server there is nothing to hold, and a slow reader is left to that server's own limits.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from typing import Final

from starlette.types import Scope, Send

_SCOPE_KEY: Final = "rejoin.transport"

SEND_BUFFER_BYTES: Final = 128 * 1024
"""Kernel memory of one stream. Unbounded, a reader that does not read absorbs about 4 MB."""


def note_transport(scope: Scope, send: Send) -> None:
    """Keep the transport of a request where its response finds it; call it outside of all middleware."""
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    if hasattr(transport, "abort") and hasattr(transport, "get_extra_info"):
        # (uvloop's transports are not asyncio's by type.)
        scope[_SCOPE_KEY] = transport


class Connection:
    """What a streaming response may do to its connection."""

    def __init__(self, scope: Scope) -> None:
        self._transport: asyncio.Transport | None = scope.get(_SCOPE_KEY)

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
