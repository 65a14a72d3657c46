"""What stands in Redis under our names and is not ours costs the job that it is about, and no other.

Whoever can write to Redis is the operator (SECURITY.md). A slip of the hand, a foreign program in the same database
or a half-restored backup must still not stop everybody's jobs.
"""

import asyncio
import json
import pickle
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from shared.limits import Limit
from tests.client import Client, body, text
from tests.provider import Silence, Text, Tokens, Wait
from tests.stack import Stack, eventually

Poison = Callable[[Stack, str], Coroutine[Any, Any, Any]]


class Bomb:
    """A pickle that would tell on whoever loads it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was loaded",))


async def replace(stack: Stack, key: str, kind: str = "string") -> None:
    """Put something of another type under one of our names."""
    ttl = max(60_000, await stack.redis.pttl(key))
    await stack.redis.delete(key)
    if kind == "string":
        await stack.redis.set(key, pickle.dumps(Bomb()))
    elif kind == "set":
        await stack.redis.sadd(key, "x", b"\xff\x00")  # type: ignore[misc]
    elif kind == "stream":
        await stack.redis.xadd(key, {"a": "b", "c": "d"})
    await stack.redis.pexpire(key, ttl)


async def works(stack: Stack, client: Client, model: str = "after") -> None:
    """See a new job through, claimed, written, ended and read."""
    stack.provider.script(model, Text("fine"))
    events = await asyncio.wait_for(client.all_events(await client.submit(model)), 10)
    assert (events[-1].event, text(events)) == ("completed", "fine")
    for local in stack.workers:
        assert not local.worker.workshop.broken.is_set()


async def ended(client: Client, job_id: str) -> str | None:
    """Return how a job has ended, by its record; 'gone' when there is none that can be read."""
    response = await client.http.get(f"/v1/jobs/{job_id}")
    if response.status_code == 404:
        return "gone"
    if response.status_code == 503:
        return None
    status: str = response.json()["status"]
    return None if status in ("queued", "running") else status


ENTRIES = {
    "nothing": b"job_" + b"0" * 32,
    "empty": b"",
    "a glob": b"*",
    "binary": b"\xff\xfe\x00\r\n\x80",
    "a pickle": pickle.dumps(Bomb()),
    "a megabyte": b"x" * 1_000_000,
    "another key's name": b"x:../../queue",
    "JSON": b'{"__proto__":1}',
}


async def test_queue_entries_that_are_no_jobs_are_dropped(bare: Stack) -> None:
    """CWE-502, CWE-20: garbage in front of the queue, 300 entries of it, holds up no job and is never unpickled."""
    await bare.api()
    client = bare.client()
    waiting = await client.submit()
    for number, entry in enumerate(ENTRIES.values()):
        await bare.redis.zadd(bare.keys.queue, {entry: -number})
        await bare.redis.set(b"arq:job:" + entry[:64], pickle.dumps(Bomb()), px=60_000)
    await bare.redis.zadd(bare.keys.queue, {f"junk-{number}": -1e9 for number in range(300)})
    await bare.redis.zadd(bare.keys.queue, {"infinite": "-inf"})
    await bare.worker()
    assert (await asyncio.wait_for(client.all_events(waiting), 10))[-1].event == "completed"
    assert await bare.redis.zcard(bare.keys.queue) == 0
    await works(bare, client)


def record(**fields: Any) -> Poison:
    async def poison(stack: Stack, job_id: str) -> None:
        await stack.redis.hset(stack.keys.job(job_id), mapping=fields)  # type: ignore[misc]

    return poison


def without(*fields: str) -> Poison:
    async def poison(stack: Stack, job_id: str) -> None:
        await stack.redis.hdel(stack.keys.job(job_id), *fields)  # type: ignore[misc]

    return poison


def other(key: str, kind: str) -> Poison:
    async def poison(stack: Stack, job_id: str) -> None:
        await replace(stack, getattr(stack.keys, key)(job_id), kind)

    return poison


async def log_with_two_fields(stack: Stack, job_id: str) -> None:
    await stack.redis.xadd(stack.keys.log(job_id), {"token": "{}", "other": "x"}, id="1-9")


async def log_with_the_highest_id(stack: Stack, job_id: str) -> None:
    await stack.redis.xadd(stack.keys.log(job_id), {"token": "{}"}, id="18446744073709551615-18446744073709551615")


async def log_of_bytes(stack: Stack, job_id: str) -> None:
    await stack.redis.xadd(stack.keys.log(job_id), {b"\xff\xfe": b"\x00\xff{"}, id="1-9")


WAITING: dict[str, Poison] = {
    "a string for a record": other("job", "string"),
    "a set for a record": other("job", "set"),
    "a stream for a record": other("job", "stream"),
    "a string for a log": other("log", "string"),
    "a set for a log": other("log", "set"),
    "a log of something else": other("log", "stream"),
    "a string for its readers": other("present", "string"),
    "a log with the highest id": log_with_the_highest_id,
    "a log of bytes": log_of_bytes,
    "no attempt": without("attempt"),
    "no owner": without("owner"),
    "no request": without("request"),
    "no target": without("target"),
    "no provider": without("provider", "model"),
    "no moment": without("created_ms"),
    "no priority": without("priority"),
    "an attempt that is no number": record(attempt="many"),
    "an endless attempt": record(attempt="1e400"),
    "usage that is none": record(used="a b c", call="x"),
    "rates that are none": record(rates=b"\xff"),
    "a request that is none": record(request=pickle.dumps(Bomb())),
    "a provider of bytes": record(provider=b"\xff\xfe", model=b"\x00"),
    "a run that is none": record(run=b"\x00{", attempt="1", base="1"),
    "a status that is none": record(status=b"\xff"),
    "a line that is none": record(line="x"),
    "an owner of another key": record(owner="x:../../y"),
}


@pytest.mark.parametrize("poison", WAITING.values(), ids=WAITING.keys())
async def test_a_waiting_job_that_was_tampered_with_holds_up_nobody(bare: Stack, poison: Poison) -> None:
    """CWE-20, CWE-703: before, between and behind healthy jobs, with limits as well, whatever it is."""
    bare.configure(limits={"openai": Limit(concurrent=2)}, lease_s=1)
    await bare.api()
    client = bare.client()
    first, bad, last = [await client.submit() for _ in range(3)]
    await poison(bare, bad)
    await bare.worker()
    for job_id in (first, last):
        assert (await asyncio.wait_for(client.all_events(job_id), 10))[-1].event == "completed"
    await works(bare, client)
    assert (await client.http.get("/v1/jobs")).status_code == 200
    assert (await client.http.post(f"/v1/jobs/{bad}/cancel")).status_code in (200, 202, 404, 503)


RUNNING: dict[str, Poison] = {
    "a string for a record": other("job", "string"),
    "a set for a log": other("log", "set"),
    "a string for a log": other("log", "string"),
    "a log with two fields": log_with_two_fields,
    "a log with the highest id": log_with_the_highest_id,
    "no owner": without("owner"),
    "usage that is none": record(used="a b c"),
    "no turn": without("turn"),
    "no losses": without("losses"),
    "no base": without("base"),
}


@pytest.mark.parametrize("poison", RUNNING.values(), ids=RUNNING.keys())
async def test_a_running_job_that_was_tampered_with_stops_no_other(bare: Stack, poison: Poison) -> None:
    """CWE-20, CWE-703: its worker goes on appending, ending, claiming and reading for all others."""
    bare.configure(lease_s=1)
    local = await bare.worker()
    await bare.api()
    client = bare.client()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate), Text("b"), Text("c"))
    good, bad = await client.submit(), await client.submit()
    for job_id in (good, bad):
        await client.until(job_id, "token")
    await poison(bare, bad)
    gate.open()
    events = await asyncio.wait_for(client.all_events(good), 10)
    assert (events[-1].event, text(events)) == ("completed", "abc")
    await works(bare, client)
    await eventually(lambda: ended(client, bad), 15)
    await eventually(lambda: not local.worker.tasks)
    assert await bare.redis.scard(bare.keys.running(local.worker.workshop.lease.worker)) == 0  # type: ignore[misc]


@pytest.mark.parametrize("poison", RUNNING.values(), ids=RUNNING.keys())
async def test_a_lost_workers_jobs_are_taken_over_beside_one_that_was_tampered_with(
    bare: Stack, poison: Poison
) -> None:
    """CWE-20, CWE-703: the reaper ends the one and requeues the others."""
    bare.configure(lease_s=0.5)
    await bare.api()
    client = bare.client()
    lost = await bare.worker()
    bare.provider.script("m", Text("a"), Silence())
    jobs = [await client.submit() for _ in range(4)]
    for job_id in jobs:
        await client.until(job_id, "token")
    workshop = lost.worker.workshop
    for task in workshop._tasks:
        task.cancel()
    await poison(bare, jobs[1])
    bare.provider.script("m", Text("whole"))
    await bare.worker()
    for job_id in (jobs[0], *jobs[2:]):
        assert text(await asyncio.wait_for(client.all_events(job_id), 15)) == "whole"
    await works(bare, client)
    assert await bare.redis.zscore(bare.keys.leases, workshop.lease.worker) is None


@pytest.mark.parametrize("kind", ["string", "set", "stream"])
@pytest.mark.parametrize("name", ["wake", "lines", "pauses", "blocked", "ended", "orphans", "round", "queue"])
async def test_a_key_of_all_jobs_that_is_of_another_type_is_replaced(bare: Stack, name: str, kind: str) -> None:
    """CWE-20, CWE-703: what our own scripts can put there again is put there again."""
    bare.configure(limits={"openai": Limit(concurrent=1)}, lease_s=1)
    await bare.worker()
    await bare.api()
    client = bare.client()
    key = getattr(bare.keys, name)
    await works(bare, client, "before")
    await replace(bare, key, kind)
    await eventually(lambda: posted(client), 10)
    await works(bare, client)


async def posted(client: Client) -> bool:
    return (await client.http.post("/v1/jobs", json=body("first"))).status_code == 202


@pytest.mark.parametrize("name", ["running", "cancels"])
async def test_a_workers_own_sets_that_are_of_another_type_are_replaced(bare: Stack, name: str) -> None:
    """CWE-20, CWE-703: neither its lease nor its claims are lost by it."""
    bare.configure(lease_s=0.6)
    local = await bare.worker()
    await bare.api()
    client = bare.client()
    worker = local.worker.workshop.lease.worker
    await replace(bare, getattr(bare.keys, name)(worker), "string")
    await works(bare, client)
    renewed = await bare.redis.zscore(bare.keys.leases, worker)
    await eventually(lambda: later(bare, worker, renewed))
    assert local.worker.workshop.lease.worker == worker


async def later(stack: Stack, worker: str, moment: float) -> bool:
    return bool(await stack.redis.zscore(stack.keys.leases, worker) > moment)


async def test_workers_that_nobody_knows_are_reaped_whatever_they_are_called(bare: Stack) -> None:
    """CWE-20: names of bytes, of another key, with a set of the wrong type or of ids that are none."""
    bare.configure(lease_s=0.5)
    await bare.worker()
    await bare.api()
    client = bare.client()
    prefix = bare.prefix.encode()
    for number, name in enumerate([b"\xff\x00", b"", b"x:y", b"typed", b"full"]):
        await bare.redis.zadd(bare.keys.leases, {name: 1 + number})
    await bare.redis.set(prefix + b":running:typed", "x", px=60_000)
    await bare.redis.sadd(prefix + b":running:full", b"\xff", b"", b"*", b"x" * 100_000)  # type: ignore[misc, arg-type]
    await works(bare, client)
    await eventually(lambda: only_one(bare), 10)
    await works(bare, client, "again")


async def only_one(stack: Stack) -> bool:
    return bool(await stack.redis.zcard(stack.keys.leases) == 1)


async def test_logs_that_cannot_be_compacted_leave_the_others_to_be(bare: Stack) -> None:
    """CWE-20, CWE-703: a worker's compactor survives ids and logs of every kind, and does its work behind them."""
    local = await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Tokens("a b c d e f ", delay_s=0.03))
    jobs = [await client.submit() for _ in range(4)]
    for job_id in jobs:
        await client.all_events(job_id)
    await replace(bare, bare.keys.log(jobs[0]), "string")
    await replace(bare, bare.keys.log(jobs[1]), "stream")
    await bare.redis.xadd(bare.keys.log(jobs[2]), {"token": "{not json"}, id="9-9")
    entries: dict[Any, float] = {b"\xff\x00": 1, b"": 2, **dict.fromkeys(jobs, 3)}
    await bare.redis.zadd(bare.keys.ended, entries)
    compactor = local.worker.workshop.compactor
    compactor._age_s = 0
    await compactor.run_once()
    assert await bare.redis.zcard(bare.keys.ended) == 0
    assert await bare.redis.xlen(bare.keys.log(jobs[3])) == 2


