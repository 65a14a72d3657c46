"""How long a client waits to learn that it cannot be served: less than a second, whatever Redis does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from shared.errors import Unavailable

DEADLINE_S: Final = 0.95

Page = TypeVar("Page")


@asynccontextmanager
async def deadline() -> AsyncIterator[None]:
    """Bound all of a route's work in Redis; raise Unavailable when it is not done in time."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    except TimeoutError:
        raise Unavailable from None


async def in_time(pages: AsyncIterator[Page]) -> AsyncIterator[Page]:
    """Yield pages, each with a deadline of its own: much to be read takes long, and is no Redis that is silent."""
    while True:
        async with deadline():
            page = await anext(pages, None)
        if page is None:
            return
        yield page
