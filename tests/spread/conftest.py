"""Fixtures: the same stacks, with the logs of their jobs on event servers."""

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

import pytest

from tests.faults.conftest import LEASE_S, ROOMY
from tests.provider import ScriptedProvider
from tests.stack import Stack
from tests.valkey import Valkey, valkey


@pytest.fixture
async def bare(shared_valkey: Valkey, prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """A stack with nothing started yet. Its two event servers are databases of the one that has the records."""
    stack = Stack(shared_valkey, prefix, provider)
    base = shared_valkey.url.rpartition("/")[0]
    stack.event_servers = {f"events-{n}": f"{base}/{n}" for n in (1, 2)}
    try:
        yield stack
    finally:
        await stack.close()


@pytest.fixture
def servers() -> Iterator[dict[str, Valkey]]:
    """Two event servers, processes of their own that keep every write on disk."""
    with ExitStack() as running:
        yield {name: running.enter_context(event_server()) for name in ("events-1", "events-2")}


def event_server():
    return valkey("--appendonly", "yes", "--appendfsync", "always")


@pytest.fixture
async def spread(
    shared_valkey: Valkey, servers: dict[str, Valkey], prefix: str, provider: ScriptedProvider
) -> AsyncIterator[Stack]:
    """A stack with nothing started yet, whose jobs' logs are on `servers`."""
    stack = Stack(shared_valkey, prefix, provider)
    stack.event_servers = {name: server.url for name, server in servers.items()}
    stack.configure(lease_s=LEASE_S, **ROOMY)
    try:
        yield stack
    finally:
        await stack.close()
