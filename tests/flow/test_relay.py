"""Messages are hints: lost, doubled, forged or late, the log decides what a reader sees."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.types import Message

from api.connection import Connection
from api.hub import Hub, Watch
from api.negotiation import NDJSON, SSE
from api.relay import Batch, Reader
from api.stream import LogResponse
from shared.events import START, Entry, EventId, text_data
from shared.log import Append, Log
from shared.queue import Queue
from shared.redis import Scripts
from shared.subscriber import Subscriber
from tests.client import Client, Event, Frames, body, text
from tests.provider import Silence, Text, Tokens, Wait
from tests.stack import Stack, eventually


class Listener:
    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.gaps = 0
        self.news = asyncio.Event()

    def message(self, payload: bytes) -> None:
        self.heard.append(payload)
        self.news.set()

    def gap(self) -> None:
        self.gaps += 1
        self.news.set()


async def test_a_channel_left_and_joined_again_at_once_is_confirmed_at_once(bare: Stack) -> None:
    subscriber = Subscriber(bare.valkey.url)
    await subscriber.start()
    one, other = Listener(), Listener()
    channel = f"{bare.prefix}:c"
    await subscriber.subscribe(channel, one)
    subscriber.unsubscribe(channel)
    await asyncio.wait_for(subscriber.subscribe(channel, other), 2)
    await bare.redis.publish(channel, b"hello")
    async with asyncio.timeout(2):
        await other.news.wait()
    assert (one.heard, other.heard) == ([], [b"hello"])
    await subscriber.stop()


async def test_a_cut_subscription_comes_back_and_owns_up_to_the_gap(bare: Stack) -> None:
    subscriber = Subscriber(bare.valkey.url)
    await subscriber.start()
    listener = Listener()
    channel = f"{bare.prefix}:c"
    await subscriber.subscribe(channel, listener)
    await bare.redis.client_kill_filter(_type="pubsub", skipme=True)
    async with asyncio.timeout(5):
        await listener.news.wait()
    assert listener.gaps == 1
    await bare.redis.publish(channel, b"back")
    await eventually(lambda: listener.heard == [b"back"])
    await subscriber.stop()


async def test_a_subscriber_can_be_stopped_at_any_moment(bare: Stack) -> None:
    """While it connects above all: who is told to exit must not stay for ever."""
    for turns in range(40):
        subscriber = Subscriber(bare.valkey.url)
        await subscriber.start()
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.wait_for(subscriber.stop(), 2)


async def test_a_reader_whose_messages_are_lost_reads_the_log(stack: Stack, client: Client) -> None:
    gate, end = stack.provider.gate(), stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Text("b"), Wait(end))
    job_id = await client.submit()
    stream = client.events(job_id)
    events = [await anext(stream) for _ in range(3)]
    watch = stack.apis[0].app.state.rejoin.hub._watches[job_id]
    heard = watch.message
    lost: list[bytes] = []
    watch.message = lambda payload: lost.append(payload) if not lost else heard(payload)
    gate.open()
    await eventually(lambda: lost)
    end.open()
    events += [event async for event in stream]
    assert lost[0].startswith(b"1-2\ntoken\n"), "this message never reached the reader"
    assert text(events) == "ab"
    assert [event.id for event in events] == ["0-1", "1-0", "1-1", "1-2", "1-3"]


async def test_forged_and_doubled_messages_change_nothing(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Text("b"))
    job_id = await client.submit()
    stream = client.events(job_id)
    events = [await anext(stream) for _ in range(3)]
    log = stack.keys.log(job_id)
    for message in (b"nonsense", b"1-1\ntoken\n{}", b"1-7\ntoken\n{}", b"x-y\ntoken\n{}", b"\xff\n\xff\n"):
        await stack.redis.publish(log, message)
    gate.open()
    events += [event async for event in stream]
    assert text(events) == "ab"
    assert events[-1].id == "1-3"


async def test_a_reader_that_reads_nothing_costs_bounded_memory(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("a"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 0)
    reader = hub.attach(job_id, START)
    batches = reader.batches()
    async with asyncio.timeout(5):
        assert len(await anext(batches)) == 3
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    watch = hub._watches[job_id]
    most = 0
    for seq in range(2, 400):
        watch.message(b'1-%d\ntoken\n{"text":"%b"}' % (seq, b"x" * 10_000))
        watch.hand_out()
        most = max(most, reader._inbox_bytes)
    assert 200 * 1024 < most <= 256 * 1024
    assert (reader._inbox_bytes, len(reader._inbox)) == (0, 0), "from here on the log is the better place"
    waiting.cancel()
    hub.detach(reader)
    assert hub.open_streams == 0
    assert reader.cursor == EventId(1, 1)


async def test_a_client_that_stops_reading_is_cut_off_and_slows_nobody_down(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hub.STALL_S", 0.3)
    pieces = ["x" * 20_000 for _ in range(300)]
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Tokens(pieces, delay_s=0.002))
    job_id = await client.submit()
    await client.until(job_id, "token")
    host, port = stack.url.removeprefix("http://").split(":")
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect((host, int(port)))
    reader, writer = await asyncio.open_connection(sock=narrow, limit=1024)
    writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"1-1")
    hub = stack.apis[0].app.state.rejoin.hub
    other = asyncio.create_task(client.all_events(job_id))
    await eventually(lambda: hub.open_streams == 2)
    gate.open()
    assert text(await other) == "a" + "".join(pieces)
    await eventually(lambda: hub.open_streams == 0)
    with pytest.raises(ConnectionResetError):
        await reader.read(-1)
    writer.close()


async def test_a_connection_that_is_gone_already_is_nobodys_error() -> None:
    """uvloop's sockets raise ValueError then, not OSError; a reader must be detached all the same."""

    class Gone:
        aborted = False

        def get_extra_info(self, _: str) -> "Gone":
            return self

        def setsockopt(self, *_: object) -> None:
            raise ValueError("negative file descriptor")

        def abort(self) -> None:
            self.aborted = True

    class Cycle:
        def __init__(self, transport: Gone) -> None:
            self.transport = transport

        async def send(self, _: Message) -> None: ...

    gone = Gone()
    connection = Connection(Cycle(gone).send)
    connection.bound_buffer()
    connection.abort()
    assert gone.aborted


