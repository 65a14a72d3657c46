"""POST, queue, worker, provider, log, SSE: the whole way of an answer."""

import pytest

from tests.client import Client, text
from tests.provider import Delay, Finish, Text, Tokens, Usage
from tests.stack import Stack

ODD = [
    "CR\r", "\nLF\n", "\r\nCRLF", "NUL\0", "\u2028\u2029", "emoji 🌍👩‍👩‍👧", "tab\t\x0b\x1b", '"quotes" \\ back',
    "\n\nevent: completed\ndata: {}\nid: 9-9\n\n", "\r\rdata: forged\r\r", ": comment\n\n", "retry: 1\n\n",
    "ﷺ\ufeff", "\x7f\x80\x9f", "{\"text\":\"not json\"}", "   ",
]  # fmt: skip


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_the_text_is_byte_exact(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", *map(Text, ODD), Usage(input=9, output=len(ODD)))
    job_id = await client.submit(provider=name)
    events = await client.all_events(job_id)
    assert text(events) == "".join(ODD)
    assert (await client.job(job_id))["text"] == "".join(ODD)
    (call,) = stack.provider.calls
    assert call.sent_text == "".join(ODD)


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_the_events_of_an_answer(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Delay(0.05), Text("lo"), Usage(input=9, output=2, cached=4))
    events = await client.all_events(await client.submit(provider=name))
    assert [(event.id, event.event) for event in events] == [
        ("0-1", "queued"),
        ("1-0", "started"),
        ("1-1", "token"),
        ("1-2", "token"),
        ("1-3", "completed"),
    ]
    assert events[0].data == {"position": 1}
    assert events[1].data == {"attempt": 1, "provider": name, "model": "m"}
    last = events[-1].data
    assert last["finish_reason"] == "stop"
    assert last["usage"] == {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 2, "estimated": False}
    assert 0 <= last["ttft_ms"] <= last["duration_ms"] < 5000
    assert set(last) == {
        "finish_reason", "provider", "model", "usage", "cost_usd", "ttft_ms", "duration_ms", "parsed",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reason", "said"), [("stop", "stop"), ("length", "length"), ("content_filter", "content_filter")]
)
@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_the_finish_reason_is_the_providers(
    stack: Stack, client: Client, name: str, reason: str, said: str
) -> None:
    stack.provider.script("m", Text("x"), Finish(reason))
    events = await client.all_events(await client.submit(provider=name))
    assert events[-1].data["finish_reason"] == said


async def test_a_known_model_has_its_price(stack: Stack, client: Client) -> None:
    stack.provider.script("gpt-4o-mini", Text("x"), Usage(input=1_000, output=500, cached=200))
    events = await client.all_events(await client.submit("gpt-4o-mini"))
    assert events[-1].data["cost_usd"] == pytest.approx((800 * 0.15 + 200 * 0.075 + 500 * 0.6) / 1e6)


async def test_a_late_reader_gets_a_long_answer_in_a_handful_of_events(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens([f"token{i} " for i in range(2000)], delay_s=0.0002))
    job_id = await client.submit()
    live = await client.all_events(job_id)
    late = await client.all_events(job_id, api=1)
    assert text(late) == text(live) == "".join(f"token{i} " for i in range(2000))
    assert len(late) <= 5
    assert late[-1] == live[-1]
