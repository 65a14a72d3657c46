"""What one owner may take: POSTs a minute, live jobs, open streams, tokens, money. Each refusal, and each way back."""

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.client import Client, Frames, body
from tests.keys import SECRET
from tests.provider import HttpError, Silence, Step, Text, Tokens, Usage
from tests.stack import Stack, eventually
from tests.valkey import Valkey, free_port, valkey

SSE = {"Accept": "text/event-stream"}
GUARD = {
    "auth": "required",
    "secret": SECRET,
    "api_keys": "alice:key-of-alice,bob:key-of-bob",
}


def refusal(response: Any, code: str, policy: str) -> int:
    """Check a 429 and return its Retry-After."""
    assert (response.status_code, response.json()["code"]) == (429, code), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert policy in response.headers["ratelimit-policy"]
    assert f"{policy.partition(';')[0]};r=0" in response.headers["ratelimit"]
    return int(response.headers["retry-after"])


async def statuses(client: Client, count: int, **fields: Any) -> list[int]:
    """POST so often at once, to all API processes in turn."""
    urls = [f"{client.urls[n % len(client.urls)]}/v1/jobs" for n in range(count)]
    responses = await asyncio.gather(*[client.http.post(url, json=body(**fields)) for url in urls])
    return sorted(response.status_code for response in responses)


async def live_jobs(stack: Stack, owner: str = "local") -> set[str]:
    return {raw.decode() for raw in await stack.redis.zrange(stack.keys.live_jobs(owner), 0, -1)}


# POSTs a minute.


async def age(stack: Stack, seconds: int, count: int | None = None) -> None:
    """Let the first POSTs of the owner have been so much earlier."""
    name = stack.keys.posts("local")
    moments = await stack.redis.lrange(name, 0, -1)  # type: ignore[misc]
    for at, moment in enumerate(moments[:count]):
        await stack.redis.lset(name, at, str(int(moment) - seconds * 1000))  # type: ignore[misc]


async def test_so_many_posts_a_minute_and_no_more(bare: Stack) -> None:
    bare.configure(rate_limit=3)
    await bare.api()
    await bare.api()
    client = bare.client()
    for left in (2, 1, 0):
        response = await client.http.post("/v1/jobs", json=body())
        assert response.status_code == 202
        assert response.headers["ratelimit-policy"] == '"posts";q=3;w=60, "jobs";q=100;qu="concurrent-requests"'
        assert re.match(rf'"posts";r={left};t=(60|5\d), "jobs";r={97 + left}$', response.headers["ratelimit"])
    for url in client.urls:
        response = await client.http.post(f"{url}/v1/jobs", json=body())
        assert 50 < refusal(response, "rate_limited", '"posts";q=3;w=60') <= 60


async def test_the_minute_slides(bare: Stack) -> None:
    bare.configure(rate_limit=3)
    await bare.api()
    client = bare.client()
    assert await statuses(client, 4) == [202, 202, 202, 429]
    await age(bare, 45)
    response = await client.http.post("/v1/jobs", json=body())
    assert 10 < refusal(response, "rate_limited", '"posts";q=3;w=60') <= 15, "when the oldest is a minute old"
    await age(bare, 20, count=1)
    assert await statuses(client, 3) == [202, 429, 429], "one is a minute old, so one may come"
    await age(bare, 3600)
    assert await statuses(client, 4) == [202, 202, 202, 429]


async def test_a_clock_that_was_set_back_locks_nobody_out(bare: Stack) -> None:
    bare.configure(rate_limit=2)
    await bare.api()
    client = bare.client()
    assert await statuses(client, 2) == [202, 202]
    await age(bare, -3600)
    assert await statuses(client, 3) == [202, 202, 429]


async def test_a_burst_on_two_processes_gets_exactly_the_limit(bare: Stack) -> None:
    bare.configure(rate_limit=7)
    await bare.api()
    await bare.api()
    assert await statuses(bare.client(), 40) == [202] * 7 + [429] * 33


