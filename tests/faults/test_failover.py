"""A primary is lost, or changes places with its replica: by real sentinels, under real API and worker processes."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from itertools import pairwise

import pytest

from shared.redis import connect
from tests.client import body
from tests.faults.conftest import ROOMY
from tests.faults.scene import Scene
from tests.provider import ScriptedProvider, Text, Tokens
from tests.sentinels import Watched, role, watched
from tests.stack import Process, Stack, eventually
from tests.valkey import Valkey, free_port

LEASE_S = 5
STREAMS = 10
ON_ITS_WAY = 2
"""POSTs that may be lost in a planned fail-over: one after the other, each takes milliseconds."""

WORDS = "word after word that is counted at the end "


@pytest.fixture
async def servers() -> AsyncIterator[Watched]:
    async with watched("--appendonly", "yes") as started:
        yield started


@pytest.fixture
async def stack(servers: Watched, prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """Nothing started yet. What looks into Redis looks into the server that will be promoted."""
    stack = Stack(servers.second, prefix, provider)
    stack.configure(redis_url=servers.url, lease_s=LEASE_S, **ROOMY)
    try:
        yield stack
    finally:
        await stack.close()


async def two_apis(stack: Stack) -> list[str]:
    ports = [free_port(), free_port()]
    await asyncio.gather(*[stack.api_process(port) for port in ports])
    return [f"http://127.0.0.1:{port}" for port in ports]


async def accepted(scene: Scene, model: str, api: int = 0) -> bool:
    """POST, and say whether it was taken; either is said within a second."""
    asked_s = time.monotonic()
    response = await scene.client.http.post(f"{scene.urls[api]}/v1/jobs", json=body(model))
    assert time.monotonic() - asked_s < 1.5, "1 s, and what a busy machine takes"
    if response.status_code == 202:
        scene.accept(response.json()["id"], model)
    else:
        assert response.status_code == 503
    return response.status_code == 202


async def clients(server: Valkey) -> list[str]:
    """Return what each of Rejoin's connections to a server did last; sentinels and replicas say who they are.

    But for arq's: it says every ten seconds how its worker is, and goes when it is refused.
    """
    redis = connect(server.url)
    try:
        listed = [await redis.call("CLIENT", "LIST", "TYPE", kind) for kind in ("normal", "pubsub")]
    finally:
        await redis.close()
    lines = [
        dict(part.split("=", 1) for part in line.split()) for some in listed for line in some.decode().splitlines()
    ]
    others = ("client|list", "psetex", "zcard")
    return [line["cmd"] for line in lines if not line["name"].startswith("sentinel") and line["cmd"] not in others]


async def left(server: Valkey) -> bool:
    return not await clients(server)


async def judge(scene: Scene) -> None:
    """Have the oracle judge. A snapshot alone may step back: to readers who had seen what is lost.

    That is what a primary has told clients in its last turn, and not its replica.
    """
    found = await scene.verdict(30)
    assert [violation for violation in found if not violation.startswith("ids_rise")] == []
    for reading in scene.record.readings:
        back = [after for before, after in pairwise(reading.events) if after.key <= before.key]
        assert [event.event for event in back] in ([], ["snapshot"])


async def streams_at(scene: Scene, stack: Stack, then: str = "") -> list[Process]:
    """Have two workers write ten answers, each read twice, until each is in mid-answer.

    `then`: what the provider says when it is asked again.
    """
    workers = list(await asyncio.gather(stack.worker_process(), stack.worker_process()))
    for n in range(STREAMS):
        later = [[Tokens(f"{n} again: {then}")]] if then else []
        job_id = await scene.submit(Tokens(f"{n}: {WORDS * 12}", delay_s=0.04), then=later)
        for _ in range(2):
            await scene.read(job_id).until("token")
    return workers


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_primary_that_is_lost_in_mid_answer_is_followed_to_its_replica(
    servers: Watched, stack: Stack, how: str
) -> None:
    """No gap, no text twice, one end each; POSTs are 503 at once, then taken; nobody asks who was the primary."""
    scene = Scene(stack, urls=await two_apis(stack))
    workers = await streams_at(scene, stack)
    if how == "killed":
        servers.first.kill()
    else:
        servers.first.process.send_signal(signal.SIGSTOP)
    assert not await accepted(scene, scene.script(Text("too early")))
    promoting = asyncio.create_task(servers.missed())
    while not promoting.done():
        await accepted(scene, scene.script(Text("posted in between")))
    await promoting
    for api in range(len(scene.urls)):
        await eventually(lambda api=api: accepted(scene, scene.script(Text("posted after it")), api), 3)  # type: ignore[misc]
    # Who was the primary comes back, and for seconds still takes itself for it.
    if how == "killed":
        servers.first.start()
    else:
        servers.first.process.send_signal(signal.SIGCONT)
    await judge(scene)
    assert {scene.record.statuses[job_id] for job_id in scene.record.accepted} == {"completed"}
    assert all(worker.running for worker in workers)
    await eventually(lambda: is_replica(servers.first), 20)
    await eventually(lambda: left(servers.first), 3)
    if how == "killed":
        # (Who was frozen finds what was sent before anybody knew.)
        old = connect(servers.first.url)
        told = await old.call("INFO", "commandstats")
        await old.close()
        assert b"cmdstat_evalsha" not in told
        assert b"cmdstat_blpop" not in told


async def test_what_a_replica_had_not_received_is_lost_and_nothing_is_mixed(servers: Watched, stack: Stack) -> None:
    """Its answers begin again; readers who had seen more get a snapshot, which alone may step back."""
    scene = Scene(stack, urls=await two_apis(stack))
    workers = await streams_at(scene, stack, then=WORDS)
    done = await scene.submit(Text("done before"))
    await scene.read(done).finish()
    # The replica is sent away, and not let in again.
    await configure(servers.second, "masterauth", "wrong", "masteruser", "nobody")
    first = connect(servers.first.url)
    await first.call("CLIENT", "KILL", "TYPE", "replica")
    await first.close()
    seen = [len(reader.reading.events) for reader in scene.readers]
    streaming = [(reader, count) for reader, count in zip(scene.readers, seen, strict=True) if not reader.ended]
    await eventually(lambda: all(len(reader.reading.events) > count + 5 for reader, count in streaming))
    servers.first.kill()
    await servers.missed()
    await judge(scene)
    statuses = scene.record.statuses
    assert {statuses[job_id] for job_id in scene.record.accepted} == {"completed"}
    assert scene.record.texts[done] == "done before"
    assert sum(len(calls) == 2 for calls in scene.record.calls.values()) == STREAMS
    assert all(worker.running for worker in workers)


async def is_replica(server: Valkey) -> bool:
    return await role(server) == b"slave"


async def test_a_primary_that_changes_places_with_its_replica_is_left_by_everybody(
    servers: Watched, stack: Stack
) -> None:
    """A planned fail-over: both servers live on, and subscriptions and waits for work go where the work is.

    For seconds the old primary takes writes that the new one will not know of. One that wants a replica takes none
    once that has left; what was on its way just then is lost.
    """
    for server in (servers.first, servers.second):
        await configure(server, "min-replicas-to-write", 1)
    urls = await two_apis(stack)
    scene = Scene(stack, urls=urls)
    workers = await streams_at(scene, stack)
    await servers.switch()
    promoting = asyncio.create_task(servers.promoted(servers.second))
    while not promoting.done():
        await accepted(scene, scene.script(Text("posted in between")))
    await promoting
    await eventually(lambda: left(servers.first), 3)
    await eventually(lambda: accepted(scene, scene.script(Text("posted after it"))), 15)
    assert await forget_lost(scene) <= ON_ITS_WAY
    assert await scene.verdict(30) == []
    assert {scene.record.statuses[job_id] for job_id in scene.record.accepted} == {"completed"}
    assert all(worker.running for worker in workers)
    here = await clients(servers.second)
    assert here.count("blpop") == len(workers)


async def forget_lost(scene: Scene) -> int:
    """Judge no job that is known to nobody any more; return how many those are."""
    lost = set()
    for job_id in scene.record.accepted:
        if (await scene.client.http.get(f"/v1/jobs/{job_id}")).status_code == 404:
            lost.add(job_id)
    scene.record.accepted -= lost
    assert not lost & {reading.job_id for reading in scene.record.readings}
    return len(lost)


async def configure(server: Valkey, *names_and_values: object) -> None:
    redis = connect(server.url)
    for at in range(0, len(names_and_values), 2):
        await redis.call("CONFIG", "SET", *names_and_values[at : at + 2])
    await redis.close()
