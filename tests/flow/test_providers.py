"""What the providers are asked, and what becomes of their failures."""

from typing import Any

import pytest

from tests.client import Client, text
from tests.provider import (
    Cut,
    Delay,
    Dribble,
    Eof,
    Finish,
    HttpError,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    Silence,
    Step,
    StreamError,
    Text,
    Wait,
)
from tests.stack import Stack
from worker import retries

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])


@BOTH
async def test_the_request_reaches_the_provider(stack: Stack, client: Client, name: str) -> None:
    fields: dict[str, Any] = {
        "system": "Be brief.",
        "max_tokens": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["END"],
        "messages": [
            {"role": "user", "content": "One"},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": [{"type": "text", "text": "Thr"}, {"type": "text", "text": "ee"}]},
        ],
    }
    if name == "openai":
        fields["seed"] = 7
    await client.all_events(await client.submit(provider=name, **fields))
    (call,) = stack.provider.calls
    assert call.rejected is None
    body = call.body
    turns = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"},
             {"role": "user", "content": "Three"}]  # fmt: skip
    if name == "openai":
        assert body["messages"] == [{"role": "system", "content": "Be brief."}, *turns]
        assert (body["max_completion_tokens"], body["seed"], body["stop"]) == (77, 7, ["END"])
        assert body["stream_options"] == {"include_usage": True}
        assert call.headers["authorization"] == "Bearer sk-canary-openai"
    else:
        assert (body["system"], body["messages"]) == ("Be brief.", turns)
        assert (body["max_tokens"], body["stop_sequences"]) == (77, ["END"])
        assert "sk-canary-anthropic" in (call.headers.get("authorization", "") + call.headers.get("x-api-key", ""))
    assert (body["temperature"], body["top_p"], body["stream"]) == (0.5, 0.9, True)


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


