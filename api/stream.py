"""The responses that stream: a reader's batches as SSE or NDJSON, on sse-starlette's response.

sse-starlette sets the headers and notices the server's exit. Its four tasks a stream, and an
encoder that takes dicts apart, are what we do without: one task, which live tokens do not even wake, and frames that
are encoded once for all readers.
"""

import asyncio
import random
from collections.abc import Mapping
from contextlib import aclosing
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from api.connection import Connection, http_chunk
from api.hub import Hub
from api.negotiation import NDJSON, SSE
from api.relay import Batch, LogGone, Reader
from shared.events import Entry

RETRY_MS: Final = (1_000, 3_000)
"""Between these a stream is told to wait before it comes back: those of one process do not come all at once."""

PING: Final = b": ping\n"
"""One newline, not two: behind an `id:` line the OpenAI SDK and two other clients take an empty block for an event."""


PING_CHUNK: Final = http_chunk(PING)


def hello() -> bytes:
    """Open the block of the first event, so that `retry:` stands in no block of its own."""
    return b"retry: %d\n" % random.randint(*RETRY_MS) + PING


CLOSE_S: Final = 1.0
"""How long a cut connection may take to be gone."""

HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


def sse_frame(entry: Entry) -> bytes:
    """Return the entry as a frame. `id:` comes last: one client moves its cursor at that very line."""
    if entry.sse is None:
        entry.sse = b"event: %b\ndata: %b\nid: %d-%d\n\n" % (entry.event.encode(), entry.data, *entry.id)
    return entry.sse


def ndjson_line(entry: Entry) -> bytes:
    return b'{"id":"%d-%d","event":"%b","data":%b}\n' % (*entry.id, entry.event.encode(), entry.data)


class LogResponse(EventSourceResponse):
    """Streams one reader's batches until its last event; closes then, and only then says that it was all."""

    def __init__(self, hub: Hub, reader: Reader, media_type: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(iter(()), headers={**HEADERS, **(headers or {})}, media_type=media_type, ping=0)
        self._hub = hub
        self._reader = reader
        self._frame = sse_frame if media_type == SSE else ndjson_line
        self._hello, self._ping_bytes = (hello(), PING) if media_type == SSE else (b"", b"")
        self._ping_chunk = PING_CHUNK if media_type == SSE else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = connection = Connection.of(scope, send)
        self._reader.on_stall = connection.abort
        gone = asyncio.create_task(self._until_gone(receive))
        try:
            connection.bound_buffer()
            if not await self._relay(send):
                # A body that ends well says that this was all: every SDK would take the cut for success.
                connection.close()
                await asyncio.wait([gone], timeout=CLOSE_S)
                connection.abort()
        finally:
            self._hub.detach(self._reader)
            gone.cancel()

    async def _relay(self, send: Send) -> bool:
        """Send all batches; say whether the last event was among them."""
        with self._hub.sending(self._reader):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # Also when it is empty: the head leaves with it.
            await send(_body(self._hello))
        self._reader.outlet = self
        ended = False
        try:
            async with aclosing(self._reader.batches()) as batches:
                async for batch in batches:
                    chunk = b"".join([self._frame(entry) for entry in batch]) if batch else self._ping_bytes
                    # Also an empty one: a client that takes nothing is found by it.
                    with self._hub.sending(self._reader):
                        await self._connection.send(_body(chunk))
                    ended = bool(batch) and batch[-1].last
        except LogGone:
            pass
        if ended:
            with self._hub.sending(self._reader):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        return ended

    def deliver(self, batch: Batch) -> bool:
        return self._connection.write_now(batch.chunk(self._frame))

    def ping(self) -> bool:
        return self._connection.write_now(self._ping_chunk)

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.end()


def _body(chunk: bytes) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": True}


__all__ = ["NDJSON", "SSE", "LogResponse", "ndjson_line", "sse_frame"]
