"""OpenAI's background streams, dropped anywhere and resumed anywhere; and attempts that are lost in mid-answer."""

from typing import Any

import httpx2
import openai
import pytest

from tests.faces.conftest import PROVIDERS, openai_client
from tests.faces.responses import TEXT_ITEM, WEATHER, events_of, lost, resumed, said, streamed, types
from tests.flow.test_compaction import compact
from tests.provider import Reasoning, Refusal, Silence, Step, StreamError, Text, Tokens, ToolCall, Wait
from tests.stack import Stack

WORDS = [f"word{i} " for i in range(12)]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_dropped_stream_goes_on_elsewhere(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    async with openai_client(stack, 1) as other:
        for drop in range(6):
            gate = stack.provider.gate()
            stack.provider.script("m", Tokens(WORDS[:6], delay_s=0.005), Wait(gate), Tokens(WORDS[6:], delay_s=0.005))
            stream = await chat.responses.create(model=f"{name}/m", input="Hi", background=True, stream=True)
            seen: list[Any] = []
            async for event in stream:
                seen.append(event)
                if event.sequence_number == drop:
                    break
            await stream.close()
            gate.open()
            id = seen[0].response.id
            seen += await resumed(other, id, drop)
            assert said(seen) == "".join(WORDS)
            assert seen == await events_of(await chat.responses.retrieve(id, stream=True))
            for after in (drop, len(seen) - 2, len(seen) - 1, 10_000):
                assert await resumed(other, id, after) == seen[after + 1 :]


async def test_the_sdk_s_helper_resumes(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Tokens(WORDS, delay_s=0.002))
    found = await streamed(chat)
    async with chat.responses.stream(response_id=found[0].response.id, starting_after=6) as stream:
        rest = [event.sequence_number async for event in stream]
        final = await stream.get_final_response()
    assert rest == list(range(7, len(found)))
    assert final.output_text == "".join(WORDS)


async def raw(stack: Stack, api: int, id: str) -> bytes:
    """Return a stream's bytes, signs of life excepted."""
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10) as client:
        body = await client.get(f"{stack.apis[api].url}/v1/responses/{id}", params={"stream": "true"})
    return body.content.replace(b": ping\n", b"")


async def test_two_readers_and_a_late_one_see_the_same_bytes(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    gate = stack.provider.gate()
    stack.provider.script(
        "m", Reasoning("Hm."), Tokens(WORDS, delay_s=0.002), Wait(gate), ToolCall("c", "get_weather", "{}")
    )
    made = await chat.responses.create(
        model="anthropic/m", input="Hi", background=True, tools=[WEATHER], reasoning={"effort": "low"}
    )
    await gate.reached()
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=10) as client:
        url = f"{stack.apis[0].url}/v1/responses/{made.id}?stream=true"
        async with client.stream("GET", url) as live:
            chunks = aiter(live.aiter_bytes())
            seen = await anext(chunks)
            gate.open()
            async for chunk in chunks:
                seen += chunk
    seen = seen.replace(b": ping\n", b"")
    assert seen.count(b"event: ") > 20
    assert await raw(stack, 1, made.id) == seen
    await compact(stack)
    assert await raw(stack, 0, made.id) == seen
    assert b"id:" not in seen.replace(b'id":', b"")


async def test_a_lost_attempt_that_had_said_nothing_goes_unnoticed(stack: Stack) -> None:
    found, response = await lost(stack, [], [Text("an answer")])
    assert types(found[3:]) == [*TEXT_ITEM, "completed"]
    assert (response.output_text, response.model) == ("an answer", "openai/next")


async def test_an_attempt_that_says_the_same_again_goes_on_in_the_same_item(stack: Stack) -> None:
    found, response = await lost(stack, [Text("half an ans")], [Text("half"), Text(" an answer"), Text(", whole")])
    assert types(found[3:]) == [*TEXT_ITEM, "completed"]
    assert said(found) == response.output_text == "half an answer, whole"


async def test_an_attempt_that_says_exactly_the_same_ends_in_the_same_item(stack: Stack) -> None:
    found, response = await lost(stack, [Text("all of it")], [Text("all "), Text("of it")])
    assert types(found[3:]) == [*TEXT_ITEM, "completed"]
    assert said(found) == response.output_text == "all of it"


