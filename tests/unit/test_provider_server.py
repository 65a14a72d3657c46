"""The scripted provider speaks to the real SDKs as the real providers do, and breaks as they break."""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, get_type_hints

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from anthropic.types.message_create_params import MessageCreateParamsStreaming
from openai import AsyncOpenAI
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

from tests.provider import (
    Arguments,
    Begin,
    Call,
    Cut,
    Delay,
    Dribble,
    Eof,
    Finish,
    Headers,
    HttpError,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    Refusal,
    ScriptedProvider,
    Silence,
    Stamps,
    Step,
    StreamError,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)
from tests.provider.checks import ANTHROPIC_FIELDS, OPENAI_FIELDS
from tests.provider.remote import to_json

MESSAGES: Any = [{"role": "user", "content": "Hi there"}]
ASK: dict[str, Any] = {"model": "m", "messages": MESSAGES, "max_tokens": 64}
TOOLS: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}]
ODD_TEXTS = [
    "a\r\nb\rc\n\n",
    "NUL \0 and DEL \x7f",
    "line \u2028 paragraph \u2029 next \x85",
    "😀 é 漢字 \U0010ffff",
    "lone \ud83d",
    'data: {"choices":[]}\n\ndata: [DONE]\n\nevent: message_stop\ndata: {}\n\n',
    '"\\"',
    "",
]


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as provider:
        yield provider


