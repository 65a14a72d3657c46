"""Whoever ends a job: cancel, finish, reap, release, in every order and by several workers, end it exactly once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle, pairwise, permutations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from shared.errors import QueueFull
from shared.events import EventId, text_data
from shared.jobs import Jobs
from shared.keys import Keys
from shared.limits import Limit
from shared.log import Append, Log
from shared.queue import Claim, Queue
from shared.redis import Multiplexer, Scripts, connect
from shared.requests import JobRequest
from tests.client import LAST, body
from tests.faults.conftest import FOR_EVER_MS
from tests.faults.scene import Scene, raw_log
from tests.provider import Text, Tokens, Wait
from tests.stack import Stack
from tests.valkey import Valkey

MAX_ATTEMPTS = 2
LIMITS = {"openai": Limit(concurrent=1)}
TOLD = {
    "cancelled": {"cancelled_before_start", "cancelled", "already_finished", "cancelling"},
    "completed": {"already_finished", "cancelling"},
    "failed": {"already_finished", "cancelling"},
}
"""What a canceller may have been told, by how the job ended."""


class Job:
    """One job, moved by its scripts alone, as workers, reapers and API processes do."""

    def __init__(self, redis: Redis, commands: Multiplexer, keys: Keys) -> None:
        self.redis = redis
        self.keys = keys
        scripts = Scripts(commands)
        self.queue, self.jobs = Queue(commands, scripts, keys, LIMITS), Jobs(commands, scripts, keys)
        self.log = Log(commands, scripts, keys)
        self.id = ""
        self.claims: dict[str, Claim] = {}
        self.written: dict[str, int] = {}
        self.said: list[str] = []
        self.ends: list[str] = []

    async def create(self, **fields: object) -> None:
        request = JobRequest.model_validate_json(json.dumps(body(**fields)))  # type: ignore[arg-type]
        self.id = (await self.jobs.create("local", request, 1000)).id

    async def claim(self, worker: str) -> None:
        await self.queue.register(worker, 3600)
        for claim in (await self.queue.claim(worker, 1, 3600)).claims:
            assert claim.job_id == self.id
            self.claims[worker] = claim
            self.written[worker] = 0

    async def append(self, worker: str) -> None:
        """Write one token, as whoever ever claimed the job would, holder or zombie."""
        if claim := self.claims.get(worker):
            token = self._next(claim, "token", text_data(f"{worker} writes {self.written[worker]}. "))
            (done,) = await self.log.append([token])
            self.written[worker] += done

    async def finish(self, worker: str, status: str = "completed") -> None:
        if claim := self.claims.get(worker):
            last = self._next(claim, status, b"{}")
            if await self.queue.finish(claim, status, last, {}, 60):
                self.ends.append(status)

    def _next(self, claim: Claim, event: str, data: bytes) -> Append:
        """Return what a claim's holder, or who was it once, writes behind its last token."""
        written = self.written[claim.worker]
        return Append(
            self.id, claim.worker, EventId(claim.attempt, written + 1), claim.log_length + written, [(event, data)]
        )

    async def release(self, worker: str) -> None:
        if claim := self.claims.get(worker):
            await self.queue.release(self.id, worker, "worker_stopped", claim.attempt)

    async def lose(self, worker: str) -> None:
        """Let the worker's lease run out, and somebody look."""
        if await self.redis.zscore(self.keys.leases, worker) is not None:
            await self.redis.zadd(self.keys.leases, {worker: 1})
        await self.reap()

    async def reap(self) -> None:
        await self.queue.reap(MAX_ATTEMPTS, 60, FOR_EVER_MS)

    async def cancel(self) -> None:
        self.said.append(await self.jobs.cancel(self.id, 60))

    async def check(self) -> str:
        """Check what must hold at any moment; return the status."""
        record = await self.jobs.get(self.id)
        log = await raw_log(self.redis, self.keys.log(self.id)) or []
        names = [event.event for event in log]
        ends = [name for name in names if name in LAST]
        assert names[0] == "queued"
        if record.live:
            assert ends == []
        else:
            assert ends == [names[-1]] == [record.status]
            assert len(set(self.ends)) <= 1, "the same end may be told twice, not two"
            assert not self.ends or self.ends[0] == record.status
        for before, after in pairwise(log):
            follows = after.key == (before.key[0], before.key[1] + 1)
            assert follows or after.key == (before.key[0] + 1, 0), f"{after.id} behind {before.id}"
        assert max(event.key[0] for event in log) == record.attempt
        waits = await self.redis.zscore(self.keys.queue, self.id) is not None
        assert waits == (record.status == "queued")
        # Each attempt that has left its worker's hands is settled, once, in the record and in the ledger.
        settled = record.attempt - (record.status == "running")
        assert record.spent.requests == settled
        assert await self._ledger(":requests") == settled
        assert await self._ledger(":output_tokens") == record.spent.output_tokens
        live = await self.redis.zrange(self.keys.live_jobs("local"), 0, -1)
        assert live == ([self.id.encode()] if record.live else []), "among its owner's until it ends"
        calls = await self.redis.zrange(self.keys.calls("openai"), 0, -1)
        assert calls == ([self.id.encode()] if record.status == "running" else []), "counted while somebody makes it"
        held = [worker for worker in self.claims if await self.redis.sismember(self.keys.running(worker), self.id)]  # type: ignore[misc]
        assert len(held) == (record.status == "running"), f"{record.status}, held by {held}"
        return record.status

    async def _ledger(self, name: str) -> int:
        """Add up one figure of the owner's ledger, over all days and models."""
        figures, today = 0, int(time.time()) // 86_400
        for day in (today - 1, today):
            rows = await self.redis.hgetall(self.keys.ledger("local", day))  # type: ignore[misc]
            figures += sum([int(value) for field, value in rows.items() if f":{field.decode()}".startswith(f"{name}:")])
        return figures

    async def bring_to_its_end(self) -> None:
        """Let a last worker come, which does what it is told; check that nothing is left over."""
        for worker in list(self.claims):
            await self.lose(worker)
        if await self.check() == "queued":
            await self.claim("undertaker")
            asked = (await self.queue.renew("undertaker", 3600)).cancels
            await self.finish("undertaker", "cancelled" if self.id in asked else "completed")
        status = await self.check()
        assert status in LAST
        for said in self.said:
            assert said in TOLD[status], f"told {said}, and it ended {status}"
        for worker in list(self.claims):
            await self.append(worker)
            await self.finish(worker, "failed")
            await self.release(worker)
        await self.reap()
        await self.cancel()
        assert self.said[-1] == "already_finished"
        assert await self.check() == status

    async def forget(self) -> None:
        if keys := [key async for key in self.redis.scan_iter(f"{self.keys.prefix}:*", count=1000)]:
            await self.redis.delete(*keys)


