"""`on_disconnect: cancel`: a closed tab stops the bill, a page refresh does not."""

import asyncio
import time

import pytest

from tests.client import Client, body, text
from tests.provider import Silence, Text, Wait
from tests.stack import Stack, eventually

GRACE_S = 0.4


@pytest.fixture
async def minding(bare: Stack) -> Stack:
    """A stack whose worker judges soon, as it does with any lease that it has held for a while."""
    bare.configure(lease_s=0.3)
    await bare.worker()
    await bare.api()
    await bare.api()
    return bare


async def start(client: Client, grace_s: float = GRACE_S) -> str:
    return await client.submit(on_disconnect="cancel", disconnect_grace_s=grace_s)


async def test_a_closed_tab_stops_the_bill(minding: Stack) -> None:
    client = minding.client()
    minding.provider.script("m", Text("x"), Silence())
    job_id = await start(client)
    await client.until(job_id, "token")
    left = time.monotonic()
    (call,) = minding.provider.calls
    closed = await call.closed()
    assert GRACE_S * 0.9 <= closed - left <= GRACE_S + 1.5
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "token", "cancelled"]


async def test_a_refresh_within_the_grace_changes_nothing(minding: Stack) -> None:
    client = minding.client()
    gate = minding.provider.gate()
    minding.provider.script("m", Text("half "), Wait(gate), Text("whole"))
    job_id = await start(client, grace_s=3)
    for api in (0, 1, 0):
        await client.until(job_id, "token", api=api)
    reader = asyncio.create_task(client.all_events(job_id, api=1))
    await eventually(lambda: minding.apis[1].app.state.rejoin.hub.open_streams == 1)
    gate.open()
    assert text(await reader) == "half whole"


async def test_a_reader_at_another_process_is_enough(minding: Stack) -> None:
    client = minding.client()
    minding.provider.script("m", Text("x"), Silence())
    job_id = await start(client)
    stays = client.events(job_id, api=1)
    for _ in range(3):
        await anext(stays)
    await client.until(job_id, "token", api=0)
    (call,) = minding.provider.calls
    with pytest.raises(TimeoutError):
        await call.ended(timeout_s=GRACE_S * 3)
    await stays.aclose()  # type: ignore[attr-defined]
    assert await call.closed()


async def test_a_job_that_does_not_mind_goes_on_alone(minding: Stack) -> None:
    client = minding.client()
    gate = minding.provider.gate()
    minding.provider.script("m", Text("x"), Wait(gate), Text("y"))
    alone = await client.submit()
    await client.until(alone, "token")
    minds = await start(client)
    await client.until(minds, "token")
    await minding.provider.calls[1].closed()
    gate.open()
    assert text(await client.all_events(alone)) == "xy"


async def test_the_stream_of_the_post_itself_counts(minding: Stack) -> None:
    client = minding.client()
    minding.provider.script("m", Text("x"), Silence())
    asked = {**body(), "on_disconnect": "cancel", "disconnect_grace_s": GRACE_S}
    async with client.http.stream("POST", "/v1/jobs", json=asked, headers={"Accept": "text/event-stream"}) as response:
        (call,) = [await minding.provider.next_call()]
        with pytest.raises(TimeoutError):
            await call.ended(timeout_s=GRACE_S * 3)
        assert response.headers["x-job-id"]
    assert await call.closed()


async def test_a_waiting_job_that_nobody_reads_never_starts(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    job_id = await start(client)
    await client.until(job_id, "queued")
    present = bare.keys.present(job_id)
    await bare.redis.zadd(present, {"submit": 1})
    await eventually(lambda: _over(bare, present))
    other = await client.submit("other")
    await bare.worker()
    assert (await client.all_events(other))[-1].event == "completed"
    assert [e.event for e in await client.all_events(job_id)] == ["queued", "cancelled"]
    assert [call.model for call in bare.provider.calls] == ["other"]


async def _over(stack: Stack, present: str) -> bool:
    """Say whether every process' word has run out."""
    seconds, microseconds = await stack.redis.time()
    words = await stack.redis.zrange(present, 0, -1, withscores=True)
    return all(until < seconds * 1000 + microseconds / 1000 for _, until in words)


async def test_an_api_process_that_is_stopped_leaves_its_readers_their_grace(minding: Stack) -> None:
    client = minding.client()
    gate = minding.provider.gate()
    minding.provider.script("m", Text("half "), Wait(gate), Text("whole"))
    job_id = await start(client, grace_s=3)
    reader = client.events(job_id, api=1)
    events = [await anext(reader) for _ in range(3)]
    await minding.apis[1].stop()
    events += [event async for event in reader]
    gate.open()
    events += await client.all_events(job_id, events[-1].id)
    assert text(events) == "half whole"
    assert events[-1].event == "completed"