@pytest.fixture(params=["httpx2", "aiohttp"])
async def gpt(provider: ScriptedProvider, request: pytest.FixtureRequest) -> AsyncIterator[AsyncOpenAI]:
    http = openai.DefaultAioHttpClient if request.param == "aiohttp" else openai.DefaultAsyncHttpxClient
    async with AsyncOpenAI(
        base_url=provider.openai_url,
        api_key="k",
        max_retries=0,
        timeout=5,
        http_client=http(verify=False),  # no TLS here: loading the CAs takes 20 ms
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture(params=["httpx2", "aiohttp"])
async def claude(provider: ScriptedProvider, request: pytest.FixtureRequest) -> AsyncIterator[AsyncAnthropic]:
    http = anthropic.DefaultAioHttpClient if request.param == "aiohttp" else anthropic.DefaultAsyncHttpxClient
    async with AsyncAnthropic(
        base_url=provider.anthropic_url,
        api_key="k",
        max_retries=0,
        timeout=5,
        http_client=http(verify=False),  # no TLS here: loading the CAs takes 20 ms
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def http(provider: ScriptedProvider) -> AsyncIterator[httpx2.AsyncClient]:
    """What a client sees before any SDK has touched it."""
    headers = {"anthropic-version": "2026-10-21"}
    async with httpx2.AsyncClient(base_url=provider.anthropic_url, headers=headers, timeout=5, verify=False) as client:
        yield client


async def chunks(client: AsyncOpenAI, **more: Any) -> list[Any]:
    stream = await client.chat.completions.create(**ASK, stream=True, **more)
    return [chunk async for chunk in stream]


async def events(client: AsyncAnthropic, **more: Any) -> list[Any]:
    stream = await client.messages.create(**ASK, stream=True, **more)
    return [event async for event in stream]


def gpt_text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def claude_text(events: list[Any]) -> str:
    deltas = [event.delta for event in events if event.type == "content_block_delta"]
    return "".join(delta.text for delta in deltas if delta.type == "text_delta")


# The wire, byte by byte.


async def test_a_chat_stream_is_what_openai_sends(provider: ScriptedProvider, http: httpx2.AsyncClient):
    provider.script("m", Text("Hel"), Text("lo"), Usage(input=9, cached=4, output=3, reasoning=1))

    ask = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
    answer = await http.post("/v1/chat/completions", json=ask)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-request-id"]
    frames = answer.text.split("\n\n")
    assert frames[-2:] == ["data: [DONE]", ""]
    opening, hel, lo, finish, usage = (json.loads(frame.removeprefix("data: ")) for frame in frames[:-2])
    shared = {
        "id": "chatcmpl-00000000",
        "object": "chat.completion.chunk",
        "created": opening["created"],
        "model": "m",
        "service_tier": "default",
        "system_fingerprint": "fp_1",
    }

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**shared, "choices": [choice], "usage": None}

    assert opening == chunk({"role": "assistant", "content": "", "refusal": None})
    assert hel == chunk({"content": "Hel"})
    assert lo == chunk({"content": "lo"})
    assert finish == chunk({}, "stop")
    assert usage == {
        **shared,
        "choices": [],
        "usage": {
            "prompt_tokens": 9,
            "completion_tokens": 3,
            "total_tokens": 12,
            "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 1,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
    }


async def test_a_messages_stream_is_what_anthropic_sends(provider: ScriptedProvider, http: httpx2.AsyncClient):
    provider.script("m", Text("Hel"), Text("lo"), Usage(input=9, cached=4, output=3))

    answer = await http.post("/v1/messages", json={**ASK, "stream": True})

    assert answer.headers["request-id"]
    assert answer.text == (
        "event: message_start\n"
        'data: {"type":"message_start","message":{"id":"msg_00000000","type":"message","role":"assistant","model":"m",'
        '"content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,'
        '"cache_read_input_tokens":4,"output_tokens":1,"service_tier":"standard"}}}\n\n'
        "event: content_block_start\n"
        'data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}\n\n'
        "event: ping\n"
        'data: {"type":"ping"}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}\n\n'
        "event: content_block_delta\n"
        'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"lo"}}\n\n'
        "event: content_block_stop\n"
        'data: {"type":"content_block_stop","index":0}\n\n'
        "event: message_delta\n"
        'data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},'
        '"usage":{"output_tokens":3}}\n\n'
        "event: message_stop\n"
        'data: {"type":"message_stop"}\n\n'
    )


# OpenAI, through its SDK in strict validation.


async def test_openai_streams_text(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), Text("lo"))
    seen = await chunks(gpt)
    assert gpt_text(seen) == "Hello"
    assert seen[-1].choices[0].finish_reason == "stop"
    call = await provider.next_call()
    await call.ended()
    assert (call.dialect, call.model, call.stream) == ("openai", "m", True)
    assert call.headers["authorization"] == "Bearer k"
    assert call.body["messages"] == MESSAGES
    assert (call.sent_text, call.sent_tokens, call.finished, call.closed_by_client) == ("Hello", 2, True, False)


async def test_openai_sends_usage_only_if_asked(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Tokens("one two three"), Reasoning("hm"))
    unasked = await chunks(gpt)
    assert all("usage" not in chunk.model_fields_set for chunk in unasked)
    asked = await chunks(gpt, stream_options={"include_usage": True})
    assert all("usage" in chunk.model_fields_set for chunk in asked)
    assert [chunk.usage for chunk in asked[:-1]] == [None] * (len(asked) - 1)
    usage = asked[-1].usage
    assert asked[-1].choices == []
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (2, 4, 6)  # "Hi there"; four pieces
    assert usage.completion_tokens_details.reasoning_tokens == 1

    provider.script("m", Text("x"), NoUsage())
    without = await chunks(gpt, stream_options={"include_usage": True})
    assert [chunk.usage for chunk in without] == [None] * 3
    assert without[-1].choices[0].finish_reason == "stop"


async def test_openai_streams_tool_calls(provider: ScriptedProvider, gpt: AsyncOpenAI):
    gate = provider.gate()
    gate.open()
    provider.script(
        "m",
        ToolCall("call_1", "get_weather", ['{"ci', 'ty":']),
        Wait(gate),
        Arguments('"Paris"}'),
        ToolCall("call_2", "now", "{}"),
    )
    seen = await chunks(gpt, tools=TOOLS)
    first = seen[0].choices[0].delta
    assert (first.role, first.content) == ("assistant", None)
    assert (first.tool_calls[0].id, first.tool_calls[0].function.name) == ("call_1", "get_weather")
    assert first.tool_calls[0].type == "function"
    deltas = [call for chunk in seen for call in chunk.choices[0].delta.tool_calls or ()]
    assert [call.index for call in deltas] == [0, 0, 0, 0, 1, 1]
    assert "".join(call.function.arguments for call in deltas if call.index == 0) == '{"city":"Paris"}'
    assert seen[-1].choices[0].finish_reason == "tool_calls"
    assert provider.calls[0].sent_arguments == '{"city":"Paris"}{}'


async def test_openai_streams_reasoning_and_refusal(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Reasoning("hm"), Reasoning("m", field="reasoning"), Refusal("I can't"))
    seen = [chunk.choices[0] for chunk in await chunks(gpt)]
    assert seen[1].delta.model_extra == {"reasoning_content": "hm"}
    assert seen[2].delta.model_extra == {"reasoning": "m"}
    assert seen[3].delta.refusal == "I can't"
    assert seen[4].finish_reason == "stop"
    assert (provider.calls[0].sent_reasoning, provider.calls[0].sent_refusal) == ("hmm", "I can't")


async def test_openai_answers_whole(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script(
        "m",
        Reasoning("hm"),
        Text("Hel"),
        Text("lo"),
        ToolCall("c", "f", ["{", "}"]),
        Usage(input=9, output=3),
        Finish("length"),
    )
    answer = await gpt.chat.completions.create(**ASK)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello", "length")
    assert choice.message.model_extra == {"reasoning_content": "hm"}
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].model_dump() == {
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": "{}"},
    }
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    assert provider.calls[0].sent_text == "Hello"


async def test_openai_answers_a_bare_script_with_empty_text(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m")
    assert (await gpt.chat.completions.create(**ASK)).choices[0].message.content == ""
    assert gpt_text(await chunks(gpt)) == ""


@pytest.mark.parametrize(
    ("reason", "word"),
    [("stop", "stop"), ("length", "length"), ("tool_calls", "tool_calls"), ("content_filter", "content_filter")],
)
async def test_openai_has_its_own_words_for_the_end(
    provider: ScriptedProvider, gpt: AsyncOpenAI, reason: str, word: str
):
    provider.script("m", Text("x"), Finish(reason))
    assert (await chunks(gpt))[-1].choices[0].finish_reason == word


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, openai.BadRequestError),
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
        (503, openai.InternalServerError),
    ],
)
async def test_openai_refuses(
    provider: ScriptedProvider, gpt: AsyncOpenAI, status: int, error: type[openai.APIStatusError]
):
    provider.script("m", HttpError(status, headers={"Retry-After": "2"}))
    with pytest.raises(error) as caught:
        await chunks(gpt)
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.request_id == "req_00000000"
    assert isinstance(caught.value.body, dict)
    assert set(caught.value.body) == {"message", "type", "param", "code"}
    assert len(provider.calls) == 1
    assert provider.calls[0].finished


