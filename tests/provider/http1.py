"""The server side of one HTTP/1.1 connection, down to the RST: what breaking a provider on purpose needs."""

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal, cast

import httptools


@dataclass(frozen=True)
class Request:
    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


class Connection(asyncio.Protocol):
    """Parse requests, have them answered one after the other, and notice at once when the client leaves.

    A client that leaves (FIN or RST) in the middle of an answer cancels it, after `on_client_left` was called.
    """

    def __init__(self, answer: Callable[[Request, "Connection"], Awaitable[None]], alive: "set[Connection]") -> None:
        self.on_client_left: Callable[[], None] | None = None
        self.task: asyncio.Task[None] | None = None
        """The answer that is being given; None between requests."""
        self._answer = answer
        self._alive = alive
        self._waiting: deque[Request] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self._over = False
        self._parser = httptools.HttpRequestParser(self)

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # asyncio has set TCP_NODELAY
        self._alive.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()

    def eof_received(self) -> None:
        self._client_left()

    def connection_lost(self, exc: Exception | None) -> None:
        self._client_left()
        self._alive.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools calls these.

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._waiting.append(
            Request(
                self._parser.get_method().decode("ascii"),
                self._target.decode("latin-1"),
                self._headers,
                b"".join(self._body),
                self._parser.should_keep_alive(),
            )
        )
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._serve())

    # The answer writes with these.

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a whole answer."""
        self._write(_head(status, {**headers, "content-length": str(len(body))}) + body)

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        """Begin an answer whose body comes in pieces."""
        self._write(_head(status, {**headers, "transfer-encoding": "chunked"}))

    def send(self, piece: bytes) -> None:
        """Send a piece of the body in a write of its own."""
        self._write(b"%x\r\n%b\r\n" % (len(piece), piece))

    async def dribble(self, data: bytes, size: int, gap_s: float) -> None:
        """Send a piece in writes of `size` bytes, `gap_s` apart."""
        for i in range(0, len(data), size):
            if i:
                await asyncio.sleep(gap_s)
            self.send(data[i : i + size])

    def end(self, piece: bytes = b"") -> None:
        """Send the last piece, if there is one, and end the body, in one write."""
        self._write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(piece), piece) if piece else b"0\r\n\r\n")

    @property
    def full(self) -> bool:
        """Whether the client has to read before more should be sent."""
        return not self._writable.is_set()

    async def writable(self) -> None:
        """Return when it is no longer full."""
        await self._writable.wait()

    async def flushed(self) -> None:
        """Return when everything has been handed to the kernel."""
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=0)
            await self._writable.wait()
            self._transport.set_write_buffer_limits()

    async def drop(self, how: Literal["rst", "fin", "eof"]) -> None:
        """End the answer where it is, once everything before has been handed to the kernel."""
        await self.flushed()
        {"rst": self.reset, "fin": self.fin, "eof": self.end}[how]()

    def reset(self) -> None:
        """Abort with RST."""
        self._over = True
        sock = self._transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def fin(self) -> None:
        """Close with FIN, after what was sent."""
        self._over = True
        self._transport.close()

    def shut(self) -> None:
        """Drop the connection and the answer in progress: the provider closes, nobody left."""
        self._over = True
        if self.task is not None:
            self.task.cancel()
        self._transport.abort()

    def _write(self, data: bytes) -> None:
        if self._over or self._transport.is_closing():
            raise ConnectionResetError("the connection is closed")
        self._transport.write(data)

    def _client_left(self) -> None:
        if not self._over:
            self._over = True
            if self.task is not None:
                if self.on_client_left is not None:
                    self.on_client_left()
                self.task.cancel()

    async def _serve(self) -> None:
        while self._waiting and not self._over:
            request = self._waiting.popleft()
            with suppress(ConnectionResetError):
                await self._answer(request, self)
            if not request.keep_alive and not self._over:
                self.fin()
        self.task = None


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
