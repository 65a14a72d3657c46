"""The scripted provider fails as the real ones do, in each of its dialects."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, get_args

import anthropic
import openai
import pytest

from tests.provider import (
    Cut,
    CutReader,
    Delay,
    Failure,
    HttpError,
    Quirks,
    RedactedThinking,
    ScriptedProvider,
    Silence,
    Step,
    StreamError,
    Text,
)
from tests.provider.breaks import FailureKind
from tests.provider.clients import anthropic_client, openai_client
from tests.provider.remote import RemoteProvider, to_json

MESSAGES: Any = [{"role": "user", "content": "Hi there"}]
Ask = Callable[..., Any]


@pytest.fixture
async def ask(provider: ScriptedProvider) -> AsyncIterator[Ask]:
    """Ask in a dialect: `ask("openai")`. Further options are the client's."""
    async with AsyncExitStack() as stack:

        async def one(dialect: str, *, stream: bool = False, **options: Any) -> Any:
            if dialect == "anthropic":
                claude = await stack.enter_async_context(anthropic_client(provider, **options))
                return await claude.messages.create(model="m", max_tokens=64, messages=MESSAGES, stream=stream)
            gpt = await stack.enter_async_context(openai_client(provider, **options))
            if dialect == "openai":
                return await gpt.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
            return await gpt.responses.create(model="m", input="Hi there", stream=stream)

        yield one


DIALECTS = pytest.mark.parametrize("dialect", ["openai", "responses", "anthropic"])

AT_OPENAI: dict[FailureKind, tuple[int, str, str | None]] = {
    "rate_limit": (429, "requests", "rate_limit_exceeded"),
    "quota": (429, "insufficient_quota", "insufficient_quota"),
    "overloaded": (503, "server_error", None),
    "server_error": (500, "server_error", None),
    "unavailable": (503, "service_unavailable", None),
    "authentication": (401, "invalid_request_error", "invalid_api_key"),
    "permission": (403, "invalid_request_error", "model_not_found"),
    "model_not_found": (404, "invalid_request_error", "model_not_found"),
    "context_length": (400, "invalid_request_error", "context_length_exceeded"),
    "content_policy": (400, "invalid_request_error", "invalid_prompt"),
    "request_too_large": (413, "invalid_request_error", "request_too_large"),
    "timeout": (504, "server_error", None),
}
AT_ANTHROPIC: dict[FailureKind, tuple[int, str]] = {
    "rate_limit": (429, "rate_limit_error"),
    "quota": (400, "invalid_request_error"),
    "overloaded": (529, "overloaded_error"),
    "server_error": (500, "api_error"),
    "unavailable": (503, "api_error"),
    "authentication": (401, "authentication_error"),
    "permission": (403, "permission_error"),
    "model_not_found": (404, "not_found_error"),
    "context_length": (400, "invalid_request_error"),
    "content_policy": (400, "invalid_request_error"),
    "request_too_large": (413, "request_too_large"),
    "timeout": (504, "timeout_error"),
}


@pytest.mark.parametrize("kind", get_args(FailureKind))
async def test_each_failure_is_the_providers_own(provider: ScriptedProvider, ask: Ask, kind: FailureKind):
    provider.script("m", Delay(0.001), Failure(kind))
    for dialect in ("openai", "responses"):
        with pytest.raises(openai.APIStatusError) as at_openai:
            await ask(dialect, stream=True)
        error = at_openai.value
        assert (error.status_code, error.type, error.code) == AT_OPENAI[kind]
    with pytest.raises(anthropic.APIStatusError) as at_anthropic:
        await ask("anthropic", stream=True)
    assert (at_anthropic.value.status_code, at_anthropic.value.type) == AT_ANTHROPIC[kind]


async def test_a_prompt_that_is_too_long_is_told_by_its_message(provider: ScriptedProvider, ask: Ask):
    provider.script("m", Failure("context_length"))
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long: 215180 tokens > 200000 maximum"):
        await ask("anthropic")
    for dialect, param in (("openai", "messages"), ("responses", "input")):
        with pytest.raises(openai.BadRequestError) as caught:
            await ask(dialect)
        assert caught.value.param == param


@DIALECTS
async def test_a_failure_says_when_to_come_again(provider: ScriptedProvider, ask: Ask, dialect: str):
    provider.script("m", Failure("rate_limit", retry_after_s=1.5, headers={"x-should-retry": "false"}))
    with pytest.raises((openai.RateLimitError, anthropic.RateLimitError)) as caught:
        await ask(dialect)
    error: Any = caught.value
    headers = error.response.headers
    assert headers["retry-after"] == "2"
    assert headers.get("retry-after-ms") == (None if dialect == "anthropic" else "1500")
    assert headers["x-should-retry"] == "false"
    limits = "anthropic-ratelimit" if dialect == "anthropic" else "x-ratelimit"
    assert [headers[name] for name in headers if name.startswith(limits) and "remaining" in name] == ["0"]


@DIALECTS
async def test_an_http_error_says_it_too(provider: ScriptedProvider, ask: Ask, dialect: str):
    provider.script("m", HttpError(503, retry_after_s=0.25))
    with pytest.raises((openai.InternalServerError, anthropic.InternalServerError)) as caught:
        await ask(dialect)
    error: Any = caught.value
    assert error.response.headers["retry-after"] == "1"


@DIALECTS
async def test_scripts_are_for_one_attempt_each(provider: ScriptedProvider, ask: Ask, dialect: str):
    provider.script("m", Failure("overloaded", headers={"retry-after-ms": "1"}))
    provider.then("m", Failure("rate_limit", headers={"retry-after-ms": "1"}))
    provider.then("m", Text("third time"))
    answer = await ask(dialect, max_retries=2)
    assert "third time" in str(answer)
    retries = [call.headers["x-stainless-retry-count"] for call in provider.calls]
    assert retries == ["0", "1", "2"]
    assert [call.sent_text for call in provider.calls] == ["", "", "third time"]


@pytest.mark.parametrize(("transport", "reads"), [("httpx2", 2), ("aiohttp", 3)])
async def test_a_get_may_be_cut_before_its_answer(provider: ScriptedProvider, transport: Any, reads: int):
    provider.script("m", Text("Hel"), CutReader(how="eof", then=[Cut(), Cut(), Failure("unavailable")]))
    async with openai_client(provider, transport=transport) as gpt:
        stream = await gpt.responses.create(model="m", input="Hi", background=True, stream=True)
        assert [event.sequence_number async for event in stream] == list(range(6))
        (run,) = provider.runs
        with pytest.raises(openai.APIConnectionError):
            await gpt.responses.retrieve(run.id, stream=True, starting_after=5)
    # aiohttp repeats a GET by itself, once: no client of ours sees the first cut.
    assert [read.end for read in run.reads] == ["cut"] * reads


def test_failures_come_first_or_not_at_all():
    with pytest.raises(ValueError, match="only waits"):
        ScriptedProvider().script("m", Text("x"), Failure("quota"))
    with pytest.raises(ValueError, match="at least one"):
        ScriptedProvider().script("m", CutReader(times=0))


async def test_a_script_survives_the_way_to_another_process():
    script: list[Step] = [
        Quirks(crlf=True),
        RedactedThinking(),
        Text("x"),
        CutReader(times=2, then=[HttpError(500, body=b"\xff"), Failure("quota"), Silence()]),
        StreamError(events=["failed"]),
    ]
    order = json.loads(json.dumps(to_json(script)))
    assert [RemoteProvider()._step(step) for step in order] == script
