"""Streams of the client: every event once, whatever becomes of connections and servers. The oracle judges."""

import asyncio
import random
import signal
from itertools import chain

import pytest

from rejoin import (
    Answer,
    Cancelled,
    Completed,
    Event,
    JobCancelled,
    JobFailed,
    Patience,
    Queued,
    Reasoning,
    Restarted,
    Snapshot,
    Started,
    Token,
    ToolCall,
    Unknown,
    Unreachable,
)
from rejoin.events import event_of
from tests import provider
from tests.faults.proxy import Proxy
from tests.flow.test_compaction import compact
from tests.library.both import Both, Kind, reading
from tests.library.wire import Canned, Cutter, answer
from tests.oracle import Record, judge
from tests.provider import HttpError, Silence, Text, Tokens, Wait
from tests.stack import Stack, eventually
from tests.valkey import free_port

WORDS = [f"wörd{i} 👍 " for i in range(40)]


def is_token(event: Event) -> bool:
    return isinstance(event, Token)


async def job_id_of(stack: Stack) -> str:
    """Return the id of the one job that there is."""
    names = await stack.redis.keys(stack.keys.job("*"))
    assert len(names) == 1, names
    return str(names[0].decode().rpartition(":")[2])


async def check(stack: Stack, *seen: list[Event]) -> None:
    """Let the oracle judge what readers of the one job there is were yielded."""
    job_id = await job_id_of(stack)
    record = Record(accepted={job_id}, readings=[reading(job_id, events) for events in seen])
    record.calls[job_id] = stack.provider.calls
    assert judge(record) == []


async def test_events_are_typed_and_add_up(stack: Stack, both: Both) -> None:
    stack.provider.script(
        "m", provider.Reasoning("Hm."), Text("Hel"), Text("lo"), provider.ToolCall("c1", "look", ('{"a"', ":1}")),
        provider.Usage(input=9, output=2),
    )  # fmt: skip
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    events = await both.read("stream", "Hi", tools=[tool], metadata={"chat": "1"})
    assert [type(event) for event in events[:2]] == [Queued, Started]
    assert {type(event) for event in events[2:-1]} == {Reasoning, Token, ToolCall}
    end = events[-1]
    assert isinstance(end, Completed)
    assert (end.finish_reason, end.provider, end.model) == ("tool_calls", "openai", "m")
    assert (end.usage.input_tokens, end.usage.output_tokens, end.usage.estimated) == (9, 2, False)
    told = Answer.of(events)
    assert (told.text, told.reasoning, told.attempt, told.end) == ("Hello", "Hm.", 1, end)
    assert [(call.id, call.name, call.arguments) for call in told.tool_calls] == [("c1", "look", '{"a":1}')]
    await check(stack, events)


async def test_a_stream_says_where_it_is_at_each_event(stack: Stack, both: Both, kind: Kind) -> None:
    stack.provider.script("m", Tokens(WORDS[:5], delay_s=0.002))
    if kind == "async":
        stream = both._async.stream("Hi")
        assert (stream.job_id, stream.last_event_id) == (None, None)
        places = [(stream.last_event_id, event.id, stream.answer.attempt) async for event in stream]
        assert stream.job_id == await job_id_of(stack)
        assert await both.read("subscribe", stream.job_id, stream.last_event_id) == []
    else:
        sync = both._sync.stream("Hi")
        assert (sync.job_id, sync.last_event_id) == (None, None)
        places = await asyncio.to_thread(lambda: [(sync.last_event_id, e.id, sync.answer.attempt) for e in sync])
        assert sync.job_id == await job_id_of(stack)
    assert all(cursor == id and attempt == int(id[0]) for cursor, id, attempt in places)


async def test_text_is_the_whole_answer(stack: Stack, both: Both) -> None:
    stack.provider.script("m", Tokens(WORDS))
    assert await both.call("text", "Hi") == "".join(WORDS)


async def test_a_failure_and_a_cancel_are_raised_by_text_alone(stack: Stack, both: Both) -> None:
    stack.provider.script("m", HttpError(401))
    with pytest.raises(JobFailed) as failed:
        await both.call("text", "Hi")
    assert (failed.value.code, failed.value.retryable) == ("provider_authentication", False)
    stack.provider.script("n", Text("some"), Silence())
    asked = asyncio.create_task(both.call("text", "Hi", model="openai/n"))
    call = await eventually(lambda: stack.provider.calls[1:] and stack.provider.calls[1])
    await eventually(lambda: call.sent_text)
    (job,) = await both.listed(status="running")
    await both.call("cancel", job.id)
    with pytest.raises(JobCancelled) as cancelled:
        await asked
    assert cancelled.value.job_id == job.id


