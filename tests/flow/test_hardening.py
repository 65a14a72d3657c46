"""What should not happen, and does: each of these once left a job without an end, or restarted a healthy one."""

import asyncio
import json
import signal
import socket
import time
from functools import partial

import pytest

from shared.events import EventId, dump
from shared.jobs import Jobs
from shared.log import Append, Log
from shared.queue import Queue
from shared.redis import Scripts
from tests.client import Client, body, text
from tests.provider import Eof, HttpError, RawBytes, Silence, Text, Wait
from tests.stack import Process, Stack, eventually
from worker.attempt import Stop


def chunk(**choice: object) -> RawBytes:
    """Return one chunk of an OpenAI stream with an odd choice in it."""
    return RawBytes(b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n")


@pytest.mark.parametrize(
    "odd",
    [
        chunk(delta={"content": [{"type": "text", "text": "x"}]}),
        chunk(delta={"content": 5}),
        chunk(delta={"reasoning_content": {"a": 1}}),
        chunk(delta="text"),
        RawBytes(b"data: 5\n\n"),
        RawBytes(b'data: {"choices":5}\n\n'),
        RawBytes(b"data: \xff\xfe\n\n"),
    ],
    ids=lambda step: step.data[:60].decode(errors="replace").strip(),
)
async def test_an_odd_chunk_fails_its_own_job_only(stack: Stack, client: Client, odd: RawBytes) -> None:
    gate = stack.provider.gate()
    stack.provider.script("good", Text("a"), Wait(gate), Text("b"))
    good = await client.submit("good")
    await client.until(good, "token")
    stack.provider.script("odd", Text("half"), odd, Eof())
    events = await client.all_events(await client.submit("odd"))
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "provider_protocol")
    gate.open()
    assert text(await client.all_events(good)) == "ab"


@pytest.mark.parametrize("reason", [True, {"a": 1}, "\ud83d", "x" * 500, "line\nbreak"])
async def test_an_odd_finish_reason_ends_the_job_all_the_same(stack: Stack, client: Client, reason: object) -> None:
    stack.provider.script("m", Text("x"), chunk(delta={}, finish_reason=reason), RawBytes(b"data: [DONE]\n\n"), Eof())
    events = await client.all_events(await client.submit())
    assert (events[-1].event, events[-1].data["finish_reason"]) == ("completed", "other")


async def test_a_frozen_redis_is_no_reason_to_take_anybodys_jobs(bare: Stack) -> None:
    """On thaw, a reap that was sent before the freeze runs before the others' renewals: every lease looks run out."""
    bare.configure(lease_s=0.6)
    await bare.worker()
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("x"), Silence())
    jobs = [await client.submit() for _ in range(6)]
    await eventually(lambda: bare.provider.active == 6)
    await eventually(lambda: all(worker.worker.workshop.lease.steady for worker in bare.workers))
    server = bare.valkey.process
    for _ in range(3):
        server.send_signal(signal.SIGSTOP)
        await asyncio.sleep(0.9)  # the fault itself: longer than a lease
        server.send_signal(signal.SIGCONT)
        await eventually(lambda: all(worker.worker.workshop.lease.steady for worker in bare.workers))
    assert len(bare.provider.calls) == 6
    for job_id in jobs:
        assert (await client.job(job_id))["attempts"] == 1
        await client.cancel(job_id)


