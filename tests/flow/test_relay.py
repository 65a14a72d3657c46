"""Messages are hints: lost, doubled, forged or late, the log decides what a reader sees."""

import asyncio
import socket

import pytest

from api.connection import Connection
from shared.events import START, EventId
from shared.subscriber import Subscriber
from tests.client import Client, text
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


async def test_a_reader_whose_messages_are_lost_reads_the_log(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Text("b"))
    job_id = await client.submit()
    stream = client.events(job_id)
    events = [await anext(stream) for _ in range(3)]
    watch = stack.apis[0].app.state.rejoin.hub._watches[job_id]
    heard = watch.message
    lost: list[bytes] = []
    watch.message = lambda payload: lost.append(payload) if not lost else heard(payload)
    gate.open()
    events += [event async for event in stream]
    assert lost, "the next message never reached the reader"
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
    reader = hub.attach(job_id, START)
    batches = reader.batches()
    async with asyncio.timeout(5):
        assert len(await anext(batches)) == 3
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    watch = hub._watches[job_id]
    for seq in range(2, 400):
        watch.message(b'1-%d\ntoken\n{"text":"%b"}' % (seq, b"x" * 10_000))
    assert reader._inbox_bytes <= 256 * 1024
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

    gone = Gone()
    connection = Connection({"rejoin.transport": gone})
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

    bad.worker.workshop._log.append = fail  # type: ignore[method-assign]
    bare.provider.script("m", Text("half"), Silence())
    bare.provider.then("m", Text("whole"))
    job_id = await client.submit()
    await bare.provider.next_call()
    await bare.worker()
    events = await client.all_events(job_id)
    assert text(events) == "whole"
    assert [event.data["reason"] for event in events if event.event == "restarted"] == ["worker_stopped"]
    assert bad.worker._stopping.is_set()
