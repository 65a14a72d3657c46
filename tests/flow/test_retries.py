"""When a provider fails: asked again before the first token, then the fallbacks in turn; the reader sees each step."""

import asyncio
import time
from typing import Any

import pytest

from shared.requests import JobRequest
from tests.client import Client, text
from tests.provider import (
    Cut,
    Delay,
    Eof,
    Failure,
    HttpError,
    RawBytes,
    Silence,
    Step,
    StreamError,
    Text,
    Tokens,
    Usage,
    Wait,
)
from tests.stack import Stack, eventually
from worker import retries
from worker.attempt import Attempt, Stop
from worker.failures import failure
from worker.retries import next_step

OTHER: list[dict[str, Any]] = [{"provider": "anthropic", "model": "other"}]


async def test_a_second_try_that_succeeds_is_an_attempt_of_its_own(stack: Stack, client: Client) -> None:
    stack.provider.script("m", HttpError(503))
    stack.provider.then("m", Text("Here."))
    job_id = await client.submit()
    events = await client.all_events(job_id)
    assert [(event.id, event.event) for event in events][1:3] == [("1-0", "started"), ("2-0", "restarted")]
    assert events[2].data == {"attempt": 2, "reason": "provider_error", "provider": "openai", "model": "m"}
    assert text(events) == "Here."
    job = await client.job(job_id)
    assert (job["status"], job["attempts"], job["error"]) == ("completed", 2, None)
    assert job["first_token_at"] is not None


async def test_fallbacks_have_their_turn_and_the_job_names_who_answered(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Failure("authentication"))
    stack.provider.script("other", HttpError(529))
    stack.provider.script("third", Text("From the third."))
    job_id = await client.submit(fallbacks=[*OTHER, {"provider": "openai", "model": "third"}])
    events = await client.all_events(job_id)
    steps = [(event.data["reason"], event.data["provider"], event.data["model"]) for event in events
             if event.event == "restarted"]  # fmt: skip
    assert steps == [
        ("fallback", "anthropic", "other"),
        ("provider_error", "anthropic", "other"),
        ("provider_error", "anthropic", "other"),
        ("fallback", "openai", "third"),
    ]
    last = events[-1].data
    assert (text(events), last["provider"], last["model"]) == ("From the third.", "openai", "third")
    job = await client.job(job_id)
    assert (job["provider"], job["model"], job["attempts"]) == ("openai", "third", 5)
    assert [call.model for call in stack.provider.calls] == ["m", "other", "other", "other", "third"]


async def test_a_silent_provider_makes_room_for_a_fallback(bare: Stack) -> None:
    bare.configure(first_token_timeout_s=0.3)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Silence())
    bare.provider.script("other", Text("I do speak."))
    events = await client.all_events(await client.submit(fallbacks=OTHER))
    assert [event.event for event in events if event.event != "token"] == [
        "queued",
        "started",
        "restarted",
        "completed",
    ]
    assert [call.model for call in bare.provider.calls] == ["m", "other"], "what may be billed is not asked for twice"


MID_ANSWER: list[Step] = [
    Cut(),
    Cut(fin=True),
    Eof(),
    StreamError(),
    RawBytes(b"event: content_block_delta\ndata: {nonsense\n\n"),
    Silence(),
]


@pytest.mark.parametrize("name", ["openai", "anthropic"])
@pytest.mark.parametrize("step", MID_ANSWER, ids=lambda value: repr(value)[:24])
async def test_in_mid_answer_the_next_fallback_starts_it_anew(bare: Stack, name: str, step: Step) -> None:
    bare.configure(idle_timeout_s=0.3)
    await bare.worker()
    await bare.api()
    client, gate = bare.client(), bare.provider.gate()
    bare.provider.script("m", Text("half an ans"), Wait(gate), Text("w"), step)
    bare.provider.script("other", Text("A whole answer."), Usage(input=20, output=3))
    job_id = await client.submit(provider=name, fallbacks=OTHER, messages=[{"role": "user", "content": "x" * 40}])
    await client.until(job_id, "token")
    gate.open()
    events = await client.all_events(job_id)
    names = [event.event for event in events if event.event != "token"]
    assert names == ["queued", "started", "restarted", "completed"]
    (restarted,) = [event for event in events if event.event == "restarted"]
    assert restarted.data == {"attempt": 2, "reason": "fallback", "provider": "anthropic", "model": "other"}
    job = await client.job(job_id)
    assert text(events) == job["text"] == "A whole answer."
    assert (job["provider"], job["model"], job["attempts"]) == ("anthropic", "other", 2)
    assert [call.model for call in bare.provider.calls] == ["m", "other"], "one attempt is one request"
    assert await bare.provider.calls[0].closed() if isinstance(step, Silence) else True
    usage = job["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (10 + 20, 3 + 3, True)


async def test_in_mid_answer_nothing_is_repeated_without_a_fallback(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), Wait(gate), Cut())
    job_id = await client.submit()
    await client.until(job_id, "token")
    gate.open()
    events = await client.all_events(job_id)
    assert [event.event for event in events] == ["queued", "started", "token", "failed"]
    assert (await client.job(job_id))["text"] == "half"
    assert len(stack.provider.calls) == 1