async def test_http_errors_can_say_anything(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Delay(0.001), HttpError(429, "insufficient_quota", "No money", code="insufficient_quota"))
    with pytest.raises(openai.RateLimitError) as caught:
        await chunks(gpt)
    assert (caught.value.type, caught.value.code) == ("insufficient_quota", "insufficient_quota")
    provider.script("m", HttpError(502, body=b"<html>", headers={"Content-Type": "text/html"}))
    with pytest.raises(openai.InternalServerError) as html:
        await chunks(gpt)
    assert html.value.response.text == "<html>"
    assert html.value.response.headers["content-type"] == "text/html"


async def test_openai_fails_in_mid_stream(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), StreamError("server_error", "Oops"))
    stream = await gpt.chat.completions.create(**ASK, stream=True)
    assert gpt_text([await anext(stream), await anext(stream)]) == "Hel"
    with pytest.raises(openai.APIError) as caught:
        await anext(stream)
    assert type(caught.value) is openai.APIError
    assert (caught.value.message, caught.value.type, caught.value.code) == ("Oops", "server_error", "server_error")


async def test_openai_without_a_stream_turns_a_stream_error_into_a_status(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), StreamError("rate_limit_error", "Slow down"))
    with pytest.raises(openai.RateLimitError, match="Slow down"):
        await gpt.chat.completions.create(**ASK)


# Anthropic, through its SDK in strict validation.


async def test_anthropic_streams_text(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Text("Hel"), Text("lo"))
    seen = await events(claude)
    assert claude_text(seen) == "Hello"
    assert [event.type for event in seen] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert seen[-2].delta.stop_reason == "end_turn"
    assert (seen[0].message.usage.input_tokens, seen[-2].usage.output_tokens) == (2, 2)
    call = await provider.next_call()
    await call.ended()
    assert (call.dialect, call.model, call.sent_text, call.finished) == ("anthropic", "m", "Hello", True)
    assert call.headers["authorization"] == "Bearer k"


