"""The scripted provider speaks the Responses API to the real SDK, in the foreground: one call, one connection."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.provider import (
    Cut,
    CutReader,
    Dribble,
    Eof,
    Finish,
    HttpError,
    NoUsage,
    Ping,
    Quirks,
    RawBytes,
    Reasoning,
    RedactedThinking,
    Refusal,
    ScriptedProvider,
    Silence,
    Step,
    StreamError,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)
from tests.provider.breaks import StreamErrorEvent
from tests.provider.clients import openai_client

ASK: dict[str, Any] = {"model": "m", "input": "Hi there"}
PREFIX = ["response.created", "response.in_progress"]


@pytest.fixture
async def gpt(provider: ScriptedProvider) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(provider) as client:
        yield client


async def events(client: AsyncOpenAI, **more: Any) -> list[Any]:
    stream = await client.responses.create(**{**ASK, **more}, stream=True)
    return [event async for event in stream]


def text(events: list[Any]) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def kinds(events: list[Any]) -> list[str]:
    return [event.type.removeprefix("response.") for event in events]


async def test_a_stream_is_what_openai_sends(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), Text("lo"), Usage(input=9, output=3, cached=4, cache_written=2, reasoning=1))

    async with httpx2.AsyncClient(verify=False) as http:
        answer = await http.post(f"{provider.openai_url}/responses", json={**ASK, "stream": True})

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"]
    frames = [frame.split("\n") for frame in answer.text.split("\n\n")[:-1]]
    values = [json.loads(data.removeprefix("data: ")) for _, data in frames]
    assert [name.removeprefix("event: ") for name, _ in frames] == [value["type"] for value in values]
    assert [value["sequence_number"] for value in values] == list(range(10))
    assert frames[4] == [
        "event: response.output_text.delta",
        'data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_00000000_0","output_index":0,'
        '"content_index":0,"delta":"Hel","logprobs":[]}',
    ]
    assert values[-1]["response"]["usage"] == {
        "input_tokens": 9,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 12,
    }


async def test_text_is_a_message_with_a_part(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Tokens("Hello you there"))
    seen = await events(gpt)
    delta = "output_text.delta"
    assert kinds(seen) == [
        "created", "in_progress", "output_item.added", "content_part.added", delta, delta, delta, "output_text.done",
        "content_part.done", "output_item.done", "completed",
    ]  # fmt: skip
    assert text(seen) == seen[-4].text == seen[-1].response.output_text == "Hello you there"
    statuses = [event.response.status for event in seen if hasattr(event, "response")]
    assert statuses == ["in_progress", "in_progress", "completed"]
    assert seen[0].response.id == seen[-1].response.id
    call = await provider.next_call()
    await call.ended()
    assert (call.dialect, call.sent_text, call.finished) == ("responses", "Hello you there", True)
    assert call.run is not None
    assert [(read.method, read.end, read.last_sent) for read in call.run.reads] == [("POST", "finished", 10)]


async def test_reasoning_is_a_summary_before_the_answer(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Reasoning("H"), Reasoning("m"), Text("42"))
    seen = await events(gpt, reasoning={"effort": "low", "summary": "auto"})
    assert kinds(seen)[2:8] == [
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta",
        "reasoning_summary_text.delta", "reasoning_summary_text.done", "reasoning_summary_part.done",
    ]  # fmt: skip
    final = seen[-1].response
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert (final.output[0].summary[0].text, final.output_text) == ("Hm", "42")
    assert final.usage.output_tokens_details.reasoning_tokens == 2
    assert final.reasoning.effort == "low"
    assert provider.calls[0].sent_reasoning == "Hm"


async def test_reasoning_can_be_carried_on_under_seal(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", RedactedThinking("secret"), Reasoning("Hm"), Text("42"))
    answer = await gpt.responses.create(**ASK, store=False, include=["reasoning.encrypted_content"])
    hidden, shown, message = answer.output
    assert hidden.type == "reasoning"
    assert (hidden.summary, bool(hidden.encrypted_content)) == ([], True)
    items: Any = [item.to_dict() for item in answer.output]
    again = await gpt.responses.create(model="m", input=[*items, {"role": "user", "content": "And?"}], store=False)
    assert again.output_text == "42"
    items[1]["encrypted_content"] = items[0]["encrypted_content"][::-1]
    with pytest.raises(openai.BadRequestError) as caught:
        await gpt.responses.create(model="m", input=[*items, {"role": "user", "content": "And?"}], store=False)
    assert caught.value.code == "invalid_encrypted_content"
    assert (shown.type, message.type) == ("reasoning", "message")


async def test_tool_calls_are_items_of_their_own(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Let me see"), ToolCall("call_1", "f", ['{"a"', ":1}"]), ToolCall("call_2", "g", "{}"))
    tools: Any = [{"type": "function", "name": name, "parameters": {"type": "object"}} for name in "fg"]
    seen = await events(gpt, tools=tools)
    assert kinds(seen)[8:14] == [
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.delta",
        "function_call_arguments.done", "output_item.done", "output_item.added",
    ]  # fmt: skip
    output = seen[-1].response.output
    calls = [(item.call_id, item.name, item.arguments, item.status) for item in output[1:]]
    assert calls == [("call_1", "f", '{"a":1}', "completed"), ("call_2", "g", "{}", "completed")]
    assert [event.output_index for event in seen if event.type == "response.output_item.added"] == [0, 1, 2]
    assert seen[-1].response.status == "completed"
    async with gpt.responses.stream(**ASK, tools=tools) as stream:
        final = await stream.get_final_response()
    assert [item.to_dict() for item in final.output][1:] != []


async def test_a_refusal_is_a_part_of_the_message(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Refusal("I "), Refusal("can't"))
    seen = await events(gpt)
    assert kinds(seen)[3:7] == ["content_part.added", "refusal.delta", "refusal.delta", "refusal.done"]
    assert seen[-1].response.output[0].content[0].refusal == "I can't"


@pytest.mark.parametrize(
    ("reason", "status", "why"),
    [
        ("stop", "completed", None),
        ("length", "incomplete", "max_output_tokens"),
        ("content_filter", "incomplete", "content_filter"),
    ],
)
async def test_the_end_is_a_status(provider: ScriptedProvider, gpt: AsyncOpenAI, reason: str, status: str, why: Any):
    provider.script("m", Text("Hel"), Finish(reason, text="lo"), Usage(input=1, output=2))
    last = (await events(gpt))[-1]
    whole = await gpt.responses.create(**ASK)
    for response in (last.response, whole):
        assert (response.status, response.output_text, response.output[0].status) == (status, "Hello", status)
        assert (response.incomplete_details.reason if why else response.incomplete_details) == why
        assert response.usage.total_tokens == 3
    assert last.type == f"response.{status}"


async def test_a_whole_answer_says_what_was_asked(provider: ScriptedProvider, gpt: AsyncOpenAI):
    class Answer(BaseModel):
        x: int

    provider.script("m", Text('{"x":1}'), NoUsage())
    answer = await gpt.responses.parse(
        **ASK,
        instructions="Be brief",
        metadata={"a": "b"},
        temperature=0.5,
        text_format=Answer,
        tools=[{"type": "function", "name": "f", "parameters": {}, "strict": False}],
        tool_choice={"type": "function", "name": "f"},
    )
    assert answer.output_parsed == Answer(x=1)
    assert (answer.instructions, answer.metadata, answer.temperature) == ("Be brief", {"a": "b"}, 0.5)
    assert (answer.usage, answer.background, answer.status) == (None, False, "completed")


FORMS: list[tuple[list[StreamErrorEvent], list[str]]] = [
    (["failed"], ["failed"]),
    (["flat_error"], ["error"]),
    (["flat_error", "failed"], ["error", "failed"]),
]


@pytest.mark.parametrize(("forms", "last"), FORMS)
async def test_a_failure_may_come_as_events(
    provider: ScriptedProvider, gpt: AsyncOpenAI, forms: list[StreamErrorEvent], last: list[str]
):
    provider.script("m", Text("Hel"), StreamError("rate_limit_error", "Slow down", events=forms))
    seen = await events(gpt)
    assert text(seen) == "Hel"
    assert kinds(seen)[5:] == last
    code = seen[-1].response.error.code if last[-1] == "failed" else seen[-1].code
    assert code == "rate_limit_exceeded"
    assert [event.sequence_number for event in seen] == list(range(len(seen)))


async def test_a_failure_as_the_live_api_reports_it_raises(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), StreamError("server_error", "Oops"))
    stream = await gpt.responses.create(**ASK, stream=True)
    assert text([await anext(stream) for _ in range(5)]) == "Hel"
    with pytest.raises(openai.APIError, match="Oops") as caught:
        await anext(stream)
    assert (caught.value.code, caught.value.type) == ("server_error", "server_error")
    with pytest.raises(openai.InternalServerError, match="Oops"):
        await gpt.responses.create(**ASK)


@pytest.mark.parametrize("cut", [Cut(), Cut(fin=True), CutReader(), Eof()], ids=repr)
async def test_in_the_foreground_a_cut_ends_it_all(provider: ScriptedProvider, gpt: AsyncOpenAI, cut: Step):
    gate = provider.gate()
    provider.script("m", Text("Hel"), Wait(gate), cut, Text("never"))
    stream = await gpt.responses.create(**ASK, stream=True)
    seen = [await anext(stream) for _ in range(5)]
    gate.open()
    if isinstance(cut, Eof):
        assert [event async for event in stream] == []
    else:
        with pytest.raises(openai.APIConnectionError):
            await anext(stream)
    call = await provider.next_call()
    await call.ended()
    assert text(seen) == call.sent_text == "Hel"
    assert call.run is not None
    assert (call.run.status, call.run.reads[0].end) == ("in_progress", "cut")


async def test_in_the_foreground_it_stops_when_the_client_leaves(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), Silence())
    stream = await gpt.responses.create(**ASK, stream=True)
    first = await anext(stream)
    call = await provider.next_call()
    await stream.close()
    await call.closed()
    assert call.run is not None
    assert call.run.reads[0].end == "closed_by_client"
    with pytest.raises(openai.NotFoundError, match=f"Response with id '{first.response.id}' not found"):
        await gpt.responses.retrieve(first.response.id)


async def test_what_was_stored_can_be_had_again_but_not_as_events(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hello"))
    answer = await gpt.responses.create(**ASK)
    assert (await gpt.responses.retrieve(answer.id)).to_dict() == answer.to_dict()
    with pytest.raises(openai.BadRequestError, match="not created with background=true"):
        await gpt.responses.retrieve(answer.id, stream=True)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        await gpt.responses.cancel(answer.id)
    unstored = await gpt.responses.create(**ASK, store=False)
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.retrieve(unstored.id)
    assert [run.status for run in provider.runs] == ["completed", "completed"]


async def test_what_is_refused_makes_no_run(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", HttpError(503))
    for more in ({}, {"background": True}):
        with pytest.raises(openai.InternalServerError):
            await events(gpt, **more)
    with pytest.raises(openai.BadRequestError):
        await events(gpt, temperature=3)
    assert provider.runs == []
    assert [call.run for call in provider.calls] == [None] * 3


async def test_pings_are_comments_or_an_event_that_the_sdk_does_not_know(provider: ScriptedProvider):
    provider.script("m", Ping(), Text("Hel"), Ping(event=True), Text("lo"))
    async with openai_client(provider, strict=False) as lenient:
        seen = await events(lenient)
    assert "keepalive" in kinds(seen)
    assert [event.sequence_number for event in seen] == list(range(len(seen)))


async def test_bytes_may_come_in_any_pieces(provider: ScriptedProvider, gpt: AsyncOpenAI):
    odd = "é\u2028😀 lone \ud83d"
    provider.script(
        "m",
        Quirks(crlf=True, space=False),
        Dribble([Text(odd), Text("é", utf8=True)], size=50, gap_s=0),
        RawBytes(b": hi\n\n"),
        Text("\ud83d"),
        Text("\ude00"),
    )
    assert text(await events(gpt)) == odd + "é\ud83d\ude00"


async def test_silence_holds_the_whole_answer(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hello"), Silence())
    asking = asyncio.create_task(gpt.responses.create(**ASK))
    call = await provider.next_call()
    asking.cancel()
    await call.closed()
    assert call.sent_text == ""
