"""How long a client waits to learn that it cannot be served: less than a second, whatever Redis does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from shared.errors import Unavailable

DEADLINE_S: Final = 0.95


@asynccontextmanager
async def deadline() -> AsyncIterator[None]:
    """Bound all of a route's work in Redis; raise Unavailable when it is not done in time."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield
    except TimeoutError:
        raise Unavailable from None