async def test_anthropic_blocks_open_and_close_with_rising_indexes(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script(
        "m",
        Reasoning("h"),
        Reasoning("m"),
        Text("Hel"),
        Text("lo"),
        ToolCall("toolu_1", "get_weather", ['{"city":', '"Paris"}']),
        ToolCall("toolu_2", "now"),
        Usage(input=9, output=7, reasoning=2),
    )
    seen = await events(claude)
    outline = [
        (event.type.removeprefix("content_block_"), event.index, getattr(getattr(event, "delta", None), "type", None))
        for event in seen
        if event.type.startswith("content_block")
    ]
    assert outline == [
        ("start", 0, None),
        ("delta", 0, "thinking_delta"),
        ("delta", 0, "thinking_delta"),
        ("delta", 0, "signature_delta"),
        ("stop", 0, None),
        ("start", 1, None),
        ("delta", 1, "text_delta"),
        ("delta", 1, "text_delta"),
        ("stop", 1, None),
        ("start", 2, None),
        ("delta", 2, "input_json_delta"),
        ("delta", 2, "input_json_delta"),
        ("stop", 2, None),
        ("start", 3, None),
        ("stop", 3, None),
    ]
    assert seen[-2].delta.stop_reason == "tool_use"
    assert seen[-2].usage.output_tokens_details.thinking_tokens == 2

    async with claude.messages.stream(**ASK) as stream:
        message = await stream.get_final_message()
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    whole = await claude.messages.create(**ASK)
    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in message.content]
    assert whole.stop_reason == message.stop_reason
    assert whole.usage.output_tokens == message.usage.output_tokens == 7


async def test_anthropic_refuses_to_answer(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Refusal("no"))
    last = (await events(claude))[-2].delta
    assert (last.stop_reason, last.stop_details.explanation) == ("refusal", "no")
    whole = await claude.messages.create(**ASK)
    assert whole.stop_details is not None
    assert (whole.content, whole.stop_reason, whole.stop_details.explanation) == ([], "refusal", "no")


async def test_anthropic_without_usage_says_nought(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Text("x"), NoUsage())
    seen = await events(claude)
    usage = seen[0].message.usage
    assert (usage.input_tokens, usage.output_tokens, seen[-2].usage.output_tokens) == (0, 0, 0)


@pytest.mark.parametrize(
    ("reason", "word"),
    [
        ("stop", "end_turn"),
        ("length", "max_tokens"),
        ("tool_calls", "tool_use"),
        ("content_filter", "refusal"),
        ("pause_turn", "pause_turn"),
    ],
)
async def test_anthropic_has_its_own_words_for_the_end(
    provider: ScriptedProvider, claude: AsyncAnthropic, reason: str, word: str
):
    provider.script("m", Text("x"), Finish(reason))
    assert (await events(claude))[-2].delta.stop_reason == word


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (400, anthropic.BadRequestError, "invalid_request_error"),
        (401, anthropic.AuthenticationError, "authentication_error"),
        (403, anthropic.PermissionDeniedError, "permission_error"),
        (404, anthropic.NotFoundError, "not_found_error"),
        (429, anthropic.RateLimitError, "rate_limit_error"),
        (500, anthropic.InternalServerError, "api_error"),
        (529, anthropic.InternalServerError, "overloaded_error"),
    ],
)
async def test_anthropic_refuses(
    provider: ScriptedProvider,
    claude: AsyncAnthropic,
    status: int,
    error: type[anthropic.APIStatusError],
    kind: str,
):
    provider.script("m", HttpError(status, headers={"retry-after": "2"}))
    with pytest.raises(error) as caught:
        await events(claude)
    assert (caught.value.type, caught.value.status_code) == (kind, status)
    assert caught.value.request_id == "req_00000000"
    assert caught.value.response.headers["retry-after"] == "2"
    assert caught.value.body == {
        "type": "error",
        "error": {"type": kind, "message": caught.value.body["error"]["message"]},  # type: ignore[index]
        "request_id": "req_00000000",
    }


async def test_anthropic_fails_in_mid_stream_with_status_200(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Text("Hel"), StreamError(message="Overloaded"))
    stream = await claude.messages.create(**ASK, stream=True)
    assert claude_text([await anext(stream) for _ in range(3)]) == "Hel"
    with pytest.raises(anthropic.APIStatusError) as caught:
        await anext(stream)
    assert (caught.value.status_code, caught.value.type) == (200, "overloaded_error")


# Text that would break a careless parser.


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_openai_text_arrives_as_scripted(provider: ScriptedProvider, gpt: AsyncOpenAI, text: str):
    provider.script("m", Text(text), Text("|"), Text("\ud83d"), Text("\ude00"), Text("\r"), Text("\n"))
    scripted = text + "|\ud83d\ude00\r\n"
    assert gpt_text(await chunks(gpt)) == scripted
    assert provider.calls[0].sent_text == scripted


@pytest.mark.parametrize("text", ODD_TEXTS)
async def test_anthropic_text_arrives_as_scripted(provider: ScriptedProvider, claude: AsyncAnthropic, text: str):
    provider.script("m", Text(text), Text("|"), Text("\ud83d"), Text("\ude00"), Text("\r"), Text("\n"))
    scripted = text + "|\ud83d\ude00\r\n"
    assert claude_text(await events(claude)) == scripted
    assert provider.calls[0].sent_text == scripted


