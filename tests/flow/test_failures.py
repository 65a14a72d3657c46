"""The failure table: what each provider does when something is wrong, and what we call it. One attempt is one request.

Through the real providers and real HTTP. (A provider that falls silent is given up by the attempt's own clocks:
`test_providers.py`; what follows a failure is in `test_retries.py`.)
"""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from tests.client import Client, body
from tests.provider import Cut, Eof, Failure, HttpError, RawBytes, ScriptedProvider, Step, StreamError, Text
from tests.stack import Stack
from worker import failures
from worker.failures import CODES, explain
from worker.providers.anthropic import AnthropicProvider
from worker.providers.base import NotConfigured, Provider
from worker.providers.openai import OpenAIProvider
from worker.providers.run import Run
from worker.providers.transport import Transport
from worker.retries import next_step

CANARY = "sk-canary-3f9 host.internal org-canary"
BOTH = ("openai", "anthropic")
FAULTS = (openai.APIError, anthropic.APIError, httpx2.HTTPError)
KINDS: Any = (
    ("authentication", "provider_authentication"),
    ("permission", "provider_permission"),
    ("model_not_found", "provider_model_not_found"),
    ("context_length", "context_too_long"),
    ("request_too_large", "context_too_long"),
    ("content_policy", "content_refused"),
    ("quota", "provider_quota_exhausted"),
    ("rate_limit", "provider_rate_limited"),
    ("overloaded", "provider_overloaded"),
    ("server_error", "provider_error"),
    ("unavailable", "provider_overloaded"),
    ("timeout", "provider_timeout"),
)
"""What both APIs do, each in its own words."""


class Ear:
    """Takes what a provider sends, and keeps nothing."""

    run: Run | None = None
    full = False

    def running(self, run: Run) -> None: ...

    async def room(self) -> None:
        raise AssertionError("never full")

    def text(self, text: str) -> None: ...

    def refusal(self, text: str) -> None: ...

    def reasoning(self, text: str) -> None: ...

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None: ...

    def usage(self, usage: Usage) -> None: ...


@asynccontextmanager
async def speaking_to(name: str, url: str) -> AsyncIterator[Provider]:
    transport = Transport()
    config = ProviderConfig.model_validate({"kind": name, "base_url": url, "api_key": "sk-canary"})
    made: Provider = OpenAIProvider(config, transport) if name == "openai" else AnthropicProvider(config, transport)
    try:
        yield made
    finally:
        await made.close()


async def failing(scripted: ScriptedProvider, name: str, *script: Step) -> failures.Failure:
    """Let a provider fail as scripted, in a call that its SDK makes and in one that is made like it (`Calls`).

    Return what we make of it: the same of both.
    """
    scripted.script("m", *script)
    scripted.script("sound", Text("an answer"))
    url = scripted.openai_url if name == "openai" else scripted.anthropic_url
    whys = []
    async with speaking_to(name, url) as provider:
        for model in ("m", "sound", "sound", "m"):
            asked = len(scripted.calls)
            try:
                await provider.generate(JobRequest.model_validate(body(provider=name, model=model)), Ear())
            except Exception as error:
                whys.append(explain(error))
            assert len(scripted.calls) - asked == 1, "one failing attempt is one request"
    first, later = whys
    for why in whys:
        assert (why.message, "canary" in str(why)) == (CODES[why.code][1], False)
    assert (first.code, first.retryable) == (later.code, later.retryable)
    return later


def said(status: int, answer: object, **headers: str) -> HttpError:
    """Return an answer in a server's own words."""
    return HttpError(status, body=json.dumps(answer).encode(), headers=headers)


def error(message: str, type: str | None = None, code: object = None, **more: object) -> dict[str, Any]:
    return {"error": {"message": f"{message} {CANARY}", "type": type, "code": code, **more}}


