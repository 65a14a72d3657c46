"""Several event servers: what is lost with one of them, what is not, and how jobs come to more of them."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from redis.asyncio import Redis

from deploy.doctor import examine
from shared.courier import Courier
from shared.events import EventId
from shared.log import Append
from shared.plane import Place
from shared.redis import Scripts
from tests.client import Event, body, text
from tests.faults.conftest import LEASE_S
from tests.faults.scene import Scene
from tests.provider import Silence, Step, Text, Tokens, Wait
from tests.spread.conftest import event_server
from tests.stack import Stack, eventually
from tests.valkey import Valkey, free_port


async def server_of(stack: Stack, job_id: str) -> str:
    found = await stack.redis.hget(stack.keys.job(job_id), "server")  # type: ignore[misc]
    return "" if found is None else found.decode()


async def on_each(scene: Scene, *steps: Step, then: Sequence[Sequence[Step]] = ()) -> dict[str, str]:
    """Return one job on each event server."""
    found: dict[str, str] = {}
    while len(found) < len(scene.stack.event_servers):
        job_id = await scene.submit(*steps, then=then)
        found.setdefault(await server_of(scene.stack, job_id), job_id)
    return found


async def unsent(stack: Stack) -> int:
    return sum([await stack.redis.zcard(stack.keys.unsent(name)) for name in stack.event_servers])


async def test_processes_and_an_event_server_die_and_every_answer_is_whole(
    spread: Stack, servers: dict[str, Valkey]
) -> None:
    """Real processes, real signals: a worker and an event server are killed in mid-answer; the oracle judges."""
    doomed = await spread.worker_process()
    port = free_port()
    outside = await spread.api_process(port)
    await spread.api()
    await spread.worker_process()
    scene = Scene(spread, urls=[f"http://127.0.0.1:{port}"])
    gate = spread.provider.gate()
    jobs = []
    for n in range(16):
        pace = Tokens(f"job {n} goes on and on and on and on ", delay_s=0.02)
        steps: list[Step] = [Text("first "), pace, Wait(gate), Text("last")]
        jobs.append(await scene.submit(*steps, then=[steps, steps]))
    readers = [scene.read(job_id) for job_id in jobs for _ in range(2)]
    await asyncio.gather(*[reader.until("token") for reader in readers])
    by_server = Counter([await server_of(spread, job_id) for job_id in jobs])
    assert by_server.keys() == servers.keys(), "spread over both"
    servers["events-1"].kill()
    doomed.signal(signal.SIGKILL)
    outside.signal(signal.SIGKILL)
    gate.open()
    for reader in readers:
        if await server_of(spread, reader.reading.job_id) == "events-2":
            await reader.finish()
    assert not any([await ended(spread, job_id, "events-1") for job_id in jobs]), "its answers wait for their server"
    servers["events-1"].start()
    await scene.assert_clean()
    assert {scene.record.statuses[job_id] for job_id in jobs} == {"completed"}
    await eventually(lambda: _none_unsent(spread))


async def ended(stack: Stack, job_id: str, server: str) -> bool:
    """Say whether a job of this server has ended."""
    status = await stack.redis.hget(stack.keys.job(job_id), "status")  # type: ignore[misc]
    return await server_of(stack, job_id) == server and status not in (b"queued", b"running")


async def test_a_new_server_gets_new_jobs_alone_and_a_closed_one_none(spread: Stack) -> None:
    await spread.worker()
    api = await spread.api()
    client = spread.client()
    gate = spread.provider.gate()
    spread.provider.script("m", Text("old "), Wait(gate), Text("answer"))
    old = [await client.submit() for _ in range(8)]
    for job_id in old:
        await client.until(job_id, "token")
    before = [await server_of(spread, job_id) for job_id in old]
    assert set(before) == {"events-1", "events-2"}
    with event_server() as third:
        spread.event_servers["events-3"] = third.url
        spread.configure(stream_closed=["events-1"])
        await api.stop()
        spread.apis.clear()
        await spread.worker()
        await spread.api()
        client = spread.client()
        new = [await client.submit("n") for _ in range(24)]
        for job_id in new:
            assert (await client.all_events(job_id))[-1].event == "completed"
        assert {await server_of(spread, job_id) for job_id in new} == {"events-2", "events-3"}
        readers = [asyncio.create_task(client.all_events(job_id)) for job_id in old]
        gate.open()
        for events in await asyncio.gather(*readers):
            assert text(events) == "old answer"
        assert [await server_of(spread, job_id) for job_id in old] == before


async def test_jobs_of_a_server_that_is_away_wait_for_it_and_hold_up_nobody(
    spread: Stack, servers: dict[str, Valkey]
) -> None:
    spread.configure(max_jobs=4)
    await spread.api()
    scene = Scene(spread)
    waiting = await on_each(scene, Text("waited"))
    # All that were not chosen wait as well.
    servers["events-1"].kill()
    await spread.worker()
    for job_id in scene.record.accepted:
        if await server_of(spread, job_id) == "events-2":
            assert (await scene.client.all_events(job_id))[-1].event == "completed"
    later = [await scene.submit(Text("later")) for _ in range(8)]
    for job_id in later:
        assert await server_of(spread, job_id) == "events-2", "new jobs go where a server is"
        assert (await scene.client.all_events(job_id))[-1].event == "completed"
    held = waiting["events-1"]
    assert await spread.redis.hget(spread.keys.job(held), "status") == b"queued"  # type: ignore[misc]
    reader = scene.read(held)
    servers["events-1"].start()
    await reader.finish()
    assert [event.event for event in reader.reading.events] == ["queued", "started", "token", "completed"]
    await scene.assert_clean()


async def test_stop_stops_a_job_whose_event_server_is_away(spread: Stack, servers: dict[str, Valkey]) -> None:
    await spread.worker()
    await spread.api()
    scene = Scene(spread)
    jobs = await on_each(scene, Text("x"), Silence())
    running = jobs["events-1"]
    reader = scene.read(running)
    await reader.until("token")
    servers["events-1"].kill()
    assert (await scene.cancel(running))["outcome"] == "cancelling"
    (call,) = [call for call in spread.provider.calls if call.model == scene.models[running]]
    assert await call.closed()
    servers["events-1"].start()
    await reader.finish()
    assert scene.names(running)[-1] == "cancelled"
    for job_id in scene.record.accepted - {running}:
        await scene.cancel(job_id)
    await scene.assert_clean()


async def test_what_nobody_brought_is_brought_by_a_worker(spread: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each process had died between what it decided and where that is told."""

    async def nothing(*_: object) -> None:
        return None

    await spread.worker()
    await spread.api()
    scene, gate = Scene(spread), spread.provider.gate()
    monkeypatch.setattr(Courier, "try_to", nothing)
    done, _ = await scene.running(Text("a"), Wait(gate), Text("b"))
    gate.open()
    spread.configure(max_jobs=1)
    stopped = await scene.submit(Text("c"), Silence())
    await scene.read(stopped).until("token")
    await scene.cancel(stopped)
    await scene.assert_clean()
    assert scene.names(done) == ["queued", "started", "completed"]
    await eventually(lambda: _none_unsent(spread))


