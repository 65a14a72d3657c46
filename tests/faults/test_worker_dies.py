"""Workers die, freeze and leave, each with jobs at every stage; every job ends once, and no two attempts mix."""

import asyncio
import signal
import time

import pytest

from shared.events import EventId
from shared.jobs import Jobs
from shared.log import Append
from shared.queue import Queue
from shared.redis import Scripts
from tests.faults.conftest import FOR_EVER_MS, LEASE_S
from tests.faults.proxy import Proxy, Trap, sha
from tests.faults.scene import Scene
from tests.provider import Silence, Step, Text, Tokens, Wait
from tests.stack import Process, Stack, eventually

STAGES = ("before the first token", "in mid-answer", "after the last token")


class Doomed:
    """A worker process with three jobs: one of each stage."""

    def __init__(self, stack: Stack, scene: Scene, proxy: Proxy) -> None:
        self.scene = scene
        self._stack = stack
        self._proxy = proxy
        self.gate = stack.provider.gate()
        self.process: Process
        self.end: Trap
        self.jobs: list[str] = []

    async def start(self) -> None:
        self.process = await self._stack.worker_process(REDIS_URL=self._proxy.url)
        scene, second = self.scene, [[Text("The second "), Text("attempt.")]]
        self.jobs = [
            await scene.submit(Wait(self.gate), Text("never seen"), then=second),
            await scene.submit(Text("half "), Wait(self.gate), Tokens("a zombie's words " * 20, delay_s=0.002),
                               Silence(), then=second),
        ]  # fmt: skip
        readers = [scene.read(job_id) for job_id in self.jobs]
        await asyncio.gather(readers[0].until("started"), readers[1].until("token"))
        await eventually(lambda: len(self._stack.provider.calls) == 2)
        self.end = self._proxy.hold(await sha(self._stack.commands, "finish"))
        self.jobs.append(await scene.submit(Text("The first "), Text("attempt."), then=second))
        scene.read(self.jobs[2])
        await self.end.happened()

    async def taken_over(self, jobs: int, within_s: float) -> float:
        """Return how long it took from now until so many second calls were there."""
        asked = time.monotonic()
        await eventually(lambda: len(self._stack.provider.calls) == 3 + jobs, within_s)
        return time.monotonic() - asked


@pytest.fixture
async def doomed(quick: Stack, proxy: Proxy) -> Doomed:
    await quick.api()
    made = Doomed(quick, Scene(quick), proxy)
    await made.start()
    await quick.worker()
    return made


@pytest.mark.parametrize("end", ["lost", "taken", "late"])
async def test_jobs_of_a_killed_worker_run_elsewhere_whatever_their_stage(doomed: Doomed, end: str) -> None:
    """Cases 1, 2, 3, 4, 8. SIGKILL, and the end that was on its way is lost, taken in time, or comes too late."""
    if end == "taken":
        doomed.end.release()
        await doomed.scene.readers[2].until("completed")
    doomed.process.signal(signal.SIGKILL)
    if end == "lost":
        doomed.end.drop()
    await doomed.taken_over(2 if end == "taken" else 3, LEASE_S + 2)
    doomed.end.release()
    await doomed.scene.assert_clean()
    lost = ["queued", "started", "restarted", "completed"]
    expected = [lost, lost, ["queued", "started", "completed"] if end == "taken" else lost]
    assert [doomed.scene.names(job_id) for job_id in doomed.jobs] == expected


async def test_a_frozen_workers_jobs_run_elsewhere_and_it_can_do_no_harm_when_it_wakes(doomed: Doomed) -> None:
    """Cases 6, 8. SIGSTOP for longer than the lease, SIGCONT with tokens and an end on their way."""
    doomed.process.signal(signal.SIGSTOP)
    await doomed.taken_over(3, LEASE_S + 2)
    doomed.process.signal(signal.SIGCONT)
    doomed.end.release()
    doomed.gate.open()
    await doomed.scene.assert_clean()
    for job_id in doomed.jobs:
        assert doomed.scene.record.texts[job_id] == "The second attempt."
    assert doomed.process.running, "it goes on with a new lease"


async def test_a_stopped_worker_hands_over_what_runs_and_ends_what_has_ended(doomed: Doomed) -> None:
    """Case 5. SIGTERM: elsewhere within 2 s; what the provider has finished is not asked for again."""
    doomed.process.signal(signal.SIGTERM)
    await doomed.taken_over(2, 2)
    doomed.end.release()
    await doomed.scene.assert_clean()
    assert doomed.scene.record.texts[doomed.jobs[2]] == "The first attempt."
    assert await asyncio.wait_for(doomed.process.exit_code(), 5) == 0


async def test_ten_deploys_in_a_row_do_not_fail_a_job(quick: Stack) -> None:
    """Case 5. Handing over is no attempt: not even with a budget of one."""
    quick.configure(max_attempts=1)
    await quick.api()
    await quick.worker()
    scene = Scene(quick)
    held: list[list[Step]] = [[Text(f"attempt {n} "), Silence()] for n in range(2, 11)]
    job_id, reader = await scene.running(Text("attempt 1 "), Silence(), then=[*held, [Text("the last one")]])
    for n in range(1, 11):
        await reader.until("token", attempt=n)
        following = await quick.worker()
        leaving = quick.workers[-2]
        leaving.worker.handle_sig(signal.SIGTERM)
        assert following.worker is not leaving.worker
    await scene.assert_clean()
    assert scene.names(job_id) == ["queued", "started", *["restarted"] * 10, "completed"]