async def test_every_order_of_cancel_finish_reap_and_release_ends_a_job_once(
    shared_valkey: Valkey, prefix: str
) -> None:
    """Case 31, exhaustively: two cancels, two workers' ends, a lost lease, a hand-over, a zombie's token."""
    redis, commands = Redis.from_url(shared_valkey.url), connect(shared_valkey.url)
    moves = ("cancel", "cancel again", "finish", "lose", "release", "claim by two", "finish by two")
    orders = 0
    for order in permutations(moves):
        if order.index("cancel") > order.index("cancel again") or order.index("claim by two") > order.index(
            "finish by two"
        ):
            continue
        orders += 1
        job = Job(redis, commands, Keys(f"{prefix}:{orders}"))
        await job.create()
        await job.claim("one")
        await job.append("one")
        for move in order:
            match move:
                case "cancel" | "cancel again":
                    await job.cancel()
                case "finish":
                    await job.finish("one")
                case "lose":
                    await job.lose("one")
                case "release":
                    await job.release("one")
                case "claim by two":
                    await job.claim("two")
                case "finish by two":
                    await job.append("one")
                    await job.finish("two", "failed")
        await job.bring_to_its_end()
    assert orders == 1260
    await commands.close()
    await redis.aclose()


WORKERS = st.sampled_from(["one", "two", "three"])