async def _none_unsent(stack: Stack) -> bool:
    return await unsent(stack) == 0


async def test_a_job_that_ended_while_it_waited_is_told_so(spread: Stack) -> None:
    await spread.api()
    scene = Scene(spread)
    job_id = await scene.submit()
    reader = scene.read(job_id)
    await reader.until("queued")
    assert (await scene.cancel(job_id))["outcome"] == "cancelled_before_start"
    await reader.finish()
    assert scene.names(job_id) == ["queued", "cancelled"]


@pytest.mark.parametrize("when", ["running", "ended"])
async def test_a_server_that_comes_back_empty_costs_no_more_than_its_texts(
    spread: Stack, servers: dict[str, Valkey], when: str
) -> None:
    """What is decided is known on `REDIS_URL`: a running job starts again, an ended one still says how it ended."""
    await spread.worker()
    await spread.api()
    client = spread.client()
    gate = spread.provider.gate()
    spread.provider.script("m", Text("old "), Wait(gate), Text("answer"))
    spread.provider.then("m", Text("new answer"))
    job_id = await client.submit()
    cursor = (await client.until(job_id, "token")).id
    if when == "ended":
        gate.open()
        await client.all_events(job_id)
    server = spread.event_servers[await server_of(spread, job_id)]
    async with Redis.from_url(server) as redis:
        await redis.flushall()
    gate.open()
    events = await client.all_events(job_id, last_event_id=cursor)
    assert events[-1].event == "completed"
    assert events[0].event == "snapshot", "its cursor is of what is gone"
    assert text(events) == ("" if when == "ended" else "new answer")
    assert (await client.job(job_id))["status"] == "completed"


