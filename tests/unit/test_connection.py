"""The HTTP under the providers: whatever a server does comes out as an answer or as one of httpx2's errors."""

import asyncio
import base64
import contextlib
import re
import shutil
import socket
import ssl
import struct
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Self

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.prices import Usage
from tests.stack import eventually
from tests.valkey import free_port
from worker.providers import dial, http, transport
from worker.providers.calls import Calls
from worker.providers.connection import MAX_EARLY_BYTES, MAX_HEAD_BYTES, Answer, Connection, StaleConnection
from worker.providers.sse import ServerSentEvent
from worker.providers.transport import ANSWER, Transport

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = OK + b"Server: old\r\n\r\nhello world"
FIN, RST = "FIN", "RST"

Step = bytes | asyncio.Event | str


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the proxies of whoever runs the tests out of the environment."""
    for name in ("http", "https", "all", "no"):
        for spelling in (f"{name}_proxy", f"{name}_proxy".upper()):
            monkeypatch.delenv(spelling, raising=False)


class Server:
    """Answers each request with what comes next: bytes as they are, an event to wait for, FIN or RST."""

    def __init__(self, *answers: Sequence[Step], tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.left = 0
        """How many connections the client has closed."""
        self._answers = iter(answers)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, ssl=self._tls)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.create_task(self._talk(reader, writer))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                self.requests.append(head + await reader.readexactly(int(length[1]) if length else 0))
                for step in next(self._answers, (FIN,)):
                    if isinstance(step, bytes):
                        writer.write(step)
                        await writer.drain()
                    elif isinstance(step, asyncio.Event):
                        await step.wait()
                    else:
                        if step == RST:
                            sock = writer.get_extra_info("socket")
                            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            writer.transport.abort()
                        return
                    await self._go_on(writer, step)
        except (EOFError, OSError):
            self.left += 1
        finally:
            writer.close()

    async def _go_on(self, writer: asyncio.StreamWriter, step: Step) -> None:
        """Do what comes behind a step."""


@pytest.fixture
async def pool() -> AsyncIterator[Transport]:
    made = Transport()
    yield made
    await made.aclose()


@pytest.fixture
async def web(pool: Transport) -> AsyncIterator[httpx2.AsyncClient]:
    """The client as the SDKs have it."""
    async with http.client(pool) as client:
        yield client


async def get(url: str) -> httpx2.Response:
    """Ask once, over connections of its own, made in the environment of now."""
    async with http.client(Transport()) as client:
        return await asyncio.wait_for(client.get(url), 5)


async def open_answer(web: httpx2.AsyncClient, url: str) -> tuple[httpx2.Response, Answer]:
    response = await web.send(web.build_request("GET", url), stream=True)
    return response, response.extensions[ANSWER]


# Bytes in, an answer out: no socket.


class Wire:
    """Stands where the socket is."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.reading = True
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Asked:
    """A connection that has been asked something, and what comes of it."""

    def __init__(self, *, used: bool = False) -> None:
        self.wire = Wire()
        self.connection = Connection()
        self.connection.connection_made(self.wire)  # type: ignore[arg-type]
        self.body = b""
        if used:
            self.connection.ask(b"")
            self.connection.data_received(HELLO)
        self.answer = self.connection.ask(b"GET / HTTP/1.1\r\n\r\n")

    def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.data_received(piece)

    def pour(self) -> None:
        self.answer.pour(self._take)

    def _take(self, chunk: bytes) -> None:
        self.body += chunk

    def close(self) -> None:
        self.connection.connection_lost(None)


FRAMED = {
    "content-length": OK + b"Content-Length: 11\r\n\r\nhello world",
    "chunked": CHUNKED + b"5\r\nhello\r\n6;name=value\r\n world\r\n0\r\nTrailer: x\r\n\r\n",
    "until close": UNTIL_CLOSE,
    "behind interim answers": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + OK + b"Content-Length: 11\r\n\r\nhello world",
}  # fmt: skip


@pytest.mark.parametrize("how", FRAMED)
@given(data=st.data())
async def test_a_body_is_whole_however_it_is_framed_and_cut(how: str, data: st.DataObject) -> None:
    asked, raw = Asked(used=data.draw(st.booleans())), FRAMED[how]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True) if a < b]
    poured_behind = data.draw(st.integers(0, len(pieces)))
    asked.feed(*pieces[:poured_behind])
    asked.pour()
    asked.feed(*pieces[poured_behind:])
    if how == "until close":
        assert not asked.answer.whole
        asked.close()
    await asyncio.wait_for(asked.answer.turn(), 1)
    head = asked.answer.head.result()
    assert head.status == 200
    assert b"Link" not in dict(head.headers)
    assert asked.body == b"hello world"
    assert asked.answer.whole
    assert asked.connection.idle is (how != "until close")


