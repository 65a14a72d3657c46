"""A background response belongs to the scripted provider: readers come and go, and it is generated once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from tests.provider import (
    Begin,
    Cut,
    CutReader,
    Eof,
    Failure,
    Finish,
    Headers,
    HttpError,
    Run,
    ScriptedProvider,
    Silence,
    Step,
    StreamError,
    Text,
    Tokens,
    Wait,
)
from tests.provider.clients import openai_client

ASK: dict[str, Any] = {"model": "m", "input": "Hi there", "background": True}


@pytest.fixture(params=["httpx2", "aiohttp"])
async def gpt(provider: ScriptedProvider, request: pytest.FixtureRequest) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(provider, transport=request.param) as client:
        yield client


async def run_of(provider: ScriptedProvider) -> Run:
    run = (await provider.next_call()).run
    assert run is not None
    return run


def text(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


async def read_on(client: AsyncOpenAI, id: str, seen: list[Any]) -> None:
    """Go on behind the last event seen, to the end or until the connection is lost (which raises)."""
    after = {"starting_after": seen[-1].sequence_number} if seen else {}
    async for event in await client.responses.retrieve(id, stream=True, **after):
        seen.append(event)  # noqa: PERF401 - one by one: what came before a cut is kept


async def begin(client: AsyncOpenAI) -> tuple[list[Any], str]:
    """Read the POST's events to their end or to the loss of the connection; return them and the response's id."""
    seen = []
    try:
        async for event in await client.responses.create(**ASK, stream=True):
            seen.append(event)  # noqa: PERF401 - as above
    except openai.APIConnectionError:
        pass
    return seen, seen[0].response.id


async def test_it_is_queued_then_in_progress_then_done(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Tokens("Hello you"))
    seen, _ = await begin(gpt)
    statuses = [(event.type, event.response.status) for event in seen if hasattr(event, "response")]
    assert statuses == [
        ("response.created", "queued"),
        ("response.queued", "queued"),
        ("response.in_progress", "in_progress"),
        ("response.completed", "completed"),
    ]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].response.background is True
    run = await run_of(provider)
    await run.ended()
    assert run.call.finished
    assert run.call.sent_text == "Hello you"


async def test_one_run_two_reads_nothing_paid_twice(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), CutReader(), Text("lo"))
    seen, id = await begin(gpt)
    assert text(seen) == "Hel"
    await read_on(gpt, id, seen)
    assert text(seen) == "Hello"
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    (run,) = provider.runs
    reads = [(read.method, read.starting_after, read.last_sent, read.end) for read in run.reads]
    assert reads == [("POST", None, 5, "cut"), ("GET", 5, len(seen) - 1, "finished")]
    assert len(provider.calls) == 1


@pytest.mark.parametrize("cut", [CutReader(how="rst"), CutReader(how="eof"), Cut(), Cut(fin=True), Eof()], ids=repr)
async def test_it_outlives_every_way_of_losing_its_reader(provider: ScriptedProvider, gpt: AsyncOpenAI, cut: Step):
    gate = provider.gate()
    provider.script("m", Text("Hel"), Wait(gate), cut, Text("lo"))
    reading = asyncio.create_task(begin(gpt))
    await gate.reached()
    gate.open()
    seen, id = await reading
    await read_on(gpt, id, seen)
    assert text(seen) == "Hello"
    assert len(provider.runs) == 1


async def test_a_cut_may_wait_for_several_readers(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("a"), CutReader(times=3), Text("b"), CutReader(), Text("c"))
    seen, id = await begin(gpt)
    (run,) = provider.runs
    await run.ended()  # it is done long before anybody has read it
    for so_far in ("a", "a", "ab"):
        with pytest.raises(openai.APIConnectionError):
            await read_on(gpt, id, seen)
        assert text(seen) == so_far
    await read_on(gpt, id, seen)
    assert text(seen) == "abc"
    assert [read.end for read in run.reads] == ["cut"] * 4 + ["finished"]


async def test_before_any_answer_the_client_learns_no_id(provider: ScriptedProvider, gpt: AsyncOpenAI):
    gate = provider.gate()
    provider.script("m", CutReader(), Wait(gate), Text("Hello"))
    for stream in (True, False):
        with pytest.raises(openai.APIConnectionError):
            await gpt.responses.create(**ASK, stream=stream)
    assert [run.reads[0].end for run in provider.runs] == ["cut", "cut"]
    assert {(await gpt.responses.retrieve(run.id)).status for run in provider.runs} == {"in_progress"}
    gate.open()
    for run in provider.runs:
        await run.ended()
        assert run.call.sent_text == "Hello"


async def test_a_client_that_leaves_does_not_stop_it(provider: ScriptedProvider, gpt: AsyncOpenAI):
    gate = provider.gate()
    provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    stream = await gpt.responses.create(**ASK, stream=True)
    first = await anext(stream)
    run = await run_of(provider)
    await stream.close()
    read = await run.next_read()
    await read.ended()
    assert (read.end, provider.active, run.status) == ("closed_by_client", 1, "in_progress")
    gate.open()
    await run.ended()
    assert (run.status, run.call.sent_text, run.call.closed_by_client) == ("completed", "Hello", False)
    assert (await gpt.responses.retrieve(first.response.id)).status == "completed"


async def test_replay_goes_over_into_live(provider: ScriptedProvider, gpt: AsyncOpenAI):
    gate = provider.gate()
    provider.script("m", Text("Hel"), CutReader(), Wait(gate), Text("lo"))
    seen, id = await begin(gpt)
    await gate.reached()
    run = await run_of(provider)
    one, two = list(seen), list[Any]()
    reading = asyncio.gather(read_on(gpt, id, one), read_on(gpt, id, two))
    for _ in range(3):
        await run.next_read()
    gate.open()
    await reading
    assert text(one) == text(two) == "Hello"
    assert [read.starting_after for read in run.streams[1:]] in ([5, None], [None, 5])


async def test_without_a_stream_it_is_polled(provider: ScriptedProvider, gpt: AsyncOpenAI):
    start, end = provider.gate(), provider.gate()
    provider.script("m", Wait(start), Begin(), Text("Hello"), Wait(end))
    first = await gpt.responses.create(**ASK)
    assert (first.status, first.output) == ("queued", [])
    await start.reached()
    assert (await gpt.responses.retrieve(first.id)).status == "queued"
    start.open()
    await end.reached()
    half = await gpt.responses.retrieve(first.id)
    assert (half.status, half.output) == ("in_progress", [])
    end.open()
    run = await run_of(provider)
    await run.ended()
    last = await gpt.responses.retrieve(first.id)
    assert (last.status, last.output_text) == ("completed", "Hello")
    assert [(read.method, read.stream) for read in run.reads] == [("POST", False)] + [("GET", False)] * 3
    with pytest.raises(openai.BadRequestError, match="not created with stream=true"):
        await gpt.responses.retrieve(first.id, stream=True)


async def test_cancelling_ends_it_and_its_stream(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), Silence())
    stream = await gpt.responses.create(**ASK, stream=True)
    seen = [await anext(stream) for _ in range(6)]
    id = seen[0].response.id
    assert (await gpt.responses.cancel(id)).status == "cancelled"
    assert [event async for event in stream] == []
    run = await run_of(provider)
    await run.ended()
    assert (run.cancelled, run.call.cancelled, run.call.finished, provider.active) == (True, True, False, 0)
    assert run.reads[0].end == "finished"
    assert (await gpt.responses.cancel(id)).status == "cancelled"
    assert run.cancels == 2
    tail: list[Any] = [seen[2]]
    await read_on(gpt, id, tail)
    assert text(tail) == "Hel"


async def test_what_is_over_cannot_be_cancelled(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("x"))
    provider.then("m", Text("x"), StreamError(events=["failed"]))
    for status in ("completed", "failed"):
        _, id = await begin(gpt)
        with pytest.raises(openai.BadRequestError, match=f"Cannot cancel a {status} response"):
            await gpt.responses.cancel(id)
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.cancel("resp_nope")


async def test_it_can_be_cancelled_before_it_has_begun(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Wait(provider.gate()), Headers(), Text("never"))
    asking = asyncio.create_task(gpt.responses.create(**ASK, stream=True))
    run = await run_of(provider)
    assert (await gpt.responses.cancel(run.id)).status == "cancelled"
    assert [event async for event in await asking] == []
    await run.ended()


@pytest.mark.parametrize(
    ("ending", "status"),
    [(Finish("length"), "incomplete"), (StreamError("rate_limit_error", "Slow", events=["failed"]), "failed")],
)
async def test_it_may_end_badly(provider: ScriptedProvider, gpt: AsyncOpenAI, ending: Step, status: str):
    provider.script("m", Text("Hel"), CutReader(), ending)
    seen, id = await begin(gpt)
    await read_on(gpt, id, seen)
    assert seen[-1].type == f"response.{status}"
    answer = await gpt.responses.retrieve(id)
    assert answer.status == status
    assert (answer.error.code if answer.error else None) == ("rate_limit_exceeded" if status == "failed" else None)


async def test_the_next_get_may_fail(provider: ScriptedProvider, gpt: AsyncOpenAI):
    too_old = HttpError(400, message="This response can no longer be streamed because it is more than 5 minutes old")
    provider.script("m", Text("Hel"), CutReader(then=[Failure("unavailable"), too_old]), Text("lo"))
    seen, id = await begin(gpt)
    for error in (openai.InternalServerError, openai.BadRequestError):
        with pytest.raises(error):
            await read_on(gpt, id, seen)
    await read_on(gpt, id, seen)
    assert text(seen) == "Hello"
    assert [read.end for read in provider.runs[0].reads] == ["cut", "refused", "refused", "finished"]


async def test_the_next_get_may_hang(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), CutReader(then=[Silence()]), Text("lo"))
    seen, id = await begin(gpt)
    run = await run_of(provider)
    await run.next_read()
    hanging = asyncio.create_task(read_on(gpt, id, seen))
    read = await run.next_read()
    hanging.cancel()
    await read.ended()
    assert read.end == "closed_by_client"
    await read_on(gpt, id, seen)
    assert text(seen) == "Hello"


async def test_the_sdk_itself_can_take_it_up_again(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), CutReader(), Text("lo"))
    _, id = await begin(gpt)
    async with gpt.responses.stream(response_id=id, starting_after=4) as stream:
        final = await stream.get_final_response()
    assert final.output_text == "Hello"
    # The SDK asks for everything, and leaves out what was seen.
    assert provider.runs[0].reads[-1].starting_after is None


async def test_bad_cursors_are_refused(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("x"))
    _, id = await begin(gpt)
    bad: Any = "x"
    with pytest.raises(openai.BadRequestError, match="starting_after"):
        await gpt.responses.retrieve(id, stream=True, starting_after=bad)
    stream = await gpt.responses.retrieve(id, stream=True, starting_after=99)
    assert [event async for event in stream] == []
    with pytest.raises(openai.BadRequestError, match="'store' to be true"):
        await gpt.responses.create(**ASK, store=False)


async def test_the_next_turn_may_refer_to_it(provider: ScriptedProvider, gpt: AsyncOpenAI):
    _, id = await begin(gpt)
    answer = await gpt.responses.create(model="m", input="And?", previous_response_id=id)
    assert answer.previous_response_id == id
    with pytest.raises(openai.BadRequestError) as caught:
        await gpt.responses.create(model="m", input="And?", previous_response_id="resp_nope")
    assert caught.value.code == "previous_response_not_found"


async def test_at_its_end_the_provider_drops_what_still_runs():
    async with ScriptedProvider() as provider, openai_client(provider) as gpt:
        gate = provider.gate()
        provider.script("m", Text("Hel"), Wait(gate))
        await gpt.responses.create(**ASK)
        run = await run_of(provider)
        await gate.reached()
    await run.ended()
    assert (run.call.finished, run.call.cancelled, run.call.closed_by_client) == (False, False, False)


async def test_a_fault_of_the_double_drops_the_readers():
    async def meet_it() -> None:
        async with ScriptedProvider() as provider, openai_client(provider) as gpt:
            provider.improvise("m", lambda call: [Text("Hel"), Tokens([1])])  # type: ignore[list-item]
            await begin(gpt)

    with pytest.raises(TypeError):
        await meet_it()