async def test_an_end_that_the_records_have_forgotten_is_kept(spread: Stack) -> None:
    """`REDIS_URL` may lose its last writes where an event server does not: what readers were told stands."""
    first = await spread.worker()
    await spread.api()
    scene = Scene(spread)
    job_id = await scene.submit(Text("told"), then=[[Text("told again")]])
    reader = scene.read(job_id)
    await reader.finish()
    await first.stop()
    record, log = spread.keys.job(job_id), spread.keys.log(job_id)
    end = (await spread.redis.xrevrange(log, count=1))[0][0]
    await spread.redis.xdel(log, end)
    await spread.redis.hset(record, mapping={"status": "queued", "turn": 1})  # type: ignore[misc]
    await spread.redis.hdel(record, "finished_ms", "finish_reason", "worker")  # type: ignore[misc]
    await spread.redis.persist(log)
    await spread.redis.zadd(spread.keys.queue, {job_id: 1})
    await spread.worker()

    async def completed() -> bool:
        return (await scene.client.job(job_id))["status"] == "completed"

    await eventually(completed)
    assert (await scene.client.job(job_id))["finish_reason"] == "stop"
    assert [call.model for call in spread.provider.calls].count(scene.models[job_id]) == 1
    await scene.assert_clean()


async def test_an_attempt_that_the_records_have_forgotten_is_not_written_twice(spread: Stack) -> None:
    zombie = await spread.worker()
    await spread.api()
    scene = Scene(spread)
    gate = spread.provider.gate()
    job_id, reader = await scene.running(
        Text("lost "), Wait(gate), Text("more"), Silence(), then=[[Text("whole")], [Text("whole")]]
    )
    record, log = spread.keys.job(job_id), spread.keys.log(job_id)
    worker = zombie.worker.workshop.lease.worker
    await spread.redis.srem(spread.keys.running(worker), job_id)  # type: ignore[misc]
    await spread.redis.xdel(log, "1-0")
    # (An entry that is deleted stays the highest id; that of a lost one does not.)
    await spread.redis.delete(log)
    await spread.redis.xadd(log, {"queued": '{"position":1}'}, id="0-1")
    await spread.redis.hset(record, mapping={"status": "queued", "attempt": 0, "turn": 1})  # type: ignore[misc]
    await spread.redis.hdel(record, "worker")  # type: ignore[misc]
    await spread.redis.zadd(spread.keys.queue, {job_id: 1})
    await spread.redis.lpush(spread.keys.wake, 1)  # type: ignore[misc]
    await reader.finish()
    gate.open()
    assert text(reader.reading.events[reader.reading.events.index(openings(reader.reading.events)[-1]) :]) == "whole"
    await scene.assert_clean()


def openings(events: list[Event]) -> list[Event]:
    return [event for event in events if event.event in ("started", "restarted")]


