"""Readers in crowds: cut anywhere, left by their API process, gone at random; nobody gets another's frame."""

import asyncio
import contextlib
import json
import random
import resource
import signal
import time

import pytest

from tests.client import Frames, body, text
from tests.faults.reader import Reader, stream
from tests.faults.scene import Scene
from tests.provider import Reasoning, Text, Tokens, Wait
from tests.stack import Stack, eventually
from tests.valkey import free_port

READERS = 300

API_CONNECTIONS = 2
WORKER_CONNECTIONS = 5
"""To Redis, at most: commands and subscriptions; a worker's leases, its wait for work, and arq's health line."""


@pytest.fixture(autouse=True)
def many_files() -> None:
    """Each reader is two sockets of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))


async def test_a_finished_answer_cut_at_every_byte_and_resumed_is_whole(quick: Stack) -> None:
    """Case 34. Whatever byte the connection breaks at, the last complete id brings exactly the rest."""
    await quick.api()
    await quick.api()
    await quick.worker()
    scene = Scene(quick)
    words = Tokens(["Grüße ", "\n\nevent: done\n\n", "\r", "\u2028", "😀 ", "end"], delay_s=0.02)
    job_id, reader = await scene.running(Reasoning("hm "), words)
    await reader.finish()
    url = f"/v1/jobs/{job_id}/events"
    live = b"".join([_frame(event) for event in _raw(reader)])
    replayed = b"".join([chunk async for chunk in stream(scene.urls[0] + url)])
    rests: dict[str, str] = {}
    for response in (live, replayed):
        assert len(response) > 300
        for offset in range(len(response) + 1):
            seen = Frames().feed(response[:offset])
            if not seen or seen[-1].event == "completed":
                continue
            last = seen[-1].id
            if last not in rests:
                rest = [chunk async for chunk in stream(scene.urls[len(rests) % 2] + url, last)]
                events = Frames().feed(b"".join(rest))
                assert events[-1].event == "completed"
                assert all(event.key > seen[-1].key for event in events)
                rests[last] = text(events)
            assert text(seen) + rests[last] == "".join(words.pieces())
    assert len(rests) >= 8
    await scene.assert_clean()


def _raw(reader: Reader) -> list[tuple[str, str, str]]:
    return [(e.id, e.event, json.dumps(e.data)) for e in reader.reading.events]


def _frame(event: tuple[str, str, str]) -> bytes:
    return f"event: {event[1]}\ndata: {event[2]}\nid: {event[0]}\n\n".encode()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_hundreds_of_readers_of_a_dying_api_process_miss_nothing(quick: Stack, how: signal.Signals) -> None:
    """Cases 35, 37. All resume elsewhere; Redis' connections do not grow with them."""
    port = free_port()
    doomed, api, _ = await asyncio.gather(quick.api_process(port), quick.api(), quick.worker())
    dying = f"http://127.0.0.1:{port}"
    scene, gate = Scene(quick), quick.provider.gate()
    jobs = []
    for n in range(10):
        pieces = Tokens([f"job {n} says {i}. " for i in range(60)], delay_s=0.02)
        jobs.append(await scene.submit(pieces, Wait(gate), Text("the end")))
    readers = [scene.read(jobs[n % 10], urls=[dying, api.url]) for n in range(READERS)]
    await asyncio.gather(*[reader.until("token") for reader in readers])
    before = len(await quick.redis.client_list())
    told = time.monotonic()
    doomed.signal(how)
    exited = await asyncio.wait_for(doomed.exit_code(), 5)
    assert exited in ((0, -signal.SIGTERM) if how is signal.SIGTERM else (-signal.SIGKILL,))
    assert time.monotonic() - told < 5
    await eventually(lambda: api.app.state.rejoin.hub.open_streams == READERS, 10)
    assert len(await quick.redis.client_list()) <= before
    gate.open()
    await scene.assert_clean()
    assert {scene.record.statuses[job_id] for job_id in jobs} == {"completed"}
    await eventually(lambda: api.app.state.rejoin.hub.open_streams == 0)


