"""Workers die, are stopped, or fall silent: somebody else goes on, and the reader is told."""

import asyncio
import signal
import time
from contextlib import aclosing
from functools import partial

from shared.events import EventId, dump
from shared.log import Append, Log
from shared.queue import Claim, Queue
from shared.redis import Scripts
from tests.client import Event, text
from tests.provider import Silence, Text, Tokens, Wait
from tests.stack import Stack, eventually
from worker.providers.demo import TEXT

LEASE_S = 1.0


def whole(events: list[Event]) -> None:
    """Check what holds for every history: ids rise, one end, nothing behind it, no attempt mixed with another."""
    keys = [event.key for event in events]
    assert keys == sorted(set(keys))
    assert [event.event in ("completed", "failed", "cancelled") for event in events].count(True) == 1
    assert events[-1].event in ("completed", "failed", "cancelled")
    for event in events:
        if event.event in ("started", "restarted"):
            assert event.key[1] == 0
            assert event.data["attempt"] == event.key[0]


async def test_a_killed_worker_is_replaced_within_its_lease(bare: Stack) -> None:
    """Contract §6: SIGKILL to its jobs running elsewhere, at most lease + 2 s."""
    bare.configure(lease_s=LEASE_S)
    doomed = await bare.worker_process(REJOIN_LEASE_S=str(LEASE_S))
    await bare.api()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("half an ans"), Silence())
    bare.provider.then("m", Tokens("a whole answer"))
    job_id = await client.submit()
    await client.until(job_id, "token")
    reader = asyncio.create_task(client.all_events(job_id, api=1))
    await bare.worker()
    doomed.signal(signal.SIGKILL)
    killed_s = time.monotonic()
    first = await bare.provider.next_call()
    second = await bare.provider.next_call(timeout_s=LEASE_S + 2)
    assert second.started_at - killed_s <= LEASE_S + 2
    assert first.model == second.model == "m"
    events = await reader
    whole(events)
    assert [event.event for event in events if event.event != "token"] == [
        "queued", "started", "restarted", "completed",
    ]  # fmt: skip
    (restarted,) = [event for event in events if event.event == "restarted"]
    assert restarted.id == "2-0"
    assert restarted.data == {"attempt": 2, "reason": "worker_lost", "provider": "openai", "model": "m"}
    assert text(events) == "a whole answer"
    job = await client.job(job_id)
    assert (job["text"], job["attempts"], job["status"]) == ("a whole answer", 2, "completed")
    assert len(bare.provider.calls) == 2


async def test_a_worker_that_may_drain_lets_answers_end_and_hands_over_the_rest(bare: Stack) -> None:
    """`REJOIN_DRAIN_S`: what ends meanwhile is paid once; a second signal is a hurry; it takes nothing new."""
    leaving = await bare.worker_process(REJOIN_DRAIN_S="30")
    await bare.api()
    client, gate = bare.client(), bare.provider.gate()
    bare.provider.script("short", Text("half "), Wait(gate), Text("whole"))
    bare.provider.script("long", Text("half "), Silence())
    bare.provider.then("long", Text("again"))
    short, long = [await client.submit(model) for model in ("short", "long")]
    readers = [asyncio.create_task(client.all_events(job_id)) for job_id in (short, long)]
    for job_id in (short, long):
        await client.until(job_id, "token")
    leaving.signal(signal.SIGTERM)
    await leaving.line("stopping on SIGTERM")
    waiting = await client.submit("fresh")
    gate.open()
    events = await readers[0]
    assert [event.event for event in events if event.event != "token"] == ["queued", "started", "completed"]
    assert (await client.job(waiting))["status"] == "queued"
    assert not readers[1].done()
    await bare.worker()
    assert (await client.all_events(waiting))[-1].event == "completed"
    leaving.signal(signal.SIGTERM)
    assert await asyncio.wait_for(leaving.exit_code(), 5) == 0
    events = await readers[1]
    assert [event.data["reason"] for event in events if event.event == "restarted"] == ["worker_stopped"]
    assert text(events) == "again"
    assert len(bare.provider.calls) == 4