async def test_milestones_come_once_in_whatever_order_they_are_brought(spread: Stack) -> None:
    await spread.api()
    state = spread.apis[0].app.state.rejoin
    job_id = await Scene(spread).submit()
    place: Place = state.plane.at(await server_of(spread, job_id))
    names = [place.keys.log(job_id), place.keys.job(job_id)]

    async def bring(worker: str, attempt: int, *milestones: tuple[str, str, str]) -> list[int]:
        return await place.scripts.run(
            "deliver", names, [60_000, worker, attempt, *[part for milestone in milestones for part in milestone]]
        )

    queued, first = ("0-1", "queued", "{}"), ("1-0", "started", '{"attempt":1}')
    second, end = ("2-0", "restarted", '{"attempt":2}'), ("2-1", "completed", "{}")
    assert await bring("w1", 1, queued, first) == [2, 1, 0, 0]
    assert await place.redis.call("HGET", names[1], "worker") == b"w1"
    assert await bring("w2", 2, queued, first, second) == [3, 2, 0, 0]
    assert await bring("w1", 1, queued, first) == [3, 2, 0, 0], "late"
    assert await place.redis.call("HGET", names[1], "worker") == b"w2"
    await place.redis.call("XADD", names[0], "2-1", "token", '{"text":"x"}')
    assert await bring("", 0, queued, first, second, end) == [5, 2, 2, 1], "behind whatever is there"
    assert await bring("", 0, queued, first, second, end) == [5, 2, 2, 1]
    assert await bring("w3", 3, queued, first, second, ("3-0", "restarted", "{}")) == [5, 2, 2, 1], (
        "nothing behind an end"
    )
    assert await place.redis.call("PTTL", names[0]) <= 60_000
    late = await place.scripts.run("deliver", names, [600_000, "", 0, *queued, *first])
    assert late == [5, 2, 2, 1]
    assert await place.redis.call("PTTL", names[0]) <= 60_000, "kept as long as its end has said"
    entries = [entry async for page in place.log.pages(job_id) for entry in page]
    assert [str(entry.id) for entry in entries] == ["0-1", "1-0", "2-0", "2-1", "2-2"]
    assert await place.redis.call("PTTL", names[0]) > 0


async def test_a_zombie_writes_nothing_behind_an_end(spread: Stack) -> None:
    """Its next append is refused, as the end stands there; the one behind that would just fit."""
    await spread.api()
    state = spread.apis[0].app.state.rejoin
    job_id = await Scene(spread).submit()
    place: Place = state.plane.at(await server_of(spread, job_id))
    names, queued = [place.keys.log(job_id), place.keys.job(job_id)], ("0-1", "queued", "{}")
    opened = [*queued, "1-0", "started", '{"attempt":1}']
    await place.scripts.run("deliver", names, [60_000, "zombie", 1, *opened])

    async def append(seq: int) -> bool:
        token = ("token", b'{"text":"x"}')
        return (await place.log.append([Append(job_id, "zombie", EventId(1, seq), seq + 1, [token])]))[0]

    assert await append(1)
    await place.scripts.run("deliver", names, [60_000, "", 0, *opened, "1-1", "failed", "{}"])
    assert [await append(2), await append(3)] == [False, False]
    await place.scripts.run("deliver", names, [60_000, "", 0, *opened, "1-1", "failed", "{}"])
    entries = [entry async for page in place.log.pages(job_id) for entry in page]
    assert [entry.event for entry in entries] == ["queued", "started", "token", "failed"]


async def test_a_deleted_job_leaves_nothing_on_its_event_server(spread: Stack) -> None:
    await spread.worker()
    await spread.api()
    client = spread.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    url, _ = await spread.log_at(job_id)
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert (await client.http.get(f"/v1/jobs/{job_id}/events")).status_code == 404
    async with Redis.from_url(url) as redis:

        async def nothing() -> bool:
            return not [key async for key in redis.scan_iter(f"{spread.prefix}*{job_id}*")]

        await eventually(nothing)


async def test_keys_on_event_servers_expire_with_the_job(spread: Stack) -> None:
    spread.configure(retention_s=60)
    await spread.worker()
    await spread.api()
    client = spread.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    url, log = await spread.log_at(job_id)
    async with Redis.from_url(url) as redis:
        for key in (log, spread.keys.on_event_servers().job(job_id)):
            assert 50_000 < await redis.pttl(key) <= 60_000


