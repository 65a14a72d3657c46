"""`Idempotency-Key`: however many clicks, one job and one call to the provider."""

import asyncio
from typing import Any

import pytest

from tests.client import Client, Frames, body
from tests.faults.proxy import Proxy, sha
from tests.keys import SECRET
from tests.provider import Silence, Text
from tests.stack import Stack

SSE = {"Accept": "text/event-stream"}
GUARD = {
    "auth": "required",
    "secret": SECRET,
    "api_keys": "alice:key-of-alice,alice:second-key,bob:key-of-bob",
}


async def post(client: Client, key: str, api: int = 0, **more: Any) -> Any:
    headers = {"Idempotency-Key": key, **more.pop("headers", {})}
    return await client.http.post(f"{client.urls[api]}/v1/jobs", json=more.pop("json", body()), headers=headers, **more)


async def jobs_of(client: Client) -> list[str]:
    return [job["id"] for job in (await client.http.get("/v1/jobs")).json()["data"]]


async def test_fifty_parallel_clicks_make_one_job_and_one_call(stack: Stack, client: Client) -> None:
    """Contract §2, on two API processes."""
    responses = await asyncio.gather(*[post(client, "click", api=n % 2) for n in range(50)])
    assert {response.status_code for response in responses} == {202}
    (job_id,) = {response.json()["id"] for response in responses}
    first = [response for response in responses if "idempotency-replayed" not in response.headers]
    assert len(first) == 1
    assert all(response.headers["idempotency-replayed"] == "true" for response in responses if response not in first)
    await client.all_events(job_id)
    assert await jobs_of(client) == [job_id]
    assert len(stack.provider.calls) == 1


async def test_a_repeat_is_answered_as_the_first_was_whatever_became_of_the_job(stack: Stack, client: Client) -> None:
    first = (await post(client, "k")).json()
    await client.all_events(first["id"])
    again = await post(client, "k")
    assert again.status_code == 202
    assert again.headers["location"] == first["url"]
    assert again.headers["x-job-id"] == first["id"]
    # Its ticket is a fresh one.
    assert {**again.json(), "events_url": ""} == {**first, "events_url": ""}
    assert (await client.http.get(again.json()["events_url"])).status_code == 200


async def test_the_same_request_written_otherwise_is_the_same(stack: Stack, client: Client) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    first = await post(client, "k", json=body(tools=[tool], metadata={"a": "1", "b": "2"}))
    schema = {"properties": {"b": {}, "a": {"type": "string"}}, "type": "object"}
    tool = {"function": {"parameters": schema, "name": "f"}, "type": "function"}
    again = await post(client, "k", json=body(priority="normal", metadata={"b": "2", "a": "1"}, tools=[tool]))
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


@pytest.mark.parametrize("change", [{"model": "other"}, {"temperature": 0.5}, {"metadata": {"chat": "43"}}])
async def test_the_same_key_for_another_body_is_422(stack: Stack, client: Client, change: dict[str, Any]) -> None:
    first = await post(client, "k", json=body(metadata={"chat": "42"}))
    response = await post(client, "k", json={**body(metadata={"chat": "42"}), **change})
    assert (response.status_code, response.json()["code"]) == (422, "idempotency_mismatch")
    assert response.headers["content-type"] == "application/problem+json"
    assert await jobs_of(client) == [first.json()["id"]]
    again = await post(client, "k", json=body(metadata={"chat": "42"}))
    assert again.json()["id"] == first.json()["id"]


async def test_anothers_same_key_is_another_job(bare: Stack) -> None:
    """CWE-639: a key says nothing about what others do under it."""
    bare.configure(**GUARD)
    await bare.api()
    alice, second, bob = (bare.client(key) for key in ("key-of-alice", "second-key", "key-of-bob"))
    alices, bobs = await post(alice, "k"), await post(bob, "k", json=body("other"))
    assert bobs.status_code == 202
    assert "idempotency-replayed" not in bobs.headers
    assert bobs.json()["id"] != alices.json()["id"]
    # The owner counts, not which of its keys it comes with.
    assert (await post(second, "k")).json()["id"] == alices.json()["id"]


async def test_a_repeat_that_streams_gets_the_same_job_from_its_start(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("Hello"))
    job_id = (await post(client, "k")).json()["id"]
    await client.all_events(job_id)
    response = await post(client, "k", headers=SSE)
    assert response.status_code == 200
    assert response.headers["x-job-id"] == job_id
    assert response.headers["idempotency-replayed"] == "true"
    events = Frames().feed(response.content)
    assert [event.event for event in events] == ["queued", "started", "token", "completed"]
    assert len(stack.provider.calls) == 1