async def test_utf8_text_is_not_escaped(provider: ScriptedProvider, http: httpx2.AsyncClient):
    provider.script("m", Text("é\u2028😀", utf8=True), Text("é\u2028😀"))
    for path in ("/v1/chat/completions", "/v1/messages"):
        answer = await http.post(path, json={**ASK, "stream": True})
        assert answer.content.count('"é\u2028😀"'.encode()) == 1
        assert answer.content.count(b'"\\u00e9\\u2028\\ud83d\\ude00"') == 1


async def test_frames_may_be_cut_anywhere(provider: ScriptedProvider, gpt: AsyncOpenAI, claude: AsyncAnthropic):
    provider.script("m", Dribble([Text("é", utf8=True), Ping(), Text("😀", utf8=True)], size=7, gap_s=0))
    assert gpt_text(await chunks(gpt)) == "é😀"
    assert claude_text(await events(claude)) == "é😀"


async def test_raw_bytes_are_sent_as_they_are(provider: ScriptedProvider, gpt: AsyncOpenAI, http: httpx2.AsyncClient):
    frame = b': hi\r\ndata: {"id":"x","choices":[],"created":1,"model":"m","object":"chat.completion.chunk"}\r\n\r\n'
    gate = provider.gate()
    provider.script("m", RawBytes(frame[:40]), Wait(gate), RawBytes(frame[40:]), Text("Hi"))
    reading = asyncio.create_task(chunks(gpt))
    await gate.reached()
    gate.open()
    seen = await reading
    assert seen[0].choices == []
    assert gpt_text(seen) == "Hi"

    provider.script("m", RawBytes(b"not js"), RawBytes(b"on"), Eof())
    assert (await http.post("/v1/messages", json={**ASK, "stream": True})).content == b"not json"
    provider.script("m", RawBytes(b"not json"))
    assert (await http.post("/v1/messages", json=ASK)).content == b"not json"


# Ends that are none.


async def test_openai_cut_in_mid_stream_is_a_connection_error(provider: ScriptedProvider, gpt: AsyncOpenAI):
    for cut in (Cut(), Cut(fin=True)):
        gate = provider.gate()
        provider.script("m", Text("Hel"), Wait(gate), cut)
        stream = await gpt.chat.completions.create(**ASK, stream=True)
        assert gpt_text([await anext(stream), await anext(stream)]) == "Hel"
        gate.open()
        with pytest.raises(openai.APIConnectionError):
            await anext(stream)
        call = await provider.next_call()
        await call.ended()
        assert (call.finished, call.closed_by_client) == (True, False)


async def test_anthropic_cut_in_mid_stream_is_a_raw_transport_error(provider: ScriptedProvider, claude: AsyncAnthropic):
    for cut in (Cut(), Cut(fin=True)):
        gate = provider.gate()
        provider.script("m", Text("Hel"), Wait(gate), cut)
        stream = await claude.messages.create(**ASK, stream=True)
        assert claude_text([await anext(stream) for _ in range(3)]) == "Hel"
        gate.open()
        with pytest.raises((anthropic.APIError, httpx2.HTTPError)):
            await anext(stream)