async def test_a_cancel_that_meets_a_hand_over_still_cancels(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    local = await bare.worker()
    bare.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    attempt = local.worker.workshop.attempts[job_id]
    attempt.stop(Stop.HAND_OVER)
    attempt.stop(Stop.CANCEL)
    assert (await client.all_events(job_id))[-1].event == "cancelled"
    assert len(bare.provider.calls) == 1


async def test_a_release_of_a_job_that_is_to_be_cancelled_ends_it(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    scripts = Scripts(bare.commands)
    queue = Queue(bare.commands, scripts, bare.keys)
    await queue.register("w", 60)
    (claim,) = (await queue.claim("w", 1, 60)).claims
    assert await Jobs(bare.commands, scripts, bare.keys).cancel(job_id, 60) == "cancelling"
    assert await queue.release(job_id, "w", "worker_stopped", claim.attempt)
    assert [event.event for event in await client.all_events(job_id)] == ["queued", "started", "cancelled"]
    assert await bare.redis.zcard(bare.keys.queue) == 0


async def test_a_job_that_is_held_and_not_run_is_taken_over(stack: Stack, client: Client) -> None:
    """Whatever went wrong in a worker: what it holds in Redis and does not run is let go."""
    stack.provider.script("m", Text("x"), Silence())
    stack.provider.then("m", Text("whole"))
    job_id = await client.submit()
    await client.until(job_id, "token")
    workshop = stack.workers[0].worker.workshop
    workshop.attempts[job_id].stop(Stop.LOST)
    events = await asyncio.wait_for(client.all_events(job_id), 20)
    assert text(events) == "whole"
    assert [event.data["reason"] for event in events if event.event == "restarted"] == ["worker_lost"]


async def test_a_call_that_cancels_itself_fails_its_job(stack: Stack, client: Client) -> None:
    providers = stack.workers[0].worker.workshop.providers

    class Stray:
        async def generate(self, *_: object) -> None:
            raise asyncio.CancelledError

        async def close(self) -> None: ...

    providers._providers["openai"] = Stray()  # type: ignore[assignment]
    events = await client.all_events(await client.submit())
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "internal_error")


async def test_a_worker_that_waits_for_redis_can_be_stopped(bare: Stack) -> None:
    process = Process(["-m", "worker"], bare.environment(REDIS_URL="redis://127.0.0.1:1/0"), "waiting: ")
    await process.start()
    process.signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.exit_code(), 5) == 0
    await process.stop()