@pytest.mark.parametrize(
    ("again", "text"),
    [
        ([Text("half "), Text("a loaf")], "half a loaf"),
        ([Text("hal")], "hal"),
        ([Text("No.")], "No."),
    ],
    ids=["another way", "shorter", "at once"],
)
async def test_an_attempt_that_says_something_else_is_told_in_an_item_of_its_own(
    stack: Stack, again: list[Step], text: str
) -> None:
    found, response = await lost(stack, [Text("half an ans")], again)
    assert types(found[3:]) == [*TEXT_ITEM, *TEXT_ITEM, "completed"]
    done = [event.item for event in found if event.type == "response.output_item.done"]
    assert [(item.status, item.content[0].text) for item in done] == [
        ("incomplete", "half an ans"),
        ("completed", text),
    ]
    assert (said(found, 0), said(found, 1)) == ("half an ans", text)
    assert response.output_text == text
    assert [item.id for item in response.output] == [done[1].id]


async def test_a_lost_attempt_that_had_called_a_tool_is_not_taken_up(stack: Stack) -> None:
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    found, response = await lost(stack, [Text("Look:"), call], [Text("Look:"), call], tools=[WEATHER])
    assert [(item.type, item.status) for item in response.output] == [  # type: ignore[union-attr]
        ("message", "completed"),
        ("function_call", "completed"),
    ]
    done = [(event.output_index, event.item.status) for event in found if event.type == "response.output_item.done"]
    assert done == [(0, "completed"), (1, "incomplete"), (2, "completed"), (3, "completed")]


async def test_an_attempt_that_calls_a_tool_where_text_was_told_parts_ways(stack: Stack) -> None:
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    found, response = await lost(stack, [Text("Look here")], [Text("Look"), call], tools=[WEATHER])
    done = [(event.output_index, event.item.status) for event in found if event.type == "response.output_item.done"]
    assert done == [(0, "incomplete"), (1, "completed"), (2, "completed")]
    assert (response.output_text, len(response.output)) == ("Look", 2)


async def test_thinking_that_is_said_again_is_not_told_again(stack: Stack) -> None:
    """Also over the seam between thinking and text, and with a refusal at the end."""
    before: list[Step] = [Reasoning("Hm. "), Reasoning("So."), Text("I w")]
    found, response = await lost(stack, before, [Reasoning("Hm. So."), Text("I will")], reasoning={"effort": "low"})
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert said(found) == response.output_text == "I will"
    found, response = await lost(stack, before, [Reasoning("Hm."), Text("I will")], reasoning={"effort": "low"})
    done = [(event.output_index, event.item.status) for event in found if event.type == "response.output_item.done"]
    assert done == [(0, "completed"), (1, "incomplete"), (2, "completed"), (3, "completed")]
    found, response = await lost(stack, [Refusal("I will")], [Refusal("I will"), Refusal(" not")])
    content: Any = response.output[0]
    assert content.content[0].refusal == "I will not"


async def test_what_fails_while_it_repeats_says_what_was_told(stack: Stack) -> None:
    found, response = await lost(stack, [Text("half an ans")], [Text("half"), StreamError("server_error")])
    assert types(found[3:])[-1] == "failed"
    assert (said(found), response.output_text, response.status) == ("half an ans", "half an ans", "failed")


@pytest.mark.parametrize(
    ("name", "again", "items"),
    [("openai", "half an answer", 1), ("anthropic", "another one", 2)],
    ids=["the same", "something else"],
)
async def test_a_worker_that_is_killed_in_mid_answer_doubles_nothing(
    bare: Stack, name: str, again: str, items: int
) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    await bare.api()
    bare.provider.script("m", Text("half an ans"), Silence())
    async with openai_client(bare) as client, openai_client(bare, 1) as other:
        stream = await client.responses.create(model=f"{name}/m", input="Hi", background=True, stream=True)
        seen: list[Any] = []
        async for event in stream:
            seen.append(event)
            if event.type == "response.output_text.delta" and not bare.workers:
                bare.provider.script("m", Text(again))
                await bare.worker()
                await doomed.stop()
        assert (seen[-1].type, seen[-1].response.output_text) == ("response.completed", again)
        assert sum(event.type == "response.output_item.added" for event in seen) == items
        assert seen == await events_of(await other.responses.retrieve(seen[0].response.id, stream=True))