async def test_orphaned_runs_that_are_none_are_forgotten(bare: Stack) -> None:
    """CWE-20, CWE-502"""
    await bare.worker()
    await bare.api()
    await bare.redis.zadd(bare.keys.orphans, {b"\xff": 1, b"{}": 1, b"[1]": 1, pickle.dumps(Bomb()): 1})
    await bare.redis.publish(bare.keys.orphans, b"\x00" * 1000)

    async def none() -> bool:
        return bool(await bare.redis.zcard(bare.keys.orphans) == 0)

    await eventually(none)
    await works(bare, bare.client())


def garbage(job_id: str) -> list[bytes]:
    return [
        b"", b"\n", b"\n\n", b"\xff\xfe\n\x00\n\x80", b"1-1", b"1-1\ntoken", b"x" * 1_000_000, b"\n" * 10_000,
        b"9" * 5000 + b"-1\ntoken\n{}", b"-1-1\ntoken\n{}", b"9999-1\ncompleted\n{}", b"0-1\nqueued\n{}",
        b"1-x\ntoken\n{}", pickle.dumps(Bomb()), job_id.encode() * 1000, b"\r\nevent: completed\r\n\r\n",
    ]  # fmt: skip


async def test_messages_that_nobody_of_ours_has_sent_change_no_history(bare: Stack) -> None:
    """CWE-345, CWE-93: garbage on every channel; what is no next event is looked up in the log, which alone decides."""
    bare.configure(auth="off")
    local = await bare.worker()
    await bare.api()
    client = bare.client()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate), Text("b"))
    job_id = await client.submit()
    reading = asyncio.create_task(client.all_events(job_id))
    await client.until(job_id, "token")
    channels = [
        bare.keys.log(job_id), bare.keys.control(local.worker.workshop.lease.worker), bare.keys.orphans,
        bare.keys.key_changes,
    ]  # fmt: skip
    for channel in channels:
        for message in garbage(job_id):
            await bare.redis.publish(channel, message)
    assert sum(map(len, local.worker.workshop._early_cancels)) < 100_000
    gate.open()
    events = await asyncio.wait_for(reading, 10)
    assert [event.event for event in events].count("completed") == 1
    assert (events[-1].event, text(events)) == ("completed", "ab")
    assert len({event.id for event in events}) == len(events)
    await works(bare, client)