async def test_the_rst_is_real(provider: ScriptedProvider):
    gate = provider.gate()
    provider.script("m", Text("Hel"), Wait(gate), Cut())
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    body = json.dumps({**ASK, "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    assert b'"content":"Hel"' in await reader.readuntil(b'"content":"Hel"')
    gate.open()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()


async def test_a_cut_first_comes_before_any_answer(provider: ScriptedProvider, gpt: AsyncOpenAI):
    for cut in (Cut(), Cut(fin=True)):
        provider.script("m", cut)
        with pytest.raises(openai.APIConnectionError):
            await gpt.chat.completions.create(**ASK, stream=True)


async def test_a_clean_eof_looks_like_success_to_the_sdks(
    provider: ScriptedProvider, gpt: AsyncOpenAI, claude: AsyncAnthropic
):
    provider.script("m", Text("Hel"), Eof())
    seen = await chunks(gpt)
    assert gpt_text(seen) == "Hel"
    assert seen[-1].choices[0].finish_reason is None
    assert [event.type for event in await events(claude)][-1] == "content_block_delta"


async def test_eof_after_the_finish_lacks_only_the_end_marker(provider: ScriptedProvider, http: httpx2.AsyncClient):
    provider.script("m", Text("Hello"), Finish("stop"), Eof())
    answer = await http.post("/v1/chat/completions", json={**ASK, "stream": True})
    assert '"finish_reason":"stop"' in answer.text
    assert "[DONE]" not in answer.text


async def test_eof_without_a_stream_is_no_answer(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Text("Hel"), Eof())
    with pytest.raises(openai.APIConnectionError):
        await gpt.chat.completions.create(**ASK)


# Clients that leave.


HOLDS: dict[str, Callable[[ScriptedProvider], Step]] = {
    "silence": lambda provider: Silence(),
    "wait": lambda provider: Wait(provider.gate()),
    "delay": lambda provider: Delay(60),
    "pace": lambda provider: Tokens(["", "never"], delay_s=60),
}


@pytest.mark.alone
@pytest.mark.parametrize("hold", HOLDS)
async def test_an_openai_client_that_leaves_is_noticed_at_once(provider: ScriptedProvider, gpt: AsyncOpenAI, hold: str):
    provider.script("m", Text("Hel"), HOLDS[hold](provider), Text("never"))
    stream = await gpt.chat.completions.create(**ASK, stream=True)
    assert gpt_text([await anext(stream), await anext(stream)]) == "Hel"
    await left_at_once(provider, stream)


@pytest.mark.alone
@pytest.mark.parametrize("hold", HOLDS)
async def test_an_anthropic_client_that_leaves_is_noticed_at_once(
    provider: ScriptedProvider, claude: AsyncAnthropic, hold: str
):
    provider.script("m", Text("Hel"), HOLDS[hold](provider), Text("never"))
    stream = await claude.messages.create(**ASK, stream=True)
    assert claude_text([await anext(stream) for _ in range(3)]) == "Hel"
    await left_at_once(provider, stream)


async def left_at_once(provider: ScriptedProvider, stream: Any) -> None:
    call = await provider.next_call()
    assert provider.active == 1
    left_at = time.monotonic()
    await stream.close()
    assert await call.closed() - left_at < 0.05  # on loopback it takes 0.2 ms; the rest is for a busy machine
    assert (call.closed_by_client, call.finished, call.sent_text) == (True, False, "Hel")
    assert provider.active == 0


async def test_silence_before_the_headers(provider: ScriptedProvider, gpt: AsyncOpenAI):
    gate = provider.gate()
    provider.script("m", Wait(gate), Silence(), Headers())
    asking = asyncio.create_task(gpt.chat.completions.create(**ASK, stream=True))
    call = await provider.next_call()
    await gate.reached()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await call.closed()


async def test_headers_come_before_the_first_token(
    provider: ScriptedProvider, gpt: AsyncOpenAI, claude: AsyncAnthropic
):
    provider.script("m", Silence())
    await (await gpt.chat.completions.create(**ASK, stream=True)).close()  # the SDK has had its 200
    await (await claude.messages.create(**ASK, stream=True)).close()


async def test_a_stream_may_begin_and_then_be_silent(
    provider: ScriptedProvider, gpt: AsyncOpenAI, claude: AsyncAnthropic
):
    provider.script("m", Ping(), Begin(), Ping(), Silence())
    chat = await gpt.chat.completions.create(**ASK, stream=True)
    assert (await anext(chat)).choices[0].delta.role == "assistant"
    await chat.close()
    message = await claude.messages.create(**ASK, stream=True)
    assert (await anext(message)).type == "message_start"
    await message.close()


async def test_closed_fails_at_once_if_the_client_stayed(provider: ScriptedProvider, gpt: AsyncOpenAI):
    await chunks(gpt)
    call = await provider.next_call()
    with pytest.raises(AssertionError, match="had not left"):
        await call.closed()


async def test_a_whole_answer_that_nobody_waits_for_was_not_sent(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Text("Hello"), Silence())
    asking = asyncio.create_task(claude.messages.create(**ASK))
    call = await provider.next_call()
    asking.cancel()
    await call.closed()
    assert call.sent_text == ""


# Scripts.


async def test_scripts_follow_one_another_and_the_last_repeats(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", HttpError(500))
    provider.then("m", Text("second"))
    provider.then("m", Text("third"))
    with pytest.raises(openai.InternalServerError):
        await chunks(gpt)
    assert [gpt_text(await chunks(gpt)) for _ in range(3)] == ["second", "third", "third"]
    provider.script("m", Text("anew"))
    assert gpt_text(await chunks(gpt)) == "anew"
    assert [call.number for call in provider.calls] == [0, 1, 2, 3, 4]


async def test_a_model_without_a_script_answers(provider: ScriptedProvider, gpt: AsyncOpenAI):
    assert gpt_text(await chunks(gpt)) == "Hello from the scripted provider."
    provider.script("*", Text("any"))
    assert gpt_text(await chunks(gpt)) == "any"
    provider.improvise("m", lambda call: [Text(call.body["messages"][0]["content"])])
    assert gpt_text(await chunks(gpt)) == "Hi there"


async def test_tokens_are_the_text_in_pieces(provider: ScriptedProvider, gpt: AsyncOpenAI):
    assert list(Tokens(" one  two\n").pieces()) == [" one", "  two", "\n"]
    assert list(Tokens("abcdefg", n=3).pieces()) == ["ab", "cd", "efg"]
    assert list(Tokens(["a", "", "b"]).pieces()) == ["a", "", "b"]
    with pytest.raises(ValueError, match="at least n"):
        Tokens("ab", n=3)
    provider.script("m", Tokens("abcdefg", n=7, delay_s=0.01))
    began = time.monotonic()
    assert gpt_text(await chunks(gpt)) == "abcdefg"
    assert time.monotonic() - began >= 0.06


async def test_stamps_tell_when_they_were_sent(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Stamps(3))
    began = time.monotonic_ns()
    stamps = [int(stamp) for stamp in gpt_text(await chunks(gpt)).split()]
    assert began < stamps[0] <= stamps[1] <= stamps[2] < time.monotonic_ns()


async def test_impossible_scripts_are_refused(provider: ScriptedProvider):
    with pytest.raises(ValueError, match="only waits"):
        provider.script("m", Text("x"), HttpError(500))
    with pytest.raises(ValueError, match="ToolCall"):
        provider.script("m", Arguments("{}"))
    with pytest.raises(UnicodeEncodeError):
        provider.script("m", Text("\ud83d", utf8=True))


async def test_a_fault_of_the_double_is_raised_at_its_end():
    async def meet_it() -> None:
        async with ScriptedProvider() as provider, httpx2.AsyncClient(verify=False) as http:
            provider.improvise("m", lambda call: [Text(str(1 // 0))])
            with pytest.raises(httpx2.RemoteProtocolError):
                await http.post(f"{provider.openai_url}/chat/completions", json=ASK)

    with pytest.raises(ZeroDivisionError):
        await meet_it()


async def test_at_its_end_every_stream_is_dropped_and_nobody_has_left():
    async with httpx2.AsyncClient(verify=False) as http:
        async with ScriptedProvider() as provider:
            provider.script("m", Text("Hel"), Silence())
            asking = asyncio.create_task(
                http.post(f"{provider.openai_url}/chat/completions", json={**ASK, "stream": True})
            )
            call = await provider.next_call()
        await call.ended()
        assert (call.finished, call.closed_by_client) == (False, False)
        with pytest.raises(httpx2.TransportError):
            await asking


async def test_next_call_is_bounded(provider: ScriptedProvider):
    with pytest.raises(TimeoutError, match="no further call"):
        await provider.next_call(timeout_s=0.01)
    with pytest.raises(TimeoutError):
        await provider.gate().reached(timeout_s=0.01)


# Requests that the real providers refuse.


def test_the_known_fields_are_those_of_the_sdks():
    assert get_type_hints(CompletionCreateParamsStreaming).keys() == OPENAI_FIELDS
    sampling = {"temperature", "top_p", "top_k"}  # not in the SDK's signature since 1.0, still in the API
    assert get_type_hints(MessageCreateParamsStreaming).keys() | sampling == ANTHROPIC_FIELDS


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "user", "content": None}]}, "content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_completion_tokens": 3}, "max_completion_tokens"),
        ({"stream": True, "stream_options": "x"}, "stream_options"),
        ({"tools": "x"}, "type"),
        ({"tools": []}, "tools"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"temperature": 3}, "temperature"),
        ({"colour": "red"}, "colour"),
        ({"model": ""}, "model"),
    ],
)
async def test_openai_complains(provider: ScriptedProvider, http: httpx2.AsyncClient, change: Any, complaint: str):
    answer = await http.post("/v1/chat/completions", json={**ASK, **change})
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]["message"]
    assert provider.calls[0].rejected == answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": "7"}, "max_tokens"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "system", "content": "x"}, *MESSAGES]}, "system"),
        ({"messages": [*MESSAGES, {"role": "tool", "content": "x"}]}, "role"),
        ({"messages": [{"role": "user", "content": ""}]}, "non-empty"),
        ({"tools": "x"}, "type"),
        ({"tools": TOOLS}, "tools.0"),
        ({"tools": [{"name": "f"}]}, "input_schema"),
        ({"tool_choice": "auto"}, "tool_choice"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "budget_tokens"),
        ({"temperature": 1.5}, "temperature"),
        ({"seed": 1}, "seed"),
    ],
)
async def test_anthropic_complains(provider: ScriptedProvider, http: httpx2.AsyncClient, change: Any, complaint: str):
    answer = await http.post("/v1/messages", json={**ASK, **change})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert complaint in answer.json()["error"]["message"]