async def test_a_run_in_the_background_stays_beside_its_record(spread: Stack) -> None:
    """How far it has been read is written in one step with what was read."""
    await spread.api()
    client = spread.client()
    answer = await client.http.post("/v1/jobs", json={**body(), "provider": "openai-responses"})
    fallback = {"provider": "openai-responses", "model": "m"}
    other = await client.http.post("/v1/jobs", json={**body(), "fallbacks": [fallback]})
    assert [await server_of(spread, response.json()["id"]) for response in (answer, other)] == ["", ""]


async def test_a_job_of_a_server_that_a_worker_has_not_been_told_of_waits_for_one_that_has(spread: Stack) -> None:
    await spread.api()
    client = spread.client()
    job_id = await client.submit()
    told, spread.event_servers = spread.event_servers, {}
    await spread.worker()
    await spread.api()
    assert await server_of(spread, job_id)
    stranger = spread.client()
    assert (await stranger.http.get(f"{spread.apis[1].url}/v1/jobs/{job_id}/events")).status_code == 503
    assert (await stranger.http.get(f"{spread.apis[1].url}/v1/jobs/{job_id}")).status_code == 503
    spread.event_servers = told
    await spread.worker()
    assert (await client.all_events(job_id))[-1].event == "completed"


async def test_what_a_lost_call_took_is_known_from_its_workers_word(spread: Stack) -> None:
    """The tokens are not where the reaper is: it goes by what the worker has said with its lease."""
    doomed = await spread.worker_process()
    await spread.api()
    scene = Scene(spread)
    words = "word " * 40
    job_id, _ = await scene.running(Text(words), Silence(), on_worker_lost="fail")

    async def told() -> bool:
        return await spread.redis.hexists(spread.keys.job(job_id), "progress")  # type: ignore[misc]

    await eventually(told)
    doomed.signal(signal.SIGKILL)
    await spread.worker()
    reader = scene.read(job_id)
    await reader.finish(LEASE_S + 10)
    usage = reader.reading.events[-1].data["usage"]
    assert usage["estimated"]
    assert usage["output_tokens"] == len(words) // 4


async def test_the_first_token_is_known_at_once_and_in_the_end(spread: Stack) -> None:
    await spread.worker()
    await spread.api()
    client, gate = spread.client(), spread.provider.gate()
    spread.provider.script("m", Text("a"), Wait(gate))
    job_id = await client.submit()
    await client.until(job_id, "token")
    early = (await client.job(job_id))["first_token_at"]
    gate.open()
    await client.all_events(job_id)
    assert early is not None
    listed = (await client.http.get("/v1/jobs")).json()["data"]
    assert listed[0]["first_token_at"] is not None


async def test_a_log_is_compacted_where_it_is(spread: Stack) -> None:
    local = await spread.worker()
    await spread.api()
    client = spread.client()
    spread.provider.script("m", Tokens("one two three four five six seven ", delay_s=0.02))
    job_id = await client.submit()
    live = await client.all_events(job_id)
    compactor = local.worker.workshop.compactor
    compactor._age_s = 0
    assert await compactor.run_once() == 1
    late = await client.all_events(job_id)
    assert [event.event for event in late] == ["snapshot", "completed"]
    assert text(late) == text(live)
    assert await spread.redis.zcard(spread.keys.ended) == 0


async def test_readers_hear_of_each_token_from_the_server_that_has_it(spread: Stack) -> None:
    """No token's way leads over `REDIS_URL`: neither its append nor its message."""
    await spread.worker()
    await spread.api()
    client, gate = spread.client(), spread.provider.gate()
    spread.provider.script(
        "m", Text("first"), Wait(gate), Tokens("many many many tokens ", delay_s=0.002), Text("last")
    )
    job_id = await client.submit()
    async with aclosing(client.events(job_id)) as coming:  # type: ignore[type-var]
        events = [await anext(coming) for _ in range(3)]
        async with spread.redis.monitor() as monitor:
            gate.open()
            events += [event async for event in coming]
            await spread.redis.echo("over")
            seen = [said["command"] async for said in _until(monitor, "over")]
    assert text(events) == "firstmany many many tokens last"
    about = [command for command in seen if job_id in command and "many" in command]
    assert not about