async def test_only_jobs_are_counted(bare: Stack) -> None:
    """Not what is refused, and neither reads nor cancels."""
    bare.configure(rate_limit=2)
    await bare.api()
    client = bare.client()
    assert await statuses(client, 5, temperature=9) == [422] * 5
    job_id = await client.submit()
    for _ in range(5):
        await client.job(job_id)
        await client.cancel(job_id)
        assert (await client.http.get("/v1/jobs")).status_code == 200
    assert await statuses(client, 3) == [202, 429, 429]


async def test_one_owner_takes_nothing_from_another(bare: Stack) -> None:
    bare.configure(rate_limit=3, max_active_jobs=2, **GUARD)
    await bare.api()
    alice, bob = bare.client("key-of-alice"), bare.client("key-of-bob")
    assert await statuses(alice, 4) == [202, 202, 429, 429]
    assert await statuses(bob, 1) == [202]


# Live jobs.


async def test_so_many_jobs_are_live_and_no_more(bare: Stack) -> None:
    bare.configure(max_active_jobs=5)
    await bare.api()
    await bare.api()
    client = bare.client()
    assert await statuses(client, 30) == [202] * 5 + [429] * 25
    response = await client.http.post("/v1/jobs", json=body())
    assert refusal(response, "too_many_jobs", '"jobs";q=5;qu="concurrent-requests"') >= 1
    assert len(await live_jobs(bare)) == 5


@pytest.mark.parametrize("way", ["completed", "failed", "cancelled", "cancelled before it starts", "deserted"])
async def test_a_jobs_place_comes_back_however_it_ends(bare: Stack, way: str) -> None:
    bare.configure(max_active_jobs=1)
    await bare.api()
    if way != "cancelled before it starts":
        await bare.worker()
    client = bare.client()
    steps: dict[str, list[Step]] = {"failed": [HttpError(401)], "completed": [Text("x")]}
    bare.provider.script("m", *steps.get(way, [Text("x"), Silence()]))
    fields: dict[str, Any] = {"on_disconnect": "cancel", "disconnect_grace_s": 0} if way == "deserted" else {}
    job_id = await client.submit(**fields)
    if way in ("cancelled", "deserted"):
        await client.until(job_id, "token")
    if way.startswith("cancelled"):
        assert await live_jobs(bare) == {job_id}
        await client.cancel(job_id)
    await eventually(lambda: _none_live(bare), 10)
    assert (await client.job(job_id))["status"] == ("cancelled" if way == "deserted" else way.split()[0])
    assert await statuses(client, 1) == [202]


async def _none_live(stack: Stack) -> bool:
    return not await live_jobs(stack)


async def test_a_lost_workers_job_is_live_until_it_ends(bare: Stack) -> None:
    bare.configure(max_active_jobs=2, lease_s=1)
    await bare.api()
    doomed = await bare.worker_process()
    client = bare.client()
    for model in ("m", "other"):
        bare.provider.script(model, Text("x"), Silence())
        bare.provider.then(model, Text("y"))
    again, failed = await client.submit(), await client.submit("other", on_worker_lost="fail")
    await asyncio.gather(client.until(again, "token"), client.until(failed, "token"))
    doomed.signal(signal.SIGKILL)
    await doomed.exit_code()
    assert await live_jobs(bare) == {again, failed}
    await bare.worker()
    ends = [events[-1].event for events in await asyncio.gather(client.all_events(again), client.all_events(failed))]
    assert ends == ["completed", "failed"]
    assert await live_jobs(bare) == set()


async def test_a_job_whose_record_is_gone_holds_no_place(bare: Stack) -> None:
    bare.configure(max_active_jobs=3)
    await bare.api()
    client = bare.client()
    ids = [await client.submit() for _ in range(3)]
    assert await statuses(client, 1) == [429]
    await bare.redis.delete(bare.keys.job(ids[1]))
    assert await statuses(client, 2) == [202, 429]
    await bare.redis.zadd(bare.keys.live_jobs("local"), {ids[0]: 1})
    assert await statuses(client, 2) == [202, 429], "its record would have expired"


