"""Fixtures: one provider, one worker and one API a module, with all rows set up; each test on a model of its own."""

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.client import Client
from tests.conformance import runnables
from tests.conformance.bench import Bench
from tests.conformance.rows import DEMO, ROWS, Row
from tests.provider import ScriptedProvider
from tests.stack import Stack
from tests.valkey import Valkey

MANY = 1_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(shared_valkey: Valkey, request: pytest.FixtureRequest) -> AsyncIterator[tuple[Stack, Client]]:
    """Everything that runs, with the settings that the module names as `SETTINGS`."""
    async with ScriptedProvider() as provider:
        runnables.base_url = provider.openai_url
        stack = Stack(shared_valkey, f"test-{uuid.uuid4().hex[:12]}", provider)
        try:
            more = {row.name: row.config(provider) for row in ROWS if row.config is not None}
            stack.configure(more_providers=more, rate_limit=MANY, **getattr(request.module, "SETTINGS", {}))
            await stack.worker()
            await stack.api()
            yield stack, stack.client()
        finally:
            await stack.close()


@pytest.fixture(params=ROWS, ids=lambda row: row.label or row.name)
def row(request: pytest.FixtureRequest) -> Row:
    """Each provider that speaks as scripted."""
    found: Row = request.param
    return found


@pytest.fixture
def bench(house: tuple[Stack, Client], row: Row) -> Bench:
    return Bench(*house, row)


@pytest.fixture(params=(*ROWS, DEMO), ids=lambda row: row.label or row.name)
def any_bench(house: tuple[Stack, Client], request: pytest.FixtureRequest) -> Bench:
    """Each provider, also the one that has only its own words."""
    return Bench(*house, request.param)
