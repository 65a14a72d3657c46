"""A run in the background: asked for in full, paid once however often it is listened to, ended in time."""

import asyncio
import time
from typing import Any

import pytest

from shared.events import EventId, dump
from shared.log import Append, Log
from shared.queue import Queue
from shared.redis import Scripts
from tests.client import Client, Event, text
from tests.provider import (
    Arguments,
    Cut,
    CutReader,
    Delay,
    Failure,
    Finish,
    Headers,
    HttpError,
    Reasoning,
    RedactedThinking,
    Refusal,
    Run,
    Silence,
    Step,
    StreamError,
    Text,
    ToolCall,
    Usage,
    Wait,
)
from tests.stack import Stack, eventually
from worker import retries

NAME = "openai-responses"

WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "Look out of the window.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = {"id": "c1", "name": "get_weather", "arguments": "{}"}
CAT = "data:image/png;base64,iVBORw0KGgo="


def names(events: list[Event]) -> list[str]:
    return [event.event for event in events if event.event not in ("token", "reasoning", "tool_call")]


def only_run(stack: Stack) -> Run:
    (run,) = stack.provider.runs
    return run


async def unlisted(stack: Stack) -> None:
    """Return when no run is left to cancel."""

    async def nothing() -> bool:
        return not await stack.redis.exists(stack.keys.orphans)

    await eventually(nothing)


# What is asked for.


async def test_the_whole_request_reaches_the_provider(stack: Stack, client: Client) -> None:
    fields: dict[str, Any] = {
        "system": "Be brief.",
        "max_tokens": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [WEATHER],
        "tool_choice": {"name": "get_weather"},
        "reasoning": {"effort": "low"},
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": CAT}]},
            {"role": "assistant", "content": "Hm.", "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
        ],
    }  # fmt: skip
    await client.all_events(await client.submit(provider=NAME, **fields))
    (call,) = stack.provider.calls
    assert call.rejected is None
    assert call.headers["authorization"] == "Bearer sk-canary-openai"
    assert call.body == {
        "model": "m",
        "background": True,
        "stream": True,
        "store": True,
        "stream_options": {"include_obfuscation": False},
        "input": [
            {"role": "system", "content": "Be brief."},
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [
                {"type": "input_text", "text": "Look"},
                {"type": "input_image", "image_url": CAT, "detail": "auto"},
            ]},
            {"role": "assistant", "content": "Hm."},
            {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "max_output_tokens": 77,
        "temperature": 0.5,
        "top_p": 0.9,
        "tools": [{"type": "function", **WEATHER, "strict": False}],
        "tool_choice": {"type": "function", "name": "get_weather"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [("stop", ["END"]), ("seed", 7), ("max_tokens", 15)])
async def test_what_it_cannot_honour_is_refused_by_name(stack: Stack, client: Client, field: str, value: Any) -> None:
    body = {"provider": NAME, "model": "m", "messages": [{"role": "user", "content": "Hi"}], field: value}
    response = await client.http.post("/v1/jobs", json=body)
    assert (response.status_code, response.json()["code"]) == (422, "unsupported_parameter")
    assert response.json()["errors"][0]["field"] == field
    assert stack.provider.calls == []


@pytest.mark.parametrize(
    ("format", "sent"),
    [
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
            {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
        ),
    ],
)
async def test_json_is_asked_for_natively_and_parsed(
    stack: Stack, client: Client, format: dict[str, Any], sent: dict[str, Any]
) -> None:
    stack.provider.script("m", Text('{"a":'), CutReader(), Text(" 1}"))
    job_id = await client.submit(provider=NAME, response_format=format, system="Answer in JSON.")
    events = await client.all_events(job_id)
    assert events[-1].data["parsed"] == {"a": 1}, "the text of both attempts"
    (call,) = stack.provider.calls
    assert call.rejected is None
    assert call.body["text"] == {"format": sent}


# What comes back.


async def test_tools_thinking_text_and_usage(stack: Stack, client: Client) -> None:
    stack.provider.script(
        "m", Reasoning("Hm. "), Reasoning("Yes."), Text("Let me "), Text("see."),
        ToolCall("c1", "get_weather", ("{", "}")), ToolCall("c2", "get_weather", "[]"),
        Usage(input=100, cached=40, output=30, reasoning=10),
    )  # fmt: skip
    job_id = await client.submit(provider=NAME, tools=[WEATHER])
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "completed"]
    job = await client.job(job_id)
    assert (job["reasoning"], job["text"], job["finish_reason"]) == ("Hm. Yes.", "Let me see.", "tool_calls")
    assert job["tool_calls"] == [
        {"index": 0, "id": "c1", "name": "get_weather", "arguments": "{}"},
        {"index": 1, "id": "c2", "name": "get_weather", "arguments": "[]"},
    ]
    usage = job["usage"]
    assert (usage["input_tokens"], usage["cached_input_tokens"], usage["output_tokens"]) == (100, 40, 30)
    assert usage["estimated"] is False


@pytest.mark.parametrize("effort", [None, "medium"])
async def test_a_follow_up_gives_thoughts_back_with_the_calls_that_they_led_to(
    stack: Stack, client: Client, effort: str | None
) -> None:
    thinking: dict[str, Any] = {} if effort is None else {"reasoning": {"effort": effort}}
    stack.provider.script("m", Reasoning("Look outside."), RedactedThinking(), ToolCall("c1", "get_weather", "{}"))
    stack.provider.then("m", Text("Sunny."))
    job_id = await client.submit(provider=NAME, tools=[WEATHER], **thinking)
    await client.all_events(job_id)
    job = await client.job(job_id)
    kept = {name: job[name] for name in ("tool_calls", "reasoning_blocks")}
    assert [("data" in block) for block in kept["reasoning_blocks"]] == [effort is not None] * 2
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": job["text"], **kept},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
    ]
    answer = await client.all_events(await client.submit(provider=NAME, tools=[WEATHER], messages=messages, **thinking))
    assert text(answer) == "Sunny."
    assert stack.provider.calls[1].rejected is None
    assert [item["type"] for item in stack.provider.calls[1].body["input"] if "type" in item] == [
        "reasoning", "reasoning", "function_call", "function_call_output",
    ]  # fmt: skip