@BOTH
async def test_thinking_is_its_own_event(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", Reasoning("Hm. "), Reasoning("Yes."), Text("42"))
    job_id = await client.submit(provider=name)
    events = await client.all_events(job_id)
    assert "".join(event.data["text"] for event in events if event.event == "reasoning") == "Hm. Yes."
    job = await client.job(job_id)
    assert (job["text"], job["reasoning"]) == ("42", "Hm. Yes.")


@BOTH
async def test_frames_cut_at_every_byte_are_put_together(stack: Stack, client: Client, name: str) -> None:
    said = "Grüße, 🌍! \u2028 „fin“"
    stack.provider.script("m", Dribble([Text(said, utf8=True)], size=7), Ping(), Text(said, utf8=True))
    events = await client.all_events(await client.submit(provider=name))
    assert text(events) == said * 2


@BOTH
async def test_a_pair_of_surrogates_split_over_two_deltas_is_one_character(
    stack: Stack, client: Client, name: str
) -> None:
    stack.provider.script("m", Text("a\ud83c"), Delay(0.03), Text("\udf0db"))
    job_id = await client.submit(provider=name)
    assert text(await client.all_events(job_id)) == "a🌍b"
    assert (await client.job(job_id))["text"] == "a🌍b"


@BOTH
async def test_half_a_pair_of_surrogates_crashes_nothing(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", Text("a\ud83d"), Delay(0.02), Text("b"), Text("\ude00c"))
    job_id = await client.submit(provider=name)
    live = await client.all_events(job_id)
    assert live[-1].event == "completed"
    assert text(live) == text(await client.all_events(job_id)) == "a\ud83db\ude00c"
    assert (await client.job(job_id))["text"] == "a\ud83db\ude00c"


@BOTH
async def test_a_megabyte_in_one_delta_arrives(stack: Stack, client: Client, name: str) -> None:
    stack.provider.script("m", Text("x" * 1_000_000), Text("end"))
    assert text(await client.all_events(await client.submit(provider=name))) == "x" * 1_000_000 + "end"


async def test_empty_deltas_and_empty_choices_are_nothing(stack: Stack, client: Client) -> None:
    odd = b'data: {"id":"x","object":"chat.completion.chunk","created":1,"model":"m","choices":[]}\r\n\r\n: hm\n\n'
    stack.provider.script("m", RawBytes(odd), Text(""), Text("ok"), NoUsage())
    events = await client.all_events(await client.submit())
    assert [event.event for event in events] == ["queued", "started", "token", "completed"]
    assert events[-1].data["usage"] == {
        "input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1, "estimated": True,
    }  # fmt: skip


FAILURES: list[tuple[Step, str, bool]] = [
    (HttpError(401), "provider_authentication", False),
    (HttpError(403), "provider_permission", False),
    (HttpError(404), "provider_model_not_found", False),
    (HttpError(400), "provider_bad_request", False),
    (HttpError(429), "provider_rate_limited", True),
    (HttpError(500), "provider_error", True),
    (HttpError(503, body=b"<html>sk-canary host.internal</html>"), "provider_overloaded", True),
    (HttpError(529), "provider_overloaded", True),
    (Cut(), "provider_unreachable", True),
    (Eof(), "provider_truncated", True),
    (StreamError(), "", True),
]


@BOTH
@pytest.mark.parametrize(("step", "code", "retryable"), FAILURES, ids=lambda value: repr(value)[:32])
async def test_a_failure_before_the_first_token(
    stack: Stack, client: Client, name: str, step: Step, code: str, retryable: bool
) -> None:
    stack.provider.script("m", step)
    job_id = await client.submit(provider=name)
    events = await client.all_events(job_id)
    names = [event.event for event in events]
    failed = events[-1].data
    assert failed["retryable"] is retryable
    assert failed["code"] == (code or ("provider_overloaded" if name == "anthropic" else "provider_error"))
    # What may pass by itself is asked for again, each time as an attempt of its own; silence and refusals are not.
    attempts = retries.TRIES if failed["code"] in retries.AGAIN else 1
    assert names == ["queued", "started", *["restarted"] * (attempts - 1), "failed"]
    assert len(stack.provider.calls) == attempts, "one failing attempt is one request"
    job = await client.job(job_id)
    assert job["error"] == {key: failed[key] for key in ("code", "message", "retryable")}
    assert "canary" not in str(failed)
    free = step != Eof()
    assert (failed["usage"]["input_tokens"] == 0) is free, "a call that was refused costs nothing"


@BOTH
@pytest.mark.parametrize(
    ("step", "code"),
    [(StreamError(), ""), (Eof(), "provider_truncated"), (Cut(), "provider_unreachable"),
     (RawBytes(b"event: content_block_delta\ndata: {nonsense\n\n"), "provider_protocol")],
    ids=lambda value: repr(value)[:32],
)  # fmt: skip
async def test_a_failure_in_mid_answer_is_never_completed(
    stack: Stack, client: Client, name: str, step: Step, code: str
) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), Wait(gate), step)
    job_id = await client.submit(provider=name)
    await client.until(job_id, "token")
    gate.open()
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "token", "failed"]
    assert events[-1].data["code"] == (code or ("provider_overloaded" if name == "anthropic" else "provider_error"))
    assert (await client.job(job_id))["text"] == "half"


async def test_a_stale_kept_alive_connection_costs_nothing(stack: Stack, client: Client) -> None:
    await client.all_events(await client.submit())
    stack.provider.drop_idle()
    events = await client.all_events(await client.submit())
    assert events[-1].event == "completed"
    assert len(stack.provider.calls) == 2


@pytest.mark.parametrize(
    ("script", "code"),
    [([Silence()], "first_token_timeout"), ([Text("x"), Silence()], "idle_timeout")],
)
@BOTH
async def test_a_silent_provider_is_given_up(bare: Stack, name: str, script: list[Step], code: str) -> None:
    bare.configure(first_token_timeout_s=0.3, idle_timeout_s=0.3)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", *script)
    events = await client.all_events(await client.submit(provider=name))
    assert (events[-1].event, events[-1].data["code"]) == ("failed", code)
    assert await bare.provider.calls[0].closed()


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


async def test_finish_may_come_long_before_the_end_marker(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("done"), Finish("stop"), Delay(0.05))
    events = await client.all_events(await client.submit())
    assert text(events) == "done"
    assert events[-1].event == "completed"
