"""One live answer a chat: what becomes of the older one, in the step that makes the newer."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from tests.abuse.test_poisoned_redis import WAITING, replace
from tests.client import Client
from tests.provider import Silence, Text
from tests.stack import Stack, eventually

HI: Any = [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]


async def ask(client: Client, chat: str = "one", api: int = 0, key: str | None = None, **fields: Any) -> str:
    """Ask in a chat, leave, and return the answer's job."""
    headers = {} if key is None else {"Idempotency-Key": key}
    asked = {"id": chat, "model": "openai/m", "messages": HI, **fields}
    async with client.http.stream("POST", f"{client.urls[api]}/api/chat", json=asked, headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        job_id: str = response.headers["x-job-id"]
        return job_id


async def refusal(client: Client, **fields: Any) -> tuple[int, str]:
    asked = {"id": "one", "model": "openai/m", "messages": HI, **fields}
    response = await client.http.post("/api/chat", json=asked)
    return response.status_code, response.text


async def live(client: Client) -> list[str]:
    found = (await client.http.get("/v1/jobs", params={"limit": 100})).json()["data"]
    return [job["id"] for job in found if job["status"] in ("queued", "running")]


async def resumed(client: Client, chat: str = "one") -> str | None:
    """Return the job whose answer a reload would get."""
    async with client.http.stream("GET", f"/api/chat/{chat}/stream") as response:
        assert response.status_code in (200, 204)
        found: str | None = response.headers.get("x-job-id")
        return found


async def test_fifty_questions_at_once_leave_one_live_answer(stack: Stack, client: Client) -> None:
    """On two API processes, while a worker runs what it gets hold of."""
    stack.provider.script("m", Text("x"), Silence())
    jobs = await asyncio.gather(*[ask(client, api=number % 2) for number in range(50)])
    assert len(set(jobs)) == 50

    async def one() -> bool:
        return len(await live(client)) == 1

    await eventually(one)
    (left,) = await live(client)
    assert await resumed(client) == left
    assert (await client.http.post("/api/chat/one/stop")).json() == {"id": left, "outcome": "cancelled"}
    assert await live(client) == []


async def test_what_waits_is_ended_by_the_step_itself(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    first, other, second = await ask(client), await ask(client, "two"), await ask(client)
    job = await client.job(first)
    assert (job["status"], job["attempts"]) == ("cancelled", 0)
    assert sorted(await live(client)) == sorted([other, second])
    assert await bare.redis.zrange(bare.keys.queue, 0, -1) == [other.encode(), second.encode()]
    assert (await client.all_events(first))[-1].event == "cancelled"


async def test_who_may_have_one_answer_may_ask_anew(bare: Stack) -> None:
    """The one that is interrupted makes room, whether it waits or runs; nothing else does."""
    bare.configure(max_active_jobs=1)
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("x"), Silence())
    await ask(client)
    waiting = await ask(client)
    assert await live(client) == [waiting]
    await bare.worker()
    await client.until(waiting, "token")
    last = await ask(client)
    assert (await refusal(client, id="another"))[0] == 429

    async def alone() -> bool:
        return await live(client) == [last]

    await eventually(alone)


async def test_a_repeat_with_the_same_key_interrupts_nothing(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("x"), Silence())
    first = await ask(client, key="k")
    assert await ask(client, key="k", api=1) == first
    assert await live(client) == [first]
    asked = {"id": "two", "model": "openai/m", "messages": HI}
    again = await client.http.post("/api/chat", json=asked, headers={"Idempotency-Key": "k"})
    assert (again.status_code, again.text) == (422, "This Idempotency-Key was used for another request.")


async def test_a_question_that_is_refused_interrupts_nothing(bare: Stack) -> None:
    """Nothing is cancelled for an answer that there will not be."""
    bare.configure(rate_limit=2)
    await bare.api()
    client = bare.client()
    first = await ask(client)
    assert (await refusal(client, chat_policy="reject"))[0] == 409
    assert (await refusal(client, model="none/such", provider="none"))[0] == 422
    second = await ask(client)
    assert (await refusal(client))[0] == 429
    assert await live(client) == [second]
    assert (await client.job(first))["status"] == "cancelled"


async def test_an_answer_goes_with_its_page_where_that_was_asked_for(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("x"), Silence())
    asked = {"id": "one", "model": "openai/m", "messages": HI, "on_disconnect": "cancel", "disconnect_grace_s": 0.2}
    async with client.http.stream("POST", "/api/chat", json=asked) as response:
        await client.until(response.headers["x-job-id"], "token")
    (call,) = bare.provider.calls
    await call.closed()


async def test_a_chat_is_forgotten_with_its_last_answer(bare: Stack) -> None:
    bare.configure(retention_s=100)
    await bare.worker()
    await bare.api()
    client = bare.client()
    key = bare.keys.chat("local", "one")
    await client.all_events(await ask(client))
    assert 0 < await bare.redis.ttl(key) <= 100
    bare.provider.script("m", Text("x"), Silence())
    first = await ask(client)
    assert await bare.redis.ttl(key) > 100
    await client.until(first, "token")
    await ask(client)
    await client.all_events(first)
    # That of an answer that was interrupted is not the chat's end.
    assert await bare.redis.ttl(key) > 100
    await client.http.post("/api/chat/one/stop")
    assert 0 < await bare.redis.ttl(key) <= 100


async def test_an_answer_that_was_tampered_with_holds_up_no_other(bare: Stack) -> None:
    """CWE-20, CWE-703: whatever stands in the live answer's place, the next question is answered."""
    await bare.api()
    client = bare.client()
    for poison in WAITING.values():
        await poison(bare, await ask(client))
        assert (await client.http.post("/api/chat/one/stop")).status_code in (200, 202, 204, 404, 503)
        assert await resumed(client, "two") is None
        newest = await ask(client)
        assert await resumed(client) == newest
    for kind in ("string", "set", "stream"):
        await replace(bare, bare.keys.chat("local", "one"), kind)
        assert await resumed(client) is None
        assert await resumed(client) != await ask(client)
    await bare.worker()
    bare.provider.script("m", Text("fine"))
    assert (await asyncio.wait_for(client.all_events(await ask(client)), 10))[-1].event == "completed"


@pytest.mark.parametrize("chat", ["a/b", "ä b?#%25", "x/stream", "../up", "💩" * 64])
async def test_any_id_that_a_page_may_have_is_one(stack: Stack, client: Client, chat: str) -> None:
    stack.provider.script("m", Text("x"), Silence())
    first = await ask(client, chat)
    path = quote(chat, safe="")
    assert await resumed(client, path) == first
    assert (await client.http.post(f"/api/chat/{path}/stop")).json()["id"] == first
