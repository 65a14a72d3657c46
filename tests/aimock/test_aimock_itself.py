"""aimock behaves as the other tests here take for granted, seen through the real SDKs: a changed aimock is noticed.

Where it differs from the real APIs the test's docstring says so, and asserts it. What no test can show: aimock reads
past most of a request. Parameters that the APIs would refuse, missing ones (`max_tokens`), `response_format`,
`tool_choice`, `stop` and `n` change nothing, and any key is good. It does not notice when a client leaves. It can cut
a stream, but not end one early in good order or send an error event, a `ping` or a refusal in it. `tests.provider`
does all of that; aimock is the second opinion, because nobody here has written it.
"""

import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests import npm
from tests.aimock.server import HERE, Aimock, answer, find_node, serve
from tests.npm import PLAYWRIGHT_NODE

HI: Any = [{"role": "user", "content": "Hi"}]
SIGNATURE = "c2lnbmF0dXJl"

Read = Callable[[str], AsyncIterator[str]]


@pytest.fixture
async def gpt(aimock: Aimock) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=aimock.openai_url,
        api_key="k",
        max_retries=0,
        timeout=5,
        http_client=openai.DefaultAsyncHttpxClient(verify=False, trust_env=False),
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture
async def claude(aimock: Aimock) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(
        base_url=aimock.anthropic_url,
        api_key="k",
        max_retries=0,
        timeout=5,
        http_client=anthropic.DefaultAsyncHttpxClient(verify=False, trust_env=False),
        _strict_response_validation=True,
    ) as client:
        yield client