async def test_a_job_costs_the_control_server_one_call_more(spread: Stack) -> None:
    """Whatever decides something says what is to be told: nothing is read for that. That the end is told is noted."""
    await spread.worker()
    await spread.api()
    client, gate = spread.client(), spread.provider.gate()
    spread.provider.script("m", Text("a"), Wait(gate))
    scripts = Scripts(spread.commands)
    await scripts.load()
    of_a_job = ("create", "claim", "milestones", "sent", "progress", "append", "finish")
    names = {scripts.sha(name): name for name in of_a_job}
    async with spread.redis.monitor() as monitor:
        job_id = await client.submit()
        async with aclosing(client.events(job_id)) as events:  # type: ignore[type-var]
            async for event in events:
                if event.event == "token":
                    gate.open()
        await eventually(lambda: _none_unsent(spread))
        await spread.redis.echo("over")
        seen = [said["command"].split() async for said in _until(monitor, "over") if said["client_type"] != "lua"]
    run = [names[words[1]] for words in seen if words[0].upper() == "EVALSHA" and words[1] in names]
    assert [name for name in run if name not in ("claim", "progress")] == ["create", "finish", "sent"]


async def _until(monitor: Any, word: str) -> AsyncIterator[dict[str, Any]]:
    while True:
        said = await monitor.next_command()
        if word in said["command"] and "echo" in said["command"].lower():
            return
        yield said


async def test_the_doctor_looks_at_event_servers(
    spread: Stack, servers: dict[str, Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in spread.environment().items():
        monkeypatch.setenv(name, value)
    servers["events-2"].kill()
    found = {finding.what: finding async for finding in examine("http://127.0.0.1:1")}
    assert found["events events-1"].level == "ok"
    assert "AOF" in found["events events-1"].seen
    assert (found["events events-2"].level, found["events events-2"].todo != "") == ("fail", True)


async def test_a_server_that_may_drop_logs_is_not_used(spread: Stack) -> None:
    async with Redis.from_url(spread.event_servers["events-1"]) as redis:
        await redis.config_set("maxmemory-policy", "allkeys-lru")
    await spread.api()
    client = spread.client()
    assert {await server_of(spread, await client.submit()) for _ in range(12)} == {"events-2"}
    found = (await client.http.get("/metrics")).text
    assert 'rejoin_event_server_up{server="events-1"} 0.0' in found
    assert 'rejoin_event_server_up{server="events-2"} 1.0' in found
    assert 'rejoin_unsent_jobs{server="events-2"}' in found


async def test_no_end_is_told_behind_last_words_that_a_log_has_refused(
    spread: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server has come back empty, and refuses when the provider has said all: the answer begins again."""
    local = await spread.worker()
    await spread.api()
    scene, taken, said = Scene(spread), asyncio.Event(), asyncio.Event()
    gate, end = spread.provider.gate(), spread.provider.gate()
    job_id, reader = await scene.running(Text("all "), Wait(gate), Text("of it"), Wait(end), then=[[Text("all of it")]])
    workshop = local.worker.workshop
    log = workshop.plane.at(await server_of(spread, job_id)).log
    append, settle = log.append, workshop.settle_log

    async def held(appends: Any) -> list[bool]:
        taken.set()
        await said.wait()
        return await append(appends)

    async def settling(attempt: Any) -> None:
        said.set()
        await settle(attempt)

    monkeypatch.setattr(log, "append", held)
    monkeypatch.setattr(workshop, "settle_log", settling)
    url, _ = await spread.log_at(job_id)
    async with Redis.from_url(url) as server:
        await server.flushall()
    gate.open()
    await taken.wait()
    end.open()
    await reader.finish()
    assert (await scene.client.job(job_id))["text"] == "all of it"
