"""The response that streams: a reader's batches, in its dialect, on sse-starlette's response.

sse-starlette sets the headers and notices the server's exit. Its four tasks a stream, and an
encoder that takes dicts apart, are what we do without: one task, which live tokens do not even wake, and frames that
are encoded once for all readers.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Final

from sse_starlette import EventSourceResponse
from starlette.types import Message, Receive, Scope, Send

from api.connection import Connection, http_chunk
from api.dialect import Dialect
from api.hub import Hub
from api.relay import Batch, LogGone, Reader
from shared import telemetry
from shared.clock import mono_s
from shared.events import START

logger = logging.getLogger(__name__)

CLOSE_S: Final = 1.0
"""How long a cut connection may take to be gone."""

HEADERS: Final = {
    "Cache-Control": "no-cache, no-transform",
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


class LogResponse(EventSourceResponse):
    """Streams one reader's batches until its last event; closes then, and only then says that it was all."""

    def __init__(
        self,
        hub: Hub,
        reader: Reader,
        dialect: Dialect,
        headers: Mapping[str, str] | None = None,
        on_told: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`on_told`: called when the client has been sent all, and only then."""
        super().__init__(iter(()), headers={**HEADERS, **(headers or {})}, media_type=dialect.media_type, ping=0)
        self._hub = hub
        self._reader = reader
        self._dialect = dialect
        self._on_told = on_told
        self._ping_chunk = http_chunk(dialect.ping) if dialect.ping else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connection = connection = Connection.of(scope, send)
        self._reader.on_stall = connection.abort
        if self._reader.cursor != START:
            self._hub.metrics.resumes.inc()
        gone = asyncio.create_task(self._until_gone(receive))
        began_s, outcome = mono_s(), "failed"
        self._say("stream opened")
        try:
            connection.bound_buffer()
            if await self._relay(send):
                outcome = "told"
                if self._on_told is not None:
                    await self._on_told()
            else:
                outcome = "cut"
                # A body that ends well says that this was all: every SDK would take the cut for success.
                connection.close()
                await asyncio.wait([gone], timeout=CLOSE_S)
                connection.abort()
        finally:
            self._hub.detach(self._reader, for_good=self._dialect.gave_up)
            gone.cancel()
            telemetry.tell("rejoin.stream.outcome", outcome)
            self._say("stream closed", outcome=outcome, duration_ms=round((mono_s() - began_s) * 1000))

    def _say(self, what: str, **more: str | int) -> None:
        reader = self._reader
        if logger.isEnabledFor(logging.INFO):
            logger.info(what, extra={"job_id": reader.job_id, "cursor": str(reader.cursor), **more})

    async def _relay(self, send: Send) -> bool:
        """Send all batches; say whether all was told."""
        dialect = self._dialect
        with self._hub.sending(self._reader):
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            # Also when it is empty: the head leaves with it.
            await send(_body(dialect.opening()))
        self._reader.outlet = self
        try:
            async with aclosing(self._reader.batches()) as batches:
                async for batch in batches:
                    body = dialect.body(batch) if batch else dialect.ping
                    with self._hub.sending(self._reader):
                        # Also an empty one: a client that takes nothing is found by it.
                        await self._connection.send(_body(body, more=not dialect.over))
                        if dialect.over:
                            return True
                        if self._connection.full:
                            # That waited before it wrote, and what it wrote may be megabytes.
                            await self._connection.send(_body(b""))
        except LogGone:
            pass
        if dialect.over:
            # All was told past this task (`deliver`).
            with self._hub.sending(self._reader):
                await send(_body(b"", more=False))
        return dialect.over

    def deliver(self, batch: Batch) -> bool:
        dialect = self._dialect
        if dialect.tells_once and not self._connection.write_now(b""):
            return False
        done = self._connection.write_now(dialect.chunk(batch))
        if dialect.over:
            self._reader.end()
        elif done and self._connection.full:
            # From here on it is the task that waits, and that is watched.
            self._reader.nudge(batch.came_s)
        return done

    def ping(self) -> bool:
        return self._connection.write_now(self._ping_chunk)

    async def _until_gone(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._reader.end()


def _body(chunk: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}