async def test_what_was_on_its_way_when_the_fallback_began_is_never_seen(stack: Stack, client: Client) -> None:
    """Text that was not appended yet when its provider failed must not come behind the next attempt's opening."""
    stack.provider.script("m", *[Text("lost ") for _ in range(200)], StreamError())
    stack.provider.script("other", Tokens("word by word by word"))
    for _ in range(10):
        job_id = await client.submit(fallbacks=OTHER)
        live = await client.all_events(job_id)
        assert text(live) == text(await client.all_events(job_id)) == "word by word by word"
        assert live[-1].event == "completed"
    assert stack.workers[0].worker.workshop.writers[""].pending == 0


async def test_a_cancel_in_the_fallback_closes_its_call(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("half"), StreamError())
    stack.provider.script("other", Text("x"), Silence())
    job_id = await client.submit(fallbacks=OTHER)
    await stack.provider.next_call()
    call = await stack.provider.next_call()
    await client.until(job_id, "restarted")
    assert (await client.cancel(job_id))["outcome"] == "cancelled"
    assert await call.closed()


async def test_a_cancel_ends_the_wait_for_the_next_try(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 60.0)
    stack.provider.script("m", HttpError(500))
    job_id = await client.submit()
    await client.until(job_id, "started")
    await stack.provider.next_call()
    began_s = time.monotonic()
    outcome = await client.cancel(job_id)
    assert outcome["outcome"] == "cancelled"
    assert time.monotonic() - began_s < 2
    assert len(stack.provider.calls) == 1