async def test_streams_end_when_their_readers_leave(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("a"), Silence())
    job_id = await client.submit()
    hub = stack.apis[0].app.state.rejoin.hub
    streams = [client.events(job_id) for _ in range(20)]
    for stream in streams:
        await anext(stream)
    assert hub.open_streams == 20
    for stream in streams:
        await stream.aclose()  # type: ignore[attr-defined]
    await eventually(lambda: hub.open_streams == 0)
    assert hub._watches == {}
    job = await client.job(job_id)
    assert job["status"] == "running", "a reader's leaving is no cancel"


async def test_a_stored_request_that_cannot_be_read_fails_its_job(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await bare.redis.hset(bare.keys.job(job_id), "request", '{"from":"the future"}')  # type: ignore[misc]
    worker = await bare.worker()
    events = await client.all_events(job_id)
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "internal_error")
    assert (await client.all_events(await client.submit()))[-1].event == "completed"
    assert worker.worker.tasks == {}


async def test_a_worker_whose_writer_fails_leaves_and_hands_its_jobs_over(bare: Stack) -> None:
    """A worker without one of its parts must not keep its lease."""
    await bare.api()
    client = bare.client()
    bad = await bare.worker()

    async def fail(appends: object) -> list[bool]:
        raise AssertionError("planted")

    bad.worker.workshop.plane.home.log.append = fail  # type: ignore[method-assign]
    bare.provider.script("m", Text("half"), Silence())
    bare.provider.then("m", Text("whole"))
    job_id = await client.submit()
    await bare.provider.next_call()
    await bare.worker()
    events = await client.all_events(job_id)
    assert text(events) == "whole"
    assert [event.data["reason"] for event in events if event.event == "restarted"] == ["worker_stopped"]
    assert bad.worker._stopping.is_set()


class Raw:
    """One connection to an API process, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, media: str) -> None:
        self.reader = reader
        self.head = b""
        self._writer = writer
        self._media = media
        self._frames = Frames()
        self._rest = b""

    @classmethod
    async def to(cls, url: str, *, media: str = SSE, window: int | None = None) -> "Raw":
        """Connect; `window` bytes are what the kernel takes for us unread."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if window is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        sock.setblocking(False)
        address = urlsplit(url)
        await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
        return cls(*await asyncio.open_connection(sock=sock, limit=window or 65_536), media)

    def send(self, line: str, *headers: str, content: bytes = b"") -> None:
        given = "".join([f"{header}\r\n" for header in ("Host: x", f"Accept: {self._media}", *headers)])
        self._writer.write(f"{line}\r\n{given}\r\n".encode() + content)

    async def status(self) -> int:
        """Return an answer's status when its head is there."""
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 5)
        return int(self.head[9:12])

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events of a stream that ends well."""
        assert b"\r\ntransfer-encoding: chunked\r\n" in self.head
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            chunk = await self.reader.readexactly(size)
            assert await self.reader.readexactly(2) == b"\r\n"
            for event in self._frames.feed(chunk) if self._media == SSE else self._lines(chunk):
                yield event
        assert await self.reader.readexactly(2) == b"\r\n"

    def _lines(self, chunk: bytes) -> list[Event]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [Event(**json.loads(line)) for line in lines]

    def close(self) -> None:
        self._writer.transport.abort()


async def raw_stream(stack: Stack, job_id: str, *, version: str = "1.1", media: str = SSE, **how: Any) -> Raw:
    """Return a connection on which the job's events are about to come."""
    raw = await Raw.to(stack.url, media=media, **how)
    raw.send(f"GET /v1/jobs/{job_id}/events HTTP/{version}")
    assert await raw.status() == 200
    return raw


