"""Stop stops: from any API process, queued or running, also while the provider is silent."""

import asyncio
import time

import pytest

from tests.client import Client, text
from tests.provider import Silence, Text, Tokens, Wait
from tests.stack import Stack


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_cancel_in_mid_answer_closes_the_providers_connection(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Silence())
    job_id = await client.submit(provider=name)
    await client.until(job_id, "token")
    (call,) = stack.provider.calls
    result = await client.cancel(job_id, api=1)
    assert await call.closed()
    assert result["outcome"] == "cancelled"
    assert result["status"] == "cancelled"
    assert result["text"] == "Hel"
    assert result["usage"]["output_tokens"] == 1
    assert result["usage"]["estimated"] is True
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "token", "cancelled"]
    assert events[-1].data == {"usage": result["usage"]}
    assert len(stack.provider.calls) == 1


async def test_cancel_before_the_first_token_closes_the_providers_connection(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Wait(stack.provider.gate()))
    job_id = await client.submit()
    call = await stack.provider.next_call()
    result = await client.cancel(job_id)
    assert result["outcome"] == "cancelled"
    assert await call.closed()


@pytest.mark.alone
async def test_cancel_takes_less_than_a_tenth_of_a_second(stack: Stack, client: Client) -> None:
    """Contract §6: cancel to the provider's connection closed, p99 ≤ 100 ms."""
    stack.provider.script("m", Text("x"), Silence())
    took = []
    for _ in range(40):
        job_id = await client.submit()
        call = await stack.provider.next_call()
        await client.until(job_id, "token")
        asked = time.monotonic()
        await client.cancel(job_id, api=1)
        took.append(await call.closed() - asked)
    assert sorted(took)[int(len(took) * 0.95)] < 0.1, took


async def test_a_job_cancelled_in_the_queue_never_starts(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    result = await client.cancel(job_id)
    assert result["outcome"] == "cancelled_before_start"
    assert result["status"] == "cancelled"
    other = await client.submit("other")
    await bare.worker()
    assert (await client.all_events(other))[-1].event == "completed"
    assert [call.model for call in bare.provider.calls] == ["other"]
    events = await client.all_events(job_id)
    assert [(event.id, event.event) for event in events] == [("0-1", "queued"), ("0-2", "cancelled")]
    assert await bare.redis.zcard(bare.keys.queue) == 0


async def test_cancel_is_idempotent_and_adds_nothing(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    results = await asyncio.gather(*[client.cancel(job_id, api=i % 2) for i in range(8)])
    assert {result["outcome"] for result in results} <= {"cancelled", "already_finished"}
    again = await client.cancel(job_id)
    assert again["outcome"] == "already_finished"
    assert again["status"] == "cancelled"
    assert len(await client.all_events(job_id)) == 4


async def test_cancel_after_the_end_changes_nothing(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    before = await client.all_events(job_id)
    result = await client.cancel(job_id)
    assert result["outcome"] == "already_finished"
    assert result["status"] == "completed"
    assert await client.all_events(job_id) == before


async def test_cancel_while_the_answer_ends_gives_exactly_one_end(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens(["a ", "b ", "c "], delay_s=0.005))
    for pause_ms in range(0, 30, 2):
        job_id = await client.submit()
        await asyncio.sleep(pause_ms / 1000)
        result = await client.cancel(job_id, api=1)
        events = await client.all_events(job_id)
        ends = [event.event for event in events if event.event in ("completed", "failed", "cancelled")]
        assert len(ends) == 1
        assert events[-1].event == ends[0] == result["status"]
        if ends == ["completed"]:
            assert text(events) == "a b c "


async def test_cancel_survives_a_lost_message(stack: Stack, client: Client) -> None:
    """The message is a wake-up: without it the next renewal of the lease brings the cancel."""
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    workshop = stack.workers[0].worker.workshop
    workshop.lease.message = lambda payload: None  # type: ignore[method-assign]
    result = await client.cancel(job_id)
    assert result["outcome"] in ("cancelled", "cancelling")
    assert await stack.provider.calls[0].closed()
    assert (await client.all_events(job_id))[-1].event == "cancelled"


async def test_cancel_answers_202_when_the_worker_does_not_confirm(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.routes.jobs.CONFIRM_S", 0.05)
    await bare.api()
    worker = await bare.worker(lease_s=60)
    worker.worker.workshop.lease.message = lambda payload: None  # type: ignore[method-assign]
    client = bare.client()
    bare.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    response = await client.http.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 202
    assert response.json()["outcome"] == "cancelling"
    assert response.json()["status"] == "running"
