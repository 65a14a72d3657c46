"""Fixtures of the fault tests: settings that make takeovers quick, and what they share."""

from collections.abc import AsyncIterator

import pytest

from tests.faults.proxy import Proxy
from tests.provider import ScriptedProvider
from tests.stack import Stack
from tests.valkey import Valkey, valkey

LEASE_S = 1.5
"""Short enough to wait for, long enough for a process on a busy machine to keep."""

FOR_EVER_MS = 2**52
"""A reaper's word that does not grow old."""

ROOMY = {"max_streams": 10_000, "max_active_jobs": 10_000, "rate_limit": 1_000_000}


@pytest.fixture
async def proxy(shared_valkey: Valkey) -> AsyncIterator[Proxy]:
    async with Proxy(shared_valkey.port) as between:
        yield between


@pytest.fixture
def quick(proxy: Proxy, bare: Stack) -> Stack:
    """A stack with nothing started yet; leases are short, limits not in the way, and the proxy outlives it."""
    bare.configure(lease_s=LEASE_S, **ROOMY)
    return bare


@pytest.fixture
async def own(prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """As `quick`, on a Valkey of its own that keeps every write on disk.

    Not `everysec`: should the disk be slow, that keeps writes back for up to two seconds, and SIGKILL loses them.
    """
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        stack = Stack(server, prefix, provider)
        stack.configure(lease_s=LEASE_S, **ROOMY)
        try:
            yield stack
        finally:
            await stack.close()
