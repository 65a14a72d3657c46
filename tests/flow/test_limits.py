"""Limits over all workers: how many calls at once, how much a minute, and a 429 that everybody heeds."""

import asyncio
import random
import time
from contextlib import aclosing
from functools import partial
from typing import Any

import pytest

from shared import prices
from shared.errors import QueueFull
from shared.events import EventId
from shared.jobs import Jobs
from shared.log import Append
from shared.queue import Claim, Full, Queue, Refusal
from shared.quotas import Quota
from shared.redis import Scripts
from shared.requests import JobRequest
from tests.client import Client, Event, body, text
from tests.provider import Failure, HttpError, Text, Tokens, Usage, Wait
from tests.stack import Stack, eventually
from worker import course, retries

REFUSED = Refusal(0, 1, 60)
ROOMY = Quota(posts_per_minute=1_000_000, live_jobs=1_000_000)
"""An owner whose own limits are not in the way."""


async def started(bare: Stack, workers: int = 1, **limits: dict[str, int]) -> Client:
    """Start workers with these limits, and one API process."""
    bare.configure(limits=named(limits))
    for _ in range(workers):
        await bare.worker()
    await bare.api()
    return bare.client()


def named(limits: dict[str, Any]) -> dict[str, Any]:
    return {scope.replace("__", "/"): limit for scope, limit in limits.items()}


async def now_ms(stack: Stack) -> int:
    seconds, micros = await stack.redis.time()
    return int(seconds * 1000 + micros // 1000)


async def are_blocked(stack: Stack, jobs: int) -> bool:
    return bool(await stack.redis.zcard(stack.keys.blocked) == jobs)


class Desk:
    """Jobs and workers by their scripts alone."""

    def __init__(self, stack: Stack, **limits: dict[str, int]) -> None:
        scripts = Scripts(stack.commands)
        settings = stack.settings(limits=named(limits))
        self.stack = stack
        self.created: dict[str, int] = {}
        self.queue = Queue(stack.commands, scripts, stack.keys, settings.limits)
        self.jobs = Jobs(stack.commands, scripts, stack.keys)

    async def create(self, model: str = "m", words: int = 1, max_queue: int = 100_000) -> str:
        request = body(model, messages=[{"role": "user", "content": "four" * words}])
        created = await self.jobs.create("local", JobRequest.model_validate(request), max_queue, quota=ROOMY)
        # The queue's order is that of milliseconds.
        while await now_ms(self.stack) <= created.created_ms:
            pass
        self.created[created.id] = created.created_ms
        return created.id

    async def claim(self, at_most: int = 10, worker: str = "w") -> list[Claim]:
        return (await self.look(at_most, worker)).claims

    async def look(self, at_most: int = 10, worker: str = "w") -> Any:
        await self.queue.register(worker, 60)
        return await self.queue.claim(worker, at_most, 60)

    async def fail(self, claim: Claim, refusal: Refusal | None = None) -> float:
        return (await self.queue.hang_up(claim, prices.Usage(), refusal)).wait_s

    async def end(self, claim: Claim) -> bool:
        last = Append(claim.job_id, "w", EventId(claim.attempt, 1), claim.log_length, [("completed", b"{}")])
        return await self.queue.finish(claim, "completed", last, {}, 60) is not None


async def test_calls_at_once_are_never_more_than_the_limit_over_two_workers(bare: Stack) -> None:
    client = await started(bare, 2, openai={"concurrent": 3})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a "), Wait(gate), Tokens("b c", delay_s=0.01))
    ids = [await client.submit() for _ in range(20)]
    await eventually(lambda: are_blocked(bare, 17))
    await eventually(lambda: bare.provider.active == 3)
    gate.open()
    histories = await asyncio.gather(*[client.all_events(job_id) for job_id in ids])
    assert {events[-1].event for events in histories} == {"completed"}
    assert bare.provider.max_concurrent == 3
    assert await bare.redis.exists(bare.keys.calls("openai")) == 0
    assert await bare.redis.zcard(bare.keys.blocked) == 0
    assert [(await client.job(job_id))["attempts"] for job_id in ids] == [1] * 20


async def test_a_reader_sees_why_its_job_waits(bare: Stack) -> None:
    client = await started(bare, openai__m={"concurrent": 1})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("first"), Wait(gate))
    first = await client.submit()
    await gate.reached()
    others = [await client.submit() for _ in range(2)]
    for place, job_id in enumerate(others, 1):
        told = await second_queued(client, job_id)
        assert (told.id, told.data) == ("0-2", {"position": place, "reason": "concurrency"})
        assert (await client.job(job_id))["status"] == "queued"
    gate.open()
    histories = [await client.all_events(job_id) for job_id in (first, *others)]
    assert [event.event for event in histories[1]] == ["queued", "queued", "started", "token", "completed"]
    assert [call.model for call in bare.provider.calls] == ["m"] * 3


