"""The real SDKs, pointed at a scripted provider and checking every answer against their types."""

from typing import Any, Literal

import anthropic
import openai
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from tests.provider.server import ScriptedProvider


def openai_client(
    provider: ScriptedProvider,
    *,
    strict: bool = True,
    transport: Literal["httpx2", "aiohttp"] = "httpx2",
    **options: Any,
) -> AsyncOpenAI:
    """Return OpenAI's client, to be used as `async with`; it retries nothing unless told to."""
    http = openai.DefaultAioHttpClient if transport == "aiohttp" else openai.DefaultAsyncHttpxClient
    return AsyncOpenAI(
        base_url=provider.openai_url,
        api_key="k",
        http_client=http(verify=False),  # no TLS here: loading the CAs takes 20 ms
        _strict_response_validation=strict,
        **{"max_retries": 0, "timeout": 5, **options},
    )


def anthropic_client(provider: ScriptedProvider, *, strict: bool = True, **options: Any) -> AsyncAnthropic:
    """Return Anthropic's client, to be used as `async with`; it retries nothing unless told to."""
    return AsyncAnthropic(
        base_url=provider.anthropic_url,
        api_key="k",
        http_client=anthropic.DefaultAsyncHttpxClient(verify=False),
        _strict_response_validation=strict,
        **{"max_retries": 0, "timeout": 5, **options},
    )
