"""One HTTP/1.1 connection to a provider. Bytes of an answer go to whoever takes them in the turn in which they arrive.

llhttp (through httptools) reads HTTP; this file is what stands between it and a token. A client library's layers (a
buffer, a task that is woken, an iterator around an iterator) were half of a worker's time a token.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import httpx2
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from shared.clock import mono_s
from worker.providers.base import AnswerTooLarge

MAX_HEAD_BYTES: Final = 64 * 1024
"""Of a head, interim answers before it included; and of whatever else is no body: trailers, chunks' extensions."""

MAX_EARLY_BYTES: Final = 64 * 1024
"""Of a body that nobody takes yet; beyond it the connection is not read."""

MAX_ANSWER_BYTES: Final = 128 * 1024 * 1024
"""Of one answer with all that is around its words: 380,000 tokens of OpenAI's, at 350 bytes each."""

SLICE_BYTES: Final = 16 * 1024
"""What is read of one answer before others have their turn. The smallest events have ten bytes,
and take 1 to 3 µs to be told apart."""


STALE_S: Final = 1.0
"""A kept-alive connection that is closed later than that behind a request was not closed for being idle: the request
may have been worked on, and is not to be repeated."""


class StaleConnection(httpx2.ConnectError):
    """A kept-alive connection was closed at the moment of its reuse: no byte of an answer came; ask again."""


class Head(NamedTuple):
    status: int
    headers: list[tuple[bytes, bytes]]


class Answer:
    """The answer to one request: its head, then its body, handed on as it comes."""

    def __init__(self, connection: "Connection") -> None:
        self.head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self.whole = False
        """Whether all of it has come."""
        self.error: Exception | None = None
        self._connection = connection
        self.take: Callable[[bytes], None] | None = None
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._turned = asyncio.Event()

    def pour(self, take: Callable[[bytes], None]) -> None:
        """Hand the body to `take`, what has come and what comes. What it raises ends the connection and is kept."""
        self.take = take
        early, self._early = self._early, []
        for chunk in early:
            if self.error is None:
                self._connection.hand_on(self, chunk)
        if self._early_bytes > MAX_EARLY_BYTES:
            self._connection.resume()

    async def turn(self) -> None:
        """Return when the body is whole or somebody said `wake`; raise what has gone wrong."""
        await self._turned.wait()
        self._turned.clear()
        if self.error is not None:
            raise self.error

    def wake(self) -> None:
        self._turned.set()

    def hold(self) -> None:
        """Read no more for now."""
        self._connection.pause()

    def go_on(self) -> None:
        self._connection.resume()

    def close(self) -> None:
        """Close the connection, at once, unless the answer is whole."""
        if not self.whole:
            self._connection.abort()

    # From the connection.

    def keep(self, data: bytes) -> None:
        """Keep what comes before anybody takes it."""
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > MAX_EARLY_BYTES:
            self._connection.pause()

    def end(self) -> None:
        self.whole = True
        self._turned.set()

    def fail(self, error: Exception) -> None:
        self.error = error
        if not self.head.done():
            self.head.set_exception(error)
            # Whoever waits for it may have left.
            self.head.exception()
        self._turned.set()


class Connection(asyncio.Protocol):
    """Asks one thing at a time, and can be asked again while `idle`."""

    def __init__(self) -> None:
        self.idle = True
        self._transport: Any = None
        self._parser = HttpResponseParser(self)
        self._answer: Answer | None = None
        self._used = False
        self._heard = False
        self._asked_s = 0.0
        self._bytes = 0
        self._idle_bytes = 0
        """Since the last piece of a body."""
        self._backlog = b""
        """Read, and waiting for its turn; nothing is read behind it."""
        self._held = self._turn_comes = False
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._interim = self._framed = False

    def ask(self, request: bytes) -> Answer:
        """Send a request; the answer comes by itself."""
        assert self.idle
        self.idle = self._heard = False
        self._asked_s = mono_s()
        self._bytes = self._idle_bytes = 0
        self._begin()
        self._answer = answer = Answer(self)
        self._transport.write(request)
        return answer

    def abort(self) -> None:
        self.idle = False
        self._backlog = b""
        self._transport.abort()

    def pause(self) -> None:
        self._held = True
        if not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        self._held = False
        if self._backlog:
            self._wait_for_turn()
        elif not self._transport.is_closing():
            self._transport.resume_reading()

    def fail(self, error: Exception) -> None:
        """End the answer with this error, and the connection with it."""
        answer, self._answer = self._answer, None
        self.abort()
        if answer is not None:
            answer.fail(error)

    # From asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if not self._backlog and len(data) <= SLICE_BYTES:
            self._take(data)
            return
        self._backlog += data
        self._transport.pause_reading()
        self._wait_for_turn()

    def _wait_for_turn(self) -> None:
        if not self._turn_comes:
            self._turn_comes = True
            asyncio.get_running_loop().call_soon(self._take_slice)

    def _take_slice(self) -> None:
        self._turn_comes = False
        if self._held or not self._backlog:
            return
        data, self._backlog = self._backlog[:SLICE_BYTES], self._backlog[SLICE_BYTES:]
        self._take(data)
        if not self._held:
            self.resume()

    def _take(self, data: bytes) -> None:
        answer = self._answer
        if answer is None:
            # Nobody has asked: this is no connection to ask anything on.
            self.abort()
            return
        self._heard = True
        self._bytes += len(data)
        self._idle_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self.fail(httpx2.RemoteProtocolError(type(error).__name__))
        # Counted here: llhttp says nothing of a line that does not end.
        if self._idle_bytes > MAX_HEAD_BYTES:
            self.fail(httpx2.RemoteProtocolError("too much that is no body"))
        elif self._bytes > MAX_ANSWER_BYTES:
            self.fail(AnswerTooLarge())

    def connection_lost(self, exc: Exception | None) -> None:
        self.idle = False
        answer = self._answer
        if answer is None:
            return
        if exc is None and answer.head.done() and not self._framed:
            # A body without a length ends with its connection.
            self._answer = None
            answer.end()
        elif self._used and not self._heard and mono_s() - self._asked_s < STALE_S:
            self.fail(StaleConnection("closed while idle"))
        else:
            self.fail(httpx2.ReadError("connection lost"))

    # From llhttp.

    def on_message_begin(self) -> None:
        if self._answer is None:
            # An answer to nothing must not be taken for the next one.
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self._interim = True
        elif self._answer is not None and not self._answer.head.done():
            self._framed = self._framed or status in (204, 304)
            self._answer.head.set_result(Head(status, self._headers))

    def on_body(self, data: bytes) -> None:
        self._idle_bytes = 0
        answer = self._answer
        if answer is not None:
            self.hand_on(answer, data)

    def hand_on(self, answer: Answer, data: bytes) -> None:
        if (take := answer.take) is None:
            answer.keep(data)
            return
        try:
            take(data)
        except Exception as error:
            self.fail(error)
            # (Which no longer knows the answer when all of it has come.)
            answer.fail(error)

    def on_message_complete(self) -> None:
        answer = self._answer
        if self._interim or answer is None:
            self._begin()
            return
        self._answer = None
        self._used = True
        # What is behind it answers nothing, and must not be taken for what is asked next.
        self.idle = self._parser.should_keep_alive() and not self._transport.is_closing() and not self._backlog
        answer.end()