class Life(RuleBasedStateMachine):
    """Case 31, at random: any number of moves by three workers, a reaper and cancellers."""

    url = ""
    prefix = ""
    lives = 0

    def __init__(self) -> None:
        super().__init__()
        Life.lives += 1
        self.runner = asyncio.Runner()
        self.runner.get_loop()
        self.redis, self.commands = Redis.from_url(self.url), connect(self.url)
        self.job = Job(self.redis, self.commands, Keys(f"{self.prefix}:{Life.lives}"))
        self.runner.run(self.job.create())

    @rule(worker=WORKERS)
    def claim(self, worker: str) -> None:
        self.runner.run(self.job.claim(worker))

    @rule(worker=WORKERS)
    def append(self, worker: str) -> None:
        self.runner.run(self.job.append(worker))

    @rule(worker=WORKERS, status=st.sampled_from(LAST))
    def finish(self, worker: str, status: str) -> None:
        if status == "cancelled" and "cancelling" not in self.job.said:
            status = "completed"
        self.runner.run(self.job.finish(worker, status))

    @rule(worker=WORKERS)
    def release(self, worker: str) -> None:
        self.runner.run(self.job.release(worker))

    @rule(worker=WORKERS)
    def lose(self, worker: str) -> None:
        self.runner.run(self.job.lose(worker))

    @rule()
    def reap(self) -> None:
        self.runner.run(self.job.reap())

    @rule()
    def cancel(self) -> None:
        self.runner.run(self.job.cancel())

    @invariant()
    def holds(self) -> None:
        self.runner.run(self.job.check())

    def teardown(self) -> None:
        try:
            self.runner.run(self.job.bring_to_its_end())
        finally:
            self.runner.run(self.commands.close())
            self.runner.run(self.redis.aclose())
            self.runner.close()


def test_any_moves_of_workers_reapers_and_cancellers_end_a_job_once(shared_valkey: Valkey, prefix: str) -> None:
    """Case 31."""
    Life.url, Life.prefix = shared_valkey.url, prefix
    run_state_machine_as_test(
        Life,
        settings=settings(
            max_examples=60,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=list(HealthCheck),
        ),
    )


async def test_a_create_that_is_refused_or_repeated_leaves_all_or_nothing(shared_valkey: Valkey, prefix: str) -> None:
    """Case 21. Record, log, payload, queue entry, index and token: all of them or none."""
    redis, commands = Redis.from_url(shared_valkey.url), connect(shared_valkey.url)
    keys = Keys(prefix)
    jobs = Jobs(commands, Scripts(commands), keys)
    request = JobRequest.model_validate(body())

    async def count() -> int:
        return len([key async for key in redis.scan_iter(f"{prefix}:*")])

    with pytest.raises(QueueFull):
        await jobs.create("local", request, 0)
    assert await count() == 0
    created = await jobs.create("local", request, 10)
    names = (keys.job(created.id), keys.log(created.id), f"arq:job:{created.id}", keys.queue, keys.wake)
    assert await redis.exists(*names, keys.owner_jobs("local")) == 6
    await commands.close()
    await redis.aclose()


@asynccontextmanager
async def jumping_clock(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Let this process' wall clock jump an hour back and forth every few milliseconds."""
    real, real_ns = time.time, time.time_ns
    offset_s = 0

    async def jump() -> None:
        nonlocal offset_s
        for step_s in cycle((3600, -3600, 0, 86_400)):
            offset_s = step_s
            await asyncio.sleep(0.01)

    monkeypatch.setattr(time, "time", lambda: real() + offset_s)
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + offset_s * 1_000_000_000)
    jumps = asyncio.create_task(jump())
    try:
        yield
    finally:
        jumps.cancel()


async def test_a_wall_clock_that_jumps_changes_no_id_no_lease_and_no_order(
    quick: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Case 22. API and worker in this process; Redis' own clock is what leases go by."""
    await quick.api()
    await quick.worker()
    await quick.worker()
    scene, gate = Scene(quick), quick.provider.gate()
    async with jumping_clock(monkeypatch):
        held = [await scene.running(Text("a "), Wait(gate), Text("b")) for _ in range(3)]
        others = [await scene.submit(Tokens(f"{n} in order of their making ", delay_s=0.02)) for n in range(10)]
        await asyncio.gather(*[scene.read(job_id).finish() for job_id in others])
        await asyncio.sleep(quick.workers[0].worker.workshop.settings.lease_s * 1.2)
        gate.open()
        await scene.assert_clean()
    assert [scene.names(job_id) for job_id, _ in held] == [["queued", "started", "completed"]] * 3
    listed = (await scene.client.http.get("/v1/jobs", params={"limit": 100})).json()["data"]
    created = [job["created_at"] for job in listed]
    assert created == sorted(created, reverse=True)
    for job in listed:
        assert job["created_at"] <= job["started_at"] <= job["first_token_at"] <= job["finished_at"]
    assert len(quick.provider.calls) == 13