async def test_after_a_flush_everything_is_free(bare: Stack) -> None:
    bare.configure(max_active_jobs=1, rate_limit=1)
    await bare.api()
    client = bare.client()
    assert await statuses(client, 2) == [202, 429]
    await bare.redis.delete(*await bare.redis.keys(f"{bare.prefix}:*"))
    assert await statuses(client, 2) == [202, 429]


# Open streams.


class Streams:
    """Streams that are held open, each as its client would."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.exits = AsyncExitStack()

    async def open(self, job_id: str, api: int = 0, accept: str = "text/event-stream") -> Any:
        return await self.ask("GET", f"{self.client.urls[api]}/v1/jobs/{job_id}/events", accept)

    async def ask(self, method: str, url: str, accept: str, **more: Any) -> Any:
        """Return the response, with its stream open; read whole, if it is none."""
        response = await self.exits.enter_async_context(
            self.client.http.stream(method, url, headers={"Accept": accept}, **more)
        )
        if response.status_code != 200:
            await response.aread()
        return response

    async def close(self) -> None:
        await self.exits.aclose()


@pytest.fixture
async def streams(bare: Stack) -> AsyncIterator[Streams]:
    """At most two at once, over two API processes."""
    bare.configure(max_streams=2)
    await bare.api()
    await bare.api()
    opened = Streams(bare.client())
    yield opened
    await opened.close()


def too_many(response: Any) -> bool:
    return refusal(response, "too_many_streams", '"streams";q=2;qu="concurrent-requests"') >= 1


async def test_so_many_streams_are_open_over_all_processes_and_no_more(streams: Streams) -> None:
    job_id = await streams.client.submit()
    for api in range(2):
        assert (await streams.open(job_id, api)).status_code == 200
    for api in range(2):
        for accept in ("text/event-stream", "application/x-ndjson", "application/json"):
            assert too_many(await streams.open(job_id, api, accept))
    await streams.close()

    async def fits() -> bool:
        return (await streams.open(job_id, 1)).status_code == 200

    await eventually(fits)


async def test_every_kind_of_stream_is_one(bare: Stack, streams: Streams) -> None:
    client = streams.client
    job_id = await client.submit()
    assert (await streams.open(job_id, 0, "application/x-ndjson")).status_code == 200
    polling = asyncio.create_task(poll(client, job_id, wait_s=30, last_event_id="0-1"))
    await eventually(lambda: counts(bare, 2))
    assert too_many(await streams.open(job_id, 1))
    await client.cancel(job_id)
    assert (await polling).json()["closed"]
    await streams.close()
    await eventually(lambda: counts(bare, 0))


async def poll(client: Client, job_id: str, **params: Any) -> httpx2.Response:
    url = f"/v1/jobs/{job_id}/events"
    return await client.http.get(url, params=params, headers={"Accept": "application/json"})


async def counts(stack: Stack, streams: int, owner: str = "local") -> bool:
    """Say whether so many streams of an owner are open in Redis' eyes."""
    found = 0
    for name in await stack.redis.keys(f"{stack.prefix}:streams:*"):
        found += int(await stack.redis.hget(name, owner) or 0)  # type: ignore[misc]
    return found == streams


async def test_a_post_that_streams_is_one_and_makes_no_job_when_refused(bare: Stack, streams: Streams) -> None:
    """Else it would run, and be billed, and nobody would know of it."""
    client = streams.client
    for api in range(2):
        opened = await streams.ask("POST", f"{client.urls[api]}/v1/jobs", "text/event-stream", json=body())
        assert opened.status_code == 200
        assert opened.headers["ratelimit"].startswith('"posts";r=')
    for accept in ("text/event-stream", "application/x-ndjson"):
        headers = {"Accept": accept, "Idempotency-Key": "k"}
        assert too_many(await client.http.post("/v1/jobs", json=body(), headers=headers))
    assert len((await client.http.get("/v1/jobs")).json()["data"]) == 2
    # Without a stream it is just a job; then its key is taken, and it is the stream that is refused.
    response = await client.http.post("/v1/jobs", json=body(), headers={"Idempotency-Key": "k"})
    assert response.status_code == 202
    assert too_many(await client.http.post("/v1/jobs", json=body(), headers={**SSE, "Idempotency-Key": "k"}))


