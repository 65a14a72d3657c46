"""The clients, pointed at one or the other API process of a test's stack."""

from collections.abc import AsyncIterator, Iterator

import anthropic
import httpx2
import openai
import pytest

from tests.faces import pages
from tests.npm import NotInstalled
from tests.stack import Stack

PROVIDERS = ("openai", "anthropic")
"""Each client speaks to both."""


@pytest.fixture
async def chat(stack: Stack) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's client, strict, at the first API process; it asks once."""
    async with openai_client(stack) as client:
        yield client


def openai_client(stack: Stack, api: int = 0, key: str = "any") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"{stack.apis[api].url}/v1",
        api_key=key,
        max_retries=0,
        http_client=httpx2.AsyncClient(trust_env=False, verify=False, timeout=30),
        _strict_response_validation=True,
    )


@pytest.fixture
async def claude(stack: Stack) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client, strict, at the first API process; it asks once."""
    async with anthropic_client(stack) as client:
        yield client


def anthropic_client(stack: Stack, api: int = 0, key: str = "any") -> anthropic.AsyncAnthropic:
    return anthropic.AsyncAnthropic(
        base_url=stack.apis[api].url,
        api_key=key,
        max_retries=0,
        http_client=httpx2.AsyncClient(trust_env=False, verify=False, timeout=30),
        _strict_response_validation=True,
    )


@pytest.fixture(scope="session")
def all_pages() -> Iterator[pages.Browser]:
    try:
        node = pages.node()
    except NotInstalled as error:
        pytest.skip(str(error))
    with pages.browser(node) as browser:
        yield browser


@pytest.fixture
def browser(all_pages: pages.Browser) -> Iterator[pages.Browser]:
    """Pages with the AI SDK's `useChat`."""
    yield all_pages
    all_pages.close()
