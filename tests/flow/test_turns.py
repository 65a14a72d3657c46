"""Whose turn it is: owners in rounds, an owner's jobs by priority, then first come, first served."""

import asyncio
from typing import Any

import pytest

from shared.jobs import Jobs
from shared.queue import Claim, Queue
from shared.quotas import Quota
from shared.redis import Scripts
from shared.requests import JobRequest
from tests.client import body
from tests.stack import Stack

WORKER = "worker"
ROOMY = Quota(posts_per_minute=1_000_000, live_jobs=1_000_000)


class Desk:
    """Jobs of any owner, and a worker that takes them, by their scripts alone."""

    def __init__(self, stack: Stack, **limits: dict[str, int]) -> None:
        scripts = Scripts(stack.commands)
        self.jobs = Jobs(stack.commands, scripts, stack.keys)
        self.queue = Queue(stack.commands, scripts, stack.keys, stack.settings(limits=limits).limits)
        self.stack = stack
        self.names: dict[str, str] = {}
        self.claimed: dict[str, str] = {}
        """Ids by name."""

    async def create(self, owner: str, name: str = "", **fields: Any) -> str:
        """Queue a job; its name is what `claim` tells."""
        request = JobRequest.model_validate(body(fields.pop("model", "m"), **fields))
        created = await self.jobs.create(owner, request, 100_000, quota=ROOMY)
        self.names[created.id] = name or owner
        return created.id

    async def claim(self, at_most: int = 1) -> list[str]:
        """Take up to so many jobs and return their names."""
        return [self.names[claim.job_id] for claim in await self.claims(at_most)]

    async def claims(self, at_most: int) -> list[Claim]:
        await self.queue.register(WORKER, 60)
        claims = (await self.queue.claim(WORKER, at_most, 60)).claims
        self.claimed |= {self.names[claim.job_id]: claim.job_id for claim in claims}
        return claims

    async def end(self, name: str) -> None:
        """End a job that was claimed."""
        assert await self.jobs.cancel(self.claimed[name], 60) == "cancelling"
        assert await self.queue.release(self.claimed[name], WORKER, "worker_stopped")


@pytest.fixture
def desk(bare: Stack) -> Desk:
    return Desk(bare)


async def test_a_thousand_jobs_do_not_stand_before_anothers_first(desk: Desk) -> None:
    await asyncio.gather(*[desk.create("flood") for _ in range(1_000)])
    assert await desk.claim(50) == ["flood"] * 50
    for _ in range(3):
        await desk.create("late")
    assert await desk.claim(6) == ["late", "flood", "late", "flood", "late", "flood"]


async def test_many_owners_have_one_job_a_round(desk: Desk) -> None:
    for owner in ("a", "b", "c"):
        for number in (1, 2, 3):
            await desk.create(owner, f"{owner}{number}")
    first, second, third = [await desk.claim(3) for _ in range(3)]
    assert (sorted(first), sorted(second), sorted(third)) == (
        ["a1", "b1", "c1"], ["a2", "b2", "c2"], ["a3", "b3", "c3"],
    )  # fmt: skip


async def test_priority_counts_among_an_owners_own_jobs(desk: Desk) -> None:
    for priority in ("low", "normal", "high"):
        for number in (1, 2):
            await desk.create("a", f"{priority}{number}", priority=priority)
    assert await desk.claim(1) == ["high1"]
    await desk.create("a", "high3", priority="high")
    assert await desk.claim(3) == ["high2", "high3", "normal1"]
    await desk.create("a", "normal3")
    assert await desk.claim(4) == ["normal2", "normal3", "low1", "low2"]
    assert await desk.claim() == []


async def test_urgency_takes_no_turn_of_others(desk: Desk) -> None:
    """Each owner has one job a round, however urgent they are."""
    for number in range(4):
        await desk.create("pushy", f"low{number}", priority="low")
        await desk.create("modest", "modest")
    for number in range(4):
        await desk.create("pushy", f"high{number}", priority="high")
    rounds = [sorted(await desk.claim(2)) for _ in range(4)]
    assert rounds == [[f"high{number}", "modest"] for number in range(4)]
    assert await desk.claim(10) == [f"low{number}" for number in range(4)]


async def test_a_cancelled_job_gives_its_turn_back(desk: Desk) -> None:
    waiting = [await desk.create("a") for _ in range(20)]
    for job_id in waiting:
        assert await desk.jobs.cancel(job_id, 60) == "cancelled_before_start"
    await desk.create("b", "b1")
    await desk.create("a", "a1")
    await desk.create("b", "b2")
    assert sorted(await desk.claim(2)) == ["a1", "b1"]


async def test_who_was_away_does_not_catch_up(desk: Desk) -> None:
    """Turns are not saved up: an owner that comes back has one job a round like the others."""
    for _ in range(30):
        await desk.create("steady")
    assert await desk.claim(20) == ["steady"] * 20
    for _ in range(5):
        await desk.create("back")
    assert (await desk.claim(6)).count("back") == 3


async def test_a_job_that_lost_its_worker_goes_first(desk: Desk) -> None:
    for number in range(4):
        await desk.create("a", f"a{number}")
    (claim,) = await desk.claims(1)
    assert await desk.queue.release(claim.job_id, WORKER, "worker_stopped")
    assert await desk.claim(4) == ["a0", "a1", "a2", "a3"]


async def test_turns_and_priorities_count_in_a_line_too(bare: Stack) -> None:
    desk = Desk(bare, openai={"concurrent": 1})
    for number in range(10):
        await desk.create("flood", f"flood{number}", priority="low")
    assert await desk.claim(10) == ["flood0"]
    await desk.create("late")
    await desk.create("flood", "urgent", priority="high")
    holds = "flood0"
    for expected in ("late", "urgent", "flood1", "flood2"):
        await desk.end(holds)
        assert await desk.claim(10) == [expected]
        holds = expected


async def test_a_blocked_job_takes_nobodys_turn(bare: Stack) -> None:
    """What has no room waits with its own turn; its owner's other jobs keep theirs."""
    desk = Desk(bare, **{"openai/full": {"concurrent": 1}})
    await desk.create("a", "holds", model="full")
    assert await desk.claim() == ["holds"]
    for number in range(3):
        await desk.create("a", f"free{number}")
        await desk.create("b", "b")
    for number in range(3):
        await desk.create("a", f"blocked{number}", model="full", priority="high")
    rounds = [sorted(await desk.claim(2)) for _ in range(3)]
    assert rounds == [["b", f"free{number}"] for number in range(3)]
    assert await desk.claim(10) == []
    await desk.end("holds")
    assert await desk.claim(10) == ["blocked0"]


async def test_a_job_whose_record_is_gone_holds_nobody_up(desk: Desk) -> None:
    gone = await desk.create("a", "gone", priority="high")
    await desk.create("a", "there")
    await desk.stack.redis.delete(desk.stack.keys.job(gone))
    assert await desk.claim(10) == ["there"]
    assert await desk.stack.redis.keys(f"{desk.stack.prefix}:lane:*") == []
    assert await desk.stack.redis.keys(f"{desk.stack.prefix}:turns:*") == []


async def test_positions_are_those_in_the_order_of_turns(bare: Stack) -> None:
    await bare.api()
    client = bare.client()

    async def position(priority: str) -> int:
        job_id = await client.submit(priority=priority)
        place: int = (await client.until(job_id, "queued")).data["position"]
        return place

    assert [await position(priority) for priority in ("low", "low", "normal", "high", "normal")] == [1, 2, 1, 1, 3]