async def test_a_worker_that_stops_hands_a_waiting_job_over(
    stack: Stack, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack.provider.script("m", Failure("authentication"))
    stack.provider.script("other", HttpError(500))
    stack.provider.then("other", Text("Elsewhere."))
    with monkeypatch.context() as patch:
        patch.setattr(retries, "FIRST_WAIT_S", 60.0)
        job_id = await client.submit(fallbacks=OTHER)
        for _ in range(2):
            await stack.provider.next_call()
        leaving = stack.workers[0]
        await stack.worker()
        await leaving.stop()
    events = await client.all_events(job_id)
    assert (events[-1].event, text(events)) == ("completed", "Elsewhere.")
    assert events[-1].data["provider"] == "anthropic", "the fallback stays the one that is asked"


@pytest.mark.parametrize("wish", ["cancel", "hand over"])
async def test_a_wish_that_comes_while_a_silent_call_is_closed_is_not_lost(
    bare: Stack, monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    # A lease so long that no renewal repeats the cancel.
    bare.configure(first_token_timeout_s=0.2, lease_s=60)
    worker = await bare.worker()
    await bare.api()
    client, gate = bare.client(), asyncio.Event()
    closing, close = asyncio.Event(), Attempt._close_call

    async def slowly(attempt: Attempt) -> None:
        closing.set()
        await gate.wait()
        await close(attempt)

    monkeypatch.setattr(Attempt, "_close_call", slowly)
    bare.provider.script("m", Silence())
    job_id = await client.submit(fallbacks=OTHER)
    await asyncio.wait_for(closing.wait(), 5)
    attempt = worker.worker.workshop.attempts[job_id]
    assert attempt.stopped is Stop.FIRST_TOKEN_TIMEOUT
    if wish == "cancel":
        cancelling = asyncio.create_task(client.cancel(job_id))
        await eventually(lambda: attempt.stopped is Stop.CANCEL)
        gate.set()
        assert (await cancelling)["outcome"] == "cancelled"
    else:
        stopping = asyncio.create_task(worker.stop())
        await eventually(lambda: attempt.stopped is Stop.HAND_OVER)
        gate.set()
        await stopping
        assert (await client.job(job_id))["status"] == "queued"
    assert [call.model for call in bare.provider.calls] == ["m"]


async def test_retry_after_is_honoured(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Failure("rate_limit", retry_after_s=0.4))
    stack.provider.then("m", Text("Now."))
    began_s = time.monotonic()
    events = await client.all_events(await client.submit())
    assert text(events) == "Now."
    assert time.monotonic() - began_s >= 0.4


async def test_no_wait_outlasts_the_job(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Delay(0.01), Failure("rate_limit", retry_after_s=5))
    began_s = time.monotonic()
    events = await client.all_events(await client.submit(timeout_s=2))
    assert events[-1].data["code"] == "provider_rate_limited"
    assert time.monotonic() - began_s < 2


REQUEST = JobRequest.model_validate(
    {"provider": "a", "model": "m", "messages": [{"role": "user", "content": "x"}],
     "fallbacks": [{"provider": "b", "model": "n"}]}
)  # fmt: skip


@pytest.mark.parametrize(
    ("code", "fallback", "tries", "wanted"),
    [
        ("provider_overloaded", 0, 1, ("provider_error", "a", 0)),
        ("provider_overloaded", 0, 3, ("fallback", "b", 1)),
        ("provider_overloaded", 1, 3, None),
        ("provider_authentication", 0, 1, ("fallback", "b", 1)),
        ("context_too_long", 0, 1, ("fallback", "b", 1)),
        ("first_token_timeout", 0, 1, ("fallback", "b", 1)),
        ("first_token_timeout", 1, 1, None),
        ("job_timeout", 0, 1, None),
        ("internal_error", 0, 1, None),
    ],
)
def test_what_is_asked_next(code: str, fallback: int, tries: int, wanted: tuple[str, str, int] | None) -> None:
    request = REQUEST if fallback == 0 else REQUEST.asked_of("b", "n")
    step = next_step(request, failure(code), fallback, tries, left_s=60)
    assert (step and (step.reason, step.provider, step.fallback)) == wanted


def test_waits_grow_are_spread_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.5)
    for tries in (1, 2):
        waits = [next_step(REQUEST, failure("provider_error"), 0, tries, 60) for _ in range(200)]
        seconds = [step.wait_s for step in waits if step is not None]
        assert len(set(seconds)) > 100
        assert all(0.25 * 2 ** (tries - 1) <= wait_s <= 0.5 * 2 ** (tries - 1) for wait_s in seconds)


def test_a_long_retry_after_goes_to_the_fallback_and_is_waited_for_where_there_is_none() -> None:
    limited = failure("provider_rate_limited", retry_after_s=30)
    first = next_step(REQUEST, limited, 0, 1, 60)
    assert first is not None
    assert (first.reason, first.wait_s) == ("fallback", 0)
    alone = next_step(REQUEST.asked_of("b", "n"), limited, 1, 1, 60)
    assert alone is not None
    assert (alone.reason, alone.wait_s) == ("provider_error", 30)
    assert next_step(REQUEST.asked_of("b", "n"), limited, 1, 1, 20) is None


@pytest.mark.parametrize(
    ("fallbacks", "code"),
    [
        ([{"provider": "nobody", "model": "m"}], "unknown_provider"),
        ([{"provider": "anthropic", "model": "m"}], "unsupported_parameter"),
        ([{"provider": "openai"}], "invalid_request"),
        ([{"provider": "openai", "model": "m", "base_url": "http://x"}], "unknown_field"),
        ([{"provider": "openai", "model": "m"}] * 6, "invalid_request"),
    ],
)
async def test_a_fallback_that_could_not_honour_the_request_is_422(
    stack: Stack, client: Client, fallbacks: list[dict[str, Any]], code: str
) -> None:
    request = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "x"}], "seed": 1}
    response = await client.http.post("/v1/jobs", json={**request, "fallbacks": fallbacks})
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert "fallbacks" in response.json()["detail"]
