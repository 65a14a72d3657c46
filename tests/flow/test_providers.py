"""The providers that are set up: keys, names, what each is always asked. What all have to do is in `conformance`."""

import pytest

from tests.client import Client, text
from tests.provider import (
    Delay,
    NoUsage,
    RawBytes,
    Text,
)
from tests.stack import Stack

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])


@BOTH
async def test_its_key_and_nobody_else_s_goes_to_a_provider(stack: Stack, client: Client, name: str) -> None:
    await client.all_events(await client.submit(provider=name))
    (call,) = stack.provider.calls
    sent = call.headers.get("authorization", "") + call.headers.get("x-api-key", "")
    assert f"sk-canary-{name}" in sent
    assert sent.count("canary") == 1
    assert call.body["stream"] is True


async def test_openai_is_asked_for_figures_and_by_its_own_name_for_the_limit(stack: Stack, client: Client) -> None:
    await client.all_events(await client.submit(max_tokens=77))
    body = stack.provider.calls[0].body
    assert body["stream_options"] == {"include_usage": True}
    assert (body["max_completion_tokens"], "max_tokens" in body) == (77, False)


async def test_a_compatible_server_gets_the_older_name_of_the_limit(bare: Stack) -> None:
    url = bare.provider.openai_url
    bare.configure(more_providers={"mine": {"kind": "openai", "base_url": url, "models": ["m1"]}})
    await bare.worker()
    await bare.api()
    client = bare.client()
    events = await client.all_events(await client.submit("m1", "mine", max_tokens=5))
    assert events[-1].event == "completed"
    assert bare.provider.calls[0].body["max_tokens"] == 5
    listed = (await client.http.get("/v1/models")).json()["data"]
    assert "mine/m1" in [model["id"] for model in listed]
    assert listed[0]["id"].startswith("demo/")


async def test_the_demo_needs_no_key_and_streams_at_its_pace(stack: Stack, client: Client) -> None:
    events = await client.all_events(await client.submit("tour", "demo", max_tokens=10))
    assert text(events).startswith("Hello!")
    assert len([event for event in events if event.event == "token"]) == 10
    assert events[-1].data["finish_reason"] == "length"
    assert events[-1].data["duration_ms"] >= 300
    assert events[-1].data["cost_usd"] == 0


async def test_empty_deltas_and_empty_choices_are_nothing(stack: Stack, client: Client) -> None:
    odd = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\r\n\r\n: hm\n\n'
    stack.provider.script("m", RawBytes(odd), Text(""), Text("ok"), NoUsage())
    events = await client.all_events(await client.submit())
    assert [event.event for event in events] == ["queued", "started", "token", "completed"]
    assert events[-1].data["usage"] == {
        "input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1, "estimated": True,
    }  # fmt: skip


async def test_a_job_has_its_own_deadline(stack: Stack, client: Client) -> None:
    stack.provider.script("m", *[step for _ in range(200) for step in (Text("x"), Delay(0.05))])
    events = await client.all_events(await client.submit(timeout_s=0.4))
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "job_timeout")
    assert await stack.provider.calls[0].closed()


async def test_a_provider_without_a_key_fails_in_plain_words(bare: Stack) -> None:
    bare.configure(openai_api_key=None, openai_base_url=None)
    await bare.worker()
    await bare.api()
    client = bare.client()
    events = await client.all_events(await client.submit())
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "provider_not_configured")