async def test_what_does_not_stream_is_always_answered(bare: Stack, streams: Streams) -> None:
    client = streams.client
    bare.provider.script("short", Text("x"))
    job_id = await client.submit()
    for _ in range(2):
        await streams.open(job_id)
    response = await poll(client, job_id, wait_s=0)
    assert response.status_code == 200
    assert response.json()["events"][0]["event"] == "queued"
    await client.cancel(job_id)
    last = (await poll(client, job_id, wait_s=0)).json()["last_event_id"]
    again = await client.http.get(f"/v1/jobs/{job_id}/events", headers={**SSE, "Last-Event-ID": last})
    assert again.status_code == 204


async def test_many_that_come_and_go_leave_nothing_counted(bare: Stack) -> None:
    bare.configure(max_streams=5)
    await bare.api()
    await bare.api()
    client = bare.client()
    job_id = await client.submit()

    async def come_and_go(api: int) -> int:
        async with client.http.stream("GET", f"{client.urls[api]}/v1/jobs/{job_id}/events", headers=SSE) as response:
            return response.status_code

    seen = await asyncio.gather(*[come_and_go(n % 2) for n in range(40)])
    assert set(seen) == {200, 429}
    await eventually(lambda: counts(bare, 0))


async def test_an_owners_streams_are_its_own(bare: Stack) -> None:
    """A ticket's reader counts for the owner of the job."""
    bare.configure(max_streams=1, **GUARD)
    await bare.api()
    alice, bob, anybody = Streams(bare.client("key-of-alice")), Streams(bare.client("key-of-bob")), bare.client()
    created = (await alice.client.http.post("/v1/jobs", json=body())).json()
    opened = Streams(anybody)
    assert (await opened.ask("GET", created["events_url"], "text/event-stream")).status_code == 200
    assert (await alice.open(created["id"])).status_code == 429
    assert (await bob.open(await bob.client.submit())).status_code == 200
    for each in (alice, bob, opened):
        await each.close()


async def test_a_killed_process_streams_come_back(bare: Stack) -> None:
    bare.configure(max_streams=2)
    await bare.api()
    port = free_port()
    doomed = await bare.api_process(port)
    client = bare.client(also=f"http://127.0.0.1:{port}")
    streams, job_id = Streams(client), await client.submit()
    for _ in range(2):
        assert (await streams.open(job_id, 1)).status_code == 200
    assert (await streams.open(job_id, 0)).status_code == 429
    doomed.signal(signal.SIGKILL)
    await doomed.exit_code()
    killed = time.monotonic()

    async def fits() -> bool:
        return (await streams.open(job_id, 0)).status_code == 200

    await eventually(fits)
    assert time.monotonic() - killed < 4
    assert (await streams.open(job_id, 0)).status_code == 200
    await streams.close()


async def test_a_process_whose_word_has_lapsed_gives_it_again_for_all(bare: Stack) -> None:
    """It was frozen, or Redis was away or has lost all; and another owner opens a stream there first."""
    bare.configure(max_streams=1, **GUARD)
    await bare.api()
    await bare.api()
    alice, bob = Streams(bare.client("key-of-alice")), Streams(bare.client("key-of-bob"))
    alices, bobs = await alice.client.submit(), await bob.client.submit()
    assert (await alice.open(alices)).status_code == 200
    await eventually(lambda: counts(bare, 1, "alice"))
    await bare.redis.delete(*await bare.redis.keys(f"{bare.prefix}:streams*"))
    assert (await bob.open(bobs)).status_code == 200
    await eventually(lambda: counts(bare, 1, "alice"))
    assert (await alice.open(alices, 1)).status_code == 429
    await alice.close()
    await bob.close()


