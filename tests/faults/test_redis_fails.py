"""Redis dies, forgets, fills up, lags, and loses replies; one worker alone is cut off from it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence

import pytest

from shared.events import EventId
from shared.jobs import LIVE
from shared.log import Log
from shared.redis import Scripts
from tests.client import body, text
from tests.faults.conftest import LEASE_S, ROOMY
from tests.faults.proxy import Proxy, sha
from tests.faults.scene import Scene
from tests.provider import ScriptedProvider, Silence, Step, Text, Tokens, Wait
from tests.stack import Stack, eventually
from tests.valkey import valkey


@pytest.fixture
async def forgetful(prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """A stack on a Valkey of its own that keeps nothing when it is restarted."""
    with valkey() as server:
        stack = Stack(server, prefix, provider)
        stack.configure(lease_s=LEASE_S, **ROOMY)
        try:
            yield stack
        finally:
            await stack.close()


async def test_redis_killed_under_load_loses_no_token_and_asks_nothing_twice(own: Stack) -> None:
    """Case 14. Twice in a row, with jobs at every stage; no process exits, no attempt is lost."""
    own.configure(lease_s=5)
    worker = await own.worker_process()
    await own.api()
    await own.api()
    scene, gates = Scene(own), [own.provider.gate() for _ in range(4)]
    held = [await scene.submit(Wait(gates[0]), Text("late"))]
    for n in range(12):
        pace = Tokens(f"job {n} writes on and on and on and on and on ", delay_s=0.01 * (n + 1))
        held.append(await scene.submit(Text("first "), Wait(gates[n % 3]), pace, Wait(gates[3]), Text("last")))
    readers = [scene.read(job_id) for job_id in held for _ in range(3)]
    await asyncio.gather(*[reader.until("token") for reader in readers[3:]])
    for round_ in range(2):
        own.valkey.kill()
        gates[round_].open()
        assert (await scene.client.http.post("/v1/jobs", json=body())).status_code == 503
        gates[2].open()
        own.valkey.start()
        fresh = scene.script(Text("posted after it"))

        async def posted(model: str = fresh) -> bool:
            return await scene.post_status(model) == 202

        await eventually(posted)
    gates[3].open()
    await scene.assert_clean()
    assert len(own.provider.calls) == len(scene.record.accepted), "one call a job"
    assert {scene.record.statuses[job_id] for job_id in scene.record.accepted} == {"completed"}
    assert worker.running
    assert all(reader.connections == 1 for reader in readers), "streams stay open"


async def test_a_redis_that_comes_back_empty_hangs_nobody_and_mixes_nothing(forgetful: Stack) -> None:
    """Case 16. Old streams end, old jobs are 404 with any cursor, old calls are closed, new jobs run."""
    worker = await forgetful.worker_process()
    await forgetful.api()
    scene = Scene(forgetful)
    old, reader = await scene.running(Text("old "), Silence())
    waiting = scene.read(await scene.submit(Text("old "), Silence(), on_worker_lost="fail"))
    await waiting.until("token")
    forgetful.valkey.kill()
    forgetful.valkey.start()
    await asyncio.gather(reader.finish(), waiting.finish())
    assert reader.gone
    assert waiting.gone
    for call in forgetful.provider.calls:
        await call.closed()
    job_id = await scene.submit(Text("new"))
    for cursor in ("0-1", "1-0", "1-1", "7-7"):
        response = await scene.client.http.get(f"/v1/jobs/{old}/events", headers={"Last-Event-ID": cursor})
        assert response.status_code == 404
    assert (await scene.client.http.get(f"/v1/jobs/{old}")).status_code == 404
    assert (await scene.client.http.post(f"/v1/jobs/{old}/cancel")).status_code == 404
    assert text(await scene.client.all_events(job_id)) == "new"
    assert text(reader.reading.events) == "old "
    assert worker.running


async def test_a_slow_redis_keeps_order_and_causes_no_takeover(quick: Stack, proxy: Proxy) -> None:
    """Case 17. Half a second a command, ± 200 ms, with leases of 3 s; other workers are as quick as ever."""
    quick.configure(lease_s=3.0)
    await quick.api()
    slow = await quick.worker(redis_url=proxy.url)
    scene = Scene(quick)
    steps = Tokens("order is kept however long each append takes " * 4, delay_s=0.14)
    jobs = [await scene.running(steps) for _ in range(3)]
    await quick.worker()
    proxy.latency_s, proxy.jitter_s = 0.25, 0.1
    await scene.assert_clean()
    assert [scene.names(job_id) for job_id, _ in jobs] == [["queued", "started", "completed"]] * 3
    assert len(quick.provider.calls) == 3
    assert not slow.worker.workshop.broken.is_set()


@pytest.mark.parametrize("script", ["claim", "append", "finish", "release", "renew"])
async def test_a_workers_lost_reply_does_nothing_twice_and_forgets_nothing(
    quick: Stack, proxy: Proxy, script: str
) -> None:
    """Case 18. The script ran, the connection broke before the answer: one event, one end, one call, at once."""
    quick.configure(lease_s=5)
    await quick.api()
    worker = await quick.worker(redis_url=proxy.url)
    scene, gate, later = Scene(quick), quick.provider.gate(), quick.provider.gate()
    steps: list[Step] = [Text("be"), Wait(gate), Text("fo"), Wait(later), Text("re")]
    early, _ = await scene.running(*steps, then=[[Text("elsewhere")]])
    lost = proxy.lose_reply(await sha(quick.commands, script))
    if script == "claim":
        await scene.submit(Text("claimed"), then=[[Text("claimed again")]])
    elif script == "release":
        worker.worker.handle_sig(signal.SIGTERM)
    elif script != "renew":
        gate.open()
        if script == "finish":
            later.open()
    await lost.happened()
    if script == "release":
        await quick.worker()
    gate.open()
    later.open()
    await scene.assert_clean(5)
    assert scene.names(early) == ["queued", "started", *(["restarted"] if script == "release" else []), "completed"]


async def test_a_post_whose_reply_from_redis_was_lost_makes_one_job(quick: Stack, proxy: Proxy) -> None:
    """Case 18. The script may run twice; the client is told of the one job that there is."""
    await quick.api(redis_url=proxy.url)
    await quick.api()
    scene = Scene(quick)
    model = scene.script(Text("once"))
    lost = proxy.lose_reply(await sha(quick.commands, "create"))
    assert await scene.post_status(model) == 202
    await lost.happened()
    listed = (await scene.client.http.get("/v1/jobs")).json()["data"]
    assert {job["id"] for job in listed} == scene.record.accepted
    await quick.worker()
    await scene.assert_clean()
    assert len(quick.provider.calls) == 1


@pytest.mark.parametrize("running", [True, False])
async def test_a_cancel_whose_reply_from_redis_was_lost_cancels_once(quick: Stack, proxy: Proxy, running: bool) -> None:
    """Case 18. One last event; the caller is told how it ended."""
    await quick.api(redis_url=proxy.url)
    scene = Scene(quick)
    job_id = await scene.submit(Text("x"), Silence())
    reader = scene.read(job_id)
    if running:
        await quick.worker()
        await reader.until("token")
    lost = proxy.lose_reply(await sha(quick.commands, "cancel"))
    response = await scene.client.http.post(f"/v1/jobs/{job_id}/cancel")
    await lost.happened()
    assert response.status_code in (200, 202)
    assert response.json()["outcome"] != "cancelling"
    await reader.finish()
    await scene.assert_clean()
    assert scene.record.statuses[job_id] == "cancelled"
    await quick.worker()
    again = await scene.client.cancel(job_id)
    assert (again["outcome"], again["status"]) == ("already_finished", "cancelled")


async def test_reads_whose_replies_are_lost_still_see_everything_once(quick: Stack, proxy: Proxy) -> None:
    """Case 18. Subscriptions and reads of an API process are cut again and again in mid-answer."""
    await quick.api(redis_url=proxy.url)
    await quick.worker()
    scene = Scene(quick)
    jobs = [await scene.running(Tokens(f"{n} tokens come one by one " * 8, delay_s=0.02)) for n in range(5)]
    while not all(reader.ended for _, reader in jobs):
        opened = proxy.opened
        proxy.cut()
        await eventually(lambda opened=opened: proxy.opened > opened)  # type: ignore[misc]
    await scene.assert_clean()


@pytest.mark.parametrize("how", ["refused", "black hole"])
async def test_a_worker_cut_off_from_redis_alone_loses_its_jobs_and_does_no_harm(
    quick: Stack, proxy: Proxy, how: str
) -> None:
    """Case 20. Others take over; what it writes afterwards is fenced; its call is closed when it learns of it."""
    await quick.api()
    cut_off = await quick.worker(redis_url=proxy.url)
    scene, gate = Scene(quick), quick.provider.gate()
    old: list[Step] = [Text("old "), Wait(gate), Tokens("a zombie's words " * 50, delay_s=0.01), Silence()]
    job_id, reader = await scene.running(*old, then=[[Text("new "), Text("answer")]])
    ending, other = await scene.running(Text("old "), Wait(gate), Text("end"), then=[[Text("new "), Text("end")]])
    await quick.worker()
    if how == "refused":
        proxy.refuse()
    else:
        proxy.black_hole()
    gate.open()
    await reader.until("restarted", LEASE_S + 2)
    await other.until("restarted", LEASE_S + 2)
    if how == "refused":
        await proxy.accept()
    else:
        proxy.heal()
    await scene.assert_clean()
    assert (scene.record.texts[job_id], scene.record.texts[ending]) == ("new answer", "new end")
    assert quick.provider.calls[0].closed_by_client
    await eventually(lambda: cut_off.worker.workshop.lease.steady)


async def test_a_full_redis_refuses_new_jobs_and_loses_nothing_of_running_ones(forgetful: Stack) -> None:
    """Case 19. Out of memory: POST is 503, streams stay readable; a job completes whole or fails as retryable."""
    await forgetful.api()
    await forgetful.worker()
    scene, gate = Scene(forgetful), forgetful.provider.gate()
    job_id, reader = await scene.running(Text("before "), Wait(gate), Tokens("while it is full ", delay_s=0.01))
    done = await scene.submit(Text("done"))
    await scene.read(done).finish()
    await forgetful.redis.config_set("maxmemory", 1)
    gate.open()
    await forgetful.provider.calls[0].ended()
    refused = await scene.client.http.post("/v1/jobs", json=body())
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert text(await scene.client.all_events(done)) == "done"
    assert (await scene.client.job(job_id))["text"].startswith("before ")
    await forgetful.redis.config_set("maxmemory", 0)
    await scene.assert_clean()
    end = reader.reading.events[-1]
    assert end.event == "completed" or (end.data["code"], end.data["retryable"]) == ("storage_full", True)
    assert scene.names(job_id) == ["queued", "started", end.event]
    assert len(forgetful.provider.calls) == 2


async def test_a_log_that_lost_its_newest_events_is_never_read_with_a_hole(forgetful: Stack) -> None:
    """Case 23. A replica that lagged was promoted: readers see a new state or a new attempt, not a silent gap."""
    await forgetful.api()
    await forgetful.worker()
    scene, gate = Scene(forgetful), forgetful.provider.gate()
    second: Sequence[Step] = [Text("a second attempt")]
    pieces = Tokens([f"{n} " for n in range(8)], delay_s=0.03)
    job_id, _ = await scene.running(pieces, Wait(gate), Text("end"), then=[second])
    log = Log(forgetful.commands, Scripts(forgetful.commands), forgetful.keys)
    key = forgetful.keys.log(job_id)
    await gate.reached()

    async def settled() -> bool:
        last = await log.last(job_id)
        return last is not None and b"7 " in last.data

    await eventually(settled)
    entries = await forgetful.redis.xrange(key)
    pipe = forgetful.redis.pipeline(transaction=True)
    pipe.delete(key)
    for raw_id, fields in entries[:-3]:
        pipe.xadd(key, fields, raw_id)
    await pipe.execute()
    gate.open()
    await scene.read(job_id).finish()
    job = await scene.client.job(job_id)
    assert job["status"] not in LIVE
    whole = "0 1 2 3 4 5 6 7 end"
    assert job["status"] == "failed" or job["text"] in (whole, "a second attempt"), job["text"]
    late = await scene.client.all_events(job_id, str(EventId.parse(entries[-1][0].decode())))
    assert job["status"] == "failed" or text(late) in (whole, "end", "a second attempt")