async def test_another_providers_thoughts_are_left_out(stack: Stack, client: Client) -> None:
    """A conversation may go on with another provider: neither gets the other's signatures."""
    blocks = [
        {"type": "thinking", "text": "A", "signature": "s"},
        {"type": "reasoning", "id": "rs_elsewhere", "text": "B"},
    ]
    turn = {"role": "assistant", "content": "Yes.", "reasoning_blocks": blocks}
    messages = [{"role": "user", "content": "Hi"}, turn, {"role": "user", "content": "Go on"}]
    for name, mine in ((NAME, "reasoning"), ("anthropic", "thinking")):
        await client.all_events(await client.submit(provider=name, messages=messages))
        sent = str(stack.provider.calls[-1].body)
        assert [kind for kind in ("'reasoning'", "'thinking'") if f"'type': {kind}" in sent] == [f"'{mine}'"]


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([Text("x"), Finish("length")], "length"),
        ([Text("x"), Finish("content_filter")], "content_filter"),
        ([Refusal("I will not.")], "stop"),
        ([Text("x"), Finish("steered")], "steered"),
        ([], "stop"),
    ],
)
async def test_how_it_ends(stack: Stack, client: Client, steps: list[Step], reason: str) -> None:
    stack.provider.script("m", *steps)
    events = await client.all_events(await client.submit(provider=NAME))
    assert (events[-1].event, events[-1].data["finish_reason"]) == ("completed", reason)