async def test_an_api_process_is_killed_in_mid_answer_and_comes_back_on_its_port(bare: Stack) -> None:
    """SIGKILL, with a sync and an async reader of the same job; the port refuses for a while."""
    await bare.worker()
    port, gates = free_port(), [bare.provider.gate() for _ in range(2)]
    bare.provider.script("m", Text("one "), Wait(gates[0]), Text("two "), Wait(gates[1]), Text("three"))
    api = await bare.api_process(port)
    readers = [Both(kind, f"http://127.0.0.1:{port}", patience=Patience(first_s=0.02, longest_s=0.1))
               for kind in ("sync", "async")]  # fmt: skip
    job = await readers[0].call("submit", "Hi")
    seen: list[list[Event]] = [[], []]

    async def read(at: int) -> None:
        def note(event: Event) -> bool:
            seen[at].append(event)
            return False

        await readers[at].read("subscribe", job.id, until=note)

    tasks = [asyncio.create_task(read(at)) for at in (0, 1)]
    await eventually(lambda: all(any(map(is_token, events)) for events in seen))
    api.signal(signal.SIGKILL)
    await api.exit_code()
    gates[0].open()
    await bare.api_process(port)
    await eventually(lambda: all(Answer.of(events).text == "one two " for events in seen))
    gates[1].open()
    await asyncio.gather(*tasks)
    for events in seen:
        assert Answer.of(events).text == "one two three"
    await check(bare, *seen)
    for reader in readers:
        await reader.aclose()


async def test_a_stream_cut_all_the_time_on_alternating_processes_is_whole(stack: Stack, kind: Kind) -> None:
    stack.provider.script("m", Tokens(WORDS, delay_s=0.005))
    choose = random.Random(11)
    cuts = [[choose.randrange(250, 520) for _ in range(40)] for _ in stack.apis]
    async with Cutter(stack.apis[0].url, cuts[0]) as one, Cutter(stack.apis[1].url, cuts[1]) as two:
        both = Both(kind, one.url, two.url)
        events = await both.read("stream", "Hi")
        await both.aclose()
    assert one.connections + two.connections > 10
    assert min(one.connections, two.connections) > 3
    assert Answer.of(events).text == "".join(WORDS)
    await check(stack, events)


async def test_a_stream_is_cut_in_heads_and_frames(stack: Stack, both: Both, kind: Kind) -> None:
    """Heads and events: whole answers of some 700 bytes, cut once at every twelfth; `test_sse` cuts at each."""
    stack.provider.script("m", Text("a"), provider.Reasoning("b"), Text("c"))
    whole = await both.read("stream", "Hi")
    job_id = await job_id_of(stack)
    total = 900
    cuts = range(0 if kind == "sync" else 5, total, 12)
    async with Cutter(stack.url, chain.from_iterable((at, 10**9) for at in cuts)) as cutter:
        client = Both(kind, cutter.url)
        for _ in cuts:
            events = await client.read("subscribe", job_id)
            assert Answer.of(events).text == "ac"
            assert events[-1] == whole[-1]
            await check(stack, events)
        await client.aclose()
    assert len(cuts) < cutter.connections <= 2 * len(cuts)


async def test_a_post_whose_answer_is_lost_makes_one_job(stack: Stack, kind: Kind) -> None:
    async with Proxy(int(stack.url.rpartition(":")[2])) as proxy:
        both = Both(kind, f"http://127.0.0.1:{proxy.port}")
        lost = proxy.lose_reply(b"POST /v1/jobs")
        job = await both.call("submit", "Hi")
        await lost.happened()
        assert job.replayed
        assert [listed.id for listed in await both.listed()] == [job.id]
        proxy.lose_reply(b"POST /v1/jobs")
        events = await both.read("stream", "Hi")
        assert Answer.of(events).text == "Hello from the scripted provider."
        assert len(await both.listed()) == len(stack.provider.calls) == 2
        lost = proxy.lose_reply(b"DELETE /v1/jobs")
        await both.call("delete", job.id)
        await lost.happened()
        assert len(await both.listed()) == 1
        await both.aclose()