SPIN = """
import sys, time
from worker.providers.demo import DemoProvider

async def spin(self, request, sink):
    sink.text("Before. ")
    print("spins", flush=True)
    time.sleep({seconds})
    sink.text("A zombie's words. ")

DemoProvider.generate = spin
from worker.__main__ import main
main()
"""


async def test_a_worker_whose_event_loop_is_blocked_loses_its_jobs_and_does_no_harm(quick: Stack) -> None:
    """Case 7. A provider's code that spins for two leases."""
    await quick.api()
    scene = Scene(quick)
    program = ["-c", SPIN.format(seconds=LEASE_S * 2)]
    process = Process(program, quick.environment(), "is ready for")
    try:
        await process.start()
        job_id = scene.accept(await scene.client.submit("tour", "demo", max_tokens=3), "tour")
        reader = scene.read(job_id)
        await process.line("spins")
        await quick.worker()
        await reader.finish()
        await process.line("was revoked")
    finally:
        await process.stop()
    assert scene.names(job_id) == ["queued", "started", "restarted", "completed"]
    assert "zombie" not in str(reader.reading.events)


async def test_a_job_that_kills_every_worker_it_meets_fails_and_harms_no_other(quick: Stack) -> None:
    """Case 9. `failed` with `worker_lost`, after REJOIN_MAX_ATTEMPTS."""
    quick.configure(max_attempts=2, lease_s=1.0)
    await quick.api()
    await quick.worker(max_jobs=1)
    scene, gate = Scene(quick), quick.provider.gate()
    innocent, _ = await scene.running(Text("in"), Wait(gate), Text("nocent"))
    calls = quick.provider.calls
    victims = await asyncio.gather(*[quick.worker_process() for _ in range(2)])
    poison = await scene.submit(Silence())
    reader = scene.read(poison)
    for attempt in (1, 2):
        await eventually(lambda attempt=attempt: len(calls) == 1 + attempt)  # type: ignore[misc]
        holder = str(await quick.redis.hget(quick.keys.job(poison), "worker")).split(":")[1]  # type: ignore[misc]
        (victim,) = [process for process in victims if process.pid == int(holder)]
        victim.signal(signal.SIGKILL)
    await reader.finish()
    gate.open()
    await scene.submit(Text("another"))
    await scene.assert_clean()
    assert scene.names(poison) == ["queued", "started", "restarted", "failed"]
    assert reader.reading.events[-1].data["code"] == "worker_lost"
    assert scene.names(innocent) == ["queued", "started", "completed"]


async def test_a_thousand_jobs_wait_for_workers_and_all_of_them_end(quick: Stack) -> None:
    """Case 13. Enqueued with no worker there, then four come."""
    await quick.api()
    scene = Scene(quick)
    for batch in range(100):
        models = [scene.script(Text(f"answer {batch}.{n}")) for n in range(10)]
        ids = await asyncio.gather(*[scene.client.submit(model) for model in models])
        for job_id, model in zip(ids, models, strict=True):
            scene.accept(job_id, model)
    for _ in range(4):
        await quick.worker(max_jobs=50)
    calls = quick.provider.calls
    await eventually(lambda: len(calls) == 1000 and all(call.ended_at for call in calls), 20)
    for at in range(0, 1000, 50):
        waiting = [scene.read(job_id) for job_id in sorted(scene.record.accepted)[at : at + 50]]
        await asyncio.gather(*[reader.finish() for reader in waiting])
    await scene.assert_clean()
    assert len(calls) == 1000
    assert await quick.redis.zcard(quick.keys.queue) == 0


async def test_two_reapers_at_once_requeue_each_job_once(quick: Stack) -> None:
    """Case 10. More jobs than one sweep takes, and sweeps that are cut short in between."""
    await quick.api()
    scene, scripts = Scene(quick), Scripts(quick.commands)
    queue = Queue(quick.commands, scripts, quick.keys)
    for _ in range(25):
        models = [scene.script() for _ in range(10)]
        for job_id, model in zip(await asyncio.gather(*map(scene.client.submit, models)), models, strict=True):
            scene.accept(job_id, model)
    await queue.register("ghost", 60)
    claims = (await queue.claim("ghost", 1000, 60)).claims
    assert len(claims) == 250
    await quick.redis.zadd(quick.keys.leases, {"ghost": 1})
    sweeps = await asyncio.gather(*[queue.reap(3, 60, FOR_EVER_MS) for _ in range(12)])
    assert sum(sweep.requeued for sweep in sweeps) == 250
    assert await quick.redis.zcard(quick.keys.queue) == 250
    assert await quick.redis.exists(quick.keys.leases) == 0
    losses = [await quick.redis.hget(quick.keys.job(id), "losses") for id in scene.record.accepted]  # type: ignore[misc]
    assert losses == [b"1"] * 250
    jobs = Jobs(quick.commands, scripts, quick.keys)
    assert {(await jobs.get(job_id)).status for job_id in scene.record.accepted} == {"queued"}
    await queue.register("ghost", 60)
    late = Append(claims[0].job_id, "w", EventId(claims[0].attempt, 1), claims[0].log_length, [("completed", b"{}")])
    assert not await queue.finish(claims[0], "completed", late, {}, 60), "the dead worker's word does not count"