def anthropic_error(type: str, message: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": type, "message": f"{message} {CANARY}"}, "request_id": "req_1"}


def openai_event(said: object) -> RawBytes:
    return RawBytes(f"data: {json.dumps(said)}\n\n".encode())


REFUSED: list[tuple[str, str, Step, str]] = [
    *[(name, kind, Failure(kind), code) for name in BOTH for kind, code in KINDS],
    *[(name, f"status {status}", HttpError(status), code) for name in BOTH for status, code in (
        (302, "provider_protocol"),
        (400, "provider_bad_request"),
        (402, "provider_quota_exhausted"),
        (405, "provider_bad_request"),
        (408, "provider_timeout"),
        (409, "provider_error"),
        (422, "provider_bad_request"),
        (502, "provider_error"),
        (524, "provider_timeout"),
        (529, "provider_overloaded"),
    )],
    *[(name, f"{label} in place of JSON", HttpError(503, body=what), "provider_overloaded") for name in BOTH
      for label, what in (("a proxy's page", b"<html>sk-canary</html>"), ("nothing", b""), ("a list", b"[1]"))],
    # Told by the message alone.
    ("anthropic", "max_tokens and the input", said(400, anthropic_error(
        "invalid_request_error", "input length and `max_tokens` exceed context limit: 199000 + 8000 > 200000,"
        " decrease input length or `max_tokens` and try again")), "context_too_long"),
    ("anthropic", "billing", said(402, anthropic_error("billing_error", "…")), "provider_quota_exhausted"),
    ("anthropic", "an odd word", said(400, anthropic_error("new_error", "…")), "provider_bad_request"),
    ("openai", "a filter at Azure", said(400, error(
        "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        code="content_filter", innererror={"code": "ResponsibleAIPolicyViolation"})), "content_refused"),
    ("openai", "a filter at Azure, without a code", said(400, error(
        "The prompt triggered Azure OpenAI's content management policy.")), "content_refused"),
    ("openai", "a limit at Azure", said(429, error("… Please retry after 6 seconds.", code="429")),
     "provider_rate_limited"),
    ("openai", "a key at Azure", said(401, error("Access denied due to invalid subscription key", code="401")),
     "provider_authentication"),
    ("openai", "a deployment at Azure", said(404, error("…", code="DeploymentNotFound")), "provider_model_not_found"),
    ("openai", "a country", HttpError(403), "provider_permission"),
    ("openai", "billing", said(429, error("…", "billing_not_active", "billing_not_active")),
     "provider_quota_exhausted"),
    ("openai", "a long string", said(400, error("…", "invalid_request_error", "string_above_max_length")),
     "context_too_long"),
    ("openai", "context at vLLM", said(400, {
        "object": "error", "type": "BadRequestError", "param": None, "code": 400, "message":
        "This model's maximum context length is 4096 tokens. However, you requested 5000."}), "context_too_long"),
    ("openai", "context at vLLM today", said(400, error(
        "The prompt (total length 5000) is too long to fit into the model (context length 4096).",
        "BadRequestError", 400)), "context_too_long"),
    ("openai", "a field at vLLM", said(400, error("[{'loc': ('body', 'temperature')}]", "BadRequestError", 400)),
     "provider_bad_request"),
    ("openai", "context at llama.cpp", said(400, error(
        "the request exceeds the available context size, try increasing it", "exceed_context_size_error", 400,
        n_prompt_tokens=5000, n_ctx=4096)), "context_too_long"),
    ("openai", "context at llama.cpp, once", said(500, error(
        "the request exceeds the available context size. try increasing the context size", "server_error", 500)),
     "context_too_long"),
    ("openai", "loading at llama.cpp", said(503, error("Loading model", "unavailable_error", 503)),
     "provider_overloaded"),
    ("openai", "a model at Ollama", said(404, {"error": f"model 'm' not found {CANARY}"}), "provider_model_not_found"),
    ("openai", "context at Ollama", said(400, {"error": f"the input length exceeds the context length {CANARY}"}),
     "context_too_long"),
    ("openai", "Ollama is busy", said(503, {"error": "server busy, please try again. maximum pending requests"}),
     "provider_overloaded"),
    ("openai", "FastAPI's word", said(422, {"detail": [{"loc": ["body"], "msg": CANARY}]}), "provider_bad_request"),
    ("openai", "a message that is none", said(400, {"error": {"message": {"a": 1}, "code": ["x"], "type": None}}),
     "provider_bad_request"),
]  # fmt: skip

STREAMED: list[tuple[str, str, Step, str]] = [
    # In mid-stream, behind 200.
    *[(name, f"an event: {type}", StreamError(type), code) for name, type, code in (
        ("openai", None, "provider_error"),
        ("openai", "rate_limit_exceeded", "provider_rate_limited"),
        ("openai", "insufficient_quota", "provider_quota_exhausted"),
        ("openai", "content_filter", "content_refused"),
        ("openai", "invalid_request_error", "provider_bad_request"),
        ("anthropic", None, "provider_overloaded"),
        ("anthropic", "api_error", "provider_error"),
        ("anthropic", "rate_limit_error", "provider_rate_limited"),
        ("anthropic", "timeout_error", "provider_timeout"),
        ("anthropic", "invalid_request_error", "provider_bad_request"),
        ("anthropic", "authentication_error", "provider_authentication"),
    )],
    ("anthropic", "an event with the filter's words", StreamError(
        "invalid_request_error", "Output blocked by content filtering policy"), "content_refused"),
    ("openai", "an event of vLLM", openai_event(error("EngineCore failed", "InternalServerError", 500)),
     "provider_error"),
    ("openai", "an older event of vLLM", openai_event(
        {"object": "error", "message": f"maximum context length {CANARY}", "type": "BadRequestError", "code": 400}),
     "context_too_long"),
    ("openai", "an event with a status", openai_event(error("Provider is limited", code=429)), "provider_rate_limited"),
    ("openai", "an event that is a text", openai_event({"error": f"an error was encountered {CANARY}"}),
     "provider_error"),
    ("openai", "an event that is none", openai_event({"error": 7}), "provider_error"),
    *[(name, "what cannot be read", RawBytes(b"event: content_block_delta\ndata: {canary\n\n"), "provider_protocol")
      for name in BOTH],
    *[(name, "an end without its marker", Eof(), "provider_truncated") for name in BOTH],
    *[(name, "a cut", Cut(fin=True), "provider_unreachable") for name in BOTH],
]  # fmt: skip

IN_PLACE: list[tuple[str, str, Step, str]] = [
    *[(name, "a cut before any answer", Cut(), "provider_unreachable") for name in BOTH],
    *[(name, "a 200 with an error in it", said(200, error("limited", "rate_limit_error", 429)), "provider_rate_limited")
      for name in BOTH],
    *[(name, "a 200 with a whole answer", said(200, {"choices": [{"message": {"content": "canary"}}]}),
       "provider_protocol") for name in BOTH],
    *[(name, "a 200 with a page", HttpError(200, body=b"<html>sk-canary", headers={"content-type": "text/html"}),
       "provider_protocol") for name in BOTH],
    ("openai", "a 200 with Ollama's word", said(200, {"error": f"model requires more memory {CANARY}"}),
     "provider_error"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "step", "code"),
    [pytest.param(name, step, code, id=f"{name}: {label}") for name, label, step, code in [*REFUSED, *IN_PLACE]],
)
async def test_a_refusal(provider: ScriptedProvider, name: str, step: Step, code: str) -> None:
    why = await failing(provider, name, step)
    assert (why.code, why.retryable) == (code, CODES[code][0])


@pytest.mark.parametrize(
    ("name", "step", "code"),
    [pytest.param(name, step, code, id=f"{name}: {label}") for name, label, step, code in STREAMED],
)
async def test_a_failure_in_mid_stream(provider: ScriptedProvider, name: str, step: Step, code: str) -> None:
    why = await failing(provider, name, Text("half"), step)
    assert (why.code, why.retryable) == (code, CODES[code][0])


def test_every_code_of_the_tables_is_one_that_the_reader_is_told_of() -> None:
    codes = {*failures.KINDS.values(), *failures.STATUSES.values(), *(code for _, code in failures.MESSAGES)}
    assert codes <= set(CODES)
    tested = {code for _, _, _, code in [*REFUSED, *STREAMED, *IN_PLACE]}
    elsewhere = {
        "provider_not_configured", "internal_error", "storage_full", "invalid_output",
        "answer_too_large", "output_unchecked",
        "first_token_timeout", "idle_timeout", "job_timeout", "provider_run_lost",
    }  # fmt: skip
    assert tested | elsewhere == set(CODES)


@pytest.mark.parametrize("name", BOTH)
async def test_nobody_there(name: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        async with speaking_to(name, f"http://127.0.0.1:{taken.getsockname()[1]}") as provider:
            with pytest.raises(FAULTS) as caught:
                await provider.generate(JobRequest.model_validate(body(provider=name)), Ear())
    assert explain(caught.value).code == "provider_unreachable"


@pytest.mark.parametrize("name", BOTH)
async def test_no_connection_in_time_is_nobody_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was sent, so nothing is billed: it may be asked again, unlike a silence."""

    async def slow(*args: object) -> socket.socket:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr("worker.providers.dial.CONNECT_TIMEOUT_S", 0.01)
    monkeypatch.setattr("worker.providers.dial._open", slow)
    async with speaking_to(name, "http://127.0.0.1:9") as provider:
        with pytest.raises(FAULTS) as caught:
            await provider.generate(JobRequest.model_validate(body(provider=name)), Ear())
    assert explain(caught.value).code == "provider_unreachable"


def test_what_is_ours_is_ours() -> None:
    assert explain(NotConfigured()).code == "provider_not_configured"
    assert explain(RuntimeError("ours")).code == "internal_error"
    assert explain(httpx2.ReadTimeout("quiet")).code == "provider_timeout"
    assert explain(httpx2.ConnectTimeout("nobody")).code == "provider_unreachable"


NOW = "Sat, 21 Nov 2026 07:07:00 GMT"


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "20"}, 20.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "1"}, 1.0),
        ({"retry-after": "Sat, 21 Nov 2026 07:07:30 GMT", "date": NOW}, 30.0),
        ({"retry-after": "Saturday, 21-Nov-26 07:07:30 GMT", "date": NOW}, 30.0),
        ({"retry-after": "Sat Nov 21 07:07:30 2026", "date": NOW}, 30.0),
        ({"retry-after": "Sat, 21 Nov 2026 07:06:00 GMT", "date": NOW}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Sat, 99 Nov 2026 07:07:30 GMT"}, None),
        ({}, None),
    ],
)
async def test_when_to_come_again(
    provider: ScriptedProvider, name: str, headers: dict[str, str], wait_s: float | None
) -> None:
    why = await failing(provider, name, HttpError(429, headers=headers))
    assert (why.code, why.retry_after_s) == ("provider_rate_limited", wait_s)


async def test_a_date_is_measured_by_our_clock_where_the_provider_tells_none(provider: ScriptedProvider) -> None:
    later = formatdate(time.time() + 60, usegmt=True)
    why = await failing(provider, "openai", HttpError(503, headers={"retry-after": later, "date": "?"}))
    assert why.retry_after_s is not None
    assert 57 < why.retry_after_s <= 60


@pytest.mark.parametrize("name", BOTH)
async def test_a_provider_that_says_not_to_come_again_is_believed(provider: ScriptedProvider, name: str) -> None:
    why = await failing(provider, name, Failure("rate_limit", headers={"x-should-retry": "false"}))
    assert (why.code, why.retryable) == ("provider_rate_limited", False)
    request = JobRequest.model_validate(body(fallbacks=[{"provider": "demo", "model": "tour"}]))
    step = next_step(request, why, 0, 1, 60)
    assert step is not None
    assert step.reason == "fallback"
    assert next_step(JobRequest.model_validate(body()), why, 0, 1, 60) is None


@pytest.mark.parametrize("name", BOTH)
async def test_nothing_of_a_providers_words_reaches_the_reader_or_a_log(
    stack: Stack, client: Client, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    words = error(CANARY, "invalid_request_error") if name == "openai" else anthropic_error("api_error", CANARY)
    scripts: list[list[Step]] = [
        [said(400, words)],
        [said(401, words)],
        [said(200, words)],
        [Text("half"), StreamError(CANARY, CANARY, CANARY)],
        [Text("half"), RawBytes(f"data: {CANARY}\n\nevent: content_block_delta\ndata: {CANARY}\n\n".encode())],
    ]
    for number, script in enumerate(scripts):
        stack.provider.script(f"m{number}", *script)
        job_id = await client.submit(f"m{number}", name)
        events = await client.all_events(job_id)
        assert events[-1].event == "failed"
        assert set(events[-1].data) == {"code", "message", "retryable", "usage"}
        raw = await stack.redis.hgetall(stack.keys.job(job_id))  # type: ignore[misc]
        for seen in (events, await client.job(job_id), raw, caplog.text):
            at = str(seen).find("canary")
            assert at < 0, str(seen)[at - 200 : at + 50]


def test_bogus_figures_are_none() -> None:
    assert Usage.told(input_tokens=-1) is None
    assert Usage.told(input_tokens="many") is None
    assert Usage.told(input_tokens=10**12) is None
    assert Usage.told(input_tokens=7, output_tokens=1) == Usage(input_tokens=7, output_tokens=1)
