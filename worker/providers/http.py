"""What the SDKs share: the HTTP client under them, and how a stream's bytes are read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final, Protocol

import httpx2

from worker.providers.base import Sink
from worker.providers.sse import ServerSentEvent, SseDecoder

DRAIN_S: Final = 0.1
"""How long an answer's last bytes may take after its end marker, so that the connection can be used again."""


class Body(Protocol):
    def iter_bytes(self) -> AsyncIterator[bytes]: ...


def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    """Return the HTTP client of one SDK, over the connections that all of them share."""
    return httpx2.AsyncClient(transport=transport, timeout=None, follow_redirects=False)


async def events(body: Body, sink: Sink) -> AsyncGenerator[ServerSentEvent, None]:
    """Yield the stream's events, no faster than the sink takes them."""
    decoder = SseDecoder()
    async for chunk in body.iter_bytes():
        for event in decoder.feed(chunk):
            yield event
        if sink.full:
            await sink.room()


async def drain(stream: AsyncIterator[ServerSentEvent]) -> None:
    """Read what is left behind the end marker, briefly."""
    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in stream:
                pass
