"""The Anthropic SDK's messages against both providers."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import BaseModel

from tests import keys
from tests.faces.conftest import PROVIDERS, anthropic_client
from tests.provider import (
    Finish,
    HttpError,
    Reasoning,
    RedactedThinking,
    Refusal,
    Silence,
    StreamError,
    Text,
    ToolCall,
    Usage,
    Wait,
)
from tests.stack import Stack, eventually

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Says how it is out there.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
THINKING: Any = {"type": "enabled", "budget_tokens": 1_024}
PIXEL = base64.b64encode(bytes.fromhex("89504e470d0a1a0a")).decode()
BOTH = pytest.mark.parametrize("name", PROVIDERS)
EITHER_WAY = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])


async def ask(client: anthropic.AsyncAnthropic, model: str, *, stream: bool = True, **more: Any) -> Message:
    """Return a whole answer, put together by the SDK where it comes in pieces."""
    asked = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
    if not stream:
        answer: Message = await client.messages.create(**asked)
        return answer
    async with client.messages.stream(**asked) as events:
        return await events.get_final_message()


async def events(client: anthropic.AsyncAnthropic, model: str, **more: Any) -> list[RawMessageStreamEvent]:
    asked = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
    return [event async for event in await client.messages.create(**asked, stream=True)]


def told(message: Message) -> list[Any]:
    """Return the blocks, without what differs from one answer to the next."""
    kept = ("type", "text", "thinking", "id", "name", "input")
    return [{k: v for k, v in block.model_dump().items() if k in kept} for block in message.content]


async def until_error(
    stream: anthropic.AsyncStream[RawMessageStreamEvent], on_text: Callable[[], Awaitable[Any]] | None = None
) -> tuple[str, anthropic.APIStatusError]:
    """Return what was written, and the error that the stream ended with."""
    seen = ""
    try:
        async for event in stream:
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                seen += event.delta.text
                if on_text is not None:
                    await on_text()
    except anthropic.APIStatusError as error:
        return seen, error
    raise AssertionError(f"the stream ended well: {seen}")


@BOTH
async def test_an_answer_is_streamed(stack: Stack, claude: anthropic.AsyncAnthropic, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo 🌍\n\ndata: x"), Usage(input=9, output=3, cached=4))
    found = await events(claude, f"{name}/m")
    kinds = [event.type for event in found if event.type != "content_block_delta"]
    assert kinds == ["message_start", "content_block_start", "content_block_stop", "message_delta", "message_stop"]
    start, end = found[0], found[-2]
    assert start.type == "message_start"
    assert start.message.model == f"{name}/m"
    assert end.type == "message_delta"
    assert end.delta.stop_reason == "end_turn"
    assert (end.usage.input_tokens, end.usage.cache_read_input_tokens, end.usage.output_tokens) == (5, 4, 3)
    pieces = [event.delta for event in found if event.type == "content_block_delta"]
    assert "".join(piece.text for piece in pieces if piece.type == "text_delta") == "Hello 🌍\n\ndata: x"


@BOTH
async def test_an_answer_comes_whole(stack: Stack, claude: anthropic.AsyncAnthropic, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo"), Usage(input=9, output=3, cached=4))
    raw = await claude.messages.with_raw_response.create(model=f"{name}/m", messages=HI, max_tokens=9)
    answer = await raw.parse()
    assert told(answer) == [{"type": "text", "text": "Hello"}]
    assert (answer.model, answer.stop_reason) == (f"{name}/m", "end_turn")
    assert (answer.usage.input_tokens, answer.usage.cache_read_input_tokens, answer.usage.output_tokens) == (5, 4, 3)
    job = await stack.client().job(raw.headers["x-job-id"])
    assert (job["status"], job["text"]) == ("completed", "Hello")
    assert answer._request_id == job["id"].replace("job_", "req_")
    assert stack.provider.calls[0].body.get("max_tokens", 9) == 9


@BOTH
@EITHER_WAY
async def test_tools_are_called_and_answered(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str, stream: bool
) -> None:
    calls = [ToolCall(f"call_{city}", "get_weather", ['{"city":', f'"{city}"', "}"]) for city in ("Paris", "Rome")]
    stack.provider.script("m", Text("Let me see."), *calls)
    answer = await ask(claude, f"{name}/m", stream=stream, tools=[WEATHER], tool_choice={"type": "auto"})
    assert told(answer) == [
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "call_Paris", "name": "get_weather", "input": {"city": "Paris"}},
        {"type": "tool_use", "id": "call_Rome", "name": "get_weather", "input": {"city": "Rome"}},
    ]
    assert answer.stop_reason == "tool_use"
    results: Any = [
        {"type": "tool_result", "tool_use_id": "call_Paris", "content": [{"type": "text", "text": "20 °C"}]},
        {"type": "tool_result", "tool_use_id": "call_Rome", "content": "no such city", "is_error": True},
        {"type": "text", "text": "Well?"},
    ]
    turns: Any = [*HI, answer.to_param(), {"role": "user", "content": results}]
    stack.provider.script("m", Text("Sunny."))
    answer = await ask(claude, f"{name}/m", stream=stream, messages=turns, tools=[WEATHER])
    assert told(answer) == [{"type": "text", "text": "Sunny."}]
    heard = json.dumps(stack.provider.calls[-1].body["messages"], ensure_ascii=False)
    assert all(said in heard for said in ("Let me see.", "20 °C", "no such city", "Well?"))
    assert ('"is_error": true' if name == "anthropic" else "Error: no such city") in heard


@BOTH
@EITHER_WAY
async def test_a_call_without_arguments_and_one_with_many(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str, stream: bool
) -> None:
    long = "x" * 100_000
    stack.provider.script("m", ToolCall("call_1", "now"), ToolCall("call_2", "get_weather", json.dumps({"city": long})))
    tools = [WEATHER, {"name": "now", "input_schema": {"type": "object", "properties": {}}}]
    answer = await ask(claude, f"{name}/m", stream=stream, tools=tools)
    assert [block.input for block in answer.content if block.type == "tool_use"] == [{}, {"city": long}]


@BOTH
async def test_which_tool_is_to_be_called_is_the_client_s_to_say(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str
) -> None:
    stack.provider.script("m", ToolCall("call_1", "get_weather", '{"city":"Rome"}'), Finish("stop"))
    choices: list[Any] = [{"type": "any"}, {"type": "tool", "name": "get_weather"}, {"type": "none"}]
    openai = ["required", {"type": "function", "function": {"name": "get_weather"}}, "none"]
    for choice, words in zip(choices, openai, strict=True):
        answer = await ask(claude, f"{name}/m", tools=[WEATHER], tool_choice=choice)
        assert answer.stop_reason == "tool_use"
        assert stack.provider.calls[-1].body["tool_choice"] == (choice if name == "anthropic" else words)


@EITHER_WAY
async def test_thinking_goes_over_two_turns_and_its_signature_stays_here(
    stack: Stack, claude: anthropic.AsyncAnthropic, stream: bool
) -> None:
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    stack.provider.script("m", Reasoning("Which city? "), RedactedThinking(), Reasoning("Paris."), call)
    asked: Any = {"stream": stream, "tools": [WEATHER], "thinking": THINKING}
    first = await ask(claude, "anthropic/m", **asked)
    thought = first.content[0]
    assert thought.type == "thinking"
    assert thought.thinking == "Which city? Paris."
    assert thought.signature.startswith("rejoin.")
    result: Any = [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}]
    turns: Any = [*HI, first.to_param(), {"role": "user", "content": result}]
    stack.provider.script("m", Text("Sunny."))
    second = await ask(claude, "anthropic/m", **asked, messages=turns)
    assert [block.type for block in second.content] == ["thinking", "text"]
    heard = stack.provider.calls[-1].body["messages"][1]["content"]
    assert [block["type"] for block in heard] == ["thinking", "redacted_thinking", "thinking", "tool_use"]
    stack.provider.script("m", Text("Bye."))
    turns = [*turns, second.to_param(), {"role": "user", "content": "Thanks"}]
    assert (await ask(claude, "anthropic/m", **asked, messages=turns)).stop_reason == "end_turn"


@EITHER_WAY
async def test_what_was_thought_and_not_shown_is_given_back_too(
    stack: Stack, claude: anthropic.AsyncAnthropic, stream: bool
) -> None:
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}]}
    for thought, display in ((RedactedThinking(), "summarized"), (Reasoning("Paris."), "omitted")):
        asked: Any = {"stream": stream, "tools": [WEATHER], "thinking": {**THINKING, "display": display}}
        stack.provider.script("m", thought, call)
        first = await ask(claude, "anthropic/m", **asked)
        assert told(first)[0] == {"type": "thinking", "thinking": ""}
        stack.provider.script("m", Text("Sunny."))
        await ask(claude, "anthropic/m", **asked, messages=[*HI, first.to_param(), result])


async def test_a_thought_behind_the_text_keeps_its_place(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    stack.provider.script("m", Reasoning("One."), Text("Hm."), Reasoning("Two."), Text("Yes."))
    first = await ask(claude, "anthropic/m", thinking=THINKING)
    assert [block.type for block in first.content] == ["thinking", "text", "thinking", "text"]
    turns = [*HI, first.to_param(), {"role": "user", "content": "Sure?"}]
    await ask(claude, "anthropic/m", thinking=THINKING, messages=turns)
    sent = [block for turn in stack.provider.calls[-1].body["messages"][1:-1] for block in turn["content"]]
    assert [block.get("thinking") or block.get("text") for block in sent] == ["One.", "Hm.", "Two.", "Yes."]


async def test_a_provider_s_own_way_of_sealing_goes_over_two_turns(
    stack: Stack, claude: anthropic.AsyncAnthropic
) -> None:
    """OpenAI's Responses know their thinking by an id, and show a summary or none."""
    for thought in (Reasoning("Paris."), RedactedThinking()):
        call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
        stack.provider.script("m", thought, call)
        first = await ask(claude, "openai-responses/m", tools=[WEATHER], thinking=THINKING)
        result: Any = [{"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}]
        stack.provider.script("m", Text("Sunny."))
        turns = [*HI, first.to_param(), {"role": "user", "content": result}]
        answer = await ask(claude, "openai-responses/m", tools=[WEATHER], thinking=THINKING, messages=turns)
        assert told(answer)[-1] == {"type": "text", "text": "Sunny."}
        heard = [item.get("type") for item in stack.provider.calls[-1].body["input"]]
        assert heard.count("reasoning") == 1


async def test_thinking_that_is_named_counts_like_what_is_sent(bare: Stack) -> None:
    """CWE-400: a conversation of names that stand for much is refused; an answer stands in it once."""
    bare.configure(max_body_bytes=20_000)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Reasoning("x" * 8_000), Text("Hm."))
    async with anthropic_client(bare) as client:
        answers: list[Any] = []
        for _ in range(3):
            thought, text = (await ask(client, "anthropic/m", thinking=THINKING)).content
            assert thought.type == "thinking"
            named = {"type": "thinking", "thinking": "", "signature": thought.signature}
            answers.append({"role": "assistant", "content": [named, text]})
        more: Any = {"role": "user", "content": "More"}
        twice = [*HI, answers[0], more, answers[0], more]
        await ask(client, "anthropic/m", messages=twice)
        assert json.dumps(bare.provider.calls[-1].body).count("x" * 8_000) == 1
        with pytest.raises(anthropic.RequestTooLargeError):
            await ask(client, "anthropic/m", messages=[*HI, answers[0], more, answers[1], more, answers[2], more])


async def test_another_model_s_thoughts_are_left_out_where_that_turn_is_over(
    stack: Stack, claude: anthropic.AsyncAnthropic
) -> None:
    stack.provider.script("m", Reasoning("Paris."), Text("Hm."))
    first = await ask(claude, "anthropic/m", thinking=THINKING)
    turns = [*HI, first.to_param(), {"role": "user", "content": "Sure?"}]
    for model in ("openai/m", "anthropic/other"):
        stack.provider.script("other", Text("Yes."))
        await ask(claude, model, messages=turns)
        assert "Paris." not in json.dumps(stack.provider.calls[-1].body)


async def test_nobody_has_another_s_thoughts_put_into_a_conversation(bare: Stack) -> None:
    """CWE-639: a foreign job's thoughts are the same as those of none, where they are needed and where they are not."""
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Reasoning("canary"), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    hers, his = [await keys.new_key(bare, owner) for owner in ("alice", "bob")]
    asked: Any = {"tools": [WEATHER], "thinking": THINKING}
    async with anthropic_client(bare, key=hers) as alice, anthropic_client(bare, key=his) as bob:
        answer = (await ask(alice, "anthropic/m", **asked)).to_param()
        content: Any = [dict(block) for block in answer["content"]]  # type: ignore[arg-type]
        result = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
        needed: Any = [*HI, {"role": "assistant", "content": content}, {"role": "user", "content": [result]}]
        refusals = []
        for signature in (content[0]["signature"], f"rejoin.{'0' * 32}.0"):
            content[0]["signature"] = signature
            with pytest.raises(anthropic.BadRequestError, match="Invalid `signature`") as refusal:
                await ask(bob, "anthropic/m", **asked, messages=needed)
            body: Any = refusal.value.body
            refusals.append(body["error"])
            bare.provider.script("m", Text("x"))
            await ask(bob, "anthropic/m", **asked, messages=[*needed, {"role": "user", "content": "And?"}])
            assert "canary" not in json.dumps(bare.provider.calls[-1].body)
    assert refusals[0] == refusals[1]


async def test_a_conversation_that_began_at_anthropic_goes_on_here(
    stack: Stack, claude: anthropic.AsyncAnthropic
) -> None:
    """Its own signatures are the provider's to judge."""
    async with httpx2.AsyncClient(trust_env=False, verify=False) as http:
        stack.provider.script("m", Reasoning("Paris."), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
        body = {"model": "m", "messages": HI, "max_tokens": 4_000, "tools": [WEATHER], "thinking": THINKING}
        headers = {"x-api-key": "x", "anthropic-version": "2023-06-01"}
        direct = (await http.post(f"{stack.provider.anthropic_url}/v1/messages", json=body, headers=headers)).json()
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "sunny"}
    turns = [*HI, {"role": "assistant", "content": direct["content"]}, {"role": "user", "content": [result]}]
    stack.provider.script("m", Text("Sunny."))
    answer = await ask(claude, "anthropic/m", messages=turns, tools=[WEATHER], thinking=THINKING)
    assert told(answer)[-1] == {"type": "text", "text": "Sunny."}


@BOTH
async def test_images_are_seen(stack: Stack, claude: anthropic.AsyncAnthropic, name: str) -> None:
    stack.provider.script("m", Text("A pixel."))
    sources: Any = [
        {"type": "base64", "media_type": "image/png", "data": PIXEL},
        {"type": "url", "url": "https://x.example/a.png"},
    ]
    content: Any = [*[{"type": "image", "source": source} for source in sources], {"type": "text", "text": "What?"}]
    await ask(claude, f"{name}/m", messages=[{"role": "user", "content": content}])
    heard = stack.provider.calls[-1].body["messages"][0]["content"]
    if name == "anthropic":
        assert heard == content
    else:
        shown = [part["image_url"]["url"] for part in heard[:2]]
        assert shown == [f"data:image/png;base64,{PIXEL}", "https://x.example/a.png"]


@BOTH
async def test_an_image_in_a_result_is_shown_behind_it(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str
) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    turns: Any = [
        *HI,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "call_1", "content": [picture]}]},
    ]
    stack.provider.script("m", Text("A pixel."))
    await ask(claude, f"{name}/m", messages=turns, tools=[WEATHER])
    assert PIXEL in json.dumps(stack.provider.calls[-1].body["messages"][-1])