async def test_a_job_from_a_clock_that_was_ahead_is_claimed_all_the_same(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await bare.redis.zadd(bare.keys.queue, {job_id: time.time() * 1000 + 3_600_000})
    await bare.worker()
    assert (await client.all_events(job_id))[-1].event == "completed"


async def test_wake_tokens_do_not_outnumber_the_jobs_that_wait(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    for _ in range(20):
        await client.cancel(await client.submit())
    waiting = [await client.submit() for _ in range(3)]
    assert await bare.redis.llen(bare.keys.wake) <= 3  # type: ignore[misc]
    await bare.worker()
    for job_id in waiting:
        assert (await client.all_events(job_id))[-1].event == "completed"


async def test_a_job_without_a_token_has_no_first_one(stack: Stack, client: Client) -> None:
    stack.provider.script("m", HttpError(500))
    job_id = await client.submit()
    await client.all_events(job_id)
    assert (await client.job(job_id))["first_token_at"] is None


async def test_a_log_that_has_lost_its_last_writes_is_never_continued_in_silence(bare: Stack) -> None:
    """Power cut, or a replica that lagged: the ids come again, with another text."""
    api = await bare.api()
    client = bare.client()
    job_id = await client.submit()
    scripts = Scripts(bare.commands)
    log, queue = Log(bare.commands, scripts, bare.keys), Queue(bare.commands, scripts, bare.keys)
    await queue.register("w", 60)
    (claim,) = (await queue.claim("w", 1, 60)).claims

    async def write(seq: int, piece: str) -> None:
        token = Append(
            job_id, claim.worker, EventId(1, seq), claim.log_length + seq - 1, [("token", dump({"text": piece}))]
        )
        assert await log.append([token]) == [True]

    await write(1, "kept ")
    older = await bare.redis.dump(bare.keys.log(job_id))
    stream = client.events(job_id)
    events = [await anext(stream) for _ in range(3)]
    await write(2, "lost")
    events.append(await anext(stream))
    await bare.redis.restore(bare.keys.log(job_id), 60_000, older, replace=True)
    await write(2, "other")
    for watch in api.app.state.rejoin.hub._watches.values():
        watch.gap()
    events.append(await anext(stream))
    assert (events[-1].event, events[-1].data["text"]) == ("snapshot", "kept other")
    assert text(events) == "kept other"
    await stream.aclose()  # type: ignore[attr-defined]


async def test_nothing_is_written_behind_a_hole(stack: Stack, client: Client) -> None:
    """Redis came back without its last writes: the attempt that wrote them is over, the job starts again."""
    first, second = stack.provider.gate(), stack.provider.gate()
    stack.provider.script("m", Text("one "), Wait(first), Text("two "), Wait(second), Text("three"))
    stack.provider.then("m", Text("whole"))
    job_id = await client.submit()
    await eventually(partial(_top_is, stack, job_id, b"1-1"))
    older = await stack.redis.dump(stack.keys.log(job_id))
    first.open()
    await eventually(partial(_top_is, stack, job_id, b"1-2"))
    await stack.redis.restore(stack.keys.log(job_id), 60_000, older, replace=True)
    second.open()
    await eventually(lambda: len(stack.provider.calls) == 2, 15)
    events = await client.all_events(job_id)
    assert [event.id for event in events][:4] == ["0-1", "1-0", "1-1", "2-0"]
    assert text(events) == (await client.job(job_id))["text"] == "whole"


async def _top_is(stack: Stack, job_id: str, id: bytes) -> bool:
    return [top for top, _ in await stack.redis.xrevrange(stack.keys.log(job_id), count=1)] == [id]


async def test_a_waiting_job_whose_log_is_gone_fails_and_calls_nobody(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await bare.redis.delete(bare.keys.log(job_id))
    await bare.worker()
    other = await client.submit("other")
    assert (await client.all_events(other))[-1].event == "completed"
    job = await client.job(job_id)
    assert (job["status"], job["error"]["code"]) == ("failed", "log_lost")
    assert [call.model for call in bare.provider.calls] == ["other"]


async def test_who_does_not_want_to_wait_gets_what_is_there(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    token = await client.until(job_id, "token")
    url, accept = f"/v1/jobs/{job_id}/events", {"Accept": "application/json"}
    answer = (await client.http.get(url, params={"wait_s": 0}, headers=accept)).json()
    assert [event["event"] for event in answer["events"]] == ["queued", "started", "token"]
    asked = time.monotonic()
    answer = (await client.http.get(url, params={"wait_s": 0, "last_event_id": token.id}, headers=accept)).json()
    assert answer == {"events": [], "last_event_id": token.id, "closed": False}
    assert time.monotonic() - asked < 0.5


async def test_every_route_says_within_a_second_that_redis_hangs(bare: Stack) -> None:
    await bare.worker()
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    server = bare.valkey.process
    server.send_signal(signal.SIGSTOP)
    try:
        routes = [
            ("POST", "/v1/jobs"),
            ("GET", "/v1/jobs"),
            ("GET", f"/v1/jobs/{job_id}"),
            ("GET", f"/v1/jobs/{job_id}/events"),
            ("POST", f"/v1/jobs/{job_id}/cancel"),
            ("DELETE", f"/v1/jobs/{job_id}"),
            ("GET", "/readyz"),
        ]

        async def ask(method: str, path: str) -> tuple[int, float]:
            asked = time.monotonic()
            json_body = body() if (method, path) == ("POST", "/v1/jobs") else None
            response = await client.http.request(method, path, json=json_body)
            assert response.headers["retry-after"]
            return response.status_code, time.monotonic() - asked

        answers = await asyncio.gather(*[ask(method, path) for method, path in routes * 3])
        assert {status for status, _ in answers} == {503}
        assert max(took for _, took in answers) < 1.3
        assert (await client.http.get("/livez")).status_code == 200
    finally:
        server.send_signal(signal.SIGCONT)


async def raw_get(url: str, *paths: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send requests behind each other on one connection, without waiting for an answer."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for path in paths:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return reader, writer


async def test_who_pipelines_and_leaves_takes_nobody_with_him(bare: Stack) -> None:
    """uvicorn then watches the second request: only the transport knows that the first one's client is gone."""
    bare.configure(heartbeat_s=0.4)
    await bare.worker()
    api = await bare.api()
    client = bare.client()
    gates = [bare.provider.gate() for _ in range(2)]
    for name, gate in zip("ab", gates, strict=True):
        bare.provider.script(name, Text("one "), Wait(gate), Text("two "), Silence())
    jobs = [await client.submit(name) for name in "ab"]
    hub = api.app.state.rejoin.hub
    for job_id in jobs:
        reader, writer = await raw_get(api.url, f"/v1/jobs/{job_id}/events", "/livez")
        await reader.readuntil(b"one ")
        writer.transport.abort()
    streams = [client.events(job_id) for job_id in jobs]
    for stream in streams:
        assert [(await anext(stream)).event for _ in range(3)] == ["queued", "started", "token"]
    for gate in gates:
        gate.open()
    for stream in streams:
        async with asyncio.timeout(3):
            assert (await anext(stream)).data["text"] == "two "
    reader, writer = await raw_get(api.url, f"/v1/jobs/{jobs[0]}/events")
    async with asyncio.timeout(3):
        for _ in range(4):
            await reader.readuntil(b": ping\n")
    assert not hub._beats.done()
    writer.close()


async def test_a_client_that_stops_reading_at_the_end_is_cut_off_too(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.hub.STALL_S", 0.2)
    monkeypatch.setattr("api.hub.TICK_S", 0.05)
    stack.provider.script("m", *[Text("x" * 200_000) for _ in range(12)])
    job_id = await client.submit()
    await client.all_events(job_id)
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 0)
    narrow = socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    narrow.connect(("127.0.0.1", int(stack.url.rsplit(":", 1)[1])))
    narrow.sendall(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await eventually(lambda: hub.open_streams == 1)
    await eventually(lambda: hub.open_streams == 0, 10)
    narrow.close()


async def test_nothing_is_appended_behind_an_end_that_was_written_over_lost_events(bare: Stack) -> None:
    """Redis came back without the last event, and somebody else has ended the job: the length is right again."""
    await bare.api()
    client = bare.client()
    job_id = await client.submit(on_worker_lost="fail")
    scripts = Scripts(bare.commands)
    queue, log = Queue(bare.commands, scripts, bare.keys), Log(bare.commands, scripts, bare.keys)
    await queue.register("w", 60)
    (claim,) = (await queue.claim("w", 1, 60)).claims

    def token(seq: int) -> Append:
        return Append(job_id, "w", EventId(1, seq), claim.log_length + seq - 1, [("token", b'{"text":"a"}')])

    assert await log.append([token(1)]) == [True]
    older = await bare.redis.dump(bare.keys.log(job_id))
    assert await log.append([token(2)]) == [True]
    await bare.redis.restore(bare.keys.log(job_id), 60_000, older, replace=True)
    await bare.redis.zadd(bare.keys.leases, {"w": 1})
    await queue.reap(1, 60, 2**50)
    assert await log.append([token(3)]) == [False]
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "token", "failed"]


async def test_a_provider_held_for_want_of_room_is_read_again_when_there_is_room(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What attempts have left pending when they end is given back; nobody stays held who need not be."""
    writer = stack.workers[0].worker.workshop.writers[""]
    monkeypatch.setattr("worker.writer.MAX_PENDING", 1_000)
    stack.provider.script("m", *[Text("x" * 900) for _ in range(20)])
    jobs = [await client.submit() for _ in range(8)]
    for job_id in jobs:
        assert len(text(await client.all_events(job_id))) == 18_000
    assert writer.pending == 0
    assert not writer.full


async def test_readers_whose_process_may_not_subscribe_miss_nothing(
    bare: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """An ACL without our channels: its readers look into the log, and the operator is told."""
    user = f"user-{bare.prefix}"
    await bare.redis.execute_command("ACL", "SETUSER", user, "on", ">secret", "~*", "+@all", "resetchannels")
    try:
        await bare.worker()
        await bare.api(redis_url=bare.valkey.url.replace("//", f"//{user}:secret@"))
        bare.provider.script("m", Text("all "), Text("of it"))
        client = bare.client()
        events = await client.all_events(await client.submit())
        assert (text(events), events[-1].event) == ("all of it", "completed")
        assert "refuses a subscription" in caplog.text
    finally:
        await bare.redis.execute_command("ACL", "DELUSER", user)
