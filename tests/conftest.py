"""Fixtures: one Valkey a test process, one key prefix, one provider and one stack a test."""

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.client import Client
from tests.provider import ScriptedProvider
from tests.stack import Stack
from tests.valkey import Valkey, valkey
from worker import retries


@pytest.fixture(scope="session")
def shared_valkey() -> Iterator[Valkey]:
    with valkey() as server:
        yield server


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers of the test's own process wait milliseconds before they ask a provider again."""
    monkeypatch.setattr(retries, "FIRST_WAIT_S", 0.01)


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest.fixture
async def bare(shared_valkey: Valkey, prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """A stack with nothing started yet."""
    stack = Stack(shared_valkey, prefix, provider)
    try:
        yield stack
    finally:
        await stack.close()


@pytest.fixture
async def stack(bare: Stack) -> Stack:
    """One worker and two API processes."""
    await bare.worker()
    await bare.api()
    await bare.api()
    return bare


@pytest.fixture
def client(stack: Stack) -> Client:
    return stack.client()
