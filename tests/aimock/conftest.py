"""Fixtures: one aimock a test process, emptied for each test; `stack` and `client` of these tests talk to it."""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.aimock.server import Aimock, find_node, install, serve
from tests.npm import NotInstalled
from tests.stack import Stack


@pytest.fixture(scope="session")
def node() -> str:
    """A Node.js that can run aimock, and aimock installed."""
    path = find_node()
    if path is None:
        pytest.skip("no Node.js 20.15 or later")
    try:
        install()
    except NotInstalled as error:
        pytest.skip(str(error))
    return path


@pytest.fixture(scope="session")
def aimock_url(node: str) -> Iterator[str]:
    with serve(node) as url:
        yield url


@pytest.fixture
async def aimock(aimock_url: str) -> AsyncIterator[Aimock]:
    async with Aimock(aimock_url) as mock:
        yield mock


@pytest.fixture
def bare(aimock: Aimock, bare: Stack) -> Stack:
    """The stack of all tests, with aimock in the place of both providers."""
    bare.configure(openai_base_url=aimock.openai_url, anthropic_base_url=aimock.anthropic_url)
    return bare