async def test_a_quiet_stream_stays_counted(bare: Stack, streams: Streams) -> None:
    """Longer than a process' word is good for."""
    job_id = await streams.client.submit()
    for _ in range(2):
        await streams.open(job_id)
    await asyncio.sleep(3.5)
    assert too_many(await streams.open(job_id, 1))


# Everything is killed.


async def test_kills_in_the_middle_of_everything_leave_every_counter_at_zero(bare: Stack) -> None:
    bare.configure(lease_s=1, max_active_jobs=50, max_streams=50)
    port = free_port()
    doomed = [await bare.api_process(port), await bare.worker_process()]
    await bare.api()
    client = bare.client(also=f"http://127.0.0.1:{port}")
    http = client.http
    bare.provider.improvise("*", lambda call: [Tokens("some words that take their time " * 3, delay_s=0.02)])
    going = True

    async def click(url: str, number: int) -> None:
        count = 0
        while going:
            count += 1
            headers = {**(SSE if count % 2 else {}), "Idempotency-Key": f"{url}-{number}-{count}"}
            try:
                async with http.stream("POST", f"{url}/v1/jobs", json=body(), headers=headers, timeout=5) as response:
                    async for _ in response.aiter_bytes():
                        pass
            except httpx2.HTTPError:
                return

    clicks = [asyncio.create_task(click(url, number)) for url in client.urls for number in range(4)]
    await eventually(lambda: len(bare.provider.calls) > 20, 20)
    assert await live_jobs(bare)
    assert not await counts(bare, 0)
    for process in doomed:
        process.signal(signal.SIGKILL)
    await asyncio.gather(*[process.exit_code() for process in doomed])
    going = False
    assert await live_jobs(bare), "they were killed in the middle"
    await bare.worker()
    await asyncio.gather(*clicks)
    await eventually(lambda: _none_live(bare), 20)
    await eventually(lambda: counts(bare, 0))
    jobs = []
    while (page := (await http.get("/v1/jobs", params={"limit": 100})).json())["data"]:
        jobs += page["data"]
        for job in page["data"]:
            assert (await http.delete(f"/v1/jobs/{job['id']}")).status_code == 204
    assert {job["status"] for job in jobs} == {"completed"}


# Tokens.


@pytest.mark.parametrize(("asked", "given"), [(None, 100), (50, 50), (100, 100), (5_000, 100)])
@pytest.mark.parametrize(("first", "second"), [("openai", "anthropic"), ("anthropic", "openai")])
async def test_an_answers_length_is_kept_to_the_limit(
    bare: Stack, first: str, second: str, asked: int | None, given: int
) -> None:
    bare.configure(max_tokens=100)
    await bare.worker()
    await bare.api()
    client = bare.client()
    fallbacks = [{"provider": second, "model": "other"}]
    bare.provider.script("m", HttpError(401))
    await client.all_events(await client.submit("m", first, max_tokens=asked, fallbacks=fallbacks))
    sent = [call.body.get("max_tokens") or call.body.get("max_completion_tokens") for call in bare.provider.calls]
    assert sent == [given, given]


async def test_a_repeat_is_the_same_after_the_limit_was_changed(bare: Stack) -> None:
    await bare.api()
    await bare.api(max_tokens=100)
    client = bare.client()
    headers = {"Idempotency-Key": "k"}
    ids = {(await client.http.post(f"{u}/v1/jobs", json=body(), headers=headers)).json()["id"] for u in client.urls}
    assert len(ids) == 1