@pytest.mark.parametrize("how", FRAMED)
async def test_an_answer_that_is_cut_at_any_byte_is_never_taken_for_whole(how: str) -> None:
    raw = FRAMED[how]
    for length in range(len(raw)):
        asked = Asked()
        asked.pour()
        asked.feed(raw[:length])
        asked.close()
        if how == "until close" and b"\r\n\r\n" in raw[:length]:
            assert asked.answer.whole
            continue
        with pytest.raises(httpx2.ReadError) as caught:
            await asked.answer.turn()
        assert not isinstance(caught.value, StaleConnection)
        assert not asked.answer.whole
        if not asked.answer.head.done() or asked.answer.head.exception():
            assert isinstance(asked.answer.head.exception(), httpx2.ReadError)
        assert not asked.connection.idle


async def test_a_body_until_close_that_is_reset_is_not_whole() -> None:
    asked = Asked()
    asked.pour()
    asked.feed(UNTIL_CLOSE)
    asked.connection.connection_lost(ConnectionResetError())
    with pytest.raises(httpx2.ReadError):
        await asked.answer.turn()
    assert not asked.answer.whole


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_is_whole_with_its_head(status: int) -> None:
    asked = Asked()
    asked.feed(b"HTTP/1.1 %d X\r\nServer: x\r\n\r\n" % status)
    assert asked.answer.head.result().status == status
    assert asked.answer.whole
    assert asked.connection.idle


@pytest.mark.parametrize(
    "garbage",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"HTTP/2 200\r\n\r\n",
        b"\r\n\r\n<html>",
        OK + b"Content-Length: five\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
        CHUNKED + b"xyz\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ],
    ids=lambda garbage: repr(garbage[-24:]),
)
async def test_what_is_no_http_is_a_protocol_error(garbage: bytes) -> None:
    asked = Asked()
    asked.pour()
    asked.feed(garbage)
    with pytest.raises(httpx2.RemoteProtocolError):
        await asyncio.wait_for(asked.answer.turn(), 1)
    assert asked.wire.closed
    assert not asked.connection.idle


LINE = b"X-%d: " + b"x" * 1000 + b"\r\n"