class Seen:
    """What went past the readers' tasks, and what through them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.delivered: list[list[str]] = []
        """Ids in each batch that was written at once."""
        self.yielded: list[str] = []
        deliver, batches = LogResponse.deliver, Reader.batches

        def seen(response: LogResponse, batch: Batch) -> bool:
            done = deliver(response, batch)
            if done:
                self.delivered.append([str(entry.id) for entry in batch.entries])
            return done

        async def noted(reader: Reader, **how: bool) -> AsyncIterator[list[Entry]]:
            async with aclosing(batches(reader, **how)) as given:
                async for batch in given:
                    self.yielded += [str(entry.id) for entry in batch]
                    yield batch

        monkeypatch.setattr(LogResponse, "deliver", seen)
        monkeypatch.setattr(Reader, "batches", noted)

    @property
    def ids(self) -> list[str]:
        return [id for batch in self.delivered for id in batch]


def hub_of(stack: Stack) -> Hub:
    hub: Hub = stack.apis[0].app.state.rejoin.hub
    return hub


async def parked(stack: Stack, job_id: str) -> Reader:
    """Return the job's only reader when it waits for news."""

    def waiting() -> list[Reader]:
        watch = hub_of(stack)._watches.get(job_id)
        return [reader for reader in watch.readers if reader._parked] if watch else []

    (reader,) = await eventually(waiting)
    return reader


@pytest.mark.parametrize("media", [SSE, NDJSON])
@pytest.mark.parametrize("version", ["1.1", "1.0"])
async def test_live_tokens_reach_a_parked_reader_in_order_and_wake_no_task(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch, media: str, version: str
) -> None:
    seen = Seen(monkeypatch)
    gate, end = stack.provider.gate(), stack.provider.gate()
    pieces = [f"{n} \n\n" for n in range(10)]
    stack.provider.script("m", Text("a"), Wait(gate), Tokens(pieces, delay_s=0.01), Wait(end), Text("z"))
    job_id = await client.submit()
    raw = await raw_stream(stack, job_id, version=version, media=media)
    coming = raw.events()
    events = [await anext(coming) for _ in range(3)]
    await parked(stack, job_id)
    gate.open()
    async for event in coming:
        events.append(event)
        if text(events) == "a" + "".join(pieces):
            break
    end.open()
    events += [event async for event in coming]
    assert text(events) == "a" + "".join(pieces) + "z"
    ids = [event.id for event in events]
    assert ids == ["0-1", "1-0", *[f"1-{seq}" for seq in range(1, len(ids) - 1)]]
    assert (events[-1].event, events[-1].id) == ("completed", seen.yielded[-1]), "the end is the task's to write"
    assert set(ids[3:-2]) <= set(seen.ids), "the task slept through all of them"
    assert sorted([*seen.ids, *seen.yielded]) == sorted(ids)
    raw.close()


@pytest.mark.parametrize("media", [SSE, NDJSON])
async def test_a_client_that_takes_nothing_for_a_while_loses_nothing(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch, media: str
) -> None:
    """What cannot be written at once goes through the reader's task, and past it again when there is room."""
    seen = Seen(monkeypatch)
    first, second, end = [stack.provider.gate() for _ in range(3)]
    pieces = [f"{n:04}" + "x" * 20_000 for n in range(100)]
    many = Tokens(pieces, delay_s=0.001)
    stack.provider.script("m", Text("a"), Wait(first), many, Wait(second), Text("b"), Wait(end))
    job_id = await client.submit()
    raw = await raw_stream(stack, job_id, media=media, window=16_384)
    coming = raw.events()
    events = [await anext(coming) for _ in range(3)]
    reader = await parked(stack, job_id)
    through_the_task = len(seen.yielded)
    first.open()
    await eventually(lambda: reader in hub_of(stack)._sending and (reader._inbox or reader._lagging))
    assert seen.delivered, "until then all went at once"
    assert len(seen.yielded) == through_the_task
    async for event in coming:
        events.append(event)
        if len(text(events)) == 1 + sum(map(len, pieces)):
            break
    assert len(seen.yielded) > through_the_task
    await parked(stack, job_id)
    second.open()
    events.append(await anext(coming))
    assert seen.ids[-1] == events[-1].id, "there is room again"
    end.open()
    events += [event async for event in coming]
    assert text(events) == "a" + "".join(pieces) + "b"
    keys = [event.key for event in events]
    assert keys == sorted(set(keys))
    assert events[-1].event == "completed"
    raw.close()


