"""The OpenAI SDK's chat completions against both providers."""

import inspect
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests import keys
from tests.faces.conftest import PROVIDERS, openai_client
from tests.provider import Finish, HttpError, Reasoning, Refusal, Silence, StreamError, Text, ToolCall, Usage, Wait
from tests.stack import Stack, eventually

HI: Any = [{"role": "user", "content": "Hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


async def chunks(client: openai.AsyncOpenAI, model: str, **more: Any) -> list[ChatCompletionChunk]:
    stream = await client.chat.completions.create(model=model, messages=HI, stream=True, **more)
    return [chunk async for chunk in stream]


def text(found: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in found if chunk.choices)


async def until_error(
    stream: openai.AsyncStream[ChatCompletionChunk], on_text: Callable[[], Awaitable[Any]] | None = None
) -> tuple[str, openai.APIError]:
    """Return what was written, and the error that the stream ended with."""
    seen = ""
    try:
        async for chunk in stream:
            if piece := chunk.choices[0].delta.content:
                seen += piece
                if on_text is not None:
                    await on_text()
    except openai.APIError as error:
        return seen, error
    raise AssertionError(f"the stream ended well: {seen}")


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_answer_is_streamed(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo 🌍\n\ndata: x"), Usage(input=9, output=3))
    found = await chunks(chat, f"{name}/m", stream_options={"include_usage": True})
    assert text(found) == "Hello 🌍\n\ndata: x"
    assert found[0].choices[0].delta.role == "assistant"
    assert {chunk.id for chunk in found} == {found[0].id}
    assert found[0].model == f"{name}/m"
    assert [chunk.choices[0].finish_reason for chunk in found if chunk.choices][-1] == "stop"
    assert [chunk.usage is None for chunk in found] == [True] * (len(found) - 1) + [False]
    usage = found[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (9, 3, 12)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_answer_comes_whole(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo"), Usage(input=9, output=3))
    raw = await chat.chat.completions.with_raw_response.create(model=f"{name}/m", messages=HI, max_tokens=9)
    answer = raw.parse()
    assert answer.choices[0].message.content == "Hello"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 12
    job = await stack.client().job(raw.headers["x-job-id"])
    assert (job["status"], job["text"]) == ("completed", "Hello")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called_and_answered(stack: Stack, chat: openai.AsyncOpenAI, name: str, stream: bool) -> None:
    call = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
    stack.provider.script("m", call)
    if stream:
        async with chat.chat.completions.stream(model=f"{name}/m", messages=HI, tools=[WEATHER]) as events:
            answer = (await events.get_final_completion()).choices[0]
    else:
        whole = await chat.chat.completions.create(model=f"{name}/m", messages=HI, tools=[WEATHER])
        answer = whole.choices[0]  # type: ignore[assignment]
    assert answer.finish_reason == "tool_calls"
    assert answer.message.tool_calls is not None
    (made,) = answer.message.tool_calls
    assert made.type == "function"
    assert (made.function.name, json.loads(made.function.arguments)) == ("get_weather", {"city": "Paris"})
    stack.provider.script("m", Text("Sunny."))
    given: Any = [
        *HI,
        answer.message.model_dump(exclude_unset=True),
        {"role": "tool", "tool_call_id": made.id, "content": "20 °C"},
    ]
    follow_up = await chat.chat.completions.create(model=f"{name}/m", messages=given, tools=[WEATHER])
    assert follow_up.choices[0].message.content == "Sunny."
    assert stack.provider.calls[-1].rejected is None


async def test_an_answer_has_the_shape_that_was_asked_for(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    stack.provider.script("m", Text('{"a": 1}'))
    answer = await chat.chat.completions.create(model="openai/m", messages=HI, response_format=shape)
    assert json.loads(answer.choices[0].message.content or "") == {"a": 1}


async def test_an_answer_is_read_into_the_client_s_own_model(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    class City(BaseModel):
        name: str

    for name in PROVIDERS:
        stack.provider.script("m", Text('{"name": "Rome"}'))
        answer = await chat.chat.completions.parse(model=f"{name}/m", messages=HI, response_format=City)
        assert answer.choices[0].message.parsed == City(name="Rome")


async def test_thinking_is_told_where_others_tell_it(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Reasoning("Hm."), Text("Yes."))
    found = await chunks(chat, "anthropic/m", reasoning_effort="low", max_completion_tokens=4_000)
    told = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in found if chunk.choices]
    assert "".join(filter(None, told)) == "Hm."
    assert text(found) == "Yes."


async def test_a_bare_model_is_the_default_provider_s(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"))
    stack.provider.script("org/m", Text("y"))
    assert (await chat.chat.completions.create(model="m", messages=HI)).model == "openai/m"
    assert (await chat.chat.completions.create(model="org/m", messages=HI)).model == "openai/org/m"


async def test_an_operator_names_the_default_provider(bare: Stack) -> None:
    bare.configure(default_model="anthropic/m")
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"))
    async with openai_client(bare) as client:
        assert (await client.chat.completions.create(model="m", messages=HI)).model == "anthropic/m"


async def test_models_are_listed(chat: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in chat.models.list()]
    assert "demo/tour" in listed
    assert (await chat.models.retrieve("demo/tour")).owned_by == "demo"
    with pytest.raises(openai.NotFoundError):
        await chat.models.retrieve("demo/none")


async def test_what_is_none_is_not_set(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    """Whatever the SDK lets be None: callers pass their own defaults on."""
    stack.provider.script("m", Text("x"))
    given = inspect.signature(chat.chat.completions.create).parameters.values()
    unset: Any = {each.name: None for each in given if str(each.annotation).startswith("Optional")}
    assert len(unset) > 20
    found = await chat.chat.completions.create(**{**unset, "model": "openai/m", "messages": HI})
    assert found.choices[0].message.content == "x"


async def test_a_refusal_names_the_field_as_the_client_knows_it(chat: openai.AsyncOpenAI) -> None:
    asked: Any = {"model": "openai/m", "messages": HI, "reasoning_effort": "utmost"}
    with pytest.raises(openai.BadRequestError, match="reasoning_effort") as refusal:
        await chat.chat.completions.create(**asked)
    assert refusal.value.param == "reasoning_effort"


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"messages": []}, 400, "invalid_request"),
        ({"model": "none/such", "messages": [{"role": "nobody", "content": "x"}]}, 400, "invalid_request"),
        ({"n": 2}, 400, "invalid_request"),
        ({"logprobs": True}, 400, "invalid_request"),
        ({"extra_body": {"nonsense": 1}}, 400, "unknown_field"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, 400, "invalid_request"),
        ({"stream_options": {"include_usage": True}}, 400, "invalid_request"),
        ({"model": "demo/tour", "tools": [WEATHER]}, 400, "unsupported_parameter"),
    ],
)
async def test_what_cannot_be_is_refused_in_openai_s_words(
    chat: openai.AsyncOpenAI, fields: dict[str, Any], status: int, code: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await chat.chat.completions.create(**{"model": "openai/m", "messages": HI, **fields})
    assert (refusal.value.status_code, refusal.value.code) == (status, code)
    assert refusal.value.type == "invalid_request_error"


async def test_a_wrong_key_and_a_missing_model_raise_the_sdk_s_own(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    key = await keys.new_key(bare, "alice", "--models", "openai/m")
    async with openai_client(bare, key="wrong") as stranger, openai_client(bare, key=key) as client:
        with pytest.raises(openai.AuthenticationError) as refusal:
            await stranger.chat.completions.create(model="m", messages=HI)
        assert refusal.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await stranger.models.list()
        with pytest.raises(openai.NotFoundError) as missing:
            await client.chat.completions.create(model="anthropic/m", messages=HI)
        assert missing.value.code == "model_not_found"


async def test_a_limit_says_when_to_come_back(bare: Stack) -> None:
    bare.configure(rate_limit=1)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"))
    async with openai_client(bare) as client:
        await client.chat.completions.create(model="m", messages=HI)
        with pytest.raises(openai.RateLimitError) as refusal:
            await client.chat.completions.create(model="m", messages=HI)
    assert refusal.value.code == "rate_limit_exceeded"
    assert int(refusal.value.response.headers["retry-after"]) > 0


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_provider_s_refusal_is_an_error_of_the_sdk(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", HttpError(400, "invalid_request_error", "sk-secret of a host"))
    with pytest.raises(openai.BadRequestError) as refusal:
        await chat.chat.completions.create(model=f"{name}/m", messages=HI)
    assert refusal.value.code == "provider_bad_request"
    assert "sk-secret" not in str(refusal.value.body)
    with pytest.raises(openai.APIError) as in_stream:
        await chunks(chat, f"{name}/m")
    assert in_stream.value.code == "provider_bad_request"


async def test_text_that_was_cut_is_an_error_and_no_end(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("half"), StreamError("overloaded_error"))
    seen, _ = await until_error(await chat.chat.completions.create(model="anthropic/m", messages=HI, stream=True))
    assert seen == "half"


async def test_an_attempt_that_is_lost_behind_its_first_token_is_never_told_twice(bare: Stack) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    bare.provider.script("m", Text("half an ans"), Silence())

    async def lose() -> None:
        bare.provider.script("m", Text("half an answer"), Silence())
        await bare.worker()
        await doomed.stop()

    async with openai_client(bare) as client:
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        seen, lost = await until_error(stream, lose)
    assert (seen, lost.code) == ("half an ans", "attempt_lost")
    # Nobody is billed for an answer whose only reader does not come back: its grace is not waited for.
    (job,) = (await bare.client().http.get("/v1/jobs")).json()["data"]

    async def is_cancelled() -> bool:
        return (await bare.client().job(job["id"]))["status"] == "cancelled"

    await eventually(is_cancelled)


async def test_an_attempt_that_is_lost_before_its_first_token_goes_unnoticed(bare: Stack) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    bare.provider.script("m", Silence())
    async with openai_client(bare) as client:
        stream = await client.chat.completions.create(model="m", messages=HI, stream=True)
        await bare.provider.next_call()
        bare.provider.script("m", Text("an answer"))
        await bare.worker()
        await doomed.stop()
        assert text([chunk async for chunk in stream]) == "an answer"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_bill(bare: Stack, stream: bool) -> None:
    bare.configure(lease_s=0.3)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"), Silence())
    async with openai_client(bare) as client:
        asked = client.with_options(timeout=0.5).chat.completions.create(
            model="m", messages=HI, stream=stream, extra_body={"disconnect_grace_s": 0.2}
        )
        with pytest.raises(openai.APITimeoutError):
            async for _ in await asked:  # type: ignore[union-attr]
                pass
    (call,) = bare.provider.calls
    await call.closed()


async def test_a_client_that_asked_to_go_on_may_leave(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("x"), Wait(gate), Text("y"))
    more = {"on_disconnect": "continue"}
    raw = await chat.chat.completions.with_raw_response.create(model="m", messages=HI, stream=True, extra_body=more)
    stream = raw.parse()
    async for chunk in stream:
        if chunk.choices[0].delta.content:
            break
    await stream.close()
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 0)
    gate.open()
    events = await stack.client().all_events(raw.headers["x-job-id"])
    assert events[-1].event == "completed"


async def test_a_cancelled_answer_is_an_error(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"), Silence())
    raw = await chat.chat.completions.with_raw_response.create(model="m", messages=HI, stream=True)
    _, error = await until_error(raw.parse(), partial(stack.client().cancel, raw.headers["x-job-id"]))
    assert error.code == "job_cancelled"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_is_told_as_one(stack: Stack, chat: openai.AsyncOpenAI, stream: bool) -> None:
    stack.provider.script("m", Refusal("I "), Refusal("will not."))
    if stream:
        async with chat.chat.completions.stream(model="openai/m", messages=HI) as events:
            message: Any = (await events.get_final_completion()).choices[0].message
    else:
        message = (await chat.chat.completions.create(model="openai/m", messages=HI)).choices[0].message
    assert message.refusal == "I will not."
    assert not message.content


async def test_a_length_is_told(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("cut"), Finish("length"))
    found = await chunks(chat, "openai/m")
    assert [chunk.choices[0].finish_reason for chunk in found][-1] == "length"


async def test_the_same_key_is_the_same_answer(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("once"))
    for stream in (False, True):
        headers = {"Idempotency-Key": "one"}
        if stream:
            assert text(await chunks(chat, "openai/m", extra_headers=headers)) == "once"
        else:
            await chat.chat.completions.create(model="openai/m", messages=HI, extra_headers=headers)
    assert len(stack.provider.calls) == 1
