"""One client a test, once sync and once async."""

from collections.abc import AsyncIterator

import pytest

from tests.library.both import Both, Kind
from tests.stack import Stack


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def both(stack: Stack, kind: Kind) -> AsyncIterator[Both]:
    """A client of one API process."""
    client = Both(kind, stack.url)
    yield client
    await client.aclose()