@BOTH
async def test_an_answer_has_the_shape_that_was_asked_for(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str
) -> None:
    class City(BaseModel):
        name: str

    stack.provider.script("m", Text('{"name": "Rome"}'))
    answer = await claude.messages.parse(model=f"{name}/m", messages=HI, max_tokens=99, output_format=City)
    assert answer.parsed_output == City(name="Rome")


@BOTH
async def test_all_that_a_client_may_say_reaches_the_provider(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str
) -> None:
    mark: Any = {"type": "ephemeral"}
    stack.provider.script("m", Text("x"))
    asked: dict[str, Any] = {
        "model": f"{name}/m",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": mark}]}],
        "system": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Be kind.", "cache_control": mark}],
        "max_tokens": 99,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u-1"},
        "service_tier": "auto",
        "tools": [{**WEATHER, "cache_control": mark}],
        "extra_headers": {"anthropic-beta": "x"},
        # The SDK's methods have dropped these two.
        "extra_body": {"temperature": 0.5, "top_p": 0.9},
    }
    raw = await claude.messages.with_raw_response.create(**asked)
    assert (await stack.client().job(raw.headers["x-job-id"]))["metadata"] == {"user_id": "u-1"}
    body = stack.provider.calls[0].body
    assert (body["temperature"], body["top_p"]) == (0.5, 0.9)
    said = body["system"] if name == "anthropic" else body["messages"][0]["content"]
    assert said == "Be brief.\n\nBe kind."
    assert (body.get("stop_sequences") or body.get("stop")) == ["END"]