RUNNABLE = {"kind": "langchain", "runnable": "tests.conformance.runnables:model", "honours": ["system"]}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"provider": "agent"}, 202),
        ({"provider": "agent", "max_tokens": 5_000}, 422),
        ({"provider": "agent", "fallbacks": [{"provider": "openai", "model": "m"}]}, 422),
        ({"fallbacks": [{"provider": "agent", "model": "m"}]}, 422),
        ({"provider": "anthropic", "reasoning": {"effort": "low"}}, 422),
    ],
)
async def test_nobody_gets_around_the_limit(bare: Stack, fields: dict[str, Any], status: int) -> None:
    """A runnable that cannot be told is asked as it is, but for nobody who can be."""
    bare.configure(max_tokens=100, more_providers={"agent": RUNNABLE})
    await bare.api()
    response = await bare.client().http.post("/v1/jobs", json={**body(), **fields})
    assert response.status_code == status, response.text


# Money.


@pytest.fixture
async def budgeted(bare: Stack, tmp_path: Path) -> Stack:
    """A dollar buys a million tokens; a day has a tenth of a cent."""
    table = tmp_path / "prices.toml"
    table.write_text('["m"]\ninput = 1\noutput = 1\n')
    bare.configure(daily_usd="0.001", prices=str(table), **GUARD)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"), Usage(input=400, output=100))
    bare.provider.then("m", Text("x"), Usage(input=499, output=0))
    bare.provider.then("m", Text("x"), Usage(input=1, output=0))
    return bare


async def test_what_a_day_may_cost_ends_at_midnight(budgeted: Stack) -> None:
    alice, bob = budgeted.client("key-of-alice"), budgeted.client("key-of-bob")
    budgeted.provider.script("unpriced", Text("x"), Usage(input=1_000_000, output=0))
    await alice.all_events(await alice.submit("unpriced"))
    for _ in range(3):
        await alice.all_events(await alice.submit())
    spent = (await alice.http.get("/v1/usage")).json()["total"]["cost_usd_exact"]
    assert spent == "0.001"
    response = await alice.http.post("/v1/jobs", json=body())
    left_s = 86_400 - time.time() % 86_400
    assert abs(refusal(response, "budget_spent", '"budget";q=0;qu="cents";w=86400') - left_s) < 3
    assert (await alice.http.get("/v1/jobs")).status_code == 200
    await bob.submit()
    # The next day begins with nothing spent.
    today = int(time.time()) // 86_400
    ledger = budgeted.keys.ledger("alice", today)
    await budgeted.redis.rename(ledger, budgeted.keys.ledger("alice", today - 1))
    await alice.submit()


# Sizes.


async def test_a_request_has_two_thousand_messages_at_most(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    message = {"role": "user", "content": "x"}
    assert (await client.http.post("/v1/jobs", json=body(messages=[message] * 2_000))).status_code == 202
    response = await client.http.post("/v1/jobs", json=body(messages=[message] * 2_001))
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


async def test_a_body_without_a_length_is_refused_before_it_is_read_whole(bare: Stack) -> None:
    """CWE-770: it says nothing of its size, and does not end."""
    bare.configure(max_body_bytes=10_000)
    await bare.api()
    host, _, port = bare.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    writer.write(head.encode())
    for _ in range(11):
        writer.write(b"3e8\r\n" + b" " * 1000 + b"\r\n")
    async with asyncio.timeout(5):
        answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "body_too_large"
    writer.close()


# A Redis without memory.


async def test_in_a_full_redis_what_is_there_can_be_streamed(prefix: str, provider: Any) -> None:
    with valkey("--maxmemory-policy", "noeviction") as server:
        stack = Stack(server, prefix, provider)
        try:
            await read_when_full(stack, server)
        finally:
            await stack.close()


async def read_when_full(stack: Stack, server: Valkey) -> None:
    await stack.worker()
    await stack.api()
    client = stack.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    await stack.redis.config_set("maxmemory", "1")
    assert (await client.http.post("/v1/jobs", json=body())).status_code == 503
    response = await client.http.get(f"/v1/jobs/{job_id}/events", headers=SSE)
    assert Frames().feed(response.content)[-1].event == "completed"
    await stack.redis.config_set("maxmemory", "0")