async def test_a_cursor_of_a_compacted_log_gets_a_snapshot(stack: Stack, both: Both) -> None:
    stack.provider.script("m", provider.Reasoning("Hm."), Tokens(WORDS, delay_s=0.002))
    live = await both.read("stream", "Hi")
    assert await compact(stack) == 1
    job_id = await job_id_of(stack)
    for at in (2, len(live) // 2):
        rest = await both.read("subscribe", job_id, live[at].id)
        assert [type(event) for event in rest] == [Snapshot, Completed]
        told = Answer.of([*live[: at + 1], *rest])
        assert (told.text, told.reasoning) == ("".join(WORDS), "Hm.")
    assert await both.read("subscribe", job_id, live[-1].id) == []


async def test_a_lost_attempt_is_taken_back(stack: Stack, both: Both) -> None:
    stack.provider.script("m", Text("first"), Silence())
    stack.provider.then("m", Text("second"))
    reader = asyncio.create_task(both.read("stream", "Hi"))
    call = await eventually(lambda: stack.provider.calls and stack.provider.calls[0])
    await eventually(lambda: call.sent_text)
    await stack.worker()
    stack.workers[0].worker.handle_sig(signal.SIGTERM)
    events = await reader
    (restarted,) = [event for event in events if isinstance(event, Restarted)]
    assert (restarted.attempt, restarted.reason) == (2, "worker_stopped")
    assert Answer.of(events).text == "second"
    await check(stack, events)


@pytest.mark.parametrize("ask", [True, False])
async def test_who_leaves_early_cancels_only_when_asked_to(stack: Stack, both: Both, ask: bool) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Text("b"))
    events = await both.read("stream", "Hi", cancel_on_leave=ask, until=is_token)
    assert is_token(events[-1])
    job = await both.call("job", await job_id_of(stack))
    assert job.status == ("cancelled" if ask else "running")
    assert stack.provider.calls[0].closed_by_client is ask
    gate.open()
    rest = await both.read("subscribe", job.id, events[-1].id)
    assert isinstance(rest[-1], Cancelled if ask else Completed)
    assert Answer.of([*events, *rest]).text == ("a" if ask else "ab")


async def test_breaking_out_of_a_bare_loop_is_leaving(stack: Stack, both: Both, kind: Kind) -> None:
    stack.provider.script("m", Text("a"), Silence())
    if kind == "async":
        async for event in both._async.stream("Hi", cancel_on_leave=True):
            if is_token(event):
                break
    else:

        def sync() -> None:
            for event in both._sync.stream("Hi", cancel_on_leave=True):
                if is_token(event):
                    break

        await asyncio.to_thread(sync)
    await stack.provider.calls[0].closed()


async def test_a_task_that_is_cancelled_before_its_job_is_known_leaves_none_behind(stack: Stack) -> None:
    async with Proxy(int(stack.url.rpartition(":")[2])) as proxy:
        both = Both("async", f"http://127.0.0.1:{proxy.port}")
        stack.provider.script("m", Text("a"), Silence())
        proxy.hold(b"POST /v1/jobs")
        task = asyncio.create_task(both.read("stream", "Hi", cancel_on_leave=True))
        await eventually(lambda: proxy.opened)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (job,) = await both.listed()
        assert job.status == "cancelled"
        await both.aclose()


async def test_a_server_that_is_away_is_given_up_in_the_end(kind: Kind) -> None:
    both = Both(kind, f"http://127.0.0.1:{free_port()}", patience=Patience(give_up_s=0.1, first_s=0.01, longest_s=0.05))
    with pytest.raises(Unreachable, match=r"cannot be reached \(ConnectError\)"):
        await both.read("stream", "Hi")
    with pytest.raises(Unreachable):
        await both.call("models")
    await both.aclose()


async def test_a_stream_that_is_refused_for_a_while_goes_on(stack: Stack, kind: Kind) -> None:
    frames = [b'event: queued\ndata: {"position":1}\nid: 0-1\n\n', b"event: cancelled\ndata: {}\nid: 1-1\n\n"]
    sse = {"media_type": "text/event-stream"}
    answers = [
        answer(503, b'{"code":"unavailable","detail":"later"}', "Retry-After: 0"),
        answer(502, b"<html>"),
        answer(200, frames[0], "X-Job-ID: job_1", **sse),
        answer(429, b'{"code":"too_many_streams"}'),
        answer(200, frames[1], **sse),
    ]
    async with Canned(*answers) as server:
        both = Both(kind, server.url)
        events = await both.read("stream", "Hi")
        await both.aclose()
    assert [type(event) for event in events] == [Queued, Cancelled]
    assert [head.split()[0] for head in server.heads] == ["POST"] * 3 + ["GET"] * 2
    keys = {line for head in server.heads[:3] for line in head.lower().splitlines() if line.startswith("idempotency")}
    assert len(keys) == 1
    assert all("last-event-id: 0-1" in head.lower() for head in server.heads[3:])


def test_an_event_of_a_newer_server_is_unknown_and_ends_nothing() -> None:
    event = event_of("1-7", "applause", {"hands": 2})
    assert isinstance(event, Unknown)
    assert (event.event, event.last, event.data, event.number) == ("applause", False, {"hands": 2}, 1)
    assert event_of("1-8", "token", {"text": "x", "colour": "red"}) == Token(
        id="1-8", text="x", data={"text": "x", "colour": "red"}
    )
