"""The product against a provider that nobody here has written: jobs over HTTP, answered by aimock."""

import json

import pytest

from tests.aimock.server import Aimock, answer
from tests.client import Client, text
from tests.stack import Stack
from worker import retries

REQUESTS_PER_ATTEMPT = retries.TRIES
"""How often a provider is asked that fails before its first token, with a failure that may pass."""

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])


@BOTH
@pytest.mark.parametrize("model", ["plain", "paced", "surrogates", "slow-first-token", "json", "length"])
async def test_the_text_is_the_fixture_s(stack: Stack, client: Client, aimock: Aimock, name: str, model: str) -> None:
    job_id = await client.submit(model, name)
    events = await client.all_events(job_id)
    job = await client.job(job_id)
    assert text(events) == job["text"] == answer(model)
    assert [event.event for event in events if event.event != "token"] == ["queued", "started", "completed"]
    assert events[-1].data["finish_reason"] == ("length" if model == "length" else "stop")
    assert len(await aimock.requests()) == 1


@BOTH
async def test_usage_is_the_provider_s_own(stack: Stack, client: Client, name: str) -> None:
    events = await client.all_events(await client.submit("plain", name))
    assert events[-1].data["usage"] == {
        "input_tokens": 11, "cached_input_tokens": 0, "output_tokens": 7, "estimated": False,
    }  # fmt: skip


@BOTH
async def test_the_provider_is_asked_what_the_client_asked(
    stack: Stack, client: Client, aimock: Aimock, name: str
) -> None:
    turns = [{"role": "user", "content": "One"}, {"role": "assistant", "content": "Two"},
             {"role": "user", "content": "Three"}]  # fmt: skip
    await client.all_events(await client.submit("plain", name, messages=turns, system="Be brief.", max_tokens=77))
    (request,) = await aimock.requests()
    assert request.path == ("/v1/chat/completions" if name == "openai" else "/v1/messages")
    assert request.body["messages"] == [{"role": "system", "content": "Be brief."}, *turns]
    assert request.body["max_completion_tokens" if name == "openai" else "max_tokens"] == 77
    assert request.body["stream"] is True


@BOTH
async def test_a_paced_answer_is_told_while_it_comes(stack: Stack, client: Client, name: str) -> None:
    events = await client.all_events(await client.submit("paced", name))
    assert len([event for event in events if event.event == "token"]) > 1


@BOTH
async def test_a_slow_first_token_is_measured(stack: Stack, client: Client, name: str) -> None:
    events = await client.all_events(await client.submit("slow-first-token", name))
    assert 240 <= events[-1].data["ttft_ms"] <= events[-1].data["duration_ms"]


@BOTH
@pytest.mark.parametrize(
    ("model", "code", "retryable", "requests"),
    [
        ("error-401", "provider_authentication", False, 1),
        ("unknown", "provider_model_not_found", False, 1),
        ("error-429", "provider_rate_limited", True, REQUESTS_PER_ATTEMPT),
        ("error-500", "provider_error", True, REQUESTS_PER_ATTEMPT),
        ("error-529", "provider_overloaded", True, REQUESTS_PER_ATTEMPT),
        ("cut-at-once", "provider_unreachable", True, REQUESTS_PER_ATTEMPT),
        ("cut-in-silence", "provider_unreachable", True, REQUESTS_PER_ATTEMPT),
        ("no-stream", "provider_protocol", True, 1),
    ],
)
async def test_a_failure_before_the_first_token(
    stack: Stack, client: Client, aimock: Aimock, name: str, model: str, code: str, retryable: bool, requests: int
) -> None:
    job_id = await client.submit(model, name)
    events = await client.all_events(job_id)
    assert [event.event for event in events if event.event in ("token", "completed", "failed")] == ["failed"]
    failed = events[-1].data
    assert (failed["code"], failed["retryable"]) == (code, retryable)
    assert "canary" not in str(failed), "nothing of the provider's own words"
    assert (await client.job(job_id))["error"] == {key: failed[key] for key in ("code", "message", "retryable")}
    assert len(await aimock.requests()) == requests


