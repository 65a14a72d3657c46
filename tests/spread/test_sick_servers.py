"""Event servers that are there and do not do what they are for: read-only, full, frozen."""

import asyncio
import signal

import pytest
from redis.asyncio import Redis

from tests.client import text
from tests.faults.scene import Scene
from tests.provider import HttpError, Step, Text, Tokens, Wait
from tests.spread.test_event_servers import on_each, server_of
from tests.stack import Stack, eventually
from tests.valkey import Valkey
from worker.attempt import Attempt
from worker.writer import StorageFull

REPLICAS = ("CONFIG", "SET", "min-replicas-to-write")
SICK = {
    "read-only": (("REPLICAOF", "127.0.0.1", "1"), ("REPLICAOF", "NO", "ONE")),
    "without replicas": ((*REPLICAS, "1"), (*REPLICAS, "0")),
    "full": (("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "SET", "maxmemory", "0")),
}


@pytest.mark.parametrize("sickness", SICK)
async def test_a_server_that_takes_no_writes_is_away_and_no_attempts_are_used_up_on_it(
    spread: Stack, sickness: str
) -> None:
    falls_ill, gets_well = SICK[sickness]
    await spread.api()
    scene = Scene(spread)
    held = (await on_each(scene, Text("waited")))["events-1"]
    async with Redis.from_url(spread.event_servers["events-1"]) as server:
        await server.execute_command(*falls_ill)
        await spread.worker()
        await spread.apis[0].app.state.rejoin.plane.at("events-1").look()
        later = [await scene.submit(Tokens("some words ", delay_s=0.1)) for _ in range(8)]
        for job_id in later:
            assert (await scene.client.all_events(job_id))[-1].event == "completed"
        assert await spread.redis.hget(spread.keys.job(held), "attempt") == b"0"  # type: ignore[misc]
        reader = scene.read(held)
        await server.execute_command(*gets_well)
    await reader.finish()
    assert [event.event for event in reader.reading.events] == ["queued", "started", "token", "completed"]
    await scene.assert_clean()


async def test_a_full_servers_logs_are_made_smaller_and_ended(spread: Stack) -> None:
    """Else it would be full for as long as anything is kept there."""
    spread.event_servers = {"events-1": spread.event_servers["events-1"]}
    local = await spread.worker()
    await spread.api()
    client = spread.client()
    spread.provider.script("m", Tokens("one two three four five six seven ", delay_s=0.02))
    job_id = await client.submit()
    live = await client.all_events(job_id)
    url, log = await spread.log_at(job_id)
    async with Redis.from_url(url) as server:
        await server.config_set("maxmemory", 1)
        workshop = local.worker.workshop
        place = workshop.plane.at("events-1")
        await place.look()
        assert place.away
        workshop.compactor._age_s = 0
        assert await workshop.compactor.run_once() == 1
        assert await server.xlen(log) == 2
        late = await client.all_events(job_id)
    assert (late[0].event, late[0].data["text"]) == ("snapshot", "".join(e.data.get("text", "") for e in live))


async def test_a_job_that_cannot_begin_on_a_frozen_server_gives_its_slot_back(
    spread: Stack, servers: dict[str, Valkey]
) -> None:
    """Though its worker's writer hangs there with the tokens of others."""
    await spread.worker()
    await spread.api()
    scene = Scene(spread)
    running = await on_each(scene, Tokens("on and on " * 40, delay_s=0.02))
    await scene.read(running["events-1"]).until("token")
    servers["events-1"].process.send_signal(signal.SIGSTOP)
    held = ""
    while await server_of(spread, held) != "events-1":
        held = await scene.submit(Text("waited"))

    async def waits() -> bool:
        status, line = await spread.redis.hmget(spread.keys.job(held), ["status", "line"])  # type: ignore[misc]
        return bool(status == b"queued" and line == b"@events-1")

    await eventually(waits, 3.5)
    attempt = await spread.redis.hget(spread.keys.job(held), "attempt")  # type: ignore[misc]
    assert attempt == b"1", "and is not tried again and again meanwhile"
    servers["events-1"].process.send_signal(signal.SIGCONT)
    reader = scene.read(held)
    await reader.finish()
    await scene.assert_clean()


async def test_whole_answers_that_wait_for_their_server_keep_no_slot(spread: Stack, servers: dict[str, Valkey]) -> None:
    spread.configure(max_jobs=1)
    await spread.worker()
    await spread.api()
    scene, gate = Scene(spread), spread.provider.gate()
    held = ""
    while await server_of(spread, held) != "events-1":
        held, _ = await scene.running(Text("a"), Wait(gate), Text("b"))
        if await server_of(spread, held) != "events-1":
            await scene.cancel(held)
    servers["events-1"].kill()
    gate.open()
    for _ in range(3):
        other = await scene.submit(Text("c"))
        assert await server_of(spread, other) == "events-2"
        await scene.read(other).finish(8)
    assert await spread.redis.hget(spread.keys.job(held), "status") == b"running"  # type: ignore[misc]
    servers["events-1"].start()
    await scene.assert_clean()
    assert scene.record.texts[held] == "ab"


async def test_a_worker_that_is_told_to_stop_does_not_wait_for_a_server_that_is_away(
    spread: Stack, servers: dict[str, Valkey]
) -> None:
    local = await spread.worker()
    await spread.api()
    scene = Scene(spread)
    words = [Tokens("on and on " * 20, delay_s=0.02)]
    running = await on_each(scene, *words, then=[words])
    for job_id in running.values():
        await scene.read(job_id).until("token")
    servers["events-1"].kill()
    await eventually(lambda: local.worker.workshop.writers["events-1"].pending > 0)
    await asyncio.wait_for(local.stop(), 3)
    status, attempt = await spread.redis.hmget(spread.keys.job(running["events-1"]), ["status", "attempt"])  # type: ignore[misc]
    assert (status, attempt) == (b"queued", b"1")
    servers["events-1"].start()
    await spread.worker()
    await scene.assert_clean()


async def test_a_job_whose_next_attempt_cannot_begin_is_let_go_of(spread: Stack, servers: dict[str, Valkey]) -> None:
    """Whatever its worker kept of it would stand in the way of the job, should it come by again."""
    local = await spread.worker()
    await spread.api()
    scene, gate = Scene(spread), spread.provider.gate()
    steps: list[Step] = [Wait(gate), HttpError(503)]
    jobs = await on_each(scene, *steps, then=[[Text("at last")]])
    for _ in scene.record.accepted:
        await spread.provider.next_call()
    servers["events-1"].kill()
    gate.open()
    attempts = local.worker.workshop.attempts
    await eventually(lambda: not local.worker.tasks)
    assert not attempts
    status, attempt = await spread.redis.hmget(spread.keys.job(jobs["events-1"]), ["status", "attempt"])  # type: ignore[misc]
    assert (status, attempt) == (b"queued", b"2")
    servers["events-1"].start()
    await scene.assert_clean()


async def test_a_server_that_says_what_none_says_is_away_and_looked_at_again(
    spread: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    await spread.api()
    place = spread.apis[0].app.state.rejoin.plane.at("events-1")
    assert not place.away

    async def nonsense(redis: object) -> str:
        raise ValueError("a version of words")

    with monkeypatch.context() as patch:
        patch.setattr("shared.plane.problem", nonsense)
        place.fell_away()
        await place.look()
        assert place.away
    await eventually(lambda: not place.away)


@pytest.mark.parametrize("sickness", SICK)
async def test_what_is_on_a_server_that_takes_no_writes_can_be_read(spread: Stack, sickness: str) -> None:
    spread.event_servers = {"events-1": spread.event_servers["events-1"]}
    await spread.worker()
    await spread.api()
    client = spread.client()
    job_id = await client.submit()
    live = await client.all_events(job_id)
    async with Redis.from_url(spread.event_servers["events-1"]) as server:
        await server.execute_command(*SICK[sickness][0])
        late = await asyncio.wait_for(client.all_events(job_id), 5)
    assert [event.event for event in late] == [event.event for event in live]
    assert text(late) == text(live)


async def test_an_answer_whose_last_words_found_no_room_is_not_complete(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare.event_servers = {}
    local = await bare.worker()
    await bare.api()
    scene, taken, said = Scene(bare), asyncio.Event(), asyncio.Event()
    gate, end = bare.provider.gate(), bare.provider.gate()
    job_id, reader = await scene.running(Text("all "), Wait(gate), Text("of it"), Wait(end))
    workshop = local.worker.workshop
    settle = workshop.settle_log

    async def full(appends: object) -> list[bool]:
        taken.set()
        await said.wait()
        raise StorageFull

    async def settling(attempt: Attempt) -> None:
        said.set()
        await settle(attempt)

    monkeypatch.setattr(workshop.writers[""], "_append", full)
    monkeypatch.setattr(workshop, "settle_log", settling)
    gate.open()
    await taken.wait()
    end.open()
    await reader.finish()
    job = await scene.client.job(job_id)
    assert (job["status"], job["error"]["code"], job["text"]) == ("failed", "storage_full", "all ")


async def test_operators_see_which_event_server_is_away(
    spread: Stack, servers: dict[str, Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job on it is shown with the pace of its provider: that it stands still is seen here alone."""
    monkeypatch.setattr("api.operations.KEPT_S", 0.0)
    spread.configure(stream_closed="events-2")
    await spread.api()
    client = spread.client()

    async def seen() -> list[dict[str, object]]:
        view: dict[str, list[dict[str, object]]] = (await client.http.get("/v1/ops")).json()
        return view["event_servers"]

    first = {"name": "events-1", "state": "there", "closed": False, "unsent": 0}
    second = {"name": "events-2", "state": "there", "closed": True, "unsent": 0}
    assert await seen() == [first, second]
    servers["events-1"].kill()
    await spread.apis[0].app.state.rejoin.plane.at("events-1").look()
    assert await seen() == [first | {"state": "away"}, second]
