"""Calls that are made as an SDK has made the first ones: they say the same, and fail by the SDK's own word."""

from collections.abc import Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from tests.provider import HttpError, ScriptedProvider, Text
from worker.failures import is_stale_connection
from worker.providers import http
from worker.providers.calls import Calls
from worker.providers.transport import Prepared, StaleConnection, Transport

HELLO = [{"role": "user", "content": "Hi"}]


class Counted:
    """An SDK's client that says how often it was asked."""

    def __init__(self, sdk: Any, headers: Callable[[int], dict[str, str]] = lambda _: {}) -> None:
        self.asked = 0
        self.with_options = sdk.with_options
        self._sdk = sdk
        self._headers = headers

    async def post(self, path: str, *, options: dict[str, Any], **asked: Any) -> Any:
        self.asked += 1
        headers = {**options["headers"], **self._headers(self.asked)}
        return await self._sdk.post(path, options={**options, "headers": headers}, **asked)


def client(name: str, provider: ScriptedProvider, transport: Transport) -> tuple[Any, str]:
    how: dict[str, Any] = {"api_key": "sk-1", "max_retries": 0, "timeout": None, "http_client": http.client(transport)}
    if name == "openai":
        return openai.AsyncOpenAI(base_url=provider.openai_url, **how), "/chat/completions"
    return anthropic.AsyncAnthropic(base_url=provider.anthropic_url, **how), "/v1/messages"


async def ask(calls: Calls, path: str, model: str = "m") -> None:
    asked = {"model": model, "messages": HELLO, "stream": True, "max_tokens": 9}
    await http.stream(calls, path, asked, Ear(), lambda event: b"DONE" in event.data or event.event == b"message_stop")


class Ear:
    full = False

    async def room(self) -> None:
        raise AssertionError("never full")


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_later_calls_say_what_the_sdk_has_said(provider: ScriptedProvider, name: str) -> None:
    provider.script("m", Text("an answer"))
    provider.script("a longer name", Text("an answer"))
    transport = Transport()
    sdk, path = client(name, provider, transport)
    counted = Counted(sdk)
    calls = Calls(counted, transport)
    for model in ("m", "m", "m", "a longer name"):
        await ask(calls, path, model)
    assert counted.asked == 2
    first, *others = [call.headers for call in provider.calls]
    for headers in others:
        assert {**headers, "content-length": ""} == {**first, "content-length": ""}
    assert [call.model for call in provider.calls] == ["m", "m", "m", "a longer name"]
    await sdk.close()


async def test_what_is_another_with_each_call_is_never_repeated(provider: ScriptedProvider) -> None:
    provider.script("m", Text("an answer"))
    transport = Transport()
    sdk, path = client("openai", provider, transport)
    calls = Calls(Counted(sdk, lambda number: {"X-Number": str(number)}), transport)
    for _ in range(4):
        await ask(calls, path)
    assert [call.headers["x-number"] for call in provider.calls] == ["1", "2", "3", "4"]
    await sdk.close()


async def test_an_answers_cookies_are_not_repeated_for_ever(provider: ScriptedProvider) -> None:
    provider.script("m", Text("an answer"))
    transport = Transport()
    sdk, path = client("openai", provider, transport)
    counted = Counted(sdk, lambda number: {"Cookie": "session=1"})
    calls = Calls(counted, transport)
    for _ in range(3):
        await ask(calls, path)
    assert ["cookie" in call.headers for call in provider.calls] == [True, True, False]
    await sdk.close()


@pytest.mark.parametrize("name", ["openai", "anthropic"])
async def test_a_later_calls_refusal_is_the_sdks_own_error(provider: ScriptedProvider, name: str) -> None:
    refusal = HttpError(429, body=b'{"error":{"type":"rate_limit_error","message":"no"}}', headers={"retry-after": "7"})
    provider.script("m", Text("an answer"))
    provider.script("refused", refusal)
    transport = Transport()
    sdk, path = client(name, provider, transport)
    counted = Counted(sdk)
    calls = Calls(counted, transport)
    told = []
    for model in ("refused", "m", "m", "refused"):
        try:
            await ask(calls, path, model)
        except (openai.RateLimitError, anthropic.RateLimitError) as error:
            told.append((type(error), error.body, error.response.headers["retry-after"], str(error)))
    assert counted.asked == 3, "the last one was made without it"
    assert len(told) == 2
    assert told[0] == told[1]
    await ask(calls, path)
    await sdk.close()


@pytest.mark.parametrize("sound", [0, 2])
async def test_a_call_on_a_stale_connection_may_be_made_again_whoever_made_it(
    provider: ScriptedProvider, sound: int
) -> None:
    provider.script("m", Text("an answer"))
    transport = Stale()
    sdk, path = client("openai", provider, transport)
    calls = Calls(sdk, transport)
    for _ in range(sound):
        await ask(calls, path)
    transport.stale = True
    with pytest.raises((httpx2.HTTPError, openai.APIConnectionError)) as caught:
        await ask(calls, path)
    assert is_stale_connection(caught.value)
    await sdk.close()


class Stale(Transport):
    """Finds its kept-alive connection closed, when it is told to."""

    stale = False

    async def ask(self, prepared: Prepared, body: bytes) -> httpx2.Response:
        if self.stale:
            raise StaleConnection("closed while idle")
        return await super().ask(prepared, body)