async def test_readers_that_leave_at_random_get_nobody_elses_frames_and_leave_nothing_behind(quick: Stack) -> None:
    """Case 41. Thousands of cancelled reads under load; connections and streams return to their base."""
    apis = [await quick.api(), await quick.api()]
    await quick.worker()
    scene, choose = Scene(quick, seed=41), random.Random(41)
    jobs = [await scene.submit(Tokens([f"job {n} says {i}. " for i in range(150)], delay_s=0.02)) for n in range(12)]
    readers = [scene.read(choose.choice(jobs), cut_after=lambda: choose.expovariate(1 / 0.08)) for _ in range(60)]
    polls = [asyncio.create_task(_cancelled_polls(scene, jobs, random.Random(n))) for n in range(10)]
    await asyncio.gather(*polls)
    await scene.assert_clean()
    assert sum(reader.connections for reader in readers) > 300
    for api in apis:
        state = api.app.state.rejoin
        await eventually(lambda state=state: state.hub.open_streams == 0)  # type: ignore[misc]
        await eventually(lambda state=state: not state.redis._pending)  # type: ignore[misc]
    connections = len(await quick.redis.client_list())
    assert connections <= 2 * API_CONNECTIONS + WORKER_CONNECTIONS + 2, "as without a reader, and this test's own"


async def _cancelled_polls(scene: Scene, jobs: list[str], choose: random.Random) -> None:
    """Read jobs, and cancel the request at a random moment; whatever was answered is about the right job."""
    for _ in range(60):
        job_id = choose.choice(jobs)
        try:
            async with asyncio.timeout(choose.expovariate(1 / 0.01)):
                job = await scene.client.job(job_id)
        except TimeoutError:
            continue
        assert job["id"] == job_id
        assert job["model"] == scene.models[job_id]
        assert job["text"].startswith(f"job {jobs.index(job_id)} says") or not job["text"]


async def test_a_client_that_goes_away_during_post_leaves_a_whole_job_or_none(quick: Stack) -> None:
    """Case 42. The request is cut at a random moment; what exists runs to its end, no connection is lost."""
    api = await quick.api()
    await quick.worker()
    scene, choose = Scene(quick), random.Random(42)
    port = int(api.url.rpartition(":")[2])
    for _ in range(150):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        payload = _post(scene.script(Text("posted")))
        writer.write(payload[: choose.choice((len(payload), len(payload), choose.randrange(1, len(payload))))])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(choose.uniform(0, 0.004)):
                await reader.read(1)
        writer.transport.abort()
    redis = api.app.state.rejoin.redis
    await eventually(lambda: not redis._pending)
    listed, cursor = [], ""
    while True:
        page = (await scene.client.http.get(f"/v1/jobs?limit=100{cursor}")).json()
        listed += page["data"]
        if not page["has_more"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(listed) > 10, "some were whole"
    for job in listed:
        scene.accept(job["id"], job["model"])
    await scene.assert_clean()
    assert {scene.record.texts[job["id"]] for job in listed} == {"posted"}
    logs = [key async for key in quick.redis.scan_iter(f"{quick.prefix}:log:*")]
    assert len(logs) == len(listed), "no log without its job"


def _post(model: str) -> bytes:
    """Return a whole POST as bytes."""
    content = json.dumps(body(model)).encode()
    head = f"Host: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return f"POST /v1/jobs HTTP/1.1\r\n{head}".encode() + content


async def test_two_hundred_readers_that_come_at_any_time_see_one_history(quick: Stack) -> None:
    """Case 36. Before the start, at the start, in mid-answer, at the end and after it."""
    await quick.api()
    await quick.api()
    scene, gates = Scene(quick), [quick.provider.gate() for _ in range(3)]
    first, second = Tokens("one two three ", delay_s=0.01), Tokens("four five six ")
    job_id = await scene.submit(Wait(gates[0]), first, Wait(gates[1]), second, Wait(gates[2]))
    before = [scene.read(job_id) for _ in range(40)]
    await asyncio.gather(*[reader.until("queued") for reader in before])
    await quick.worker()
    await gates[0].reached()
    at_start = [scene.read(job_id) for _ in range(40)]
    await asyncio.gather(*[reader.until("started") for reader in at_start])
    gates[0].open()
    await gates[1].reached()
    middle = [scene.read(job_id) for _ in range(40)]
    gates[1].open()
    await gates[2].reached()
    gates[2].open()
    at_end = [scene.read(job_id) for _ in range(40)]
    await asyncio.gather(*[reader.finish() for reader in [*before, *at_start, *middle, *at_end]])
    after = [scene.read(job_id) for _ in range(40)]
    await asyncio.gather(*[reader.finish() for reader in after])
    await scene.assert_clean()
    assert all(text(reader.reading.events) == "one two three four five six " for reader in scene.readers)