async def test_two_that_stream_at_once_read_one_job(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("Hello"))
    one, two = await asyncio.gather(*[post(client, "k", api=n, headers=SSE) for n in range(2)])
    assert one.headers["x-job-id"] == two.headers["x-job-id"]
    texts = [[event.data["text"] for event in Frames().feed(r.content) if event.event == "token"] for r in (one, two)]
    assert texts == [["Hello"], ["Hello"]]
    assert len(stack.provider.calls) == 1


async def test_a_job_that_is_gone_is_not_made_again(stack: Stack, client: Client) -> None:
    """Deleted or expired: who repeats himself is not billed again; what the job said is gone."""
    first = (await post(client, "k")).json()
    await client.all_events(first["id"])
    assert (await client.http.delete(first["url"])).status_code == 204
    again = await post(client, "k")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    assert again.headers["idempotency-replayed"] == "true"
    assert (await client.http.get(again.json()["events_url"])).status_code == 404
    streamed = await post(client, "k", headers=SSE)
    assert (streamed.status_code, streamed.json()["code"]) == (404, "job_not_found")
    assert len(stack.provider.calls) == 1


async def test_a_key_is_kept_for_a_day_and_as_a_hash(stack: Stack, client: Client) -> None:
    await post(client, "key-canary-4711")
    (name,) = await stack.redis.keys(f"{stack.prefix}:idempotency:*")
    assert 86_390 < await stack.redis.ttl(name) <= 86_400
    for key in await stack.redis.keys(f"{stack.prefix}:*"):
        assert b"canary" not in key
    assert b"canary" not in await stack.redis.get(name)


async def test_a_refused_request_leaves_the_key_free(bare: Stack) -> None:
    bare.configure(max_queue=2, max_active_jobs=1)
    await bare.api()
    await bare.api(max_active_jobs=10)
    client = bare.client()
    assert (await post(client, "k", json=body(temperature=9))).status_code == 422
    busy = await client.submit()
    assert (await post(client, "k")).status_code == 429
    await client.http.post(f"{client.urls[1]}/v1/jobs", json=body())
    assert (await post(client, "k", api=1)).status_code == 503
    await client.cancel(busy)
    response = await post(client, "k", api=1)
    assert response.status_code == 202
    assert "idempotency-replayed" not in response.headers


async def test_a_repeat_is_answered_also_where_nothing_new_would_be_taken(bare: Stack) -> None:
    bare.configure(max_queue=1, max_active_jobs=1, rate_limit=1)
    await bare.api()
    client = bare.client()
    job_id = (await post(client, "k")).json()["id"]
    assert (await client.http.post("/v1/jobs", json=body())).status_code == 429
    for _ in range(3):
        again = await post(client, "k")
        assert (again.status_code, again.json()["id"]) == (202, job_id)


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "schlüssel"])
async def test_a_bad_key_is_400(stack: Stack, client: Client, key: str) -> None:
    headers = [(b"Idempotency-Key", key.encode()), (b"Content-Type", b"application/json")]
    response = await client.http.post("/v1/jobs", json=body(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_idempotency_key")
    assert await jobs_of(client) == []


async def test_two_keys_in_one_request_are_400(stack: Stack, client: Client) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    response = await client.http.post("/v1/jobs", json=body(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (400, "invalid_idempotency_key")


@pytest.mark.parametrize("key", ["x" * 255, '"8e03978e-40d5-43dd-bc93-6894a57f9324"', "a key: with, everything; in=it"])
async def test_a_key_may_be_any_printable_text(stack: Stack, client: Client, key: str) -> None:
    first, again = await post(client, key), await post(client, key)
    assert first.json()["id"] == again.json()["id"]


async def test_without_a_key_each_click_is_a_job(stack: Stack, client: Client) -> None:
    assert await client.submit() != await client.submit()


async def test_a_lost_reply_of_redis_is_not_a_second_job(bare: Stack) -> None:
    """The script ran, its answer was lost, and it runs again: the same job, created, not replayed."""
    async with Proxy(bare.valkey.port) as proxy:
        await bare.api(redis_url=proxy.url)
        client = bare.client()
        await post(client, "warm")
        lost = proxy.lose_reply(await sha(bare.commands, "create"))
        response = await post(client, "k")
        await lost.happened(2)
        assert response.status_code == 202
        assert "idempotency-replayed" not in response.headers
        assert len(await jobs_of(client)) == 2
        assert (await post(client, "k")).json()["id"] == response.json()["id"]


async def test_a_client_that_was_cut_off_in_mid_post_finds_its_job(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("x"), Silence())
    async with client.http.stream("POST", "/v1/jobs", json=body(), headers={"Idempotency-Key": "k", **SSE}) as stream:
        job_id = stream.headers["x-job-id"]
    again = await post(client, "k", api=1)
    assert again.json()["id"] == job_id
    assert await jobs_of(client) == [job_id]
    await client.until(job_id, "token")
    await client.cancel(job_id)
    assert len(stack.provider.calls) == 1
