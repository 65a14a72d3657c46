"""`GET /v1/usage`: the caller's tokens and cost, by day, model, owner and key; nobody else's."""

import asyncio
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.client import Client
from tests.keys import SECRET
from tests.provider import HttpError, Silence, Text, Usage
from tests.stack import Stack

KEYS = "alice:key-of-alice,alice:second-key,bob:key-of-bob"
PRICES = '["m"]\ninput = 0.15\ncached_input = 0.075\noutput = 0.6\n["anthropic/other"]\ninput = 3\noutput = 15\n'
NOTHING = {
    "jobs": 0, "requests": 0, "input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "reasoning_tokens": 0,
    "estimated_requests": 0, "unpriced_requests": 0, "cost_usd": 0.0, "cost_usd_exact": "0",
}  # fmt: skip


@pytest.fixture
async def guarded(bare: Stack, tmp_path: Path) -> Stack:
    table = tmp_path / "prices.toml"
    table.write_text(PRICES)
    bare.configure(auth="required", secret=SECRET, api_keys=KEYS, prices=str(table))
    await bare.worker()
    await bare.api()
    return bare


async def usage(client: Client, **query: str) -> dict[str, Any]:
    response = await client.http.get("/v1/usage", params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def run(client: Client, *args: str, **fields: Any) -> str:
    job_id = await client.submit(*args, **fields)
    await client.all_events(job_id)
    return job_id


async def test_tokens_and_cost_by_model_owner_and_key(guarded: Stack) -> None:
    alice, second, bob = (guarded.client(key) for key in ("key-of-alice", "second-key", "key-of-bob"))
    guarded.provider.script("m", Text("x"), Usage(input=1000, cached=400, output=70, reasoning=50))
    guarded.provider.script("other", Text("x"), Usage(input=10, output=7))
    guarded.provider.script("new", Text("x"), Usage(input=5, output=5))
    await run(alice)
    await run(second)
    await run(second, "other", "anthropic")
    await run(second, "new")
    await run(bob, "other", "anthropic")
    today = datetime.now(UTC).date().isoformat()

    by_model = await usage(alice, group_by="model")
    assert by_model["to"] == today
    assert [row["model"] for row in by_model["data"]] == ["anthropic/other", "openai/m", "openai/new"]
    assert by_model["data"][1] == {
        "model": "openai/m", "jobs": 2, "requests": 2, "input_tokens": 2000, "cached_input_tokens": 800,
        "output_tokens": 140, "reasoning_tokens": 100, "estimated_requests": 0, "unpriced_requests": 0,
        "cost_usd": 0.000324, "cost_usd_exact": "0.000324",
    }  # fmt: skip
    assert by_model["data"][0]["cost_usd_exact"] == "0.000135"
    unpriced = by_model["data"][2]
    assert (unpriced["cost_usd"], unpriced["cost_usd_exact"], unpriced["unpriced_requests"]) == (None, None, 1)
    total = by_model["total"]
    assert (total["jobs"], total["unpriced_requests"]) == (4, 1)
    assert Decimal(total["cost_usd_exact"]) == Decimal("0.000324") + Decimal("0.000135")

    by_key = (await usage(alice, group_by="key"))["data"]
    assert sorted(row["jobs"] for row in by_key) == [1, 3]
    assert all(row["key"].startswith("key_") and len(row["key"]) == 16 for row in by_key)
    assert "key-of" not in str(by_key)
    by_owner = (await usage(second, group_by="owner"))["data"]
    assert [(row["owner"], row["jobs"]) for row in by_owner] == [("alice", 4)]
    by_both = (await usage(alice, group_by="day,model"))["data"]
    assert [(row["day"], row["model"]) for row in by_both] == [(today, row["model"]) for row in by_model["data"]]
    assert (await usage(alice))["data"] == [{"day": today, **total}]

    bobs = await usage(bob, group_by="owner,model,key,day")
    assert [(row["owner"], row["model"], row["jobs"]) for row in bobs["data"]] == [("bob", "anthropic/other", 1)]
    assert bobs["data"][0]["key"] not in [row["key"] for row in by_key]
    assert bobs["total"]["cost_usd_exact"] == "0.000135"


async def test_requests_are_attempts_and_refused_ones_cost_nothing(guarded: Stack) -> None:
    alice = guarded.client("key-of-alice")
    guarded.provider.script("m", HttpError(401))
    guarded.provider.script("other", Text("x"), Usage(input=10, output=7))
    await run(alice, fallbacks=[{"provider": "anthropic", "model": "other"}])
    other, first = (await usage(alice, group_by="model"))["data"]
    assert (first["jobs"], first["requests"], first["input_tokens"], first["cost_usd"]) == (1, 1, 0, 0.0)
    assert (other["jobs"], other["requests"], other["cost_usd_exact"]) == (0, 1, "0.000135")


async def test_deleting_a_job_or_letting_it_expire_changes_nothing(guarded: Stack) -> None:
    alice = guarded.client("key-of-alice")
    gone, expired = await run(alice), await run(alice)
    before = await usage(alice)
    await alice.http.delete(f"/v1/jobs/{gone}")
    await guarded.redis.delete(guarded.keys.job(expired), guarded.keys.log(expired))
    assert await usage(alice) == before
    assert before["total"]["jobs"] == 2


async def test_a_cancelled_answer_is_in_it_as_an_estimate(guarded: Stack) -> None:
    alice = guarded.client("key-of-alice")
    guarded.provider.script("m", Text("12345678"), Silence())
    job_id = await alice.submit()
    await alice.until(job_id, "token")
    job = await alice.cancel(job_id)
    total = (await usage(alice))["total"]
    assert (total["estimated_requests"], total["output_tokens"]) == (1, 2)
    assert total["cost_usd"] == job["cost_usd"] > 0


async def test_days_are_told_apart_and_kept_for_a_while(guarded: Stack) -> None:
    alice = guarded.client("key-of-alice")
    guarded.provider.script("m", Text("x"), Usage(input=10, output=1))
    await run(alice)
    now = int(time.time())
    today = now // 86_400
    name = guarded.keys.ledger("alice", today)
    ttl = await guarded.redis.ttl(name)
    assert 400 * 86_400 <= ttl <= 401 * 86_400
    for days_ago, requests in ((1, 5), (40, 7), (399, 11), (401, 13)):
        await guarded.redis.hset(  # type: ignore[misc]
            guarded.keys.ledger("alice", today - days_ago), "requests:key_1:openai/a:b/c", str(requests)
        )

    def day(ago: int) -> str:
        return (date(1970, 1, 1) + timedelta(today - ago)).isoformat()

    async def counted(**query: str) -> list[tuple[str, int]]:
        found = await usage(alice, **query)
        return [(row["day"], row["requests"]) for row in found["data"]]

    assert await counted() == [(day(1), 5), (day(0), 1)]
    assert await counted(**{"from": day(40), "to": day(1)}) == [(day(40), 7), (day(1), 5)]
    assert await counted(**{"from": day(39), "to": day(2)}) == []
    assert await counted(to=day(30)) == [(day(40), 7)]
    assert await counted(**{"from": "0001-01-01", "to": "9999-12-31"}) == [
        (day(399), 11), (day(40), 7), (day(1), 5), (day(0), 1),
    ]  # fmt: skip
    by_model = await usage(alice, to=day(1), group_by="model")
    assert by_model["data"][0]["model"] == "openai/a:b/c"


async def test_without_keys_there_is_one_owner_and_no_key(stack: Stack, client: Client) -> None:
    assert (await usage(client))["total"] == NOTHING
    await run(client)
    (row,) = (await usage(client, group_by="owner,key"))["data"]
    assert (row["owner"], row["key"], row["jobs"]) == ("local", None, 1)


async def test_two_jobs_at_once_are_both_counted(stack: Stack, client: Client) -> None:
    await asyncio.gather(*[run(client) for _ in range(20)])
    total = (await usage(client))["total"]
    assert (total["jobs"], total["requests"]) == (20, 20)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"from": "yesterday"}, "from"),
        ({"from": "20261121"}, "from"),
        ({"from": "2026-02-30"}, "from"),
        ({"to": "2026-13-01"}, "to"),
        ({"to": ""}, "to"),
        ({"to": "1700000000"}, "to"),
        ({"from": "2026-11-02", "to": "2026-11-01"}, "from"),
        ({"group_by": "week"}, "group_by"),
        ({"group_by": "day,day"}, "group_by"),
        ({"group_by": ""}, "group_by"),
    ],
)
async def test_a_bad_value_is_422_and_named(stack: Stack, client: Client, query: dict[str, str], field: str) -> None:
    response = await client.http.get("/v1/usage", params=query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
    assert response.json()["errors"][0]["field"] == field
    assert response.headers["content-type"] == "application/problem+json"


async def test_nobody_else_is_answered(guarded: Stack) -> None:
    for client in (guarded.client(), guarded.client("nobody")):
        assert (await client.http.get("/v1/usage")).status_code == 401
    response = await guarded.client("key-of-alice").http.get("/v1/usage", params={"owner": "bob"})
    assert response.json()["total"]["jobs"] == 0