@pytest.mark.parametrize("shown", [("error", "failed"), ("failed",), ("flat_error",)], ids="-".join)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("server_error", "provider_error"),
        ("rate_limit_exceeded", "provider_rate_limited"),
        ("invalid_prompt", "content_refused"),
        ("image_content_policy_violation", "content_refused"),
        ("invalid_image_url", "provider_bad_request"),
        ("something_new", "provider_error"),
    ],
)
async def test_a_run_that_fails_in_mid_answer_fails_the_job(
    stack: Stack, client: Client, shown: Any, code: str, expected: str
) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), Wait(gate), StreamError(code=code, events=shown))
    job_id = await client.submit(provider=NAME)
    await client.until(job_id, "token")
    gate.open()
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "failed"]
    assert events[-1].data["code"] == expected
    assert only_run(stack).streams == only_run(stack).reads[:1], "nobody listens again to what has failed"
    await unlisted(stack)


async def test_a_run_that_fails_before_its_first_token_is_begun_again(stack: Stack, client: Client) -> None:
    stack.provider.script("m", StreamError())
    stack.provider.then("m", Text("Here."))
    events = await client.all_events(await client.submit(provider=NAME))
    assert names(events) == ["queued", "started", "restarted", "completed"]
    assert events[2].data["reason"] == "provider_error"
    assert text(events) == "Here."


# Listened to again.


@pytest.mark.parametrize("how", ["fin", "eof"])
async def test_a_run_is_paid_once_however_often_its_listener_is_cut_off(stack: Stack, client: Client, how: Any) -> None:
    cut = CutReader(how=how)
    stack.provider.script(
        "m", Reasoning("Hm. "), cut, Reasoning("Yes."), cut, Text("Hel"), cut, Text("lo "), CutReader(how=how, times=2),
        Text("you"), ToolCall("c1", "get_weather", ()), cut, Arguments('{"a"'), cut, Arguments(":1}"), cut,
        ToolCall("c2", "get_weather", "{}"), cut, Usage(input=9, output=8),
    )  # fmt: skip
    job_id = await client.submit(provider=NAME, tools=[WEATHER])
    events = await client.all_events(job_id)
    run, job = only_run(stack), await client.job(job_id)
    # (Where a listener heard nothing but a clean end, the response itself is asked for what is missing.)
    attempts = 10 if how == "fin" else job["attempts"]
    assert names(events) == ["queued", *["started"] * attempts, "completed"], "nothing is dropped"
    assert (job["text"], job["reasoning"], job["attempts"]) == ("Hello you", "Hm. Yes.", attempts)
    assert text(events) == "Hello you"
    assert [(call["index"], call["id"], call["arguments"]) for call in job["tool_calls"]] == [
        (0, "c1", '{"a":1}'), (1, "c2", "{}"),
    ]  # fmt: skip
    assert (job["usage"]["input_tokens"], job["usage"]["output_tokens"], job["usage"]["estimated"]) == (9, 8, False)
    assert [read.method for read in run.reads[1:]] == ["GET"] * (len(run.reads) - 1)
    assert (run.cancels, len(stack.provider.calls)) == (0, 1)


async def test_what_a_reset_takes_with_it_is_heard_again(stack: Stack, client: Client) -> None:
    reset = CutReader(how="rst")
    words = [step for n in range(40) for step in (Text(f"word {n} "), Delay(0.002), reset)]
    stack.provider.script("m", *words)
    events = await client.all_events(await client.submit(provider=NAME))
    assert names(events)[-1] == "completed"
    assert "restarted" not in names(events)
    assert text(events) == only_run(stack).call.sent_text


async def test_a_pair_of_surrogates_split_over_two_connections_is_one_character(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("a\ud83c"), Delay(0.05), CutReader(), Text("\udf0db"))
    job_id = await client.submit(provider=NAME)
    events = await client.all_events(job_id)
    assert [event.data["text"] for event in events if event.event == "token"] == ["a", "🌍b"]
    assert only_run(stack).reads[1].starting_after == only_run(stack).reads[0].last_sent