async def test_what_comes_in_one_turn_is_written_at_once(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five messages, one write a reader."""
    seen, messages = Seen(monkeypatch), list[bytes]()
    message = Watch.message

    def heard(watch: Watch, payload: bytes) -> None:
        messages.append(payload)
        message(watch, payload)

    monkeypatch.setattr(Watch, "message", heard)
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    scripts = Scripts(bare.commands)
    log, queue = Log(bare.commands, scripts, bare.keys), Queue(bare.commands, scripts, bare.keys)
    await queue.register("w", 60)
    (claim,) = (await queue.claim("w", 1, 60)).claims
    raws = [await raw_stream(bare, job_id, media=media) for media in (SSE, SSE, NDJSON)]
    streams = [raw.events() for raw in raws]
    for coming in streams:
        assert [(await anext(coming)).event for _ in range(2)] == ["queued", "started"]
    await eventually(lambda: all(reader._parked for reader in hub_of(bare)._watches[job_id].readers))
    messages.clear()
    appends = [
        Append(job_id, claim.worker, EventId(1, seq), claim.log_length + seq - 1, [("token", text_data(f"{seq} "))])
        for seq in range(1, 6)
    ]
    assert await asyncio.gather(*[log.append([append]) for append in appends]) == [[True]] * 5
    for coming in streams:
        assert text([await anext(coming) for _ in range(5)]) == "1 2 3 4 5 "
    assert len(messages) == 5
    assert seen.delivered == [["1-1", "1-2", "1-3", "1-4", "1-5"]] * 3
    for raw in raws:
        raw.close()


async def test_the_head_of_a_stream_and_its_first_bytes_come_together(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    await client.all_events(job_id)
    raw = await Raw.to(stack.url)
    raw.send(f"GET /v1/jobs/{job_id}/events HTTP/1.1")
    head, _, first = (await raw.reader.read(65_536)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"retry: " in first
    raw.close()


@pytest.mark.parametrize("media", [SSE, NDJSON])
async def test_who_comes_back_to_a_silent_job_is_answered_at_once(stack: Stack, client: Client, media: str) -> None:
    """Without its head an answer is none: a browser's `fetch` hangs, a proxy in between gives up."""
    stack.provider.script("m", Text("a"), Silence())
    job_id = await client.submit()
    token = await client.until(job_id, "token")
    raw = await Raw.to(stack.url, media=media)
    raw.send(f"GET /v1/jobs/{job_id}/events HTTP/1.1", f"Last-Event-ID: {token.id}")
    assert await asyncio.wait_for(raw.status(), 2) == 200
    raw.close()


@pytest.mark.parametrize(("media", "status"), [("application/json", 202), (SSE, 200), (NDJSON, 200)])
async def test_a_client_may_ask_before_it_sends_its_body(stack: Stack, media: str, status: int) -> None:
    """`Expect: 100-continue`, as curl sends it with a long prompt."""
    stack.provider.script("m", Text("answer"))
    content = json.dumps(body()).encode()
    raw = await Raw.to(stack.url, media=media)
    headers = ("Content-Type: application/json", f"Content-Length: {len(content)}", "Expect: 100-continue")
    raw.send("POST /v1/jobs HTTP/1.1", *headers)
    assert await raw.status() == 100
    raw._writer.write(content)
    assert await raw.status() == status
    if status == 200:
        events = [event async for event in raw.events()]
        assert text(events) == "answer"
    else:
        length = int(raw.head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        assert json.loads(await raw.reader.readexactly(length))["status"] == "queued"
    raw.send("GET /livez HTTP/1.1")
    assert await raw.status() == 200, "the connection is as good as before"
    raw.close()


async def test_a_head_alone_is_answered_without_a_body(stack: Stack, client: Client) -> None:
    """HEAD, and answers that have no body: nothing of them may wait for a second write."""
    job_id = await client.submit()
    last = (await client.all_events(job_id))[-1].id
    raw = await Raw.to(stack.url)
    events = f"/v1/jobs/{job_id}/events"
    for line, header, status in [
        ("HEAD /page/app.js", "A: b", 200),
        ("HEAD /page/nothing.js", "A: b", 404),
        (f"HEAD {events}", "A: b", 405),
        (f"GET {events}", f"Last-Event-ID: {last}", 204),
        (f"DELETE /v1/jobs/{job_id}", "A: b", 204),
        ("GET /livez", "A: b", 200),
    ]:
        raw.send(f"{line} HTTP/1.1", header)
        assert await raw.status() == status, line
    raw.close()
