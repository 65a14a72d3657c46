"""What operators see of everybody's jobs, and how they end one."""

import logging
import signal
import time
from typing import Any

import httpx2
import pytest

from shared.backlog import Backlog
from shared.jobs import new_job_id
from shared.overview import LISTED, Overview
from shared.redis import Scripts
from shared.settings import hash_key, key_id
from tests import keys
from tests.client import Client
from tests.provider import Silence, Text, Tokens
from tests.stack import Stack, eventually


async def seen(client: Client) -> dict[str, Any]:
    """Return what is shown just now."""
    response = await client.http.get("/v1/ops")
    assert response.status_code == 200, response.text
    view: dict[str, Any] = response.json()
    return view


def freshly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each look be one into Redis."""
    monkeypatch.setattr("api.operations.KEPT_S", 0.0)
    monkeypatch.setattr("shared.backlog.KEPT_S", 0.0)


def overview(stack: Stack) -> Overview:
    scripts = Scripts(stack.commands)
    return Overview(scripts, stack.keys, Backlog(scripts, stack.keys))


async def test_a_scene_is_shown_as_it_is(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers of different sizes, both full, and one job that waits."""
    freshly(monkeypatch)
    bare.configure(auth="required", secret=keys.SECRET, lease_s=0.9)
    small = await bare.worker(max_jobs=1)
    await bare.api()
    alice = bare.client(await keys.new_key(bare, "alice"))
    olga = bare.client(await keys.new_key(bare, "olga", "--ops"))
    bare.provider.script("silent", Text("words of hers"), Silence())
    first = await alice.submit("silent")
    await alice.until(first, "token")
    large = await bare.worker(max_jobs=2)
    others = [await alice.submit("silent") for _ in range(2)]
    for job_id in others:
        await alice.until(job_id, "token")
    waiting = await alice.submit("silent")

    async def reported() -> dict[str, Any] | None:
        view = await seen(olga)
        answering = all(job["answering"] and job["tokens_per_s"] is not None for job in view["running"]["data"])
        return view if view["queue"]["waiting"] == 1 and answering else None

    view = await eventually(reported)
    names = {worker.worker.workshop.lease.worker: worker for worker in (small, large)}
    workers = {worker["name"]: worker for worker in view["workers"]["data"]}
    assert (view["workers"]["count"], view["workers"]["slots"]) == (2, 3)
    assert {(names[name], worker["slots"], worker["running"]) for name, worker in workers.items()} == {
        (small, 1, 1), (large, 2, 2),
    }  # fmt: skip
    for worker in workers.values():
        assert worker["state"] == "alive"
        assert 0 < worker["lease_left_s"] <= 0.9
        assert worker["resting"] == 0
    assert view["running"]["count"] == 3
    listed = view["running"]["data"]
    assert listed[0]["id"] == first
    assert {job["id"] for job in listed} == {first, *others}
    assert listed[0]["worker"] == small.worker.workshop.lease.worker
    for job in listed:
        assert (job["owner"], job["model"], job["attempt"]) == ("alice", "openai/silent", 1)
        assert 0 <= job["running_s"] <= job["age_s"] < 20
        assert not job["cancelling"]
    assert 0 <= view["queue"]["oldest_age_s"] < 20
    assert view["queue"]["blocked"] == 0
    assert "words of hers" not in str(view)
    assert waiting not in str(view)


