"""What jobs take and cost: settled once an attempt, added up over all of them, never counted again."""

import signal
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from shared.events import EventId, dump, text_data
from shared.jobs import Jobs
from shared.log import Append, Log
from shared.prices import Rates, Usage
from shared.queue import Claim, Queue
from shared.quotas import Quota
from shared.redis import Scripts
from shared.requests import JobRequest
from shared.spent import ESTIMATE, OPEN, UNASKED, Spent
from tests.client import Client, body, text
from tests.provider import Cut, HttpError, NoUsage, Reasoning, Silence, Text, Wait
from tests.provider import Usage as Used
from tests.stack import Stack

PRICES = '["m"]\ninput = 0.15\ncached_input = 0.075\noutput = 0.6\n["anthropic/other"]\ninput = 3\noutput = 15\n'
OTHER = [{"provider": "anthropic", "model": "other"}]
BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])


@pytest.fixture
async def priced(bare: Stack, tmp_path: Path) -> Client:
    """A client of an API and a worker, where `m` and the fallback have a price."""
    table = tmp_path / "prices.toml"
    table.write_text(PRICES)
    bare.configure(prices=str(table))
    await bare.worker()
    await bare.api()
    return bare.client()


@BOTH
async def test_cached_and_reasoning_tokens_are_the_providers_figures(bare: Stack, priced: Client, name: str) -> None:
    bare.provider.script("m", Reasoning("Hm."), Text("x"), Used(input=1000, cached=400, output=70, reasoning=50))
    job_id = await priced.submit(provider=name)
    last = (await priced.all_events(job_id))[-1].data
    assert last["usage"] == {
        "input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 70, "reasoning_tokens": 50,
        "estimated": False,
    }  # fmt: skip
    assert (
        Decimal(str(last["cost_usd"])) == (600 * Decimal("0.15") + 400 * Decimal("0.075") + 70 * Decimal("0.6")) / 10**6
    )
    job = await priced.job(job_id)
    assert (job["usage"], job["cost_usd"]) == (last["usage"], last["cost_usd"])