@pytest.fixture(params=["openai", "anthropic"])
def read(request: pytest.FixtureRequest, gpt: AsyncOpenAI, claude: AsyncAnthropic) -> Read:
    """Yields the pieces of a model's text, through the one SDK and then the other."""

    async def from_gpt(model: str) -> AsyncIterator[str]:
        async for chunk in await gpt.chat.completions.create(model=model, messages=HI, stream=True):
            if piece := chunk.choices[0].delta.content:
                yield piece

    async def from_claude(model: str) -> AsyncIterator[str]:
        async for event in await claude.messages.create(model=model, messages=HI, max_tokens=64, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text

    return from_gpt if request.param == "openai" else from_claude


async def chunks(gpt: AsyncOpenAI, model: str, messages: Any = HI, **more: Any) -> list[Any]:
    more = {"stream_options": {"include_usage": True}, **more}
    stream: Any = await gpt.chat.completions.create(model=model, messages=messages, stream=True, **more)
    return [chunk async for chunk in stream]


async def events(claude: AsyncAnthropic, model: str) -> list[Any]:
    return [e async for e in await claude.messages.create(model=model, messages=HI, max_tokens=64, stream=True)]


async def message(claude: AsyncAnthropic, model: str, messages: Any = HI, **more: Any) -> Any:
    """Return the message that the SDK itself puts together of a stream."""
    async with claude.messages.stream(model=model, messages=messages, max_tokens=64, **more) as stream:
        return await stream.get_final_message()


def tool_calls(chunks: list[Any]) -> list[tuple[str, str, str]]:
    """Return id, name and arguments of each call, put together as the API's documentation says."""
    calls: list[tuple[str, str, str]] = []
    for chunk in chunks:
        for delta in (chunk.choices and chunk.choices[0].delta.tool_calls) or []:
            if delta.index == len(calls):
                calls.append((delta.id, delta.function.name, ""))
            call_id, name, arguments = calls[delta.index]
            calls[delta.index] = (call_id, name, arguments + delta.function.arguments)
    return calls


# Text


async def test_text_comes_in_pieces_of_the_chunk_size(read: Read) -> None:
    """Deviation: pieces are UTF-16 code units, not tokens."""
    pieces = [piece async for piece in read("plain")]
    assert "".join(pieces) == answer("plain")
    assert {len(piece) for piece in pieces[:-1]} == {5}


async def test_a_chat_stream_is_whole(gpt: AsyncOpenAI) -> None:
    """Deviation: only the last chunk has the key `usage`; the real ones before it have `"usage": null`."""
    first, *_, last, figures = await chunks(gpt, "plain")
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert last.choices[0].finish_reason == "stop"
    assert figures.choices == []
    assert (figures.usage.prompt_tokens, figures.usage.completion_tokens, figures.usage.total_tokens) == (11, 7, 18)
    assert "usage" not in first.model_fields_set


async def test_chat_usage_is_sent_only_when_asked_for(gpt: AsyncOpenAI) -> None:
    assert all(chunk.usage is None for chunk in await chunks(gpt, "plain", stream_options={"include_usage": False}))


async def test_a_message_stream_is_whole(claude: AsyncAnthropic) -> None:
    """Deviation: `message_start` has the final figure of output tokens already, and there is no `ping`."""
    sent = await events(claude, "plain")
    names = [event.type for event in sent]
    assert names[:2] == ["message_start", "content_block_start"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert sent[-2].delta.stop_reason == "end_turn"
    assert (sent[0].message.usage.input_tokens, sent[0].message.usage.output_tokens) == (11, 7)
    assert sent[-2].usage.output_tokens == 7


async def test_usage_without_figures_is_an_estimate_or_nothing(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    """Deviation: four characters a token for chat, 0 for messages. Cached tokens are never told, by no fixture."""
    usage = (await chunks(gpt, "no-usage"))[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (1, 5)
    assert usage.prompt_tokens_details is None
    assert (await message(claude, "no-usage")).usage.output_tokens == 0


async def test_the_limit_of_tokens_is_a_reason_to_end(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    """Deviation: the fixture says so, whatever limit the request had."""
    assert (await chunks(gpt, "length"))[-2].choices[0].finish_reason == "length"
    assert (await message(claude, "length")).stop_reason == "max_tokens"


async def test_a_pair_of_surrogates_is_split_over_two_deltas(read: Read) -> None:
    """Deviation of OpenAI, which sends whole characters; other servers do as aimock does."""
    pieces = [piece async for piece in read("surrogates")]
    assert pieces[:4] == ["a", "\ud83c", "\udf0d", "b"]
    assert "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16") == answer("surrogates")


async def test_answers_without_streaming_are_whole(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    completion = await gpt.chat.completions.create(model="plain", messages=HI)
    assert completion.choices[0].message.content == answer("plain")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 18
    reply: Any = await claude.messages.create(model="plain", messages=HI, max_tokens=64)
    assert (reply.content[0].text, reply.usage.output_tokens) == (answer("plain"), 7)


async def test_json_is_text(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    """Deviation: the schema is not looked at; the fixture's object is sent as compact JSON, asked for or not."""
    wanted = {"city": "Paris", "temperatures": [20, 21.5], "sunny": True}
    schema: Any = {"type": "json_schema", "json_schema": {"name": "w", "schema": {"type": "string"}}}
    sent = await chunks(gpt, "json", response_format=schema)
    assert json.loads("".join(c.choices[0].delta.content or "" for c in sent if c.choices)) == wanted
    assert json.loads((await message(claude, "json")).content[0].text) == wanted


# Pace


async def test_paced_text_takes_its_time(read: Read) -> None:
    start_s = time.monotonic()
    at_s = [time.monotonic() - start_s async for _ in read("paced")]
    assert len(at_s) == 8
    assert at_s[0] < at_s[-1]
    assert at_s[-1] >= 0.15, "eight pieces, twenty milliseconds each"


async def test_a_slow_first_token_keeps_the_headers_back_too(gpt: AsyncOpenAI) -> None:
    """Deviation: the real APIs send the headers, and Anthropic `message_start`, long before the first token."""
    start_s = time.monotonic()
    async with await gpt.chat.completions.create(model="slow-first-token", messages=HI, stream=True):
        assert time.monotonic() - start_s >= 0.24


# Tools


@pytest.mark.parametrize("model", ["tool", "text-and-tool"])
async def test_a_tool_is_called(gpt: AsyncOpenAI, claude: AsyncAnthropic, model: str) -> None:
    """Deviations: called without being offered; in chat, the call does not begin in the chunk that has the role."""
    sent = await chunks(gpt, model)
    assert tool_calls(sent) == [("call_weather", "get_weather", '{"city":"Paris"}')]
    assert sent[-2].choices[0].finish_reason == "tool_calls"
    assert sent[0].choices[0].delta.tool_calls is None
    reply = await message(claude, model)
    assert reply.stop_reason == "tool_use"
    *before, call = reply.content
    assert (call.type, call.id, call.name, call.input) == ("tool_use", "call_weather", "get_weather", {"city": "Paris"})
    said = answer(model) if model == "text-and-tool" else ""
    assert "".join(block.text for block in before) == said
    assert "".join(chunk.choices[0].delta.content or "" for chunk in sent if chunk.choices) == said


async def test_the_arguments_come_in_pieces(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    deltas = [chunk.choices[0].delta for chunk in await chunks(gpt, "tool") if chunk.choices]
    pieces = [delta.tool_calls[0].function.arguments for delta in deltas if delta.tool_calls]
    assert pieces == ["", '{"city', '":"Par', 'is"}']
    sent = [event.delta for event in await events(claude, "tool") if event.type == "content_block_delta"]
    assert [delta.partial_json for delta in sent] == pieces[1:]


async def test_two_tools_are_called_at_once(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    assert tool_calls(await chunks(gpt, "two-tools")) == [
        ("call_weather", "get_weather", '{"city":"Paris"}'),
        ("call_time", "get_time", '{"zone":"Europe/Paris"}'),
    ]
    calls = (await message(claude, "two-tools")).content
    assert [(call.id, call.name) for call in calls] == [("call_weather", "get_weather"), ("call_time", "get_time")]


@pytest.mark.parametrize("model", ["tool", "two-tools", "text-and-tool"])
async def test_a_tool_s_result_is_answered_with_text(gpt: AsyncOpenAI, claude: AsyncAnthropic, model: str) -> None:
    """Deviation: any result will do, also one for a call that was never made."""
    call: Any = {"id": "call_weather", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    asked = {"role": "assistant", "tool_calls": [call]}
    told = {"role": "tool", "tool_call_id": "call_weather", "content": "20"}
    sent = await chunks(gpt, model, [*HI, asked, told])
    said = "".join(chunk.choices[0].delta.content or "" for chunk in sent if chunk.choices)
    use = {"type": "tool_use", "id": "call_weather", "name": "get_weather", "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_weather", "content": "20"}
    turns = [*HI, {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert (await message(claude, model, turns)).content[0].text == said
    assert said.startswith(("It is 20", "20 degrees"))


# Thinking


async def test_thinking_comes_before_the_answer(gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    """Deviations: sent without being asked for, unless the model is known not to think (`gpt-4o`). OpenAI's own chat
    API never sends `reasoning_content`, others do, and with or after the role, not before it."""
    sent = [chunk.choices[0].delta for chunk in await chunks(gpt, "thinking") if chunk.choices]
    thoughts = [getattr(delta, "reasoning_content", None) for delta in sent]
    assert "".join(filter(None, thoughts)) == "Six times seven, then."
    assert sent[0].role is None
    thinking, text = (await message(claude, "thinking")).content
    assert (thinking.type, thinking.thinking, thinking.signature) == ("thinking", "Six times seven, then.", SIGNATURE)
    assert text.text == "".join(delta.content or "" for delta in sent) == "42"


async def test_redacted_thinking_is_a_block_without_deltas(claude: AsyncAnthropic) -> None:
    """Deviation: always in front of the thinking that can be read."""
    blocks = (await message(claude, "redacted-thinking")).content
    assert [block.type for block in blocks] == ["redacted_thinking", "thinking", "text"]
    assert blocks[0].data == "b3BhcXVl"


@pytest.mark.parametrize("given_back", ["thinking", "unsigned", "nothing"])
async def test_a_thinking_model_that_called_a_tool_wants_its_signed_thoughts_back(
    claude: AsyncAnthropic, given_back: str
) -> None:
    """Deviation: a signature must be there, but any will do."""
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    thought, call = (await message(claude, "thinking-tool", thinking=thinking)).content
    assert (thought.type, thought.signature, call.type) == ("thinking", SIGNATURE, "tool_use")
    thoughts = {
        "thinking": [thought.to_dict()],
        "unsigned": [{**thought.to_dict(), "signature": ""}],
        "nothing": [],
    }[given_back]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "20"}
    turns = [*HI, {"role": "assistant", "content": [*thoughts, call.to_dict()]}, {"role": "user", "content": [result]}]
    if given_back == "thinking":
        assert (await message(claude, "thinking-tool", turns, thinking=thinking)).content[0].text == "20 degrees."
    else:
        with pytest.raises(anthropic.BadRequestError):
            await message(claude, "thinking-tool", turns, thinking=thinking)


async def test_a_chat_model_thinks_and_calls_a_tool(gpt: AsyncOpenAI) -> None:
    sent = await chunks(gpt, "thinking-tool")
    assert sent[0].choices[0].delta.reasoning_content
    assert tool_calls(sent) == [("call_weather", "get_weather", '{"city":"Paris"}')]


# Errors before the answer


@pytest.mark.parametrize(
    ("model", "gpt_error", "claude_error", "kind"),
    [
        ("error-401", openai.AuthenticationError, anthropic.AuthenticationError, "authentication_error"),
        ("error-429", openai.RateLimitError, anthropic.RateLimitError, "rate_limit_error"),
        ("error-500", openai.InternalServerError, anthropic.InternalServerError, ""),
        ("error-529", openai.InternalServerError, anthropic.OverloadedError, "overloaded_error"),
        ("unknown", openai.NotFoundError, anthropic.NotFoundError, "not_found_error"),
    ],
)
async def test_errors_have_each_api_s_shape(
    gpt: AsyncOpenAI, claude: AsyncAnthropic, model: str, gpt_error: Any, claude_error: Any, kind: str
) -> None:
    """Deviations: one `type` for both APIs, and with OpenAI it is not OpenAI's (401: `invalid_request_error`, 429:
    `requests` or `tokens`); with Anthropic, no `request_id` and no header `request-id`."""
    with pytest.raises(gpt_error) as of_gpt:
        await chunks(gpt, model)
    assert of_gpt.value.type == (kind or "server_error")
    assert set(of_gpt.value.body) == {"message", "type", "param", "code"}
    with pytest.raises(claude_error) as of_claude:
        await events(claude, model)
    assert of_claude.value.type == (kind or "api_error")
    assert of_claude.value.request_id is None


async def test_a_rate_limit_says_when_to_come_back(aimock: Aimock, gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    await aimock.load(
        {"match": {"model": "busy"}, "response": {"status": 429, "retryAfter": 7, "error": {"message": "Busy"}}}
    )
    with pytest.raises(openai.RateLimitError) as of_gpt:
        await chunks(gpt, "busy")
    with pytest.raises(anthropic.RateLimitError) as of_claude:
        await events(claude, "busy")
    assert of_gpt.value.response.headers["retry-after"] == of_claude.value.response.headers["retry-after"] == "7"
    assert of_gpt.value.response.headers["x-ratelimit-remaining-requests"] == "0"


async def test_only_a_rate_limit_says_when_to_come_back(gpt: AsyncOpenAI) -> None:
    """Deviation: the APIs may send `Retry-After` with 503 and 529 as well; aimock has it for 429 only."""
    with pytest.raises(openai.InternalServerError) as error:
        await chunks(gpt, "error-529")
    assert "retry-after" not in error.value.response.headers


async def test_a_model_that_recovers_fails_once_a_test(aimock: Aimock, gpt: AsyncOpenAI) -> None:
    for _ in range(2):
        with pytest.raises(openai.InternalServerError):
            await chunks(gpt, "recovers")
        for _ in range(2):
            sent = await chunks(gpt, "recovers")
            assert "".join(chunk.choices[0].delta.content or "" for chunk in sent if chunk.choices) == "Now it works."
        await aimock.load()


# Broken streams


async def test_a_stream_cut_in_mid_answer_has_sent_some_text(read: Read) -> None:
    """`truncateAfterChunks: n` delivers n-1 frames if there is a `latency` between them, and without one none at all.
    The frames before the text count: one in chat, two in messages."""
    said = ""
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):  # noqa: PT012 (the loop itself raises)
        async for piece in read("cut-in-mid-answer"):
            said += piece
    assert said in ("one two thre", "one two ")


async def test_a_stream_cut_in_silence_has_begun_without_text(read: Read) -> None:
    with pytest.raises((openai.APIConnectionError, httpx2.RemoteProtocolError)):
        assert [piece async for piece in read("cut-in-silence")] == ["no piece"]


async def test_a_connection_cut_at_once_has_no_headers(read: Read) -> None:
    with pytest.raises((openai.APIConnectionError, anthropic.APIConnectionError)):
        assert [piece async for piece in read("cut-at-once")] == ["no piece"]


async def test_a_200_that_is_no_stream_reads_as_an_empty_one(read: Read) -> None:
    """The SDKs say nothing. It is aimock's only stream that ends in good order without its end marker."""
    assert [piece async for piece in read("no-stream")] == []


# The harness


async def test_the_journal_has_every_request_in_order(aimock: Aimock, gpt: AsyncOpenAI, claude: AsyncAnthropic) -> None:
    """Deviation: messages are kept in chat's shape. What has no place there is lost: `thinking`, `tool_choice`,
    `stop_sequences`, `top_p`. Bodies above 64 KiB are not kept at all."""
    await chunks(gpt, "plain", max_completion_tokens=5, top_p=0.5)
    thinking: Any = {"type": "enabled", "budget_tokens": 1024}
    await message(claude, "thinking", system="Be brief.", thinking=thinking, stop_sequences=["END"])
    with pytest.raises(openai.RateLimitError):
        await chunks(gpt, "error-429")
    one, two, three = await aimock.requests()
    assert (one.path, one.model, one.status, one.fault) == ("/v1/chat/completions", "plain", 200, None)
    assert (one.body["messages"], one.body["max_completion_tokens"], one.body["top_p"]) == (HI, 5, 0.5)
    assert one.headers["authorization"] == "[REDACTED]"
    assert (two.path, two.model, two.status) == ("/v1/messages", "thinking", 200)
    assert two.body["messages"] == [{"role": "system", "content": "Be brief."}, *HI]
    assert two.body["max_tokens"] == 64
    assert not {"thinking", "stop_sequences"} & set(two.body)
    assert (three.model, three.status) == ("error-429", 429)


@pytest.mark.parametrize(
    ("model", "status", "fault"),
    [
        ("cut-at-once", 0, "disconnect"),
        ("cut-in-silence", 200, "disconnectAfterMs"),
        ("cut-in-mid-answer", 200, "truncateAfterChunks"),
        ("no-stream", 200, "malformed"),
    ],
)
async def test_the_journal_tells_what_was_broken(
    aimock: Aimock, claude: AsyncAnthropic, model: str, status: int, fault: str
) -> None:
    if model == "no-stream":
        await events(claude, model)
    else:
        with pytest.raises((anthropic.APIConnectionError, httpx2.RemoteProtocolError)):
            await events(claude, model)
    (request,) = await aimock.requests()
    assert (request.status, request.fault) == (status, fault)


async def test_a_test_s_own_fixture_comes_before_the_standard_ones(aimock: Aimock, read: Read) -> None:
    await aimock.load({"match": {"model": "plain"}, "response": {"content": "Mine."}})
    assert [piece async for piece in read("plain")] == ["Mine."]
    assert [piece async for piece in read("length")] == [answer("length")]


async def test_a_fixture_that_makes_no_sense_is_refused(aimock: Aimock) -> None:
    with pytest.raises(AssertionError, match="Validation failed"):
        await aimock.load({"match": {"model": "m"}, "response": {"contents": "typo"}})


def test_it_ends_with_the_process_that_started_it(node: str) -> None:
    with subprocess.Popen([node, HERE / "server.mjs"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"http://127.0.0.1:")
        process.stdin.close()
        assert process.wait(5) == 0


@pytest.mark.usefixtures("node")
def test_without_a_node_of_the_machine_s_it_runs_on_playwright_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(npm, "OUR_BIN", "")
    assert find_node() == PLAYWRIGHT_NODE
    with serve(PLAYWRIGHT_NODE) as url:
        assert httpx2.get(f"{url}/health", trust_env=False).status_code == 200
