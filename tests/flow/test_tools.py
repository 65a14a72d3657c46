"""Tools, images and thinking: through every provider's own words, and back in the next turn."""

from typing import Any

import pytest

from tests.client import Client
from tests.provider import Arguments, Finish, Reasoning, RedactedThinking, Text, ToolCall, Wait
from tests.stack import Stack

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@BOTH
async def test_a_tool_call_is_streamed_in_pieces_and_whole_in_the_job(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script(
        "m",
        Text("Let me look. "),
        ToolCall("call_1", "get_weather", ['{"ci', 'ty":"', 'Paris"}']),
        Finish("tool_calls"),
    )
    job_id = await client.submit(provider=name, tools=[WEATHER])
    events = await client.all_events(job_id)
    pieces = [event.data for event in events if event.event == "tool_call"]
    assert pieces[0]["index"] == 0
    assert (pieces[0]["id"], pieces[0]["name"]) == ("call_1", "get_weather")
    assert all("id" not in piece for piece in pieces[1:])
    assert "".join(piece["arguments"] for piece in pieces) == '{"city":"Paris"}'
    assert (events[-1].event, events[-1].data["finish_reason"]) == ("completed", "tool_calls")
    job = await client.job(job_id)
    assert job["text"] == "Let me look. "
    assert job["tool_calls"] == [
        {"index": 0, "id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'},
    ]


@BOTH
async def test_two_calls_of_one_answer_are_kept_apart(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script(
        "m", ToolCall("a", "get_weather", '{"city":"Rome"}'), ToolCall("b", "get_weather", ['{"city"', ':"Oslo"}']),
        Finish("tool_calls"),
    )  # fmt: skip
    job_id = await client.submit(provider=name, tools=[WEATHER])
    await client.all_events(job_id)
    assert [(call["index"], call["id"], call["arguments"]) for call in (await client.job(job_id))["tool_calls"]] == [
        (0, "a", '{"city":"Rome"}'), (1, "b", '{"city":"Oslo"}'),
    ]  # fmt: skip


@BOTH
async def test_the_arguments_so_far_can_be_read_while_they_come(stack: Stack, client: Client, name: str) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", ToolCall("a", "get_weather", '{"city":'), Wait(gate), Arguments('"Rome"}'))
    job_id = await client.submit(provider=name, tools=[WEATHER])
    await client.until(job_id, "tool_call")
    assert (await client.job(job_id))["tool_calls"][0]["arguments"] in ("", '{"city":')
    gate.open()
    await client.all_events(job_id)
    assert (await client.job(job_id))["tool_calls"][0]["arguments"] == '{"city":"Rome"}'


@BOTH
@pytest.mark.parametrize("thinking", [False, True], ids=["plain", "thinking"])
async def test_a_job_s_answer_is_taken_back_in_the_next_turn(
    stack: Stack, client: Client, name: str, thinking: bool
) -> None:
    """The scripted provider refuses a result without its call, and a thought whose signature is not its own."""
    thoughts = [Reasoning("Which city? "), Reasoning("Paris.")] if thinking else []
    sealed = [RedactedThinking("hidden")] if thinking and name == "anthropic" else []
    stack.provider.script(
        "m", *thoughts, *sealed, ToolCall("call_1", "get_weather", '{"city":"Paris"}'), Finish("tool_calls")
    )
    fields: dict[str, Any] = {"provider": name, "tools": [WEATHER]}
    if thinking:
        fields["reasoning"] = {"effort": "low"}
    asked = {"role": "user", "content": "Weather in Paris?"}
    first = await client.submit(messages=[asked], **fields)
    await client.all_events(first)
    job = await client.job(first)
    if thinking:
        assert job["reasoning"] == "Which city? Paris."
    stack.provider.script("m", Text("Sunny."))
    turns = [
        asked,
        {
            "role": "assistant",
            "content": job["text"],
            "tool_calls": job["tool_calls"],
            "reasoning_blocks": job["reasoning_blocks"],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    second = await client.submit(messages=turns, **fields)
    events = await client.all_events(second)
    assert events[-1].event == "completed", stack.provider.calls[-1].rejected
    assert (await client.job(second))["text"] == "Sunny."
    if thinking and name == "anthropic":
        types = [block["type"] for block in stack.provider.calls[-1].body["messages"][1]["content"]]
        assert types == ["thinking", "redacted_thinking", "tool_use"]


@BOTH
@pytest.mark.parametrize("nested", [True, False], ids=["OpenAI's nesting", "flat"])
async def test_tools_and_choice_reach_the_provider_in_its_own_words(
    stack: Stack, client: Client, name: str, nested: bool
) -> None:
    tool = WEATHER if nested else {"type": "function", **WEATHER["function"]}
    choice = {"type": "function", "function": {"name": "get_weather"}}
    await client.all_events(await client.submit(provider=name, tools=[tool], tool_choice=choice))
    await client.all_events(await client.submit(provider=name, tools=[tool], tool_choice="required"))
    await client.all_events(await client.submit(provider=name, tools=[tool], tool_choice="none"))
    bodies = [call.body for call in stack.provider.calls]
    assert [call.rejected for call in stack.provider.calls] == [None] * 3
    function = WEATHER["function"]
    if name == "openai":
        assert bodies[0]["tools"] == [{"type": "function", "function": function}]
        assert [body["tool_choice"] for body in bodies] == [choice, "required", "none"]
    else:
        assert bodies[0]["tools"] == [
            {"name": "get_weather", "description": function["description"], "input_schema": function["parameters"]}
        ]
        assert [body["tool_choice"] for body in bodies] == [
            {"type": "tool", "name": "get_weather"}, {"type": "any"}, {"type": "none"},
        ]  # fmt: skip


@BOTH
@pytest.mark.parametrize("url", [PIXEL, "https://example.com/cat.png"], ids=["data", "address"])
async def test_images_reach_the_provider(stack: Stack, client: Client, name: str, url: str) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    events = await client.all_events(
        await client.submit(provider=name, messages=[{"role": "user", "content": content}])
    )
    (call,) = stack.provider.calls
    assert call.rejected is None
    assert events[-1].event == "completed"
    text, image = call.body["messages"][0]["content"]
    assert text == {"type": "text", "text": "What is it?"}
    if name == "openai":
        assert image == {"type": "image_url", "image_url": {"url": url}}
    elif url is PIXEL:
        data = PIXEL.partition(",")[2]
        assert image["source"] == {"type": "base64", "media_type": "image/png", "data": data}
    else:
        assert image["source"] == {"type": "url", "url": url}


async def test_effort_is_told_in_each_provider_s_words(stack: Stack, client: Client) -> None:
    for name in ("openai", "anthropic"):
        await client.all_events(await client.submit(provider=name, reasoning={"effort": "high"}, max_tokens=20_000))
        await client.all_events(await client.submit(provider=name, reasoning={"effort": "low"}, max_tokens=1_500))
    high, low, enabled, bounded = (call.body for call in stack.provider.calls)
    assert [call.rejected for call in stack.provider.calls] == [None] * 4
    assert (high["reasoning_effort"], low["reasoning_effort"]) == ("high", "low")
    assert enabled["thinking"] == {"type": "enabled", "budget_tokens": 16_384}
    assert bounded["thinking"]["budget_tokens"] < bounded["max_tokens"] == 1_500


ASSISTANT = {"role": "assistant", "content": None, "tool_calls": [{"id": "a", "name": "f", "arguments": "{}"}]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"tools": [{"type": "function", "function": {"name": "bad name"}}]}, "tools"),
        ({"tools": [WEATHER, WEATHER]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{**WEATHER, "extra": 1}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"messages": [{"role": "tool", "tool_call_id": "a", "content": "x"}]}, "messages"),
        ({"messages": [ASSISTANT, {"role": "tool", "content": "x"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x", "tool_calls": ASSISTANT["tool_calls"]}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}]},
         "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:text/html,x"}}]}]},
         "messages"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning"),
        ({"provider": "anthropic", "reasoning": {"effort": "low"}, "temperature": 0.5}, "temperature"),
        ({"provider": "anthropic", "reasoning": {"effort": "low"}, "max_tokens": 1024}, "max_tokens"),
        ({"provider": "anthropic", "reasoning": {"effort": "low"}, "tools": [WEATHER], "tool_choice": "required"},
         "tool_choice"),
        ({"provider": "demo", "tools": [WEATHER]}, "tools"),
        ({"provider": "demo", "reasoning": {"effort": "low"}}, "reasoning"),
        ({"provider": "demo", "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]}, "messages"),
    ],
)  # fmt: skip
async def test_what_cannot_be_honoured_is_422_and_named(
    stack: Stack, client: Client, change: dict[str, Any], field: str
) -> None:
    request = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "Hi"}], **change}
    response = await client.http.post("/v1/jobs", json=request)
    assert response.status_code == 422, response.text
    assert field in response.json()["detail"]
    assert await stack.redis.zcard(stack.keys.queue) == 0
    assert stack.provider.calls == []
