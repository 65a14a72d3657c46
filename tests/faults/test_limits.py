"""Limits hold while workers die: no call too many, and no room lost."""

import asyncio
import signal

import orjson

from tests.faults.scene import Scene
from tests.provider import Silence, Text, Tokens
from tests.stack import Stack, eventually

MOST = 4


async def test_a_killed_workers_calls_make_room_and_no_more_than_that(quick: Stack) -> None:
    """SIGKILL to a worker that holds all the calls there may be: another one goes on, within the limit, to the end."""
    limits = orjson.dumps({"openai": {"concurrent": MOST}}).decode()
    doomed = await quick.worker_process(REJOIN_LIMITS=limits)
    await quick.api()
    scene = Scene(quick)
    held = [await scene.running(Text("x "), Silence(), then=[[Text("again")]]) for _ in range(MOST)]
    await quick.worker_process(REJOIN_LIMITS=limits)
    for _ in range(8):
        await scene.submit(Tokens("one of many", delay_s=0.01))
    await eventually(lambda: _are_blocked(quick, 8))
    assert await quick.redis.zcard(quick.keys.calls("openai")) == MOST
    doomed.signal(signal.SIGKILL)
    await scene.assert_clean()
    assert [scene.names(job_id) for job_id, _ in held] == [["queued", "started", "restarted", "completed"]] * MOST
    assert len(quick.provider.calls) == 2 * MOST + 8
    assert quick.provider.max_concurrent == MOST
    assert await quick.redis.exists(quick.keys.calls("openai"), quick.keys.blocked) == 0


async def _are_blocked(stack: Stack, jobs: int) -> bool:
    return bool(await stack.redis.zcard(stack.keys.blocked) == jobs)


async def test_limits_hold_over_two_processes_that_are_replaced_in_turn(quick: Stack) -> None:
    """Two deploys in a row: whoever hands over leaves its room, whoever comes finds it."""
    limits = orjson.dumps({"openai": {"concurrent": MOST}}).decode()
    workers = [await quick.worker_process(REJOIN_LIMITS=limits) for _ in range(2)]
    await quick.api()
    scene = Scene(quick)
    ids = [await scene.submit(Tokens("some words to say", delay_s=0.05)) for _ in range(30)]
    readers = [scene.read(job_id) for job_id in ids]
    for _ in range(2):
        await quick.provider.next_call()
        workers.append(await quick.worker_process(REJOIN_LIMITS=limits))
        leaving = workers.pop(0)
        leaving.signal(signal.SIGTERM)
        await leaving.exit_code()
    await asyncio.gather(*[reader.finish() for reader in readers])
    await scene.assert_clean()
    assert quick.provider.max_concurrent <= MOST
    assert await quick.redis.exists(quick.keys.calls("openai"), quick.keys.blocked) == 0