async def test_a_body_that_is_no_json_is_refused(provider: ScriptedProvider, http: httpx2.AsyncClient):
    for path in ("/v1/chat/completions", "/v1/messages"):
        assert (await http.post(path, content=b"{")).status_code == 400
    assert (await http.post("/v1/nothing")).status_code == 404


async def test_models_are_those_with_a_script(provider: ScriptedProvider, gpt: AsyncOpenAI, claude: AsyncAnthropic):
    provider.script("a", Text("x"))
    provider.script("b", Text("x"))
    assert [model.id async for model in gpt.models.list()] == ["a", "b"]
    assert [model.id async for model in claude.models.list()] == ["a", "b"]


# Load.


async def test_five_hundred_streams_at_once(provider: ScriptedProvider, http: httpx2.AsyncClient):
    gate = provider.gate()
    provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    body = json.dumps({**ASK, "stream": True}).encode()
    request = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        len(body),
        body,
    )

    async def read() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        return answer

    reading = [asyncio.create_task(read()) for _ in range(500)]
    await gate.reached(500, timeout_s=10)
    assert provider.active == provider.max_concurrent == 500
    gate.open()
    for answer in await asyncio.gather(*reading):
        assert b"[DONE]" in answer
    assert provider.active == 0
    assert {call.sent_text for call in provider.calls} == {"Hello"}