@pytest.mark.parametrize(
    ("begin", "more"),
    [(OK, lambda n: LINE % n), (OK + b"X: ", lambda _: b"x" * 1000), (b"HTTP/1.1 200 ", lambda _: b"x" * 1000)],
    ids=["lines without end", "one line without end", "a reason without end"],
)
async def test_a_head_that_does_not_end_is_given_up(begin: bytes, more: Callable[[int], bytes]) -> None:
    asked = Asked()
    asked.feed(begin)
    for n in range(4 * MAX_HEAD_BYTES // 1000):
        asked.feed(more(n))
    assert asked.wire.closed
    with pytest.raises(httpx2.RemoteProtocolError):
        asked.answer.head.result()


async def test_what_nobody_takes_yet_is_kept_and_bounded() -> None:
    asked = Asked()
    asked.feed(CHUNKED)
    sent = 0
    while asked.wire.reading:
        asked.feed(b"3e8\r\n%b\r\n" % (b"x" * 1000))
        sent += 1000
    assert MAX_EARLY_BYTES < sent <= MAX_EARLY_BYTES + 1000
    asked.pour()
    assert asked.wire.reading
    assert len(asked.body) == sent
    asked.feed(b"5\r\nhello\r\n0\r\n\r\n")
    assert asked.body.endswith(b"xhello")
    assert asked.answer.whole


@pytest.mark.parametrize("early", [False, True], ids=["as it comes", "when all of it is there"])
async def test_what_the_taker_raises_ends_the_answer(early: bool) -> None:
    """A provider's error event may come in one packet with the head, the end and all: it must not get lost."""
    asked, taken = Asked(), list[bytes]()

    def take(chunk: bytes) -> None:
        taken.append(chunk)
        raise LookupError(chunk)

    if early:
        asked.feed(FRAMED["chunked"])
    asked.answer.pour(take)
    if not early:
        asked.feed(FRAMED["chunked"])
    with pytest.raises(LookupError):
        await asyncio.wait_for(asked.answer.turn(), 1)
    assert taken == [b"hello"], "nothing is taken behind a hole"
    assert not asked.connection.idle


async def test_hold_and_go_on_stop_and_continue_the_reading() -> None:
    asked = Asked()
    asked.feed(CHUNKED)
    asked.answer.hold()
    assert not asked.wire.reading
    asked.answer.go_on()
    assert asked.wire.reading
    asked.close()
    asked.answer.hold()
    asked.answer.go_on()


async def test_a_connection_that_speaks_unasked_is_asked_nothing_more() -> None:
    asked = Asked()
    asked.feed(HELLO)
    assert asked.connection.idle
    asked.feed(b"HTTP/1.1 408 Request Timeout\r\n")
    assert not asked.connection.idle
    assert asked.wire.closed


@pytest.mark.parametrize("surplus", [HELLO, HELLO[:-2], OK, b"H"], ids=["whole", "begun", "head", "byte"])
async def test_an_answer_to_a_question_that_nobody_asked_is_not_taken_for_the_next_one(surplus: bytes) -> None:
    """It may come in the same packet: were the connection asked again, each answer would be the one before."""
    asked = Asked()
    asked.feed(HELLO + surplus)
    assert asked.answer.whole
    assert not asked.connection.idle
    assert asked.wire.closed


@pytest.mark.parametrize(
    ("raw", "reusable"),
    [
        (HELLO, True),
        (OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", False),
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello", True),
    ],
)
async def test_a_connection_is_used_again_when_the_server_means_to_keep_it(raw: bytes, reusable: bool) -> None:
    asked = Asked()
    asked.feed(raw)
    assert asked.answer.whole
    assert asked.connection.idle is reusable


# Over sockets.


async def test_one_connection_is_enough_for_one_request_after_the_other(web: httpx2.AsyncClient) -> None:
    async with Server(*[[HELLO]] * 3) as server:
        for n in range(3):
            response = await web.post(server.url, content=b"x" * n)
            assert (response.status_code, response.text) == (200, "hello")
            assert server.requests[-1].endswith(b"\r\n\r\n" + b"x" * n)
        assert server.connections == 1


async def test_requests_at_the_same_time_have_connections_of_their_own(web: httpx2.AsyncClient) -> None:
    both = asyncio.Event()
    async with Server([both, HELLO], [both, HELLO], [HELLO], [HELLO]) as server:
        asked = [asyncio.create_task(web.get(server.url)) for _ in range(2)]
        await eventually(lambda: len(server.requests) == 2)
        both.set()
        assert [response.text for response in await asyncio.gather(*asked)] == ["hello"] * 2
        await asyncio.gather(web.get(server.url), web.get(server.url))
        assert server.connections == 2


@pytest.mark.parametrize("end", [FIN, RST])
async def test_a_connection_closed_at_the_moment_of_its_reuse_is_stale(web: httpx2.AsyncClient, end: str) -> None:
    async with Server([HELLO], [end], [HELLO]) as server:
        await web.get(server.url)
        with pytest.raises(StaleConnection):
            await web.get(server.url)
        assert len(server.requests) == 2
        assert (await web.get(server.url)).text == "hello"
        assert server.connections == 2


@pytest.mark.parametrize("end", [FIN, RST])
async def test_only_what_was_kept_and_got_no_byte_is_stale(web: httpx2.AsyncClient, end: str) -> None:
    """Repeating anything else might ask the provider twice."""
    async with Server([end], [HELLO], [b"H", end]) as server:
        with pytest.raises(httpx2.ReadError):
            await web.get(server.url)
        await web.get(server.url)
        with pytest.raises(httpx2.ReadError):
            await web.get(server.url)
        assert server.connections == 2


async def test_a_connection_closed_long_before_is_nobodys_error(pool: Transport, web: httpx2.AsyncClient) -> None:
    async with Server([HELLO, FIN], [HELLO]) as server:
        await web.get(server.url)
        ((connection, _),) = next(iter(pool._idle.values()))
        await eventually(lambda: not connection.idle)
        assert (await web.get(server.url)).text == "hello"
        assert server.connections == 2


async def test_a_connection_kept_for_too_long_is_closed(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "KEEP_ALIVE_S", 0.0)
    async with Server([HELLO], [HELLO]) as server:
        await web.get(server.url)
        await web.get(server.url)
        assert server.connections == 2
        await eventually(lambda: server.left)


async def test_a_connection_that_cannot_be_used_again_is_closed(web: httpx2.AsyncClient) -> None:
    """Servers that say they will close and do not must not cost a socket each."""
    async with Server([OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"]) as server:
        assert (await web.get(server.url)).text == "hello"
        await eventually(lambda: server.left == 1, 2)


async def test_closing_the_pool_closes_what_is_kept_also_twice(pool: Transport, web: httpx2.AsyncClient) -> None:
    async with Server([HELLO]) as server:
        await web.get(server.url)
        await pool.aclose()
        await pool.aclose()
        await eventually(lambda: server.left == 1)


async def test_who_leaves_before_the_head_or_in_mid_body_closes_the_connection_at_once(
    web: httpx2.AsyncClient,
) -> None:
    async with Server([], [CHUNKED + b"5\r\nhello\r\n"], [HELLO]) as server:
        waiting = asyncio.create_task(web.get(server.url))
        await eventually(lambda: server.requests)
        waiting.cancel()
        await eventually(lambda: server.left == 1, 1)
        response, answer = await open_answer(web, server.url)
        assert not answer.whole
        await response.aclose()
        await eventually(lambda: server.left == 2, 1)
        assert (await web.get(server.url)).text == "hello"
        assert server.connections == 3


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([b"nonsense\r\n\r\n"], httpx2.RemoteProtocolError),
        ([OK + LINE % 1 * 70], httpx2.RemoteProtocolError),
        ([OK + b"Content-Length: 99\r\n\r\nhello", FIN], httpx2.ReadError),
        ([CHUNKED + b"5\r\nhello\r\n", FIN], httpx2.ReadError),
        ([CHUNKED + b"5\r\nhello\r\n", RST], httpx2.ReadError),
        ([OK + b"\r\n" + b"x" * (transport.MAX_WHOLE_BYTES + 1)], httpx2.RemoteProtocolError),
    ],
    ids=["garbage", "head too large", "cut short", "cut in chunks", "reset", "too much"],
)
async def test_what_goes_wrong_is_one_of_httpx2s_errors(
    web: httpx2.AsyncClient, answer: Sequence[Step], error: type[Exception]
) -> None:
    async with Server(answer, [HELLO]) as server:
        with pytest.raises(error):
            await asyncio.wait_for(web.get(server.url), 5)
        assert (await web.get(server.url)).text == "hello"
        assert server.connections == 2


async def test_a_body_until_close_is_read_to_its_end(web: httpx2.AsyncClient) -> None:
    async with Server([UNTIL_CLOSE, FIN]) as server:
        assert (await web.get(server.url)).text == "hello world"


async def test_a_refused_connection_is_a_connect_error(web: httpx2.AsyncClient) -> None:
    with pytest.raises(httpx2.ConnectError) as caught:
        await web.get(f"http://127.0.0.1:{free_port()}/")
    assert not isinstance(caught.value, StaleConnection)


async def test_the_other_address_of_a_name_is_tried_too(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server([HELLO]) as server:
        loop = asyncio.get_running_loop()

        async def found(host: str, port: int, **_: object) -> list[Any]:
            assert host == "two.test"
            how = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
            return [(*how, ("127.0.0.1", free_port())), (*how, ("127.0.0.1", port))]

        monkeypatch.setattr(loop, "getaddrinfo", found)
        assert (await web.get(f"http://two.test:{server.port}/")).text == "hello"


async def test_a_connection_that_takes_too_long_is_a_timeout(
    web: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT_S", 0.1)
    async with Server() as server:
        with pytest.raises(httpx2.ConnectTimeout):
            await web.get(f"https://127.0.0.1:{server.port}/")
        await eventually(lambda: server.left == 1)


async def test_a_held_answer_is_not_read_until_it_goes_on(web: httpx2.AsyncClient) -> None:
    piece, written = b"x" * 65_536, 0

    class Slow(Server):
        async def _go_on(self, writer: asyncio.StreamWriter, step: Step) -> None:
            nonlocal written
            for _ in range(512):
                writer.write(piece)
                await writer.drain()
                written += 1

    async with Slow([OK + b"Content-Length: %d\r\n\r\n" % (512 * len(piece))], [HELLO]) as server:
        response, answer = await open_answer(web, server.url)
        taken = 0

        def take(chunk: bytes) -> None:
            nonlocal taken
            taken += len(chunk)

        answer.hold()
        answer.pour(take)
        await _stands_still(lambda: written)
        assert written < 512
        held, taken_then = written, taken
        answer.go_on()
        await eventually(lambda: taken > taken_then)
        answer.hold()
        await _stands_still(lambda: written)
        assert held <= written < 512
        answer.go_on()
        while not answer.whole:
            await asyncio.wait_for(answer.turn(), 5)
        assert taken == 512 * len(piece)
        await response.aclose()
        assert server.connections == 1


async def _stands_still(count: Callable[[], int]) -> None:
    """Return when a number does not change any more."""
    seen, since_s = -1, 0.0
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(5):
        while loop.time() - since_s < 0.1:
            if count() != seen:
                seen, since_s = count(), loop.time()
            await asyncio.sleep(0.005)


# A stream of events, as the SDKs' clients ask for it.


class Poster:
    """Stands where an SDK's client is."""

    def __init__(self, web: httpx2.AsyncClient, url: str) -> None:
        self._web, self._url = web, url

    async def post(self, path: str, *, content: bytes, cast_to: object, options: dict[str, Any]) -> httpx2.Response:
        request = self._web.build_request("POST", self._url + path, content=content, headers=options["headers"])
        return await self._web.send(request, stream=True)


class Sink:
    """Has room until it is told that it has none."""

    def __init__(self) -> None:
        self.full = False
        self.asked_for_room = asyncio.Event()
        self._room = asyncio.Event()

    async def room(self) -> None:
        self.asked_for_room.set()
        await self._room.wait()

    def empty(self) -> None:
        self.full = False
        self._room.set()

    def text(self, text: str) -> None: ...

    def refusal(self, text: str) -> None: ...

    def reasoning(self, text: str) -> None: ...

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None: ...

    def usage(self, usage: Usage) -> None: ...


def piece(*events: bytes) -> bytes:
    """Return these events as one chunk."""
    data = b"".join([b"data: %b\n\n" % event for event in events])
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST = b"0\r\n\r\n"


class Stream:
    """One stream that is listened to, up to the event `end`."""

    def __init__(self, web: httpx2.AsyncClient, server: Server) -> None:
        self.sink, self.events = Sink(), list[bytes]()
        calls = Calls(Poster(web, server.url), Transport())
        self.done = asyncio.create_task(http.stream(calls, "v1/x", {"a": 1}, self.sink, self.take))

    def take(self, event: ServerSentEvent) -> bool:
        self.events.append(event.data)
        if event.data == b"bad":
            raise LookupError
        if event.data == b"full":
            self.sink.full = True
        return event.data == b"end"


async def test_a_streams_events_are_taken_as_they_come_and_the_connection_is_used_again(
    web: httpx2.AsyncClient,
) -> None:
    more, rest = asyncio.Event(), asyncio.Event()
    first: Sequence[Step] = [CHUNKED + piece(b"a"), more, piece(b"b", b"c"), rest, piece(b"end"), LAST]
    async with Server(first, [CHUNKED + piece(b"a", b"end") + LAST]) as server:
        stream = Stream(web, server)
        await eventually(lambda: stream.events == [b"a"])
        more.set()
        await eventually(lambda: stream.events == [b"a", b"b", b"c"])
        rest.set()
        await asyncio.wait_for(stream.done, 5)
        assert server.requests[0].startswith(b"POST /v1/x HTTP/1.1\r\n")
        assert server.requests[0].endswith(b'{"a":1}')
        again = Stream(web, server)
        await asyncio.wait_for(again.done, 5)
        assert again.events == [b"a", b"end"]
        assert server.connections == 1


async def test_a_stream_that_goes_on_behind_its_last_event_is_closed_and_not_listened_to(
    web: httpx2.AsyncClient,
) -> None:
    async with Server([CHUNKED + piece(b"a", b"end", b"more"), piece(b"bad")]) as server:
        stream = Stream(web, server)
        await asyncio.wait_for(stream.done, 5)
        assert stream.events == [b"a", b"end"]
        await eventually(lambda: server.left == 1, 1)


@pytest.mark.parametrize("whole", [False, True], ids=["and more to come", "and nothing more"])
async def test_an_event_that_cannot_be_taken_ends_the_stream(web: httpx2.AsyncClient, whole: bool) -> None:
    """Also when the provider has said all that it had to say in one packet."""
    raw = CHUNKED + piece(b"a") + piece(b"bad") + piece(b"end") + (LAST if whole else b"")
    async with Server([raw]) as server:
        stream = Stream(web, server)
        with pytest.raises(LookupError):
            await asyncio.wait_for(stream.done, 5)
        assert stream.events == [b"a", b"bad"]


async def test_a_full_sink_is_waited_for(web: httpx2.AsyncClient) -> None:
    more = asyncio.Event()
    async with Server([CHUNKED + piece(b"full"), more, piece(b"b"), piece(b"end") + LAST]) as server:
        stream = Stream(web, server)
        await asyncio.wait_for(stream.sink.asked_for_room.wait(), 5)
        more.set()
        await eventually(lambda: len(server.requests) == 1)
        assert stream.events == [b"full"]
        stream.sink.empty()
        await asyncio.wait_for(stream.done, 5)
        assert stream.events == [b"full", b"b", b"end"]


@pytest.mark.parametrize("ending", [piece(b"end") + LAST, LAST], ids=["with", "without"])
async def test_a_connection_whose_stream_filled_the_sink_with_its_end_can_be_used_again(
    web: httpx2.AsyncClient, ending: bytes
) -> None:
    """With its end marker or without: a connection that is kept must not stay held."""
    async with Server([CHUNKED + piece(b"full") + ending], [CHUNKED + piece(b"b", b"end") + LAST]) as server:
        stream = Stream(web, server)
        await eventually(lambda: stream.done.done() or stream.sink.asked_for_room.is_set())
        stream.sink.empty()
        await asyncio.wait_for(stream.done, 5)
        again = Stream(web, server)
        await asyncio.wait_for(again.done, 2)
        assert again.events == [b"b", b"end"]


async def test_a_stream_that_is_cancelled_closes_its_connection_at_once(web: httpx2.AsyncClient) -> None:
    async with Server([CHUNKED + piece(b"a")]) as server:
        stream = Stream(web, server)
        await eventually(lambda: stream.events)
        stream.done.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stream.done
        await eventually(lambda: server.left == 1, 1)


# TLS and proxies.


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Make a certificate for `localhost`, `origin.test` and 127.0.0.1, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    made, key = folder / "certificate.pem", folder / "key.pem"
    names = "subjectAltName=DNS:localhost,DNS:origin.test,IP:127.0.0.1"
    how = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = ["openssl", *how.split(), "-addext", names, "-keyout", str(key), "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made, key


@pytest.fixture
def tls(certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """The server's side of TLS, with a certificate that clients made from here on trust."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_https_checks_the_certificate_and_keeps_the_connection(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Server([HELLO], [HELLO], tls=tls) as server:
        async with http.client(Transport()) as web:
            assert [(await web.get(server.url)).text for _ in range(2)] == ["hello"] * 2
        assert server.connections == 1
        monkeypatch.delenv("SSL_CERT_FILE")
        with pytest.raises(httpx2.ConnectError):
            await get(server.url)
        assert len(server.requests) == 2, "not a byte of a request goes to somebody unknown"


WHO = "Basic " + base64.b64encode(b"user:p@ss").decode()


def through(server: Server, user: str = "") -> str:
    return f"http://{user}127.0.0.1:{server.port}"


async def test_http_goes_to_the_proxy_as_a_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server([HELLO], [HELLO]) as proxy:
        monkeypatch.setenv("http_proxy", through(proxy, "user:p%40ss@"))
        async with http.client(Transport()) as web:
            assert [(await web.get("http://origin.test/a?b=c")).text for _ in range(2)] == ["hello"] * 2
        line, *headers = proxy.requests[0].decode().split("\r\n")
        assert line == "GET http://origin.test/a?b=c HTTP/1.1"
        assert "host: origin.test" in [header.lower() for header in headers]
        assert f"Proxy-Authorization: {WHO}" in headers
        assert proxy.connections == 1


async def test_a_proxy_without_a_user_is_told_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server([HELLO]) as proxy:
        monkeypatch.setenv("ALL_PROXY", through(proxy))
        assert (await get("http://origin.test/")).text == "hello"
        assert b"proxy-authorization" not in proxy.requests[0].lower()


async def test_a_proxy_may_be_named_without_its_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """As curl and the SDKs' own clients take it."""
    async with Server([HELLO]) as proxy:
        monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
        assert (await get("http://origin.test/")).text == "hello"


@pytest.mark.parametrize("bypass", ["127.0.0.1", "127.0.0.1:{port}", "*"])
async def test_who_is_in_no_proxy_is_asked_directly(monkeypatch: pytest.MonkeyPatch, bypass: str) -> None:
    async with Server() as proxy, Server([HELLO]) as server:
        monkeypatch.setenv("http_proxy", through(proxy, "user:p%40ss@"))
        monkeypatch.setenv("no_proxy", bypass.format(port=server.port))
        assert (await get(server.url)).text == "hello"
        assert server.requests[0].startswith(b"GET / HTTP/1.1\r\n")
        assert b"proxy-authorization" not in server.requests[0].lower()
        assert proxy.connections == 0


class Tunnel(Server):
    """A proxy that begins TLS itself where a tunnel should: it plays the origin too."""

    def __init__(self, tls: ssl.SSLContext, *answers: Sequence[Step]) -> None:
        super().__init__([b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"], *answers)
        self._origin_tls: ssl.SSLContext | None = tls

    async def _go_on(self, writer: asyncio.StreamWriter, step: Step) -> None:
        if self._origin_tls is not None:
            origin_tls, self._origin_tls = self._origin_tls, None
            await writer.start_tls(origin_tls)


async def test_https_goes_through_a_tunnel(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Tunnel(tls, [HELLO], [HELLO]) as proxy:
        monkeypatch.setenv("https_proxy", through(proxy, "user:p%40ss@"))
        async with http.client(Transport()) as web:
            for path in ("a", "b"):
                assert (await web.get(f"https://origin.test/{path}")).text == "hello"
        connect, *inside = [request.decode().split("\r\n") for request in proxy.requests]
        assert connect == [
            "CONNECT origin.test:443 HTTP/1.1", "Host: origin.test:443", f"Proxy-Authorization: {WHO}", "", "",
        ]  # fmt: skip
        assert [request[0] for request in inside] == ["GET /a HTTP/1.1", "GET /b HTTP/1.1"]
        assert WHO not in str(inside), "the proxy's password is none of the origin's business"
        assert proxy.connections == 1


async def test_an_address_of_the_newer_kind_is_named_to_the_proxy_in_brackets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Server([b"HTTP/1.1 502 Bad Gateway\r\n\r\n"]) as proxy:
        monkeypatch.setenv("https_proxy", through(proxy))
        with pytest.raises(httpx2.ConnectError):
            await get("https://[2001:db8::1]:8443/")
        assert proxy.requests[0].startswith(b"CONNECT [2001:db8::1]:8443 HTTP/1.1\r\nHost: [2001:db8::1]:8443\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"],
        [b"HTTP/1.1 403 Forbidden\r\n\r\nno"],
        [b"nonsense\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n", FIN],
        [b"HTTP/1.1 200 OK\r\n" + LINE % 1 * 20],
        [RST],
    ],
    ids=["no user", "refused", "garbage", "cut", "no end", "reset"],
)
async def test_a_tunnel_that_is_not_granted_is_a_connect_error(
    monkeypatch: pytest.MonkeyPatch, answer: Sequence[Step]
) -> None:
    async with Server(answer) as proxy:
        monkeypatch.setenv("https_proxy", through(proxy))
        with pytest.raises(httpx2.ConnectError):
            await get("https://origin.test/")
        if isinstance(answer[-1], bytes):
            await eventually(lambda: proxy.left == 1, 1)


async def test_a_proxy_that_says_nothing_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "CONNECT_TIMEOUT_S", 0.1)
    async with Server([]) as proxy:
        monkeypatch.setenv("https_proxy", through(proxy))
        with pytest.raises(httpx2.ConnectTimeout):
            await get("https://origin.test/")
        await eventually(lambda: proxy.left == 1, 1)


@pytest.mark.parametrize(
    "address",
    ["socks5://u:canary@127.0.0.1:1", "https://canary@127.0.0.1:1", "http://", "http://canary:x", "http://[::canary"],
)
async def test_a_proxy_of_another_kind_is_a_connect_error_and_said_at_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, address: str
) -> None:
    """Once, by its name: all calls through it will fail, and its address may hold a password."""
    monkeypatch.setenv("all_proxy", address)
    with pytest.raises(httpx2.ConnectError):
        await get("http://origin.test/")
    assert caplog.text.count("ALL_PROXY: only http:// proxies are known") == 1
    assert "canary" not in caplog.text