async def test_a_stopped_worker_hands_its_jobs_over_without_charging_an_attempt(bare: Stack) -> None:
    """Contract §6: SIGTERM, its jobs run elsewhere within 2 s; `REJOIN_MAX_ATTEMPTS` is not touched."""
    bare.configure(max_attempts=1)
    leaving = await bare.worker_process(REJOIN_MAX_ATTEMPTS="1")
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("half an ans"), Silence())
    bare.provider.then("m", Tokens("a whole answer"))
    job_id = await client.submit()
    call = await bare.provider.next_call()
    await client.until(job_id, "token")
    reader = asyncio.create_task(client.all_events(job_id))
    await bare.worker(max_attempts=1)
    leaving.signal(signal.SIGTERM)
    stopped_s = time.monotonic()
    again = await bare.provider.next_call(timeout_s=2)
    assert again.started_at - stopped_s <= 2
    assert await call.closed()
    events = await reader
    whole(events)
    assert [e.data["reason"] for e in events if e.event == "restarted"] == ["worker_stopped"]
    assert text(events) == "a whole answer"
    assert await asyncio.wait_for(leaving.exit_code(), 5) == 0


async def test_a_worker_that_was_frozen_is_fenced_and_stops_its_call(bare: Stack) -> None:
    """SIGSTOP for longer than the lease, then SIGCONT: nothing of the zombie is ever read."""
    bare.configure(lease_s=LEASE_S)
    zombie = await bare.worker_process(REJOIN_LEASE_S=str(LEASE_S))
    await bare.api()
    client = bare.client()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("old "), Wait(gate), Tokens("zombie " * 50, delay_s=0.005), Silence())
    bare.provider.then("m", Text("new "), Wait(gate), Text("answer"))
    job_id = await client.submit()
    old = await bare.provider.next_call()
    await client.until(job_id, "token")
    reader = asyncio.create_task(client.all_events(job_id))
    await bare.worker()
    zombie.signal(signal.SIGSTOP)
    await bare.provider.next_call(timeout_s=LEASE_S + 3)
    zombie.signal(signal.SIGCONT)
    gate.open()
    events = await reader
    whole(events)
    assert text(events) == "new answer"
    assert "zombie" not in "".join(event.data.get("text", "") for event in events)
    assert await old.closed()
    assert len(bare.provider.calls) == 2


async def test_a_job_that_loses_every_worker_fails(bare: Stack) -> None:
    """Contract §1: REJOIN_MAX_ATTEMPTS; whoever ends a job writes its last event."""
    bare.configure(lease_s=0.3, max_attempts=2)
    await bare.api()
    client = bare.client()
    reader_of = await _queue(bare)
    await bare.worker()
    bare.provider.script("m", Text("x"), Silence())
    await _stop_dispatch(bare)
    job_id = await client.submit()
    for attempt in (1, 2):
        ghost = f"ghost-{attempt}"
        claims = await eventually(partial(_claim, reader_of, ghost, 0.2), 8)
        assert [claim.attempt for claim in claims] == [attempt]
    events = await client.all_events(job_id)
    whole(events)
    assert [(event.id, event.event) for event in events] == [
        ("0-1", "queued"), ("1-0", "started"), ("2-0", "restarted"), ("2-1", "failed"),
    ]  # fmt: skip
    assert events[-1].data["code"] == "worker_lost"
    job = await client.job(job_id)
    assert job["error"]["code"] == "worker_lost"
    assert job["status"] == "failed"


async def test_on_worker_lost_fail_ends_the_job_at_the_first_loss(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    await bare.worker()
    await _stop_dispatch(bare)
    job_id = await client.submit(on_worker_lost="fail")
    assert await _claim(await _queue(bare), "ghost", 0.2)
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "failed"]


