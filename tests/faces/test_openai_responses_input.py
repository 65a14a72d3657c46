"""Conversations over OpenAI's Responses: by the response before, or by its items given back."""

from typing import Any

import openai
import pytest

from tests.conformance.ears import PIXEL, heard
from tests.faces.conftest import PROVIDERS, openai_client
from tests.faces.responses import WEATHER, lost, streamed
from tests.provider import Finish, Reasoning, Silence, Text, ToolCall
from tests.stack import Stack
from tests.valkey import free_port

CALL = ToolCall("call_1", "get_weather", '{"city":"Paris"}')
RESULT: Any = {"type": "function_call_output", "call_id": "call_1", "output": "20 °C"}
THINKS: Any = {"reasoning": {"effort": "low"}}


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("way", ["previous_response_id", "items", "references"])
async def test_a_tool_is_answered(stack: Stack, chat: openai.AsyncOpenAI, name: str, way: str) -> None:
    """With the thinking behind the call, whose signature never leaves the server: Anthropic refuses it without."""
    more: Any = {"tools": [WEATHER], **(THINKS if name == "anthropic" else {})}
    thought = [Reasoning("Hm.")] if name == "anthropic" else []
    stack.provider.script("m", *thought, Text("I look."), CALL)
    first = await chat.responses.create(model=f"{name}/m", input="Hi", instructions="Be brief.", **more)
    assert "signature" not in first.model_dump_json()
    stack.provider.script("m", Text("Sunny."))
    given: Any = {
        "previous_response_id": {"input": [RESULT], "previous_response_id": first.id},
        "items": {"input": [{"role": "user", "content": "Hi"}, *[_given(item) for item in first.output], RESULT]},
        "references": {
            "input": [
                {"role": "user", "content": "Hi"},
                *[{"type": "item_reference", "id": item.id} for item in first.output],
                RESULT,
            ]
        },
    }[way]
    second = await chat.responses.create(model=f"{name}/m", **given, **more)
    assert second.output_text == "Sunny."
    (_, call) = stack.provider.calls
    assert call.rejected is None
    understood = heard(call)
    assert understood["calls"] == [("call_1", "get_weather", {"city": "Paris"})]
    assert understood["results"] == [("call_1", "20 °C")]
    assert understood["thoughts"] == (["thinking"] if name == "anthropic" else [])
    assert understood.get("system") is None, "instructions are not carried over"
    assert second.previous_response_id == (first.id if way == "previous_response_id" else None)


def _given(item: Any) -> Any:
    """Return an item as the SDK gives it back."""
    return item.model_dump(exclude_unset=True)


async def test_a_conversation_goes_on_over_several_responses_and_providers(
    stack: Stack, chat: openai.AsyncOpenAI
) -> None:
    last: Any = None
    for number, name in enumerate(("openai", "anthropic", "openai")):
        stack.provider.script("m", Text(f"answer {number}"))
        last = await chat.responses.create(
            model=f"{name}/m", input=f"question {number}", previous_response_id=None if last is None else last.id
        )
    assert heard(stack.provider.calls[-1])["turns"] == [
        ("user", "question 0"), ("assistant", "answer 0"), ("user", "question 1"), ("assistant", "answer 1"),
        ("user", "question 2"),
    ]  # fmt: skip


async def test_one_may_go_on_from_what_was_cancelled_but_not_from_what_runs(
    stack: Stack, chat: openai.AsyncOpenAI
) -> None:
    stack.provider.script("m", Text("half"), Silence())
    stream: Any = await chat.responses.create(model="openai/m", input="Hi", background=True, stream=True)
    id = ""
    async for event in stream:
        if event.type == "response.created":
            id = event.response.id
        if event.type == "response.output_text.delta":
            with pytest.raises(openai.BadRequestError, match="not ended"):
                await chat.responses.create(model="openai/m", input="x", previous_response_id=id)
            await chat.responses.cancel(id)
    stack.provider.script("m", Text("x"))
    await chat.responses.create(model="openai/m", input="Go on", previous_response_id=id)
    assert heard(stack.provider.calls[-1])["turns"] == [("user", "Hi"), ("assistant", "half"), ("user", "Go on")]