async def second_queued(client: Client, job_id: str) -> Event:
    async with aclosing(client.events(job_id)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.event == "queued" and "reason" in event.data:
                return event
    raise AssertionError("never told why")


async def test_who_was_refused_keeps_nobody_from_a_slot_and_gets_the_next_one_back(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "KEPT_S", 0.0)
    bare.configure(max_jobs=2)
    client = await started(bare)
    both, gate = bare.provider.gate(), bare.provider.gate()
    for _ in range(2):
        bare.provider.then("m", Wait(both), Failure("rate_limit", retry_after_s=0.3))
    bare.provider.then("m", Text("At last."))
    bare.provider.script("other", Text("x"), Wait(gate))
    refused = [await client.submit() for _ in range(2)]
    others = [await client.submit("other") for _ in range(3)]
    # Not one after the other: the first one's refusal would make room before the second one's call is there.
    await eventually(lambda: len(bare.provider.calls) == 2)
    both.open()
    slots = bare.workers[0].worker.workshop.slots
    await eventually(lambda: bare.provider.active == 2 and slots.free(4) == 0)
    # Both would be asked again, and there is no slot for them; nor for the last of the others, before them.
    await eventually(lambda: slots._returning == 2)
    gate.open()
    histories = await asyncio.gather(*[client.all_events(job_id) for job_id in (*refused, *others)])
    assert [text(events) for events in histories] == ["At last."] * 2 + ["x"] * 3
    assert bare.provider.max_concurrent == 2
    assert [call.model for call in bare.provider.calls][:5] == ["m", "m", "other", "other", "m"]
    await eventually(lambda: slots.free(len(bare.workers[0].worker.tasks)) == 2)
    assert (slots._resting, slots._returning) == (0, 0)


async def test_words_of_jobs_that_did_not_come_back_do_not_add_up(bare: Stack) -> None:
    desk = Desk(bare, openai={"concurrent": 1})
    returning = bare.keys.returning("openai")
    await bare.redis.zadd(returning, {f"gone-{number}": number + 1 for number in range(5)})
    await desk.create()
    await desk.create()
    (first,) = await desk.claim()
    await desk.fail(first)
    await desk.claim()
    assert isinstance(await desk.queue.again(first, "provider_error", "openai", "m", 0), Full)
    assert await bare.redis.zrange(returning, 0, -1) == [first.job_id.encode()]


async def test_who_goes_elsewhere_is_not_held_up(bare: Stack) -> None:
    client = await started(bare, openai__m={"concurrent": 1})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("x"), Wait(gate))
    waiting = [await client.submit() for _ in range(4)]
    await gate.reached()
    assert (await client.all_events(await client.submit("other")))[-1].event == "completed"
    assert (await client.all_events(await client.submit("claude", "anthropic", max_tokens=9)))[-1].event == "completed"
    # Who waits takes no slot.
    await eventually(lambda: len(bare.workers[0].worker.tasks) == 1)
    gate.open()
    await asyncio.gather(*[client.all_events(job_id) for job_id in waiting])


