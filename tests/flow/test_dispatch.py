"""From the enqueue to the provider: at once, on every free slot, with no ceiling in the queue."""

import asyncio
import statistics
import time
from typing import Any

import pytest

from tests.client import Client, body
from tests.provider import Silence, Text, Wait
from tests.stack import Stack, eventually


@pytest.mark.alone
async def test_an_idle_worker_calls_the_provider_within_milliseconds(stack: Stack, client: Client) -> None:
    """Contract §6: idle system, POST to the provider called, p50 ≤ 5 ms (all in one process here: bounded at 10)."""
    await client.all_events(await client.submit())
    await stack.provider.next_call()
    waits = []
    for _ in range(50):
        posted = time.monotonic()
        job_id = await client.submit()
        call = await stack.provider.next_call()
        waits.append(call.started_at - posted)
        await client.all_events(job_id)
    assert statistics.median(waits) < 0.010, sorted(waits)


async def test_sixteen_workers_of_ten_slots_run_160_jobs_at_once(bare: Stack) -> None:
    bare.configure(max_jobs=10, max_active_jobs=200)
    await asyncio.gather(*[bare.worker() for _ in range(16)])
    await bare.api()
    client = bare.client()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("x"), Wait(gate), Text("y"))
    ids = await asyncio.gather(*[client.submit() for _ in range(160)])
    await eventually(lambda: bare.provider.active == 160, 15)
    assert [len(local.worker.tasks) for local in bare.workers] == [10] * 16
    assert await bare.redis.zcard(bare.keys.queue) == 0
    gate.open()
    ends = await asyncio.gather(*[client.until(job_id, "completed") for job_id in ids])
    assert len(ends) == 160
    assert len(bare.provider.calls) == 160


async def test_long_jobs_on_a_full_worker_do_not_hide_a_short_one_from_an_idle_one(bare: Stack) -> None:
    """Stock arq reads the first 100 of its queue, running jobs included: an idle worker never saw the 101st."""
    bare.configure(max_jobs=150, max_active_jobs=200)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("long", Text("x"), Silence())
    for _ in range(150):
        await client.submit("long")
    await eventually(lambda: bare.provider.active == 150, 15)
    waiting = await client.submit("short")
    assert (await client.job(waiting))["status"] == "queued"
    await bare.worker(max_jobs=10)
    assert (await client.all_events(waiting))[-1].event == "completed"


async def test_the_queue_is_first_come_first_served(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    models = [f"m{i}" for i in range(8)]
    positions = []
    for model in models:
        response = await client.http.post("/v1/jobs", json=body(model))
        job = response.json()
        positions.append((await client.until(job["id"], "queued")).data["position"])
    assert positions == list(range(1, 9))
    await bare.worker(max_jobs=1)
    await eventually(lambda: len(bare.provider.calls) == 8)
    assert [call.model for call in bare.provider.calls] == models


async def test_a_queue_entry_that_is_no_job_is_dropped_and_the_worker_lives(bare: Stack) -> None:
    """CWE-502: garbage, a pickle or an unknown id in the queue is never unpickled, and stops nobody."""
    await bare.api()
    client = bare.client()
    evil = b"\x80\x04\x95\x1d\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    await bare.redis.set(f"arq:job:{bare.prefix}-evil", evil, ex=60)
    entries = {f"{bare.prefix}-evil".encode(): 1, b"job_unknown": 2, b"\xff\xfe\x00": 3, b"": 4}
    await bare.redis.zadd(bare.keys.queue, entries)
    job_id = await client.submit()
    await bare.worker()
    assert (await client.all_events(job_id))[-1].event == "completed"
    assert await bare.redis.zcard(bare.keys.queue) == 0
    assert await bare.redis.exists(f"arq:job:{bare.prefix}-evil") == 0


async def test_a_claim_whose_reply_was_lost_is_given_back(stack: Stack, client: Client) -> None:
    """The script ran, the worker never heard of it: it asks what it holds before it claims again."""
    queue = stack.workers[0].worker.workshop.queue
    claim = queue.claim
    lost = asyncio.Event()

    async def claim_and_lose(*args: Any, **options: Any) -> object:
        claims = await claim(*args, **options)
        if claims.claims and not lost.is_set():
            lost.set()
            raise ConnectionResetError("the reply was lost")
        return claims

    queue.claim = claim_and_lose  # type: ignore[method-assign, assignment]
    job_id = await client.submit()
    events = await client.all_events(job_id)
    assert lost.is_set()
    assert [event.event for event in events if event.event != "token"] == [
        "queued", "started", "restarted", "completed",
    ]  # fmt: skip
    assert len(stack.provider.calls) == 1
    assert (await client.job(job_id))["attempts"] == 2
