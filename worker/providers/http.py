"""What the SDKs share: the HTTP client under them, and how a stream's bytes are read."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import Final, Protocol

import httpx2

from worker.providers.base import Sink
from worker.providers.sse import ServerSentEvent, SseDecoder

CONNECT_TIMEOUT_S: Final = 10.0
"""Silence after the connect is judged by the attempt's own clocks (`worker.watch`), not by the transport."""

DRAIN_S: Final = 0.1
"""How long an answer's last bytes may take after its end marker, so that the connection can be used again."""


class Body(Protocol):
    def iter_bytes(self) -> AsyncIterator[bytes]: ...


def timeouts() -> httpx2.Timeout:
    return httpx2.Timeout(None, connect=CONNECT_TIMEOUT_S)


def limits(max_jobs: int) -> httpx2.Limits:
    """Return limits that never make a job wait for another: aiohttp's own default is 100 connections."""
    return httpx2.Limits(max_connections=max_jobs + 16, max_keepalive_connections=max_jobs, keepalive_expiry=30)


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
