"""Runs outlive workers: the next one listens on, nothing is paid twice, and none goes on for nobody."""

import asyncio
import signal
from typing import Any

import pytest

from shared.queue import Queue
from shared.redis import Scripts
from tests.faults.conftest import LEASE_S
from tests.faults.scene import Scene
from tests.provider import Run, Silence, Text, Tokens, ToolCall, Wait
from tests.stack import Stack, eventually

NAME = "openai-responses"
WORDS = Tokens([f"word {n} " for n in range(60)], delay_s=0.02)


def only_run(stack: Stack) -> Run:
    (run,) = stack.provider.runs
    return run


@pytest.mark.parametrize("on_worker_lost", ["restart", "continue"])
async def test_a_killed_workers_run_is_listened_to_elsewhere_and_paid_once(quick: Stack, on_worker_lost: str) -> None:
    """SIGKILL in mid-answer, with tokens on their way; the answer has been written to its end when somebody comes."""
    doomed = await quick.worker_process()
    await quick.api()
    scene = Scene(quick)
    job_id, reader = await scene.running(WORDS, ToolCall("c1", "f", "{}"), provider=NAME, on_worker_lost=on_worker_lost)
    doomed.signal(signal.SIGKILL)
    await quick.worker()
    await reader.finish(LEASE_S + 5)
    await scene.assert_clean()
    assert scene.names(job_id) == ["queued", "started", "started", "tool_call", "tool_call", "completed"]
    assert len(quick.provider.runs) == 1
    assert [read.method for read in only_run(quick).streams] == ["POST", "GET"]
    assert only_run(quick).cancels == 0
    usage = (await scene.client.job(job_id))["usage"]
    assert (usage["input_tokens"], usage["estimated"]) == (1, False), "one call, though two attempts heard it"
    assert scene.record.requests[job_id] == 1


async def test_workers_killed_one_after_another_add_up_to_one_answer(quick: Stack) -> None:
    """Killed at whatever moment: between a token and its append, an append and its reply."""
    quick.configure(max_attempts=10, lease_s=0.8)
    await quick.api()
    scene = Scene(quick)
    workers = [await quick.worker_process() for _ in range(3)]
    words = Tokens([f"{n} " for n in range(800)], delay_s=0.005)
    job_id, reader = await scene.running(words, provider=NAME)
    for attempt in (1, 2):
        await reader.until("token", attempt=attempt)
        holder = str(await quick.redis.hget(quick.keys.job(job_id), "worker")).split(":")[1]  # type: ignore[misc]
        (victim,) = [worker for worker in workers if worker.pid == int(holder)]
        victim.signal(signal.SIGKILL)
    await reader.finish(15)
    await scene.assert_clean()
    assert scene.names(job_id) == ["queued", "started", "started", "started", "completed"]
    assert len(quick.provider.runs) == 1


async def test_a_stopped_workers_run_goes_on_without_a_gap(quick: Stack) -> None:
    """SIGTERM: nothing is cancelled, not even before the first token; nothing is charged."""
    quick.configure(max_attempts=1)
    leaving = await quick.worker_process()
    await quick.api()
    scene, gate = Scene(quick), quick.provider.gate()
    job_id, reader = await scene.running(WORDS, provider=NAME)
    silent = await scene.submit(Wait(gate), Text("late"), provider=NAME)
    waiting = scene.read(silent)
    await waiting.until("started")
    await eventually(lambda: _known(quick, silent))
    await quick.worker()
    leaving.signal(signal.SIGTERM)
    await waiting.until("started", attempt=2)
    gate.open()
    await scene.assert_clean()
    assert await asyncio.wait_for(leaving.exit_code(), 5) == 0
    for id in (job_id, silent):
        assert scene.names(id) == ["queued", "started", "started", "completed"]
    assert [run.cancels for run in quick.provider.runs] == [0, 0]
    assert reader.reading.end is not None


async def _known(stack: Stack, job_id: str) -> bool:
    return bool(await stack.redis.hexists(stack.keys.job(job_id), "run"))  # type: ignore[misc]


async def test_a_worker_that_was_frozen_cancels_nothing_that_another_listens_to(quick: Stack) -> None:
    """Its clocks say that the provider was silent for too long; the run is not its own any more."""
    zombie = await quick.worker_process(REJOIN_IDLE_TIMEOUT_S="1")
    await quick.api()
    scene, gate = Scene(quick), quick.provider.gate()
    job_id, reader = await scene.running(Text("old "), Wait(gate), Text("and new"), provider=NAME)
    await quick.worker()
    zombie.signal(signal.SIGSTOP)
    await reader.until("started", attempt=2)
    zombie.signal(signal.SIGCONT)
    await zombie.line("was revoked")
    await only_run(quick).reads[0].ended()
    gate.open()
    await scene.assert_clean()
    assert scene.names(job_id) == ["queued", "started", "started", "completed"]
    assert only_run(quick).cancels == 0


@pytest.mark.parametrize("end", ["cancelled while it waits", "cancelled before it was lost", "not to be tried again"])
async def test_a_dead_workers_run_is_cancelled_by_another_when_its_job_ends(quick: Stack, end: str) -> None:
    doomed = await quick.worker_process()
    await quick.api()
    scene = Scene(quick)
    fields: dict[str, Any] = {"on_worker_lost": "fail"} if end == "not to be tried again" else {}
    job_id, _ = await scene.running(Text("half"), Silence(), provider=NAME, **fields)
    doomed.signal(signal.SIGSTOP if end == "cancelled before it was lost" else signal.SIGKILL)
    if end == "cancelled while it waits":
        # Nobody is there to claim it: it is requeued by hand, as a reaper would.
        queue = Queue(quick.commands, Scripts(quick.commands), quick.keys)
        await eventually(lambda: _reaped(quick, queue))
    if end != "not to be tried again":
        await scene.cancel(job_id)
    await quick.worker()
    await only_run(quick).ended(LEASE_S + 5)
    assert only_run(quick).cancelled
    await doomed.stop()
    await scene.assert_clean()
    assert scene.names(job_id)[-1] == ("failed" if fields else "cancelled")
    assert only_run(quick).cancels == 1


async def _reaped(stack: Stack, queue: Queue) -> bool:
    return (await queue.reap(3, 60, 2**52)).requeued == 1


async def test_redis_away_in_mid_answer_is_no_reason_to_pay_again(own: Stack) -> None:
    """Killed and restarted with the worker in mid-answer; then the worker dies as well."""
    await own.api()
    doomed = await own.worker_process()
    scene = Scene(own)
    job_id, reader = await scene.running(WORDS, provider=NAME)
    own.valkey.kill()
    own.valkey.start()
    await reader.until("token")
    doomed.signal(signal.SIGKILL)
    await own.worker()
    await scene.assert_clean()
    assert scene.names(job_id) == ["queued", "started", "started", "completed"]
    assert len(own.provider.runs) == 1
