"""The scripted provider has the accents of the servers that speak OpenAI's chat completions."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI

from tests.provider import (
    Arguments,
    CutReader,
    Dribble,
    EmptyChunk,
    Finish,
    NoUsage,
    Ping,
    Quirks,
    Reasoning,
    Refusal,
    ScriptedProvider,
    Step,
    StreamError,
    Text,
    ToolCall,
    Usage,
)
from tests.provider.clients import openai_client

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi there"}]}
ASKED: dict[str, Any] = {"stream_options": {"include_usage": True}}
TOOLS: Any = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]


@pytest.fixture
async def gpt(provider: ScriptedProvider) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(provider) as client:
        yield client


async def chunks(client: AsyncOpenAI, **more: Any) -> list[Any]:
    stream = await client.chat.completions.create(**ASK, stream=True, **more)
    return [chunk async for chunk in stream]


async def raw(provider: ScriptedProvider, **more: Any) -> str:
    async with httpx2.AsyncClient(verify=False) as http:
        answer = await http.post(f"{provider.openai_url}/chat/completions", json={**ASK, "stream": True, **more})
    return answer.text


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def figures(chunks: list[Any]) -> list[int | None]:
    return [chunk.usage and chunk.usage.completion_tokens for chunk in chunks]


SCRIPT: list[Step] = [Text("Hel"), Text("lo"), Usage(input=2, output=9)]


async def test_the_role_may_come_anyhow(provider: ScriptedProvider, gpt: AsyncOpenAI):
    deltas = {}
    for role in ("first", "alone", "each", "never"):
        provider.script("m", Quirks(role=role, crlf=True), *SCRIPT)
        seen = await chunks(gpt)
        assert text(seen) == "Hello"
        deltas[role] = [sorted(chunk.choices[0].delta.model_fields_set) for chunk in seen]
    assert deltas["first"] == [["content", "refusal", "role"], ["content"], ["content"], []]
    assert deltas["alone"] == [["role"], ["content"], ["content"], []]
    assert deltas["each"] == [["content", "role"], ["content", "role"], ["role"]]
    assert deltas["never"] == [["content"], ["content"], []]


@pytest.mark.parametrize(
    ("usage", "unasked", "asked"),
    [
        ("asked", [None] * 4, [None] * 4 + [9]),
        ("each", [0, 1, 2, 9], [0, 1, 2, 9, 9]),
        ("finish", [None] * 3 + [9], [None] * 3 + [9]),
    ],
)
async def test_usage_may_come_anywhere(
    provider: ScriptedProvider, gpt: AsyncOpenAI, usage: Any, unasked: list[int | None], asked: list[int | None]
):
    provider.script("m", Quirks(usage=usage), *SCRIPT)
    assert figures(await chunks(gpt)) == unasked
    assert figures(await chunks(gpt, **ASKED)) == asked
    provider.script("m", Quirks(usage=usage), *SCRIPT, NoUsage())
    assert set(figures(await chunks(gpt, **ASKED))) == {None}


async def test_there_may_be_no_end_marker(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Quirks(done=False), *SCRIPT)
    assert text(await chunks(gpt)) == "Hello"
    answer = await raw(provider, **ASKED)
    assert "[DONE]" not in answer
    assert json.loads(answer.strip().split("\n\n")[-1].removeprefix("data: "))["usage"]["total_tokens"] == 11


async def test_the_finish_may_come_with_the_last_delta(provider: ScriptedProvider, gpt: AsyncOpenAI):
    for quirks in (Quirks(), Quirks(role="each")):
        provider.script("m", quirks, Text("Hel"), Finish("length", text="lo"))
        seen = await chunks(gpt)
        assert text(seen) == "Hello"
        assert (seen[-1].choices[0].delta.content, seen[-1].choices[0].finish_reason) == ("lo", "length")
    assert provider.calls[0].sent_text == "Hello"
    whole = await gpt.chat.completions.create(**ASK)
    assert whole.choices[0].message.content == "Hello"


async def test_chunks_may_be_without_choices(provider: ScriptedProvider, gpt: AsyncOpenAI):
    for quirks in (Quirks(), Quirks(role="alone")):
        provider.script("m", quirks, EmptyChunk(), Text("Hel"), EmptyChunk(), Ping(), Text("lo"))
        seen = await chunks(gpt)
        assert text(seen) == "Hello"
        assert [len(chunk.choices) for chunk in seen] == [0, 1, 1, 0, 1, 1]


async def test_reasoning_may_have_either_name_or_both(provider: ScriptedProvider, gpt: AsyncOpenAI):
    both = ("reasoning", "reasoning_content")
    provider.script("m", Reasoning("a"), Reasoning("b", field="reasoning"), Reasoning("c", field=both), Text("x"))
    seen = await chunks(gpt)
    extras = [chunk.choices[0].delta.model_extra for chunk in seen[1:4]]
    assert extras == [{"reasoning_content": "a"}, {"reasoning": "b"}, {"reasoning": "c", "reasoning_content": "c"}]
    assert provider.calls[0].sent_reasoning == "abc"
    whole = await gpt.chat.completions.create(**ASK)
    assert whole.choices[0].message.model_extra == {"reasoning_content": "ac", "reasoning": "bc"}


async def test_a_tool_call_may_come_whole(provider: ScriptedProvider, gpt: AsyncOpenAI):
    calls = [ToolCall("c1", "f", ['{"a"', ":1}"]), ToolCall("c2", "f", "{}")]
    provider.script("m", Quirks(tool_calls="whole", role="each"), *calls)
    seen = await chunks(gpt, tools=TOOLS)
    made = [call for chunk in seen for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(c.index, c.id, c.function.name, c.function.arguments) for c in made] == [
        (0, "c1", "f", '{"a":1}'),
        (1, "c2", "f", "{}"),
    ]
    assert seen[-1].choices[0].finish_reason == "tool_calls"
    assert provider.calls[0].sent_arguments == '{"a":1}{}'
    with pytest.raises(ValueError, match="sent whole"):
        provider.script("m", Quirks(tool_calls="whole"), *calls, Arguments("{}"))


async def test_tool_calls_may_all_be_the_first_or_have_no_index(provider: ScriptedProvider):
    calls = [ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}")]
    provider.script("m", Quirks(tool_index="zero"), *calls)
    provider.then("m", Quirks(tool_index="none", tool_calls="whole"), *calls)
    async with openai_client(provider, strict=False) as lenient:
        for index in (0, None):
            seen = await chunks(lenient, tools=TOOLS)
            made = [call for chunk in seen for call in chunk.choices[0].delta.tool_calls or ()]
            assert {call.index for call in made} == {index}
            assert [call.id for call in made if call.id] == ["c1", "c2"]


async def test_frames_may_have_other_line_ends(provider: ScriptedProvider, gpt: AsyncOpenAI):
    said = 'a\r\nb\n\ndata: {"x":1}\n\n'
    provider.script("m", Quirks(crlf=True, space=False), Ping(), Text(said), Text("é", utf8=True))
    assert text(await chunks(gpt)) == said + "é"
    frames = (await raw(provider)).split("\r\n\r\n")
    assert frames[0] == ": keep-alive"
    assert frames[1].startswith('data:{"id"')
    assert frames[-2:] == ["data:[DONE]", ""]
    assert all("\n" not in frame for frame in frames)


async def test_the_rest_is_as_at_openai(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", Quirks(role="each"), Refusal("no"), Finish("refusal"), Usage(input=1, output=1))
    seen = await chunks(gpt, **ASKED)
    assert seen[0].choices[0].delta.refusal == "no"
    assert seen[-2].choices[0].finish_reason == "stop"
    provider.script("m", Quirks(role="each"), Text("é", utf8=True), StreamError("overloaded", "Busy"))
    assert '"error":{"message":"Busy","type":"overloaded"' in await raw(provider)
    provider.script(
        "m", Quirks(role="each"), Text("x"), Usage(input=5, output=2, cached=1, cache_written=3, reasoning=1)
    )
    usage = (await chunks(gpt, **ASKED))[-1].usage
    assert (usage.prompt_tokens_details.cached_tokens, usage.prompt_tokens_details.cache_write_tokens) == (1, 3)
    assert usage.completion_tokens_details.reasoning_tokens == 1


async def test_a_background_response_keeps_its_numbers_in_any_frames(provider: ScriptedProvider, gpt: AsyncOpenAI):
    quirks = Quirks(crlf=True, space=False)
    provider.script("m", quirks, Dribble([Text("Hel")], size=9, gap_s=0), Ping(), CutReader(how="eof"), Text("lo"))
    stream = await gpt.responses.create(model="m", input="Hi", stream=True, background=True)
    seen = [event async for event in stream]
    id = seen[0].response.id  # type: ignore[union-attr]
    tail = await gpt.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number)
    seen += [event async for event in tail]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert seen[-1].response.output_text == "Hello"  # type: ignore[union-attr]