async def test_a_call_that_ends_wakes_whoever_waits(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """On another worker, too: nobody looks once a second for it."""
    monkeypatch.setattr("worker.dispatch.LOOK_S", 30.0)
    client = await started(bare, 2, openai={"concurrent": 1})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("x"), Wait(gate))
    first, second = await client.submit(), await client.submit()
    await second_queued(client, second)
    gate.open()
    began_s = time.monotonic()
    for job_id in (first, second):
        await client.all_events(job_id)
    assert time.monotonic() - began_s < 5


async def test_a_waiting_job_is_cancelled_like_any_other(bare: Stack) -> None:
    client = await started(bare, openai={"concurrent": 1})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("x"), Wait(gate))
    first, second, third = [await client.submit() for _ in range(3)]
    await second_queued(client, third)
    assert (await client.cancel(second))["outcome"] == "cancelled_before_start"
    assert [event.event for event in await client.all_events(second)] == ["queued", "queued", "cancelled"]
    assert await bare.redis.zcard(bare.keys.blocked) == 1
    gate.open()
    for job_id in (first, third):
        assert (await client.all_events(job_id))[-1].event == "completed"
    assert len(bare.provider.calls) == 2


async def test_who_stood_behind_a_cancelled_job_is_looked_at_at_once(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.dispatch.LOOK_S", 30.0)
    client = await started(bare, openai={"tokens_per_minute": 100})
    await drained(bare, "tokens_per_minute", 50, 100)
    large = await client.submit(messages=[{"role": "user", "content": "four" * 90}])
    await second_queued(client, large)
    small = await client.submit()
    assert (await second_queued(client, small)).data == {"position": 2, "reason": "tokens_per_minute"}
    await client.cancel(large)
    assert (await client.all_events(small))[-1].event == "completed"


async def test_room_comes_back_however_a_call_ends(bare: Stack) -> None:
    """Cancelled, failed, timed out, handed over: each leaves its place."""
    client = await started(bare, openai={"concurrent": 1})
    gate = bare.provider.gate()
    bare.provider.script("held", Text("x"), Wait(gate))
    bare.provider.script("broken", HttpError(400))
    cancelled = await client.submit("held")
    await gate.reached()
    await client.cancel(cancelled)
    assert (await client.all_events(await client.submit("broken")))[-1].event == "failed"
    assert (await client.all_events(await client.submit("held", timeout_s=0.2)))[-1].data["code"] == "job_timeout"
    handed = await client.submit("held")
    await eventually(partial(bare.redis.exists, bare.keys.calls("openai")))
    await bare.worker()
    await bare.workers[0].stop()
    gate.open()
    assert (await client.all_events(handed))[-1].event == "completed"
    assert await bare.redis.exists(bare.keys.calls("openai")) == 0


async def test_requests_a_minute_are_a_bucket_that_opens_at_the_right_moment(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.dispatch.LOOK_S", 30.0)
    client = await started(bare, openai={"requests_per_minute": 120})
    await drained(bare, "requests_per_minute", 119, 120)
    full_ms = await now_ms(bare)
    first, second = await client.submit(), await client.submit()
    assert (await second_queued(client, second)).data["reason"] == "requests_per_minute"
    for job_id in (first, second):
        await client.all_events(job_id)
    began_ms = int(await bare.redis.hget(bare.keys.job(second), "started_ms") or 0)  # type: ignore[misc]
    assert 490 <= began_ms - full_ms < 5_000, "half a second a request, and nobody overslept"


async def drained(bare: Stack, rate: str, level: float, per_minute: int, scope: str = "openai") -> None:
    """Let a bucket stand at this level now."""
    stored = {"level": level, "at_ms": await now_ms(bare), "per_minute": per_minute}
    await bare.redis.hset(bare.keys.bucket(rate, scope), mapping=stored)  # type: ignore[misc]


async def level(bare: Stack, rate: str, scope: str = "openai") -> float:
    return float(await bare.redis.hget(bare.keys.bucket(rate, scope), "level") or 0)  # type: ignore[misc]


async def test_tokens_are_guessed_first_and_settled_by_what_the_provider_says(bare: Stack) -> None:
    client = await started(bare, openai={"tokens_per_minute": 1000})
    gate = bare.provider.gate()
    bare.provider.script("m", Text("x"), Wait(gate), Text("y"), Usage(input=300, output=900))
    job_id = await client.submit(messages=[{"role": "user", "content": "four" * 100}])
    await gate.reached()
    assert 95 < await level(bare, "tokens_per_minute") <= 100
    gate.open()
    await client.all_events(job_id)
    assert 1190 < await level(bare, "tokens_per_minute") <= 1200, "more than there is: a debt"
    waiting = await client.submit()
    assert (await second_queued(client, waiting)).data["reason"] == "tokens_per_minute"
    await client.cancel(waiting)


async def test_a_debt_is_an_hours_worth_at_most(bare: Stack) -> None:
    desk = Desk(bare, openai={"tokens_per_minute": 10})
    await desk.create()
    (claim,) = await desk.claim()
    await desk.queue.hang_up(claim, prices.Usage(input_tokens=10**12))
    assert 590 < await level(bare, "tokens_per_minute") <= 600


async def test_what_a_refused_call_was_guessed_to_take_is_given_back_to_whoever_waits(bare: Stack) -> None:
    desk = Desk(bare, openai={"tokens_per_minute": 1000})
    await desk.create(words=800)
    small = await desk.create(words=400)
    (claim,) = await desk.claim()
    looked = await desk.look()
    assert looked.claims == []
    assert 11 < looked.opens_s < 12.1, "200 tokens too many, at 1000 a minute"
    await desk.fail(claim)
    assert [claim.job_id for claim in await desk.claim()] == [small]


async def test_a_request_larger_than_a_minute_waits_for_an_empty_bucket_and_nobody_overtakes_it(bare: Stack) -> None:
    desk = Desk(bare, openai={"tokens_per_minute": 1000})
    await drained(bare, "tokens_per_minute", 10, 1000)
    await desk.create(words=5000)
    await desk.create(words=1)
    looked = await desk.look()
    assert (looked.claims, looked.opens_s < 0.7) == ([], True)
    await drained(bare, "tokens_per_minute", 0, 1000)
    large, small = await desk.create(words=1), await desk.create(words=1)
    await bare.redis.zadd(bare.keys.lines, {"openai": 0})
    (claim,) = await desk.claim()
    assert claim.job_id not in (large, small), "first come, first served"


async def test_both_limits_hold_the_models_and_the_providers(bare: Stack) -> None:
    desk = Desk(bare, openai={"concurrent": 3}, openai__m={"concurrent": 2})
    ids = [await desk.create(model) for model in ("m", "m", "m", "n", "n", "m")]
    first = await desk.claim()
    assert [claim.job_id for claim in first] == [ids[0], ids[1], ids[3]]
    await desk.fail(first[2])
    assert [claim.job_id for claim in await desk.claim()] == [ids[4]], "the model is full, the provider is not"
    await desk.fail(first[0])
    assert [claim.job_id for claim in await desk.claim()] == [ids[2]]
    await desk.fail(first[1])
    assert [claim.job_id for claim in await desk.claim()] == [ids[5]]


async def test_the_line_keeps_its_order_and_a_requeued_job_its_place(bare: Stack) -> None:
    desk = Desk(bare, openai={"concurrent": 1})
    ids = [await desk.create() for _ in range(4)]
    (claim,) = await desk.claim()
    assert await desk.queue.release(claim.job_id, "w", "worker_stopped", 1)
    order = []
    while claims := await desk.claim():
        order += [claim.job_id for claim in claims]
        assert len(claims) == 1
        await desk.fail(claims[0])
    assert order == ids


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_no_call_is_too_many_no_room_is_left_and_nobody_is_overtaken(
    bare: Stack, seed: int
) -> None:
    """Jobs come, are claimed, end, fail, are cancelled, handed over and lost, in any order."""
    choose = random.Random(seed)
    most = {"openai": 4, "openai/a": 2, "openai/b": 3, "openai/c": 1}
    desk = Desk(bare, **{scope.replace("/", "__"): {"concurrent": limit} for scope, limit in most.items()})
    waiting: dict[str, str] = {}
    running: dict[str, Claim] = {}

    def room(scope: str) -> int:
        calls = sum(scope in ("openai", f"openai/{claim.model}") for claim in running.values())
        return most.get(scope, 99) - calls

    for _ in range(300):
        match choose.choice(["create", "create", "claim", "end", "cancel", "release", "lose"]):
            case "create":
                model = choose.choice("aabcd")
                waiting[await desk.create(model)] = model
            case "claim":
                at_most = choose.choice([1, 2, 50])
                claims = await desk.claim(at_most)
                for claim in claims:
                    ahead = list(waiting)[: list(waiting).index(claim.job_id)]
                    assert claim.model not in [waiting[job_id] for job_id in ahead], "overtaken"
                    del waiting[claim.job_id]
                    running[claim.job_id] = claim
                assert all(room(scope) >= 0 for scope in most)
                if len(claims) < at_most:
                    left = {model for model in waiting.values() if room("openai") and room(f"openai/{model}")}
                    assert left == set(), "there is room, and somebody who waits for it"
            case "end" if running:
                claim = running.pop(choose.choice(sorted(running)))
                assert await desk.end(claim)
            case "cancel" if waiting:
                job_id = choose.choice(sorted(waiting))
                assert (await desk.jobs.cancel(job_id, 60)).startswith("cancelled")
                del waiting[job_id]
            case "release" if running:
                claim = running.pop(choose.choice(sorted(running)))
                assert await desk.queue.release(claim.job_id, "w", "worker_stopped", claim.attempt)
                waiting[claim.job_id] = claim.model
            case "lose" if running:
                await bare.redis.zadd(bare.keys.leases, {"w": 1})
                await desk.queue.reap(99, 60, 2**52)
                waiting |= {job_id: claim.model for job_id, claim in running.items()}
                running.clear()
        waiting = dict(sorted(waiting.items(), key=lambda item: desk.created[item[0]]))
        lines = await bare.redis.zrange(bare.keys.blocked, 0, -1) + await bare.redis.zrange(bare.keys.queue, 0, -1)
        assert sorted(job_id.decode() for job_id in lines) == sorted(waiting)


async def test_ten_thousand_jobs_of_a_paused_model_cost_a_claim_nothing(bare: Stack) -> None:
    desk = Desk(bare)
    await desk.create()
    (claim,) = await desk.claim()
    await desk.fail(claim, Refusal(30, 1, 60))
    create = partial(desk.jobs.create, "local", JobRequest.model_validate(body()), 100_000, quota=ROOMY)
    for _ in range(100):
        await asyncio.gather(*[create() for _ in range(100)])
    assert await desk.claim() == []
    assert await bare.redis.zcard(bare.keys.blocked) == 110, "a millisecond's work in one go"
    while await bare.redis.zcard(bare.keys.queue):
        assert await bare.redis.exists(bare.keys.wake), "and somebody goes on with it at once"
        assert await desk.claim() == []
    assert await bare.redis.zcard(bare.keys.blocked) == 10_000
    with pytest.raises(QueueFull):
        await desk.create(max_queue=10_000)
    other = await desk.create("other")
    before = await commands(bare)
    claims = await desk.claim()
    assert [claim.job_id for claim in claims] == [other]
    assert await commands(bare) - before < 60
    opens_s = (await desk.look()).opens_s
    assert 20 < opens_s <= 30


async def commands(bare: Stack) -> int:
    stats = await bare.redis.info("commandstats")
    return sum(figures["calls"] for figures in stats.values())


async def test_a_429_pauses_the_model_for_all_workers_until_retry_after(bare: Stack) -> None:
    client = await started(bare, 2)
    bare.provider.script("m", Failure("rate_limit", retry_after_s=1))
    bare.provider.then("m", Text("Now."))
    first = await client.submit()
    refused = await bare.provider.next_call()
    await eventually(partial(bare.redis.exists, bare.keys.pauses))
    second = await client.submit()
    assert (await second_queued(client, second)).data == {"position": 1, "reason": "rate_limited"}
    assert text(await client.all_events(await client.submit("other"))) != ""
    histories = [await client.all_events(job_id) for job_id in (first, second)]
    assert [text(events) for events in histories] == ["Now.", "Now."]
    calls = [call for call in bare.provider.calls if call.model == "m"][1:]
    assert all(call.started_at - refused.started_at >= 0.99 for call in calls)
    assert [(await client.job(job_id))["attempts"] for job_id in (first, second)] == [2, 1]


async def test_after_a_pause_calls_come_back_in_steps(bare: Stack) -> None:
    desk = Desk(bare)
    for _ in range(40):
        await desk.create()
    (claim,) = await desk.claim(1)
    await desk.fail(claim, Refusal(30, 1, 60))
    let_in = 0
    for steps, wanted in ((0, 1), (1, 3), (2, 7), (4, 31)):
        over_ms = await now_ms(bare) - 250 * steps - 50
        await bare.redis.zadd(bare.keys.pauses, {"openai/m": over_ms})
        await bare.redis.zadd(bare.keys.lines, {"openai/m": 0})
        looked = await desk.look(100)
        let_in += len(looked.claims)
        claim = looked.claims[0]
        late = await now_ms(bare) - over_ms >= 250 * (steps + 1)
        assert let_in == wanted or late, "this machine was asleep"
        assert looked.opens_s is None or looked.opens_s <= 0.25
    await desk.fail(claim, Refusal(30, 1, 60))
    assert await desk.claim(100) == [], "refused again: the others wait again"
    await bare.redis.zadd(bare.keys.pauses, {"openai/m": await now_ms(bare) - 2500})
    await bare.redis.zadd(bare.keys.lines, {"openai/m": 0})
    assert len(await desk.claim(100)) + let_in == 39
    assert await bare.redis.exists(bare.keys.pauses) == 0


async def test_what_waits_for_a_pause_to_end_is_claimed_then(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the timer that each worker has from its claims, and step by step to the last one."""
    monkeypatch.setattr("worker.dispatch.LOOK_S", 30.0)
    client = await started(bare, 2)
    bare.provider.script("m", Failure("rate_limit", retry_after_s=0.3))
    bare.provider.then("m", Text("Now."))
    ids = [await client.submit()]
    await eventually(partial(bare.redis.exists, bare.keys.pauses))
    ids += [await client.submit() for _ in range(12)]
    for job_id in ids:
        assert text(await client.all_events(job_id)) == "Now."
    assert len(bare.provider.calls) == 14


async def test_a_shorter_pause_never_shortens_a_longer_one_and_without_a_word_they_grow(bare: Stack) -> None:
    desk = Desk(bare)
    for _ in range(2):
        await desk.create()
    one, two = await desk.claim()
    assert await desk.fail(one, Refusal(20, 1, 60)) == 20
    assert 19 < await desk.fail(two, Refusal(1, 1, 60)) <= 20
    await bare.redis.delete(bare.keys.pauses)
    for wanted in (2, 4, 8, 16, 32, 60, 60):
        assert await desk.fail(one, REFUSED) == wanted
        assert wanted - 1 < await desk.fail(two, REFUSED) <= wanted, "many calls refused at once are one pause"
        await bare.redis.delete(bare.keys.pauses)
    assert await bare.redis.ttl(bare.keys.pause("openai/m")) > 60


async def test_a_retry_waits_for_room_goes_first_and_is_counted(bare: Stack) -> None:
    desk = Desk(bare, openai__m={"concurrent": 1, "requests_per_minute": 10})
    ids = [await desk.create() for _ in range(3)]
    (one,) = await desk.claim()
    await desk.fail(one)
    (two,) = await desk.claim()
    assert two.job_id == ids[1]
    again = partial(desk.queue.again, one, "provider_error", "openai", "m", 0)
    assert await again() == Full("concurrency", None)
    await desk.fail(two)
    assert await desk.claim() == [], "the room is kept for who has waited longer"
    opened = await again()
    assert isinstance(opened, Claim)
    assert opened.attempt == 2
    repeated = await again()
    assert isinstance(repeated, Claim)
    assert repeated.attempt == 2, "a repeat after a lost reply is not let in twice"
    assert 2.9 < await level(bare, "requests_per_minute", "openai/m") <= 3
    assert await desk.claim() == []
    await desk.fail(opened)
    assert [claim.job_id for claim in await desk.claim()] == [ids[2]]


async def test_a_fallback_without_room_is_passed_over_and_the_last_is_waited_for(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "LOOK_AGAIN_S", 0.01)
    client = await started(bare, openai__full={"concurrent": 1}, openai__last={"concurrent": 1})
    gate, last = bare.provider.gate(), bare.provider.gate()
    bare.provider.script("m", Failure("authentication"))
    bare.provider.script("full", Text("x"), Wait(gate))
    bare.provider.script("last", Text("From the last."), Wait(last))
    held = [await client.submit("full"), await client.submit("last")]
    await gate.reached()
    await last.reached()
    fallbacks = [{"provider": "openai", "model": "full"}, {"provider": "openai", "model": "last"}]
    job_id = await client.submit(fallbacks=fallbacks)
    await eventually(partial(bare.redis.exists, bare.keys.returning("openai/last")))
    last.open()
    events = await client.all_events(job_id)
    assert text(events) == "From the last."
    assert [event.data.get("model") for event in events if event.event == "restarted"] == ["last"]
    gate.open()
    for other in held:
        await client.all_events(other)
    assert sum(call.model == "last" for call in bare.provider.calls) == 2


async def test_a_pause_that_outlasts_the_job_ends_it_with_what_the_provider_said(bare: Stack) -> None:
    desk = Desk(bare)
    await desk.create()
    (claim,) = await desk.claim()
    await desk.fail(claim, Refusal(30, 1, 60))
    client = await started(bare)
    bare.provider.script("other", HttpError(401))
    began_s = time.monotonic()
    job_id = await client.submit("other", timeout_s=5, fallbacks=[{"provider": "openai", "model": "m"}])
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "failed"]
    assert events[-1].data["code"] == "provider_authentication"
    assert time.monotonic() - began_s < 4
    assert [call.model for call in bare.provider.calls] == ["other"]


async def test_a_job_whose_record_has_expired_holds_no_room(bare: Stack) -> None:
    desk = Desk(bare, openai={"concurrent": 1})
    first, second = await desk.create(), await desk.create()
    assert [claim.job_id for claim in await desk.claim()] == [first]
    assert await desk.claim() == []
    (until_ms,) = (score for _, score in await bare.redis.zrange(bare.keys.calls("openai"), 0, -1, withscores=True))
    assert abs(until_ms - await now_ms(bare) - await bare.redis.pttl(bare.keys.job(first))) < 100
    await bare.redis.delete(bare.keys.job(first))
    await bare.redis.zadd(bare.keys.calls("openai"), {first: 1})
    assert [claim.job_id for claim in await desk.claim()] == [second]


async def test_workers_without_limits_drain_the_lines(bare: Stack) -> None:
    limited, free = Desk(bare, openai={"concurrent": 1}), Desk(bare)
    ids = [await limited.create() for _ in range(3)]
    assert len(await limited.claim()) == 1
    assert {claim.job_id for claim in await free.claim()} == set(ids[1:])
    assert (await free.look()).opens_s is None
    assert await bare.redis.exists(bare.keys.lines, bare.keys.blocked) == 0