async def test_a_client_that_does_not_read_holds_only_its_own_stream(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.improvise("big", lambda call: [Tokens(["x" * 65536] * 256)])
    _, writer = await asyncio.open_connection("127.0.0.1", provider.port, limit=1024)
    body = json.dumps({**ASK, "model": "big", "stream": True}).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    call = await provider.next_call()
    assert gpt_text(await chunks(gpt)) == "Hello from the scripted provider."
    assert not call.finished
    writer.close()
    await call.closed()
    assert call.sent_tokens < 256


async def test_idle_connections_can_be_dropped(provider: ScriptedProvider):
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port)
    writer.write(b"GET /v1/models HTTP/1.1\r\n\r\n")
    assert await reader.readuntil(b'"owned_by": "scripted"}]}')
    provider.drop_idle()
    assert await reader.read() == b""
    writer.close()


# The same as a process.


async def test_as_a_process_it_is_scripted_over_http():
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.provider",
        "--tokens=3",
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
        env=dict(os.environ),
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        base = line.split()[-1]
        async with (
            httpx2.AsyncClient(base_url=base, timeout=5) as http,
            AsyncOpenAI(base_url=f"{base}/v1", api_key="k", max_retries=0, timeout=5) as gpt,
        ):
            assert gpt_text(await chunks(gpt)) == "t0 t1 t2 "

            script: list[Step] = [
                Text("\ud83d"),
                Wait(ScriptedProvider().gate("g")),
                Dribble([RawBytes(b": \xc3\xa9\n")]),
                Tokens(["a", "b"]),
            ]
            order = {"model": "m", "steps": to_json(script)}
            assert (await http.post("/__script", content=json.dumps(order))).status_code == 200
            assert (await http.post("/__script", json={**order, "steps": [{"step": "No"}]})).status_code == 400
            stream = await gpt.chat.completions.create(**ASK, stream=True)
            await anext(stream)
            assert (await anext(stream)).choices[0].delta.content == "\ud83d"
            await http.post("/__gate", json={"name": "g"})
            assert gpt_text([chunk async for chunk in stream]) == "ab"

            journal = (await http.get("/__calls")).json()
            assert (journal["active"], journal["max_concurrent"], len(journal["calls"])) == (0, 1, 2)
            assert journal["calls"][1]["sent_text"] == "\ud83dab"
            assert journal["calls"][1]["finished"]
            await http.delete("/__calls")
            assert (await http.get("/__calls")).json()["calls"] == []
    finally:
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 5) == 0


def test_a_call_says_how_it_stands():
    call = Call(0, "openai", {}, {"model": "m"})
    assert repr(call) == "<Call 0 openai 'm' open>"
    call.end(client_left=True)
    assert repr(call) == "<Call 0 openai 'm' closed by client>"