async def test_efforts_and_budgets_are_how_hard_to_think(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    stack.provider.script("m", Text("x"))
    adaptive: Any = {"type": "adaptive"}
    for fields, effort in (
        ({"thinking": {"type": "enabled", "budget_tokens": 1_024}}, "minimal"),
        ({"thinking": {"type": "enabled", "budget_tokens": 10_000}}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 30_000}}, "high"),
        ({"thinking": adaptive}, "high"),
        ({"thinking": adaptive, "output_config": {"effort": "low"}}, "low"),
        ({"output_config": {"effort": "max"}}, "high"),
        ({"thinking": {"type": "disabled"}}, None),
    ):
        await ask(claude, "openai/m", **{"max_tokens": 32_000, **fields})
        assert stack.provider.calls[-1].body.get("reasoning_effort") == effort


async def test_why_an_answer_ended_is_told(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    for finish, reason in (("length", "max_tokens"), ("stop_sequence", "stop_sequence"), ("refusal", "refusal")):
        stack.provider.script("m", Text("cut"), Finish(finish))
        for stream in (False, True):
            answer = await ask(claude, "anthropic/m", stream=stream, stop_sequences=["END"])
            assert answer.stop_reason == reason
            assert answer.stop_sequence == ("END" if reason == "stop_sequence" else None)
    stack.provider.script("m", Refusal("I can't."))
    for stream in (False, True):
        answer = await ask(claude, "openai/m", stream=stream)
        assert (told(answer), answer.stop_reason) == ([{"type": "text", "text": "I can't."}], "refusal")


async def test_the_beginning_of_an_answer_is_gone_on_with_or_refused(
    stack: Stack, claude: anthropic.AsyncAnthropic
) -> None:
    turns: Any = [*HI, {"role": "assistant", "content": "The best is ("}]
    stack.provider.script("m", Text("B)"))
    assert told(await ask(claude, "anthropic/m", messages=turns)) == [{"type": "text", "text": "B)"}]
    with pytest.raises(anthropic.BadRequestError, match="does not go on"):
        await ask(claude, "openai/m", messages=turns)


async def test_models_are_listed_and_tokens_estimated(claude: anthropic.AsyncAnthropic) -> None:
    assert "demo/tour" in [model.id async for model in claude.models.list()]
    assert (await claude.models.retrieve("demo/tour")).display_name == "demo/tour"
    with pytest.raises(anthropic.NotFoundError):
        await claude.models.retrieve("demo/none")
    counted = await claude.messages.count_tokens(model="anthropic/m", messages=HI, system="x" * 400, tools=[WEATHER])
    assert 100 < counted.input_tokens < 200


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "nobody", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": ""}]}, "messages.0"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
        ({"extra_body": {"mcp_servers": []}}, "mcp_servers"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9_000}}, "thinking.budget_tokens"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.0"),
        ({"tools": [WEATHER], "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}}, "tool_choice"),
        ({"tool_choice": {"type": "tool", "name": "none"}}, "tool_choice"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "messages.0.user"),
        ({"model": "demo/tour", "thinking": THINKING}, "thinking: "),
        ({"model": "demo/tour", "tools": [WEATHER]}, "tools"),
    ],
)
async def test_what_cannot_be_is_refused_in_anthropic_s_words(
    claude: anthropic.AsyncAnthropic, fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as refusal:
        await ask(claude, stream=False, **{"model": "anthropic/m", **fields})
    body: Any = refusal.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert body["error"]["message"].removeprefix("body: Value error, ").startswith(says)
    assert refusal.value.request_id == body["request_id"]


async def test_max_tokens_is_needed(stack: Stack) -> None:
    response = await stack.client().http.post("/v1/messages", json={"model": "m", "messages": HI})
    assert (response.status_code, response.json()["error"]["message"]) == (400, "max_tokens: Field required")


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
async def test_a_wrong_key_and_a_missing_model_raise_the_sdk_s_own(bare: Stack, header: str) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"))
    key = await keys.new_key(bare, "alice", "--models", "anthropic/m")

    def sent(value: str) -> dict[str, Any]:
        bearer = {"Authorization": f"Bearer {value}"}
        own = {"x-api-key": value, "Authorization": anthropic.Omit()}
        return {"extra_headers": bearer if header == "authorization" else own}

    async with anthropic_client(bare) as client:
        assert (await ask(client, "m", **sent(key))).model == "anthropic/m"
        assert [model.id async for model in client.models.list(**sent(key))] == ["anthropic/m"]
        for stream in (False, True):
            with pytest.raises(anthropic.AuthenticationError):
                await ask(client, "m", stream=stream, **sent("wrong"))
            with pytest.raises(anthropic.NotFoundError):
                await ask(client, "openai/m", stream=stream, **sent(key))


async def test_a_limit_and_a_full_queue_say_when_to_come_back(bare: Stack) -> None:
    bare.configure(rate_limit=2, max_queue=1)
    await bare.api()
    async with anthropic_client(bare) as client:
        await bare.client().submit("m")
        with pytest.raises(anthropic.OverloadedError) as full:
            await ask(client, "m", stream=False)
        assert (full.value.status_code, full.value.type) == (529, "overloaded_error")
        bare.configure(rate_limit=1)
        await bare.api()
    async with anthropic_client(bare, api=1) as client:
        with pytest.raises(anthropic.RateLimitError) as refusal:
            await ask(client, "m", stream=False)
    assert refusal.value.type == "rate_limit_error"
    assert int(refusal.value.response.headers["retry-after"]) > 0


@BOTH
async def test_a_provider_s_failure_is_an_error_of_the_sdk(
    stack: Stack, claude: anthropic.AsyncAnthropic, name: str
) -> None:
    for status, kind, raised in (
        (400, "invalid_request_error", anthropic.BadRequestError),
        (404, "not_found_error", anthropic.NotFoundError),
        (401, "api_error", anthropic.InternalServerError),
    ):
        stack.provider.script("m", HttpError(status, message="sk-secret of a host"))
        with pytest.raises(raised) as refusal:
            await ask(claude, f"{name}/m", stream=False)
        assert refusal.value.type == kind
        assert refusal.value.response.headers["x-job-id"].startswith("job_")
        assert "sk-secret" not in str(refusal.value.body)
        with pytest.raises(anthropic.APIStatusError) as in_stream:
            await events(claude, f"{name}/m")
        assert in_stream.value.type == kind


async def test_text_that_was_cut_is_an_error_and_no_end(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    stack.provider.script("m", Text("half"), StreamError("overloaded_error"))
    asked: Any = {"model": "anthropic/m", "messages": HI, "max_tokens": 9, "stream": True}
    seen, error = await until_error(await claude.messages.create(**asked))
    assert (seen, error.type) == ("half", "overloaded_error")


async def test_an_attempt_that_is_lost_behind_its_first_token_is_never_told_twice(bare: Stack) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    bare.provider.script("m", Text("half an ans"), Silence())

    async def lose() -> None:
        bare.provider.script("m", Text("half an answer"))
        await bare.worker()
        await doomed.stop()

    async with anthropic_client(bare) as client:
        stream = await client.messages.create(model="m", messages=HI, max_tokens=9, stream=True)
        seen, lost = await until_error(stream, lose)
    assert (seen, lost.type) == ("half an ans", "api_error")


@pytest.mark.parametrize(("name", "stream"), [("openai", False), ("anthropic", True)])
async def test_an_attempt_that_is_lost_before_its_first_token_goes_unnoticed(
    bare: Stack, name: str, stream: bool
) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    bare.provider.script("m", *([Silence()] if stream else [Text("half an ans"), Silence()]))

    async def lose() -> None:
        await bare.provider.next_call()
        bare.provider.script("m", Text("an answer"))
        await bare.worker()
        await doomed.stop()

    async with anthropic_client(bare) as client, asyncio.TaskGroup() as tasks:
        tasks.create_task(lose())
        answer = tasks.create_task(ask(client, f"{name}/m", stream=stream))
    assert told(answer.result()) == [{"type": "text", "text": "an answer"}]


@EITHER_WAY
async def test_a_client_that_leaves_stops_the_bill(bare: Stack, stream: bool) -> None:
    bare.configure(lease_s=0.3)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"), Silence())
    async with anthropic_client(bare) as client:
        with pytest.raises((anthropic.APITimeoutError, httpx2.ReadTimeout)):
            await ask(client.with_options(timeout=0.5), "m", stream=stream, extra_body={"disconnect_grace_s": 0.2})
    (call,) = bare.provider.calls
    await call.closed()


async def test_a_client_that_asked_to_go_on_may_leave(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("x"), Wait(gate), Text("y"))
    asked: Any = {"model": "m", "messages": HI, "max_tokens": 9, "extra_body": {"on_disconnect": "continue"}}
    async with claude.messages.stream(**asked) as events:
        async for _ in events.text_stream:
            break
        job_id = events.response.headers["x-job-id"]
    await eventually(lambda: stack.apis[0].app.state.rejoin.hub.open_streams == 0)
    gate.open()
    assert (await stack.client().all_events(job_id))[-1].event == "completed"


async def test_a_cancelled_answer_is_an_error(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    stack.provider.script("m", Text("x"), Silence())
    raw = await claude.messages.with_raw_response.create(model="m", messages=HI, max_tokens=9, stream=True)
    seen, error = await until_error(await raw.parse(), partial(stack.client().cancel, raw.headers["x-job-id"]))
    assert (seen, "cancelled" in error.message) == ("x", True)


async def test_the_same_key_is_the_same_answer(stack: Stack, claude: anthropic.AsyncAnthropic) -> None:
    stack.provider.script("m", Reasoning("Hm."), Text("once"), ToolCall("call_1", "get_weather", '{"city":"Rome"}'))
    headers = {"Idempotency-Key": "one"}
    asked: Any = {"extra_headers": headers, "tools": [WEATHER], "thinking": THINKING}
    answers = [await ask(claude, "anthropic/m", stream=stream, **asked) for stream in (False, True)]
    assert answers[0].model_dump(exclude={"usage"}) == answers[1].model_dump(exclude={"usage"})
    assert len(stack.provider.calls) == 1