async def test_a_present_list_of_another_type_deserts_no_other_job(bare: Stack) -> None:
    """CWE-703: a job that minds being read by nobody is judged by its own list."""
    local = await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("a"), Silence())
    minding: dict[str, Any] = {"on_disconnect": "cancel", "disconnect_grace_s": 1}
    bad, good = await client.submit(**minding), await client.submit(**minding)
    for job_id in (bad, good):
        await client.until(job_id, "token")
    await replace(bare, bare.keys.present(bad), "string")
    presence = local.worker.workshop._presence
    await eventually(lambda: named(presence, bad, good), 10)


async def named(presence: Any, bad: str, good: str) -> bool:
    return bool(await presence.absent([bad, good]) == [good])


async def test_a_record_in_a_list_that_cannot_be_read_hides_no_other(bare: Stack) -> None:
    """CWE-20, CWE-703: no server error, for the job or for the list of its owner."""
    await bare.worker()
    await bare.api()
    client = bare.client()
    jobs = [await client.submit() for _ in range(5)]
    for job_id in jobs:
        await client.all_events(job_id)
    await bare.redis.hset(bare.keys.job(jobs[0]), mapping={"metadata": "{", "used": "x"})  # type: ignore[misc]
    await replace(bare, bare.keys.job(jobs[1]), "string")
    await bare.redis.hset(bare.keys.job(jobs[2]), mapping={"status": "\x00"})  # type: ignore[misc]
    await bare.redis.hset(bare.keys.job(jobs[3]), mapping={"provider": b"\xff"})  # type: ignore[misc]
    for job_id in jobs[:4]:
        for method, tail in (("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
            response = await client.http.request(method, f"/v1/jobs/{job_id}{tail}")
            assert response.status_code == 404, (method, tail)
    (only,) = (await client.http.get("/v1/jobs")).json()["data"]
    assert only["id"] == jobs[4]
    assert json.dumps(only)