@pytest.mark.alone
async def test_a_rate_is_that_of_the_moment(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that has stopped to come has one of 0, however fast it came before."""
    freshly(monkeypatch)
    bare.configure(lease_s=0.9)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Tokens("x" * 4_000), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    rates: list[float] = []

    async def stalled() -> bool:
        (job,) = (await seen(client))["running"]["data"]
        if job["tokens_per_s"] is not None and job["tokens_per_s"] not in rates:
            rates.append(job["tokens_per_s"])
        return rates[-1:] == [0.0]

    await eventually(stalled)
    assert rates[0] > 100


@pytest.mark.alone
async def test_a_killed_workers_jobs_are_seen_to_go_elsewhere(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    freshly(monkeypatch)
    bare.configure(lease_s=1.0)
    doomed = await bare.worker_process()
    await bare.api()
    client = bare.client()
    bare.provider.script("silent", Text("x"), Silence())
    job_id = await client.submit("silent")
    await client.until(job_id, "token")
    (before,) = (await seen(client))["workers"]["data"]
    doomed.signal(signal.SIGKILL)
    await eventually(lambda: _states(client, {"lost"}))
    (job,) = (await seen(client))["running"]["data"]
    assert (job["id"], job["worker"], job["attempt"]) == (job_id, before["name"], 1)
    await bare.worker()

    async def moved() -> bool:
        view = await seen(client)
        jobs = view["running"]["data"]
        return bool(jobs) and jobs[0]["attempt"] == 2 and before["name"] not in str(view)

    await eventually(moved)


async def test_workers_stand_in_one_order_however_their_leases_go(bare: Stack) -> None:
    """Lost ones first: a list that is looked at every two seconds must not be another one each time."""
    await bare.redis.zadd(bare.keys.leases, {"b": 8e15, "c": 9e15, "a": 7e15, "z": 1})
    for end in (1e15, 9.9e15):
        await bare.redis.zadd(bare.keys.leases, {"b": end})
        workers = (await overview(bare).look())["workers"]["data"]
        assert [worker["name"] for worker in workers] == ["z", "a", "b", "c"]


async def _states(client: Client, states: set[str]) -> bool:
    return {worker["state"] for worker in (await seen(client))["workers"]["data"]} == states


async def test_lines_and_pauses_are_shown(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    freshly(monkeypatch)
    bare.configure(limits={"openai/m": {"concurrent": 1}})
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("x"), Silence())
    first = await client.submit()
    await client.until(first, "token")
    await client.submit()
    await bare.redis.zadd(bare.keys.pauses, {"openai/tired": 9e15})

    async def blocked() -> Any:
        queue = (await seen(client))["queue"]
        return queue if queue["blocked"] else None

    queue = await eventually(blocked)
    assert (queue["waiting"], queue["blocked"]) == (1, 1)
    assert queue["lines"] == [{"scope": "openai/m", "waiting": 1}]
    assert [pause["scope"] for pause in queue["pauses"]] == ["openai/tired"]
    assert queue["oldest_age_s"] is not None


async def test_an_operator_cancels_anybodys_job(bare: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """The log says who has done it."""
    caplog.set_level(logging.INFO, "uvicorn.error")
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    alice = bare.client(await keys.new_key(bare, "alice"))
    key = await keys.new_key(bare, "olga", "--ops")
    olga = bare.client(key)
    bare.provider.script("silent", Text("x"), Silence())
    job_id = await alice.submit("silent")
    await alice.until(job_id, "token")
    call = await bare.provider.next_call()
    response = await olga.http.post(f"/v1/ops/jobs/{job_id}/cancel")
    assert (response.status_code, response.json()) == (
        200, {"id": job_id, "status": "cancelled", "outcome": "cancelled"},
    )  # fmt: skip
    await call.closed()
    said = f"job {job_id} of alice: cancelled by operator olga ({key_id(hash_key(key))})"
    assert said in caplog.messages
    assert (await alice.all_events(job_id))[-1].event == "cancelled"
    again = await olga.http.post(f"/v1/ops/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["outcome"]) == (200, "already_finished")


async def test_a_key_has_the_right_only_if_it_was_made_so(bare: Stack) -> None:
    """One of the settings never has it: it could not be taken away from it."""
    bare.configure(auth="required", secret=keys.SECRET, api_keys="boss:key-of-the-settings")
    await bare.api()
    plain, with_right = await keys.new_key(bare, "boss"), await keys.new_key(bare, "boss", "--ops")
    rights = {"key-of-the-settings": 404, plain: 404, with_right: 200}
    for key, status in rights.items():
        assert (await bare.client(key).http.get("/v1/ops")).status_code == status
    lines = (await keys.command(bare, "list", "--owner", "boss")).splitlines()
    assert [" ops" in line for line in lines[1:]] == [False, False, True]


async def test_without_keys_this_machine_operates(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    assert (await seen(client))["workers"] == {"count": 0, "slots": 0, "data": []}
    elsewhere = await client.http.get("/v1/ops", headers={"X-Forwarded-For": "203.0.113.9"})
    assert elsewhere.status_code == 401


async def test_many_screens_cost_one_look_a_second(bare: Stack) -> None:
    await bare.api()
    here, client = bare.apis[0].app.state.rejoin, bare.client()
    looks = 0
    look = here.operations._overview.look

    async def counted() -> Any:
        nonlocal looks
        looks += 1
        return await look()

    here.operations._overview.look = counted
    began_s = time.monotonic()
    answers = [(await client.http.get("/v1/ops")).json()["at"] for _ in range(20)]
    assert looks <= 1 + (time.monotonic() - began_s)
    assert len(set(answers)) == looks


async def crowd(stack: Stack, jobs: int, owner: str, model: str) -> None:
    """Have so many jobs run in ten workers' hands, as far as Redis knows; high numbers have run for longest."""
    seconds, _ = await stack.redis.time()
    async with stack.redis.pipeline(transaction=False) as pipe:
        for number in range(jobs):
            job_id, worker = new_job_id(), f"worker-{number % 10}"
            started = seconds * 1000 - number
            record = {"owner": owner, "provider": "openai", "model": model, "status": "running", "attempt": 1}
            moments = {"created_ms": started - 5, "started_ms": started, "first_token_ms": started + 5}
            pipe.hset(stack.keys.job(job_id), mapping={**record, **moments, "number": number})
            pipe.sadd(stack.keys.running(worker), job_id)
            pipe.zadd(stack.keys.leases, {worker: 9e15})
        await pipe.execute()


@pytest.mark.alone
async def test_a_thousand_running_jobs_are_a_small_answer_soon(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    freshly(monkeypatch)
    await bare.api()
    client = bare.client()
    await crowd(bare, 1_000, "an-owner-with-a-long-name", "a-model-with-a-rather-long-name-2026-11-21")
    took_s = []
    for _ in range(5):
        began_s = time.perf_counter()
        assert len((await client.http.get("/v1/ops")).content) < 100_000
        took_s.append(time.perf_counter() - began_s)
    assert min(took_s) < 0.05
    running = (await seen(client))["running"]
    assert (running["count"], len(running["data"])) == (1_000, LISTED)
    ages = [job["running_s"] for job in running["data"]]
    assert ages == sorted(ages, reverse=True)
    read = bare.commands.read
    numbers = [int(await read("HGET", bare.keys.job(job["id"]), "number")) for job in running["data"]]
    assert numbers == list(range(999, 799, -1))


async def test_the_longest_and_worst_names_are_cut(bare: Stack) -> None:
    await crowd(bare, 300, "o" * 5_000, "\x00\u2028<b>" * 1_000)
    view = await overview(bare).look()
    (job, *_) = view["running"]["data"]
    assert len(job["owner"]) == len(job["model"]) == 120
    assert len(str(view)) < 200_000


async def test_what_is_not_ours_under_our_names_counts_as_nothing(bare: Stack) -> None:
    """Keys of any type, reports and records that are none: what is left is shown."""
    names = bare.keys
    await crowd(bare, 3, "alice", "m")
    await bare.commands.call("SADD", names.running("worker-0"), "job_x", b"\xff\xfe", new_job_id())
    await bare.redis.set(names.running("worker-1"), "a string")
    await bare.redis.zadd(names.leases, {b"\xff": 0})
    for report in (b"", b"[]", b"{", b"\xff", b'{"slots":"x","resting":1,"up_s":1,"rates":{}}', b'{"slots":1}'):
        await bare.redis.set(names.report("worker-0"), report)
        await bare.commands.call("HSET", names.report("worker-2"), "a", "hash")
        view = await overview(bare).look()
        assert view["workers"]["count"] == 4
        assert len(view["running"]["data"]) == 2
    for name in (names.queue, names.blocked, names.lines, names.pauses, names.leases):
        await bare.redis.delete(name)
        await bare.redis.set(name, "a string")
    view = await overview(bare).look()
    assert (view["queue"]["waiting"], view["workers"]["count"]) == (0, 0)


async def test_without_redis_there_is_no_view(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    freshly(monkeypatch)
    await bare.api(redis_url="redis://127.0.0.1:1/0")
    response: httpx2.Response = await bare.client().http.get("/v1/ops")
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