async def test_a_cancel_outlives_the_worker_that_should_have_honoured_it(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    await bare.worker()
    await _stop_dispatch(bare)
    job_id = await client.submit()
    assert await _claim(await _queue(bare), "ghost", 0.3)
    result = await client.cancel(job_id)
    assert result["outcome"] in ("cancelled", "cancelling")
    assert [event.event for event in await client.all_events(job_id)] == ["queued", "started", "cancelled"]


async def _ghost_attempt(stack: Stack, job_id: str, *pieces: str) -> None:
    """Play a worker that claims the job, writes a beginning, and dies."""
    queue, log = await _queue(stack), Log(stack.commands, Scripts(stack.commands), stack.keys)
    (claim,) = await _claim(queue, "ghost", 0.2)
    assert claim.job_id == job_id
    for seq, piece in enumerate(pieces, 1):
        before = claim.log_length + seq - 1
        token = Append(job_id, claim.worker, EventId(claim.attempt, seq), before, [("token", dump({"text": piece}))])
        assert await log.append([token]) == [True]


async def test_an_answer_is_continued_where_the_provider_can(bare: Stack) -> None:
    """`on_worker_lost: continue`: opened as `started`, the text stays, the provider is given it."""
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    job_id = await client.submit(provider="anthropic", on_worker_lost="continue", max_tokens=100)
    await _ghost_attempt(bare, job_id, "Half ", "an ")
    bare.provider.script("m", Text(" "), Text(" answer"), Text(" and more"))
    await bare.worker()
    events = await client.all_events(job_id)
    whole(events)
    assert [(event.id, event.event) for event in events if event.event != "token"] == [
        ("0-1", "queued"), ("1-0", "started"), ("2-0", "started"), (events[-1].id, "completed"),
    ]  # fmt: skip
    assert text(events) == "Half an  answer and more", "the seam's own space came once, the other one is the provider's"
    assert text(await client.all_events(job_id, "1-1")) == "an  answer and more"
    job = await client.job(job_id)
    assert (job["text"], job["attempts"]) == (text(events), 2)
    (call,) = bare.provider.calls
    assert call.body["messages"][-1] == {"role": "assistant", "content": "Half an"}
    assert call.body["max_tokens"] < 100


async def test_an_answer_is_restarted_where_the_provider_cannot_continue(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    job_id = await client.submit(provider="openai", on_worker_lost="continue")
    await _ghost_attempt(bare, job_id, "Half ", "an ")
    bare.provider.script("m", Text("whole"))
    await bare.worker()
    events = await client.all_events(job_id)
    whole(events)
    assert [event.event for event in events] == [
        "queued", "started", "token", "restarted", "token", "completed",
    ]  # fmt: skip
    assert (await client.job(job_id))["text"] == text(events) == "whole"


async def test_a_continued_answer_can_be_lost_and_continued_again(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.api()
    client = bare.client()
    job_id = await client.submit("tour", "demo", on_worker_lost="continue")
    await _ghost_attempt(bare, job_id, "Hello! ")
    local = await bare.worker()
    async with aclosing(client.events(job_id)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.key[0] == 2 and event.event == "token":
                break
    await bare.worker()
    local.worker.handle_sig(signal.SIGTERM)
    seen = await client.all_events(job_id)
    whole(seen)
    assert [event.event for event in seen if event.event != "token"] == ["queued", *["started"] * 3, "completed"]
    assert text(seen) == TEXT


async def test_a_newer_attempt_fences_the_older_one_in_the_log_itself(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    queue = await _queue(bare)
    (first,) = await _claim(queue, "one", 60)
    log = Log(bare.commands, Scripts(bare.commands), bare.keys)
    hello = Append(job_id, first.worker, EventId(1, 1), first.log_length, [("token", b'{"text":"a"}')])
    assert await log.append([hello]) == [True]
    assert await log.append([hello]) == [True], "a repeat after a lost reply is success"
    other = hello._replace(events=[("token", b'{"text":"b"}')])
    assert await log.append([other]) == [False], "but only with the same content"
    assert await queue.release(job_id, "one", "worker_stopped", 1)
    (second,) = await _claim(queue, "two", 60)
    assert second.attempt == 2
    zombie = [("token", b'{"text":"zombie"}')] * 2
    late = Append(job_id, first.worker, EventId(1, 2), first.log_length + 1, zombie)
    for before in range(second.log_length + 2):
        assert await log.append([late._replace(before=before)]) == [False], "whatever it believes the log to hold"
    end = [("completed", b"{}")]
    assert not await queue.finish(first, "completed", late._replace(events=end), {}, 60)
    last = Append(job_id, second.worker, EventId(2, 1), second.log_length, end)
    assert await queue.finish(second, "completed", last, {}, 60)
    assert await queue.finish(second, "completed", last, {}, 60)
    assert [event.event for event in await client.all_events(job_id)][-2:] == ["restarted", "completed"]


async def _queue(stack: Stack) -> Queue:
    return Queue(stack.commands, Scripts(stack.commands), stack.keys)


async def _claim(queue: Queue, worker: str, lease_s: float) -> list[Claim]:
    """Claim as a worker would that dies right afterwards."""
    await queue.register(worker, lease_s)
    return (await queue.claim(worker, 10, lease_s)).claims


async def _stop_dispatch(stack: Stack) -> None:
    """Let the worker reap and claim nothing, so that the test's ghosts get the jobs."""
    for local in stack.workers:
        local.worker.workshop.slots.most = 0