async def test_a_run_without_a_name_cannot_be_listened_to_again(stack: Stack, client: Client) -> None:
    """Cut before `response.created`: the one case in which it is paid for twice."""
    stack.provider.script("m", CutReader(), Text("lost"))
    stack.provider.then("m", Text("Here."))
    events = await client.all_events(await client.submit(provider=NAME))
    assert names(events) == ["queued", "started", "restarted", "completed"]
    assert text(events) == "Here."


async def test_before_its_first_token_it_is_listened_to_again_as_well(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Delay(0.02), CutReader(), Wait(gate), Text("Here."))
    job_id = await client.submit(provider=NAME)
    call = await stack.provider.next_call()
    assert call.run is not None
    for _ in range(2):
        await call.run.next_read()
    gate.open()
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "started", "completed"]
    assert text(events) == "Here."
    assert len(stack.provider.runs) == 1


async def test_a_listener_is_patient_with_a_provider_that_fails(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("Hel"), CutReader(then=[HttpError(503), Cut()]), Text("lo"))
    events = await client.all_events(await client.submit(provider=NAME))
    assert names(events)[:3] == ["queued", "started", "started"]
    assert (names(events)[-1], text(events)) == ("completed", "Hello")
    assert [(read.method, read.end) for read in only_run(stack).reads] == [
        ("POST", "cut"), ("GET", "refused"), ("GET", "cut"), ("GET", "finished"),
    ]  # fmt: skip


async def test_a_run_that_nobody_can_listen_to_is_given_up_and_cancelled(stack: Stack, client: Client) -> None:
    refused = [HttpError(503), HttpError(503), HttpError(503)]
    stack.provider.script("m", Text("Hel"), CutReader(then=refused), Wait(stack.provider.gate()))
    job_id = await client.submit(provider=NAME)
    events = await client.all_events(job_id)
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "provider_overloaded")
    assert (await client.job(job_id))["text"] == "Hel"
    await only_run(stack).ended()
    assert only_run(stack).cancelled
    await unlisted(stack)


GONE = HttpError(404, "invalid_request_error", "Response with id 'resp_x' not found.")
NO_STREAM = HttpError(400, message="This response cannot be streamed because it was not created with stream=true.")


async def test_a_run_that_the_provider_has_forgotten_is_begun_again(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("half"), CutReader(then=[GONE, GONE]), Text(" lost"))
    stack.provider.then("m", Text("whole"))
    job_id = await client.submit(provider=NAME)
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "started", "restarted", "completed"]
    assert [event.data["reason"] for event in events if event.event == "restarted"] == ["provider_error"]
    assert text(events) == (await client.job(job_id))["text"] == "whole"
    assert len(stack.provider.runs) == 2


async def test_a_provider_that_forgets_again_and_again_is_given_up(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("half"), CutReader(then=[GONE, GONE]), Text(" lost"))
    job_id = await client.submit(provider=NAME)
    events = await client.all_events(job_id)
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "provider_run_lost")
    assert (await client.job(job_id))["text"] == "half"
    assert len(stack.provider.runs) == retries.TRIES


async def test_what_cannot_be_streamed_any_more_is_read_at_its_end(stack: Stack, client: Client) -> None:
    stack.provider.script(
        "m", Reasoning("H"), Text("Hel"), ToolCall("c1", "get_weather", ()), Arguments("{"),
        CutReader(then=[NO_STREAM]), Arguments("}"), ToolCall("c2", "get_weather", "[]"), Usage(input=9, output=8),
    )  # fmt: skip
    job_id = await client.submit(provider=NAME, tools=[WEATHER])
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "started", "completed"]
    job = await client.job(job_id)
    assert (job["text"], job["reasoning"], job["finish_reason"]) == ("Hel", "H", "tool_calls")
    assert [(call["id"], call["arguments"]) for call in job["tool_calls"]] == [("c1", "{}"), ("c2", "[]")]
    assert (job["usage"]["output_tokens"], job["usage"]["estimated"]) == (8, False)
    assert [(read.method, read.stream) for read in only_run(stack).reads] == [
        ("POST", True), ("GET", True), ("GET", False),
    ]  # fmt: skip