@BOTH
async def test_a_stream_cut_in_mid_answer_fails_and_is_not_asked_for_again(
    stack: Stack, client: Client, aimock: Aimock, name: str
) -> None:
    job_id = await client.submit("cut-in-mid-answer", name)
    events = await client.all_events(job_id)
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "provider_unreachable")
    said = text(events)
    assert said
    assert answer("cut-in-mid-answer").startswith(said)
    assert (await client.job(job_id))["text"] == said
    assert events[-1].data["usage"]["estimated"] is True
    (request,) = await aimock.requests()
    assert request.fault == "truncateAfterChunks"


TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]


@BOTH
@pytest.mark.parametrize("model", ["tool", "two-tools", "text-and-tool"])
async def test_its_tool_calls_arrive_whole(stack: Stack, client: Client, name: str, model: str) -> None:
    job_id = await client.submit(model, name, tools=TOOLS)
    events = await client.all_events(job_id)
    job = await client.job(job_id)
    assert (events[-1].event, job["finish_reason"]) == ("completed", "tool_calls")
    assert len(job["tool_calls"]) == (2 if model == "two-tools" else 1)
    for call in job["tool_calls"]:
        assert call["id"]
        assert call["name"]
        json.loads(call["arguments"])


@pytest.mark.parametrize("model", ["thinking", "redacted-thinking"])
async def test_its_thinking_is_shown_and_its_signature_kept(stack: Stack, client: Client, model: str) -> None:
    job_id = await client.submit(model, "anthropic", reasoning={"effort": "low"})
    await client.all_events(job_id)
    job = await client.job(job_id)
    assert job["status"] == "completed"
    assert job["reasoning_blocks"]
    for block in job["reasoning_blocks"]:
        assert block["signature"] if block["type"] == "thinking" else block["data"]


async def test_it_takes_its_own_thought_back_with_the_call_s_result(stack: Stack, client: Client) -> None:
    """It answers 400 to a thinking model's call that comes back without its signed thought."""
    asked = {"role": "user", "content": "Hi"}
    fields = {"tools": TOOLS, "reasoning": {"effort": "low"}}
    first = await client.submit("thinking-tool", "anthropic", messages=[asked], **fields)
    await client.all_events(first)
    job = await client.job(first)
    (call,) = job["tool_calls"]
    said = {"role": "assistant", "content": job["text"] or None}
    said |= {name: job[name] for name in ("tool_calls", "reasoning_blocks")}
    turns = [asked, said, {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]
    events = await client.all_events(await client.submit("thinking-tool", "anthropic", messages=turns, **fields))
    assert events[-1].event == "completed"
    assert text(events)


@BOTH
async def test_the_result_of_its_call_is_taken_back(stack: Stack, client: Client, name: str) -> None:
    """It answers by whether there is a result: the second turn has to bring the first one's call along."""
    asked = {"role": "user", "content": "Weather in Paris?"}
    first = await client.submit("two-tools", name, messages=[asked], tools=TOOLS)
    await client.all_events(first)
    job = await client.job(first)
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "20"} for call in job["tool_calls"]]
    turns = [asked, {"role": "assistant", "content": job["text"] or None, "tool_calls": job["tool_calls"]}, *results]
    events = await client.all_events(await client.submit("two-tools", name, messages=turns, tools=TOOLS))
    assert (events[-1].data["finish_reason"], text(events)) == ("stop", "20 degrees at noon.")


@BOTH
async def test_what_passes_by_itself_is_asked_for_again(
    stack: Stack, client: Client, aimock: Aimock, name: str
) -> None:
    job_id = await client.submit("recovers", name)
    events = await client.all_events(job_id)
    assert (events[-1].event, text(events)) == ("completed", "Now it works.")
    assert (await client.job(job_id))["attempts"] == len(await aimock.requests()) == 2


@BOTH
async def test_its_thinking_is_told_apart(stack: Stack, client: Client, name: str) -> None:
    job_id = await client.submit("thinking", name, reasoning={"effort": "low"})
    events = await client.all_events(job_id)
    job = await client.job(job_id)
    assert "".join(event.data["text"] for event in events if event.event == "reasoning") == job["reasoning"]
    assert (job["reasoning"], job["text"]) == ("Six times seven, then.", "42")


@BOTH
async def test_an_answer_in_json_is_read(stack: Stack, client: Client, name: str) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    job_id = await client.submit("json", name, response_format=wanted)
    await client.all_events(job_id)
    assert (await client.job(job_id))["parsed"] == {"city": "Paris", "temperatures": [20, 21.5], "sunny": True}