async def test_a_refused_attempt_counts_and_costs_nothing(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", HttpError(503))
    bare.provider.then("m", Text("x"), Used(input=10, output=1))
    job = await priced.job(await done(priced, await priced.submit()))
    assert job["usage"] == {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 1, "estimated": False}
    assert Decimal(str(job["cost_usd"])) == Decimal("0.0000021")
    assert job["attempts"] == 2


async def test_a_job_that_fails_has_cost_what_its_attempts_have(bare: Stack, priced: Client) -> None:
    gate = bare.provider.gate()
    bare.provider.script("m", Text("four and four"), Wait(gate), Cut())
    job_id = await priced.submit(messages=[{"role": "user", "content": "x" * 40}])
    await priced.until(job_id, "token")
    gate.open()
    job = await priced.job(await done(priced, job_id))
    assert job["usage"] == {"input_tokens": 10, "cached_input_tokens": 0, "output_tokens": 4, "estimated": True}
    assert job["cost_usd"] == pytest.approx((10 * 0.15 + 4 * 0.6) / 1e6, rel=1e-12)


async def test_a_cancelled_job_that_asked_nobody_took_nothing(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    job = await client.cancel(job_id)
    assert job["usage"] == {"input_tokens": 0, "cached_input_tokens": 0, "output_tokens": 0, "estimated": False}


async def test_a_handed_over_attempt_is_in_the_total_and_makes_it_an_estimate(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", Text("12345678"), Silence())
    bare.provider.then("m", Text("whole"), Used(input=100, output=20))
    job_id = await priced.submit(messages=[{"role": "user", "content": "x" * 40}])
    await priced.until(job_id, "token")
    leaving = bare.workers[0]
    await bare.worker()
    await leaving.stop()
    events = await priced.all_events(job_id)
    assert text(events) == "whole"
    assert events[-1].data["usage"] == {
        "input_tokens": 110, "cached_input_tokens": 0, "output_tokens": 22, "estimated": True,
    }  # fmt: skip
    assert (await priced.job(job_id))["usage"] == events[-1].data["usage"]


async def test_a_lost_attempt_is_in_the_total(bare: Stack) -> None:
    bare.configure(lease_s=0.6)
    doomed = await bare.worker_process()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("12345678"), Silence())
    bare.provider.then("m", Text("whole"), Used(input=100, output=20))
    job_id = await client.submit(messages=[{"role": "user", "content": "x" * 40}])
    await client.until(job_id, "token")
    doomed.signal(signal.SIGKILL)
    await bare.worker()
    events = await client.all_events(job_id)
    assert events[-1].data["usage"] == {
        "input_tokens": 110, "cached_input_tokens": 0, "output_tokens": 22, "estimated": True,
    }  # fmt: skip


async def test_replays_and_repeats_count_nothing_again(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", Text("x"), Used(input=10, output=1))
    headers = {"Accept": "text/event-stream"}
    job_id = await done(priced, await priced.submit())
    before = await ledger(bare)
    for _ in range(3):
        await priced.all_events(job_id)
        await priced.http.get(f"/v1/jobs/{job_id}/events", headers=headers)
        await priced.cancel(job_id)
        await priced.job(job_id)
    assert await ledger(bare) == before
    assert before["requests::openai/m"] == before["jobs::openai/m"] == 1
    await priced.http.delete(f"/v1/jobs/{job_id}")
    assert await ledger(bare) == before, "what was used stays used"


async def test_a_figure_that_is_none_is_an_estimate(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", Text("12345678"), Used(input=10, output=10**12))
    job = await priced.job(await done(priced, await priced.submit()))
    assert (job["status"], job["usage"]["estimated"], job["usage"]["output_tokens"]) == ("completed", True, 2)


async def test_what_the_provider_has_said_before_a_cancel_is_not_guessed(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", Text("12345678"), Silence(), Used(input=1000, cached=400, output=70))
    job_id = await priced.submit(provider="anthropic")
    await priced.until(job_id, "token")
    job = await priced.cancel(job_id)
    assert job["usage"] == {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 2, "estimated": True}


async def test_without_a_figure_it_is_an_estimate(bare: Stack, priced: Client) -> None:
    bare.provider.script("m", Text("12345678"), NoUsage())
    job = await priced.job(await done(priced, await priced.submit()))
    assert (job["usage"]["estimated"], job["usage"]["output_tokens"]) == (True, 2)


# The scripts by themselves: any order, any repeat.


class Bare:
    """One job in the hands of workers that are only names."""

    def __init__(self, stack: Stack) -> None:
        scripts = Scripts(stack.commands)
        self.stack = stack
        self.queue = Queue(stack.commands, scripts, stack.keys)
        self.jobs = Jobs(stack.commands, scripts, stack.keys)
        self.log = Log(stack.commands, scripts, stack.keys)
        self.id = ""

    async def create(self, rates: Rates | None = None, **fields: Any) -> None:
        request = JobRequest.model_validate(body(messages=[{"role": "user", "content": "x" * 40}], **fields))
        self.id = (await self.jobs.create("local", request, 10, rates=rates, can_continue=True)).id

    async def claim(self, worker: str) -> Claim:
        await self.queue.register(worker, 3600)
        (claim,) = (await self.queue.claim(worker, 1, 3600)).claims
        return claim

    async def write(self, claim: Claim, *texts: str) -> None:
        events = [("token", text_data(piece)) for piece in texts]
        first = EventId(claim.attempt, 1)
        assert await self.log.append([Append(self.id, claim.worker, first, claim.log_length, events)]) == [True]

    async def lose(self, worker: str) -> None:
        await self.stack.redis.zadd(self.stack.keys.leases, {worker: 1})
        await self.queue.reap(10, 60, 2**50)

    async def finish(self, claim: Claim, written: int, settlement: Usage) -> bool:
        last = Append(
            self.id, claim.worker, EventId(claim.attempt, written + 1), claim.log_length + written,
            [("completed", dump({}))],
        )  # fmt: skip
        return await self.queue.finish(claim, "completed", last, {}, 60, settlement) is not None

    async def spent(self) -> Spent:
        return (await self.jobs.get(self.id)).spent


RATES = Rates(150_000, 75_000, 600_000)
CALL = Usage(input_tokens=100, cached_input_tokens=10, output_tokens=7)


async def test_every_way_out_of_a_workers_hands_settles_once(bare: Stack) -> None:
    job = Bare(bare)
    await job.create(RATES)
    one, again = await job.claim("one"), None
    for _ in range(2):
        again = await job.queue.again(one, "provider_error", "openai", "m", 0, RATES, CALL)
    assert isinstance(again, Claim)
    cost = 90 * 150_000 + 10 * 75_000 + 7 * 600_000
    assert again.spent == await job.spent() == Spent(1, 100, 10, 7, 0, 0, cost, 0)
    assert again.spent == one.spent.plus(CALL, RATES)
    await job.write(again, "1234", "5678")
    for _ in range(2):
        await job.queue.release(job.id, "one", "worker_stopped", again.attempt, settlement=ESTIMATE)
    assert await job.spent() == Spent(2, 110, 10, 9, 0, 1, cost + 10 * 150_000 + 2 * 600_000, 0)
    three = await job.claim("two")
    await job.write(three, "x" * 4000)
    for _ in range(2):
        await job.lose("two")
    four = await job.claim("three")
    assert four.spent == await job.spent()
    assert (four.spent.requests, four.spent.input_tokens, four.spent.output_tokens) == (3, 120, 1009)
    for _ in range(2):
        assert await job.finish(four, 0, CALL)
    assert await job.spent() == four.spent.plus(CALL, RATES)
    figures = await ledger(bare)
    spent = await job.spent()
    assert figures == {
        "jobs::openai/m": 1,
        "requests::openai/m": 4,
        "input_tokens::openai/m": spent.input_tokens,
        "cached_input_tokens::openai/m": 20,
        "output_tokens::openai/m": spent.output_tokens,
        "estimated::openai/m": 2,
        "cost::openai/m": spent.cost,
        "cost": spent.cost,
    }


async def test_a_call_that_is_left_open_is_settled_once_by_who_ends_it(bare: Stack) -> None:
    job = Bare(bare)
    await job.create(RATES, on_worker_lost="continue")
    one = await job.claim("one")
    await job.write(one, "1234")
    assert await job.queue.release(job.id, "one", "worker_stopped", 1, settlement=OPEN)
    assert await job.spent() == Spent()
    # Nobody went on with it: it is settled where the next call begins.
    two = await job.claim("two")
    assert two.spent == Spent(1, 10, 0, 1, 0, 1, 10 * 150_000 + 600_000, 0)
    following = await job.queue.again(two, "provider_error", "openai", "m", 0, RATES, OPEN)
    assert isinstance(following, Claim)
    await job.write(following, "5678")
    await job.queue.release(job.id, "two", "worker_stopped", following.attempt, settlement=ESTIMATE)
    spent = await job.spent()
    assert (spent.requests, spent.output_tokens) == (2, 2), "one call, though two attempts read it"


async def test_a_claim_that_nobody_ran_asked_nobody(bare: Stack) -> None:
    job = Bare(bare)
    await job.create(RATES)
    await job.claim("one")
    await job.queue.release(job.id, "one", "worker_stopped", settlement=UNASKED)
    assert await job.spent() == Spent()
    assert await ledger(bare) == {}
    await job.jobs.cancel(job.id, 60)
    assert (await job.jobs.get(job.id)).spent.cost_usd == 0


async def test_a_continued_attempt_is_given_the_text_and_pays_for_it(bare: Stack) -> None:
    job = Bare(bare)
    await job.create(RATES, on_worker_lost="continue")
    one = await job.claim("one")
    await job.write(one, "x" * 400)
    await job.lose("one")
    two = await job.claim("two")
    assert (two.base, two.attempt) == (1, 2)
    await job.write(two, "y" * 40)
    await job.lose("two")
    assert (await job.spent()).input_tokens == 10 + (10 + 100)
    assert (await job.spent()).output_tokens == 100 + 10


async def test_a_part_without_a_price_leaves_the_cost_unknown(bare: Stack) -> None:
    job = Bare(bare)
    await job.create(RATES)
    one = await job.claim("one")
    two = await job.queue.again(one, "fallback", "openai", "new", 1, None, CALL)
    assert isinstance(two, Claim)
    assert two.rates is None
    assert two.spent.cost_usd == Decimal("0.00001845")
    assert await job.finish(two, 0, CALL)
    spent = await job.spent()
    assert (spent.cost_usd, spent.cost, spent.unpriced) == (None, two.spent.cost, 1)
    figures = await ledger(bare)
    assert figures["unpriced::openai/new"] == 1
    assert "cost::openai/new" not in figures


async def test_a_long_attempt_is_guessed_from_its_last_events(bare: Stack) -> None:
    job = Bare(bare)
    await job.create()
    one = await job.claim("one")
    await job.write(one, *["12345678"] * 3000)
    await job.lose("one")
    assert (await job.spent()).output_tokens == pytest.approx(6000, rel=0.01)


async def test_models_without_end_do_not_fill_the_ledger(bare: Stack) -> None:
    scripts = Scripts(bare.commands)
    queue, jobs = Queue(bare.commands, scripts, bare.keys), Jobs(bare.commands, scripts, bare.keys)
    await queue.register("w", 3600)
    for n in range(1200):
        request = JobRequest.model_validate(body(model=f"m{n}"))
        await jobs.create("local", request, 10, quota=Quota(posts_per_minute=10_000))
        (claim,) = (await queue.claim("w", 1, 3600)).claims
        last = Append(claim.job_id, "w", EventId(1, 1), claim.log_length, [("completed", b"{}")])
        await queue.finish(claim, "completed", last, {}, 60, Usage(input_tokens=1))
    figures = await ledger(bare)
    assert len(figures) < 2100
    assert sum(value for field, value in figures.items() if field.startswith("requests:")) == 1200
    assert figures["requests::other/other"] > 400


async def done(client: Client, job_id: str) -> str:
    await client.all_events(job_id)
    return job_id


async def ledger(stack: Stack) -> Counter[str]:
    """Return all that the ledger of today has, and of yesterday, should this be midnight."""
    figures: Counter[str] = Counter()
    today = int(time.time()) // 86_400
    for day in (today - 1, today):
        raw = await stack.redis.hgetall(stack.keys.ledger("local", day))  # type: ignore[misc]
        figures.update({field.decode(): int(value) for field, value in raw.items()})
    return figures
