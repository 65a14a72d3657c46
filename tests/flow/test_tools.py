"""Tools, images and thinking: what is refused at the door. What all providers do with the rest is in `conformance`."""

from typing import Any

import pytest

from tests.client import Client
from tests.stack import Stack

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
