"""Redis goes and comes back: nothing is lost, nobody exits, nothing is asked of the provider twice."""

import asyncio
import time
from collections.abc import AsyncIterator

import httpx2
import pytest

from tests.client import body, text
from tests.provider import ScriptedProvider, Silence, Text, Tokens, Wait
from tests.scrape import scrape
from tests.stack import Stack, eventually
from tests.valkey import free_port, valkey


@pytest.fixture
async def own(prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """A stack on a Valkey of its own, with its data on disk as in production."""
    with valkey("--appendonly", "yes", "--appendfsync", "everysec") as server:
        stack = Stack(server, prefix, provider)
        try:
            yield stack
        finally:
            await stack.close()


async def test_redis_killed_in_mid_answer_loses_no_token(own: Stack) -> None:
    worker = await own.worker_process()
    await own.api()
    client = own.client()
    gate = own.provider.gate()
    own.provider.script("m", Text("before "), Wait(gate), Tokens("while it is away ", delay_s=0.02), Text("after"))
    job_id = await client.submit()
    stream = client.events(job_id)
    events = [await anext(stream) for _ in range(3)]
    assert events[-1].event == "token"

    async def read_on() -> None:
        events.extend([event async for event in stream])

    reader = asyncio.create_task(read_on())
    own.valkey.kill()
    gate.open()
    call = own.provider.calls[0]
    await call.ended()
    assert not reader.done(), "the reader's stream stays open"
    asked = time.monotonic()
    refused = await client.http.post("/v1/jobs", json=body())
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1
    assert time.monotonic() - asked < 1
    assert (await client.http.get("/livez")).status_code == 200
    assert (await client.http.get("/readyz")).status_code == 503
    own.valkey.start()
    await asyncio.wait_for(reader, 15)
    assert text(events) == "before while it is away after"
    assert [event.event for event in events if event.event != "token"] == ["queued", "started", "completed"]
    assert len(own.provider.calls) == 1
    assert worker.running

    async def ready() -> bool:
        return (await client.http.get("/readyz")).status_code == 200

    await eventually(ready)
    assert (await client.all_events(await client.submit()))[-1].event == "completed"


async def test_a_redis_that_may_drop_jobs_is_not_ready(own: Stack) -> None:
    await own.api()
    client = own.client()
    assert (await client.http.get("/readyz")).status_code == 200
    await own.redis.config_set("maxmemory-policy", "allkeys-lru")
    response = await client.http.get("/readyz")
    assert response.status_code == 503
    assert "noeviction" in response.json()["detail"]


async def test_processes_may_start_before_redis(own: Stack) -> None:
    own.valkey.kill()
    await own.api()
    starting = asyncio.create_task(own.worker_process())
    client = own.client()
    assert (await client.http.get("/livez")).status_code == 200
    assert (await client.http.get("/readyz")).status_code == 503
    own.valkey.start()
    await starting
    assert (await client.all_events(await client.submit()))[-1].event == "completed"


async def test_a_worker_is_alive_and_not_ready_while_redis_is_away(own: Stack) -> None:
    own.valkey.kill()
    port = free_port()
    starting = asyncio.create_task(own.worker_process(REJOIN_WORKER_PORT=str(port)))
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:

        async def says(path: str, status: int) -> bool:
            try:
                return (await http.get(path)).status_code == status
            except httpx2.TransportError:
                return False

        await eventually(lambda: says("/livez", 200), 20)
        assert await says("/readyz", 503)
        assert (await scrape(str(http.base_url)))("rejoin_redis_up") == 0
        own.valkey.start()
        await starting
        await eventually(lambda: says("/readyz", 200))
        own.valkey.kill()
        assert await says("/readyz", 503)
        assert await says("/livez", 200)
        found = await scrape(str(http.base_url))
        assert (found("rejoin_redis_up"), found("rejoin_slots", state="free")) == (0, 200)
        assert "rejoin_queue_depth" not in found.names()


async def test_a_full_redis_fails_the_answer_and_keeps_what_is_there_readable(own: Stack) -> None:
    await own.worker()
    await own.api()
    client = own.client()
    gate = own.provider.gate()
    own.provider.script("m", Text("half "), Wait(gate), Text("never stored"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    await own.redis.config_set("maxmemory", "1mb")
    gate.open()
    events = await asyncio.wait_for(client.all_events(job_id), 10)
    assert [event.event for event in events] == ["queued", "started", "token", "failed"]
    assert (events[-1].data["code"], events[-1].data["retryable"]) == ("storage_full", True)
    assert [event.id for event in events] == ["0-1", "1-0", "1-1", "1-2"]
    assert await own.provider.calls[0].closed()
    refused = await client.http.post("/v1/jobs", json=body())
    assert refused.status_code == 503
    assert await own.redis.zcard(own.keys.queue) == 0
    assert text(await client.all_events(job_id)) == "half "
    await own.redis.config_set("maxmemory", "0")
    assert (await client.all_events(await client.submit("other")))[-1].event == "completed"