async def test_a_run_that_the_provider_ended_by_itself_is_begun_again(stack: Stack, client: Client) -> None:
    """Cancelled there, by whoever has the key: its stream ends without a word."""
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), Wait(gate))
    stack.provider.then("m", Text("whole"))
    job_id = await client.submit(provider=NAME)
    await client.until(job_id, "token")
    only_run(stack).cancel()
    events = await client.all_events(job_id)
    assert names(events) == ["queued", "started", "started", "restarted", "completed"]
    assert text(events) == "whole"


# Ended in time.


@pytest.mark.alone
async def test_a_cancel_ends_the_run_at_the_provider(stack: Stack, client: Client) -> None:
    """Contract §6: cancel to the provider's end, p99 ≤ 100 ms."""
    stack.provider.script("m", Text("x"), Silence())
    took = []
    for _ in range(20):
        job_id = await client.submit(provider=NAME)
        call = await stack.provider.next_call()
        await client.until(job_id, "token")
        asked_s = time.monotonic()
        result = await client.cancel(job_id, api=1)
        assert (result["outcome"], result["text"]) == ("cancelled", "x")
        await call.ended()
        assert call.run is not None
        assert (call.cancelled, call.run.cancels) == (True, 1)
        assert call.ended_at is not None
        took.append(call.ended_at - asked_s)
        await call.run.reads[0].ended()
    assert sorted(took)[-1] < 0.1, took
    await unlisted(stack)


async def test_a_cancel_before_the_run_has_a_name_ends_it_all_the_same(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Wait(gate), Headers(), Text("never read"), Silence())
    job_id = await client.submit(provider=NAME)
    call = await stack.provider.next_call()
    assert (await client.cancel(job_id))["outcome"] == "cancelled"
    gate.open()
    await call.ended()
    assert call.cancelled


@pytest.mark.parametrize(
    ("steps", "code"),
    [([], "first_token_timeout"), ([Text("x")], "idle_timeout"), ([Text("x")], "job_timeout")],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_run_that_is_given_up_is_cancelled(bare: Stack, steps: list[Step], code: str) -> None:
    bare.configure(**{name: 0.3 if code.startswith(name.split("_")[0]) else 30.0
                      for name in ("first_token_timeout_s", "idle_timeout_s", "job_timeout_s")})  # fmt: skip
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", *steps, Silence())
    events = await client.all_events(await client.submit(provider=NAME))
    assert (events[-1].event, events[-1].data["code"]) == ("failed", code)
    await only_run(bare).ended()
    assert only_run(bare).cancelled


@pytest.mark.parametrize("limits", [{}, {NAME: {"concurrent": 1}}], ids=["unlimited", "limited"])
async def test_a_run_that_makes_room_for_a_fallback_is_cancelled(bare: Stack, limits: dict[str, Any]) -> None:
    bare.configure(first_token_timeout_s=0.3, limits=limits)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Silence())
    bare.provider.script("other", Text("I do speak."))
    fallbacks = [{"provider": "anthropic", "model": "other"}]
    events = await client.all_events(await client.submit(provider=NAME, fallbacks=fallbacks))
    assert text(events) == "I do speak."
    await only_run(bare).ended()
    assert only_run(bare).cancelled
    await unlisted(bare)


async def test_a_run_keeps_its_room_from_one_listener_to_the_next(bare: Stack) -> None:
    """A limit counts what goes on at the provider: nobody is let in between, and the run waits for nobody."""
    bare.configure(limits={NAME: {"concurrent": 1}}, lease_s=1)
    leaving = await bare.worker()
    await bare.api()
    client, gate = bare.client(), bare.provider.gate()
    bare.provider.script("m", Text("Hel"), CutReader(), Wait(gate), Text("lo"))
    first = await client.submit(provider=NAME)
    await client.until(first, "token")
    second = await client.submit("other", provider=NAME)
    await bare.worker()
    await leaving.stop()
    run = only_run(bare)
    await eventually(lambda: len(run.streams) == 3)
    assert len(bare.provider.calls) == 1
    gate.open()
    assert text(await client.all_events(first)) == "Hello"
    assert (await client.all_events(second))[-1].event == "completed"
    assert bare.provider.max_concurrent == 1
    assert len(bare.provider.runs) == 2