async def test_a_call_that_was_cut_is_not_given_to_anybody(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("I look."), ToolCall("call_1", "get_weather", '{"ci'), Finish("length"))
    first = await chat.responses.create(model="openai/m", input="Hi", tools=[WEATHER])
    assert [item.status for item in first.output] == ["completed", "incomplete"]  # type: ignore[union-attr]
    stack.provider.script("m", Text("x"))
    await chat.responses.create(model="openai/m", input="Go on", previous_response_id=first.id)
    assert heard(stack.provider.calls[-1])["turns"] == [("user", "Hi"), ("assistant", "I look."), ("user", "Go on")]


async def test_calls_of_one_name_in_two_attempts_can_be_told_apart(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    _, first = await lost(stack, [CALL], [Text("Look:"), CALL], tools=[WEATHER])
    call: Any = first.output[1]
    assert call.call_id != "call_1"
    stack.provider.script("m", Text("Sunny."))
    answered: Any = {**RESULT, "call_id": call.call_id}
    second = await chat.responses.create(
        model="openai/m", input=[answered], previous_response_id=first.id, tools=[WEATHER]
    )
    assert second.output_text == "Sunny."


async def test_items_of_every_kind_are_understood(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    given: Any = [
        {"role": "developer", "content": "Be kind."},
        {"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "What "}, {"type": "input_text", "text": "is this?"},
            {"type": "input_image", "image_url": PIXEL, "detail": "low"},
        ]},
        {"type": "reasoning", "id": "rs_of_another_service", "summary": [], "encrypted_content": "sealed"},
        {"type": "reasoning", "id": f"rs_{'0' * 32}_0", "summary": []},
        {"type": "message", "id": "msg_x", "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "A dot. ", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "I say no more."},
        ]},
        {"type": "function_call", "id": "fc_x", "status": "completed", "call_id": "a", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "b", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "2"}]},
        {"type": "function_call_output", "call_id": "a", "output": "1"},
    ]  # fmt: skip
    stack.provider.script("m", Text("x"))
    await chat.responses.create(model="openai/m", input=given)
    understood = heard(stack.provider.calls[-1])
    assert understood["system"] == "Be kind."
    assert understood["turns"] == [
        ("user", "What is this?"), ("assistant", "A dot. I say no more."), ("tool", "2"), ("tool", "1"),
    ]  # fmt: skip
    assert understood["images"] == [PIXEL]
    assert [call[:2] for call in understood["calls"]] == [("a", "f"), ("b", "f")]


async def test_a_conversation_has_a_bound(bare: Stack) -> None:
    bare.configure(max_body_bytes=2_000)
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("x"))
    async with openai_client(bare) as client:
        first = await client.responses.create(model="m", input="y" * 1_000)
        with pytest.raises(openai.APIStatusError) as refusal:
            await client.responses.create(model="m", input="z" * 1_000, previous_response_id=first.id)
    assert (refusal.value.status_code, refusal.value.code) == (413, "conversation_too_large")


async def test_what_is_not_stored_cannot_be_gone_on_from(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"))
    (first, *_) = await streamed(chat, background=False, store=False)
    with pytest.raises(openai.BadRequestError) as refusal:
        await chat.responses.create(model="openai/m", input="Hi", previous_response_id=first.response.id)
    assert refusal.value.code == "previous_response_not_found"


async def test_an_item_that_is_named_a_thousand_times_is_refused_before_it_is_put_together(bare: Stack) -> None:
    """Its name is short: what a body has room for would take gigabytes."""
    bare.configure(max_body_bytes=100_000)
    await bare.worker()
    port = free_port()
    process = await bare.api_process(port)
    bare.provider.script("m", Text("y" * 90_000))
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0) as client:
        first = await client.responses.create(model="m", input="Hi")
        before = process.peak_bytes()
        named: Any = {"type": "item_reference", "id": first.output[0].id}
        with pytest.raises(openai.APIStatusError) as refusal:
            await client.responses.create(model="m", input=[named] * 1_200)
    assert (refusal.value.status_code, refusal.value.code) == (413, "conversation_too_large")
    assert process.peak_bytes() - before < 20_000_000
