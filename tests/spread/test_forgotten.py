"""What one side knows and the other does not: records without their jobs, processes without their servers."""

import asyncio
from contextlib import suppress

import httpx2
from redis.asyncio import Redis

from tests.provider import ScriptedProvider, Silence, Text
from tests.spread.test_event_servers import server_of
from tests.stack import Stack
from tests.valkey import Valkey, valkey


async def test_readers_of_jobs_that_the_records_have_lost_are_let_go(
    servers: dict[str, Valkey], prefix: str, provider: ScriptedProvider
) -> None:
    """`REDIS_URL` restarted empty: no end will ever come, and their logs are as they were."""
    with valkey() as home:
        stack = Stack(home, prefix, provider)
        stack.event_servers = {name: server.url for name, server in servers.items()}
        try:
            await stack.api()
            await stack.worker()
            client = stack.client()
            provider.script("m", Text("a"), Silence())
            job_id = await client.submit()
            await client.until(job_id, "token")
            begun = asyncio.Event()
            reading = asyncio.create_task(_until_cut(client.http, job_id, begun))
            await begun.wait()
            home.kill()
            home.start()
            await asyncio.wait_for(reading, 8)
            assert (await client.http.get(f"/v1/jobs/{job_id}/events")).status_code == 404
        finally:
            await stack.close()


async def _until_cut(http: httpx2.AsyncClient, job_id: str, begun: asyncio.Event) -> None:
    with suppress(httpx2.HTTPError):
        async with http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
            async for chunk in response.aiter_bytes():
                if b"token" in chunk:
                    begun.set()


async def test_a_process_that_has_not_been_told_of_a_server_still_stops_and_deletes_what_is_there(bare: Stack) -> None:
    await bare.api()
    await bare.worker()
    client = bare.client()
    bare.provider.script("m", Text("a"), Silence())
    running = await client.submit()
    await client.until(running, "token")
    bare.event_servers = {}
    stranger = (await bare.api()).url
    assert await server_of(bare, running)
    stopped = await client.http.post(f"{stranger}/v1/jobs/{running}/cancel")
    assert (stopped.status_code, stopped.json()["outcome"]) == (202, "cancelling")
    assert (await client.all_events(running))[-1].event == "cancelled"
    stopped = await client.http.post(f"{stranger}/v1/jobs/{running}/cancel")
    assert (stopped.status_code, stopped.json()["outcome"]) == (200, "already_finished")
    assert (await client.http.delete(f"{stranger}/v1/jobs/{running}")).status_code == 204


async def test_a_stream_that_cannot_be_opened_takes_no_place(bare: Stack) -> None:
    """Its event server is not one of this process': each try would be one of the owner's streams for ever."""
    bare.configure(max_streams=2)
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    bare.event_servers = {}
    stranger = (await bare.api()).url
    for _ in range(4):
        assert (await client.http.get(f"{stranger}/v1/jobs/{job_id}/events")).status_code == 503
    assert bare.apis[1].app.state.rejoin.streams._here.total() == 0


async def test_who_has_read_an_end_that_its_server_has_lost_need_not_come_back(bare: Stack) -> None:
    """204, from which `EventSource` knows: not a stream on which nothing comes any more."""
    await bare.worker()
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    end = (await client.all_events(job_id))[-1]
    url, log = await bare.log_at(job_id)
    async with Redis.from_url(url) as server:
        await server.delete(log)
    path, headers = f"/v1/jobs/{job_id}/events", {"Last-Event-ID": end.id}
    async with client.http.stream("GET", path, headers=headers) as response:
        assert response.status_code == 204
    polled = await client.http.get(path, headers={**headers, "Accept": "application/json"})
    assert polled.json() == {"events": [], "last_event_id": end.id, "closed": True}