async def test_a_provider_that_does_not_take_a_cancel_is_told_again(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider: Any = stack.workers[0].worker.workshop.providers.get(NAME)
    cancel, failed = provider.cancel, asyncio.Event()

    async def fails_once(run_id: str) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError
        await cancel(run_id)

    monkeypatch.setattr(provider, "cancel", fails_once)
    monkeypatch.setattr("worker.orphans.LOOK_S", 0.05)
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit(provider=NAME)
    await client.until(job_id, "token")
    await client.cancel(job_id)
    await failed.wait()
    (bookmark,) = await stack.redis.zrange(stack.keys.orphans, 0, -1)
    await stack.redis.zadd(stack.keys.orphans, {bookmark: 1})
    await only_run(stack).ended()
    assert only_run(stack).cancelled
    await unlisted(stack)


async def test_a_provider_that_refuses_the_request_is_asked_once(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Failure("context_length"))
    events = await client.all_events(await client.submit(provider=NAME))
    assert (names(events), events[-1].data["code"]) == (["queued", "started", "failed"], "context_too_long")
    assert events[-1].data["usage"]["input_tokens"] == 0
    assert len(stack.provider.calls) == 1


# What the bookmark rests on.


async def test_a_bookmark_stands_with_its_events_or_not_at_all(bare: Stack) -> None:
    """Repeats after a lost reply, however late, and refused appends leave it where it is."""
    await bare.api()
    job_id = await bare.client().submit(provider=NAME)
    scripts = Scripts(bare.commands)
    queue, log = Queue(bare.commands, scripts, bare.keys), Log(bare.commands, scripts, bare.keys)
    await queue.register("one", 60)
    (claim,) = (await queue.claim("one", 1, 60)).claims
    other = await bare.client().submit("other")

    def tokens(seq: int, bookmark: bytes, *texts: str) -> Append:
        events = [("token", dump({"text": text})) for text in texts]
        return Append(job_id, "one", EventId(1, seq), claim.log_length + seq - 1, events, bookmark)

    async def stands(at: bytes) -> bool:
        kept: bytes | None = await bare.redis.hget(bare.keys.job(job_id), "run")  # type: ignore[misc]
        return kept == at

    named, first, second = tokens(1, b"at 0"), tokens(1, b"at 1", "a", "b"), tokens(3, b"at 2", "c")
    elsewhere = Append(other, "one", EventId(1, 1), 1, [("token", b"{}")], b"not held")
    assert await log.append([elsewhere, named]) == [False, True]
    assert await stands(b"at 0"), "known before there is any text"
    assert not await bare.redis.hexists(bare.keys.job(other), "run")  # type: ignore[misc]
    assert await log.append([first]) == [True]
    assert await stands(b"at 1")
    assert await log.append([named]) == [True]
    assert await stands(b"at 1"), "a repeat of the bookmark alone"
    assert await log.append([second]) == [True]
    assert await log.append([first]) == [True]
    assert await stands(b"at 2"), "a repeat of what has others behind it"
    assert await log.append([tokens(3, b"at 3", "x")]) == [False]
    assert await log.append([tokens(5, b"at 5", "y")]) == [False]
    assert await stands(b"at 2"), "refused: other content, or a hole"
    assert await queue.release(job_id, "one", "worker_stopped", 1)
    (claim,) = (await queue.claim("one", 1, 60)).claims
    assert (claim.attempt, claim.base, claim.run) == (2, 1, b"at 2")
    assert await log.append([second]) == [True]
    assert await stands(b"at 2")
