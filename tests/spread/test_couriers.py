"""Whoever brings milestones to event servers: late, never, to many servers, and what is no milestone."""

import asyncio
import time
from typing import Any

import pytest

from shared.courier import Courier
from tests.client import Client
from tests.faults.scene import Scene
from tests.provider import Text
from tests.stack import Stack, eventually


@pytest.fixture
def nobody_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each process had died between what it decided and where that is told."""

    async def nothing(*_: object) -> None:
        return None

    monkeypatch.setattr(Courier, "try_to", nothing)


async def none_unsent(stack: Stack) -> bool:
    return not any([await stack.redis.exists(stack.keys.unsent(name)) for name in stack.event_servers])


async def cancelled_while_they_waited(client: Client, count: int) -> list[str]:
    jobs = [await client.submit() for _ in range(count)]
    for job_id in jobs:
        await client.cancel(job_id)
    return jobs


@pytest.mark.usefixtures("nobody_brings")
async def test_one_worker_brings_what_is_left_to_twenty_servers_within_a_second(bare: Stack) -> None:
    one = bare.event_servers["events-1"]
    bare.event_servers = {f"events-{n}": one for n in range(20)}
    await bare.api()
    client = bare.client()
    jobs = await cancelled_while_they_waited(client, 60)
    await bare.worker()
    began_s = time.monotonic()
    await eventually(lambda: none_unsent(bare))
    assert time.monotonic() - began_s < 2
    assert [event.event for event in await client.all_events(jobs[0])] == ["queued", "cancelled"]


@pytest.mark.usefixtures("nobody_brings")
async def test_what_one_worker_brings_is_left_to_it(bare: Stack) -> None:
    """After an outage hundreds of workers look at the same thousands of jobs."""
    await bare.api()
    client = bare.client()
    jobs = await cancelled_while_they_waited(client, 4)
    scripts = bare.apis[0].app.state.rejoin.scripts
    keys = [bare.keys.unsent(name) for name in bare.event_servers]
    while await bare.redis.exists(*keys) < len(keys):
        # Their ids have put all of them on one server.
        jobs += await cancelled_while_they_waited(client, 1)

    async def take(grace_ms: int = 0) -> list[str]:
        found = await scripts.run("unsent", keys, [grace_ms, 60_000, 100])
        return sorted(job_id.decode() for ids in found for job_id in ids)

    assert await take(60_000) == [], "left to whoever has decided it"
    assert await take() == sorted(jobs)
    assert await take() == []
    assert all([await bare.redis.pttl(key) > 0 for key in keys]), "a server that is gone for good leaves nothing"


@pytest.mark.usefixtures("nobody_brings")
@pytest.mark.parametrize("poison", ["log of something else", "string for a log", "members", "set"])
async def test_milestones_that_are_none_keep_those_of_no_other_job_back(bare: Stack, poison: str) -> None:
    """CWE-20, CWE-703: neither does a worker stop at them."""
    bare.event_servers = {"events-1": bare.event_servers["events-1"]}
    await bare.api()
    client = bare.client()
    bad, good = await cancelled_while_they_waited(client, 2)
    unsent, log = bare.keys.unsent("events-1"), bare.keys.log(bad)
    if poison == "log of something else":
        await bare.redis.xadd(log, {"a": "b", "c": "d"})
    elif poison == "string for a log":
        await bare.redis.set(log, "x", px=60_000)
    elif poison == "members":
        await bare.redis.zadd(unsent, {f"\udcff{n}".encode("utf-8", "surrogateescape"): n for n in range(200)})
        await bare.redis.zadd(unsent, {"": 1, "*": 2, "x" * 100_000: 3})
    else:
        await bare.redis.set(unsent, "x", px=60_000)
    local = await bare.worker()
    if poison != "set":
        await eventually(lambda: none_unsent(bare))
        assert [event.event for event in await client.all_events(good)] == ["queued", "cancelled"]
    bare.provider.script("after", Text("fine"))
    assert (await asyncio.wait_for(client.all_events(await client.submit("after")), 10))[-1].event == "completed"
    assert not local.worker.workshop.broken.is_set()


async def test_milestones_that_come_after_a_delete_are_deleted_as_well(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has read them before, and was frozen: what comes late would be there for the retention."""
    await bare.worker()
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    await eventually(lambda: none_unsent(bare))
    here = bare.apis[0].app.state.rejoin
    server = (await here.jobs.get(job_id)).server
    place, late = here.plane.at(server), Courier(here.plane)
    run, thaw = place.scripts.run, asyncio.Event()

    async def frozen(*args: Any, **named: Any) -> Any:
        await thaw.wait()
        return await run(*args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(place.scripts, "run", frozen)
        bringing = asyncio.create_task(late.deliver(job_id, server))
        # (It has read them when its next step is to bring them.)
        await eventually(lambda: bringing.get_coro().cr_await is not None)  # type: ignore[union-attr]
        await here.redis.call("PING")
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    await eventually(lambda: none_unsent(bare))
    thaw.set()
    assert await bringing is not None
    log = place.keys.log(job_id)
    assert await place.redis.read("EXISTS", log) == 1

    async def gone() -> bool:
        return bool(await place.redis.read("EXISTS", log) == 0)

    await eventually(gone)
    await late.close()


async def test_what_a_worker_says_of_its_calls_is_kept_beside_a_record_that_is_none(bare: Stack) -> None:
    """CWE-703"""
    await bare.api()
    bad, good = bare.keys.job("bad"), bare.keys.job("good")
    await bare.redis.set(bad, "x", px=60_000)
    await bare.redis.hset(good, mapping={"worker": "w", "attempt": 1, "call": 1})  # type: ignore[misc]
    calls = [part for name in ("bad", "good") for part in (name, 1, 5, "{}")]
    await bare.apis[0].app.state.rejoin.scripts.run("progress", [], [bare.prefix, "w", *calls])
    assert await bare.redis.hmget(good, ["first_token_ms", "progress"]) == [b"5", b"{}"]  # type: ignore[misc]


async def test_an_answer_that_is_interrupted_while_it_waits_is_told_so_without_a_worker(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    asked = {
        "id": "one",
        "model": "openai/m",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
    }
    async with client.http.stream("POST", "/api/chat", json=asked) as older:
        reader = Scene(bare).read(older.headers["x-job-id"])
        await reader.until("queued")
        async with client.http.stream("POST", "/api/chat", json=asked) as newer:
            assert newer.status_code == 200
            await reader.finish(5)
    assert [event.event for event in reader.reading.events] == ["queued", "cancelled"]
