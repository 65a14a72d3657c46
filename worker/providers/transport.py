"""The HTTP under both SDKs: httpx2's interface in front of our own connections, one pool for all providers.

What the SDKs bring cannot tell an attempt what it must know: whether a connection that failed was a kept-alive one,
which a provider may close at the very moment of its reuse (28 of 512 calls under load). And both of theirs read a
body by iterators, where a stream of tokens is best handed on as it arrives (`ANSWER`, `Answer.pour`).
"""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

import httpx2

from shared.clock import mono_s
from worker.providers.connection import Answer, Connection, StaleConnection
from worker.providers.dial import Dialer, Origin

KEEP_ALIVE_S: Final = 30.0

MAX_WHOLE_BYTES: Final = 4 * 1024 * 1024
"""Of an answer that is read whole."""

MAX_ERROR_BYTES: Final = 256 * 1024
"""Of an error's body; its status says enough of one that is longer."""

ANSWER: Final = "rejoin.answer"
"""The extension of a response under which the bytes of its body can be had as they come."""

ENCODED: Final = "rejoin.encoded"
"""The extension that says whether the body is packed, though nobody asked for that."""

_DROPPED: Final = frozenset((b"set-cookie", b"set-cookie2", b"content-encoding"))
"""Of an answer's headers. Cookies would go from one owner's call into all others, and grow; and who reads a body whole
would unpack it, to any size."""

_PORTS: Final = {"http": 80, "https": 443}


class Prepared(NamedTuple):
    """All that a request says beside its body."""

    origin: Origin
    head: bytes
    """Without the body's length, and without the line that ends it."""
    sized: bool
    """Whether it says that length."""
    request: httpx2.Request


class Transport(httpx2.AsyncBaseTransport):
    """Keeps connections for the next request. Closing it twice is fine: several clients share it."""

    def __init__(self) -> None:
        self._dialer = Dialer()
        self._idle: dict[Origin, list[tuple[Connection, float]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, return when the answer's head is there. Raises httpx2's errors."""
        return await self.ask(self.prepare(request), await request.aread())

    async def ask(self, prepared: Prepared, body: bytes) -> httpx2.Response:
        """As `handle_async_request`, with a request that may be asked any number of times, with any body."""
        origin, said, sized, request = prepared
        connection = self._kept(origin) or await self._dialer.connect(origin)
        length = b"Content-Length: %d\r\n" % len(body) if sized else b""
        answer = connection.ask(b"%b%b\r\n%b" % (said, length, body))
        try:
            head = await answer.head
        except BaseException:
            connection.abort()
            raise
        return httpx2.Response(
            head.status,
            headers=_plain(head.headers),
            stream=_Body(self, origin, connection, answer, is_error=head.status >= 400),
            request=request,
            extensions={"http_version": b"HTTP/1.1", ANSWER: answer, ENCODED: _is_encoded(head.headers)},
        )

    async def aclose(self) -> None:
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection, _ in connections:
                connection.abort()

    def _kept(self, origin: Origin) -> Connection | None:
        """Return the connection that was used last, so that those too many grow old."""
        now_s = mono_s()
        connections = self._idle.get(origin, [])
        while connections:
            connection, since_s = connections.pop()
            if connection.idle and now_s - since_s < KEEP_ALIVE_S:
                return connection
            connection.abort()
        return None

    def keep(self, origin: Origin, connection: Connection) -> None:
        """Take a connection back; let go of those that nobody has wanted for a while."""
        now_s = mono_s()
        connections = self._idle.setdefault(origin, [])
        while connections and now_s - connections[0][1] > KEEP_ALIVE_S:
            connections.pop(0)[0].abort()
        # Whoever read on it may have held it at its last byte.
        connection.resume()
        connections.append((connection, now_s))

    def prepare(self, request: httpx2.Request) -> Prepared:
        """Return what a request says, to be sent with `ask`."""
        url = request.url
        origin = Origin(url.scheme, url.host, url.port or _PORTS[url.scheme])
        target = url.raw_path
        said = [header for header in request.headers.raw if header[0].lower() != b"content-length"]
        headers = [b"%b: %b\r\n" % header for header in said]
        if self._dialer.plain_proxy(origin):
            target = str(url).encode("ascii")
            if (who := self._dialer.credentials(origin)) is not None:
                headers.append(b"Proxy-Authorization: %b\r\n" % who.encode())
        head = b"%b %b HTTP/1.1\r\n%b" % (request.method.encode(), target, b"".join(headers))
        return Prepared(origin, head, len(said) < len(request.headers.raw), request)


def _is_encoded(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(n.lower() == b"content-encoding" and v.strip().lower() not in (b"", b"identity") for n, v in headers)


def _plain(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers without what makes a reader do more than read."""
    return [
        # Without a charset: all is UTF-8, and `punycode`, say, takes the square of a body's length.
        (name, value.partition(b";")[0].strip() if name.lower() == b"content-type" else value)
        for name, value in headers
        if name.lower() not in _DROPPED
    ]


class _Body(httpx2.AsyncByteStream):
    """An answer's body for who wants it whole; gives its connection back in the end."""

    def __init__(
        self, transport: Transport, origin: Origin, connection: Connection, answer: Answer, *, is_error: bool
    ) -> None:
        self._transport, self._origin = transport, origin
        self._connection, self._answer = connection, answer
        self._is_error = is_error

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = bytearray()

        def take(chunk: bytes) -> None:
            body.extend(chunk)
            if self._is_error and len(body) > MAX_ERROR_BYTES:
                del body[MAX_ERROR_BYTES:]
                self._answer.wake()
            elif len(body) > MAX_WHOLE_BYTES:
                raise httpx2.RemoteProtocolError("answer too large")

        self._answer.pour(take)
        await self._answer.turn()
        yield bytes(body)

    async def aclose(self) -> None:
        """Keep the connection if the answer was read to its end; close it, at once, if not."""
        if self._answer.whole and self._connection.idle:
            self._transport.keep(self._origin, self._connection)
        else:
            self._connection.abort()


__all__ = ["ANSWER", "ENCODED", "StaleConnection", "Transport"]
