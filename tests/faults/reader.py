"""Readers as browsers are: they get cut, come back with their last id, to whichever API process is there."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from urllib.parse import urlsplit

from tests.client import LAST, Frames
from tests.oracle import Reading


class Refused(Exception):
    """The server answered, and not with events."""

    def __init__(self, status: int) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status


async def stream(url: str, last_event_id: str | None = None) -> AsyncIterator[bytes]:
    """Yield the body of an event stream as it comes, on a connection of its own; OSError or EOFError when it is cut.

    A bare socket in place of an HTTP client: hundreds of readers are to be cheap, and their bytes exact.
    """
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        cursor = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        host = f"Host: {parts.netloc}\r\nAccept: text/event-stream\r\nConnection: close\r\n"
        writer.write(f"GET {parts.path} HTTP/1.1\r\n{host}{cursor}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        if status != 200:
            raise Refused(status)
        while size := int(await reader.readuntil(b"\r\n"), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
    finally:
        writer.transport.abort()


class Reader:
    """One reader's life over any number of connections, in a Reading for the oracle.

    Comes back until it has seen the end: after `pause_s` ± half, at the next URL. Gives up at 404.
    """

    def __init__(
        self,
        reading: Reading,
        urls: Sequence[str],
        choose: random.Random,
        *,
        pause_s: float = 0.05,
        cut_after: Callable[[], float | None] = lambda: None,
    ) -> None:
        self.reading = reading
        self.connections = 0
        self.refusals: list[int] = []
        self.gone = False
        self._urls = urls
        self._choose = choose
        self._at = choose.randrange(len(urls))
        self._pause_s = pause_s
        self._cut_after = cut_after
        self._news = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    @property
    def ended(self) -> bool:
        return self.reading.end is not None

    async def until(self, event_name: str, timeout_s: float = 10.0, attempt: int = 0) -> None:
        """Return once an event of this name has come, of this attempt or a later one."""
        async with asyncio.timeout(timeout_s):
            while not any(e.event == event_name and e.key[0] >= attempt for e in self.reading.events):
                self._news.clear()
                await self._news.wait()

    async def finish(self, timeout_s: float = 20.0) -> None:
        """Return once it has seen the end, or has given up. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(self._task)

    async def leave(self) -> None:
        """Go for good, and be content with what was seen."""
        await self.stop()
        self.reading.whole = self.ended

    async def stop(self) -> None:
        """Stop reading; a fault of this reader itself is raised here."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        while not self.ended and not self.gone:
            try:
                async with asyncio.timeout(self._cut_after()):
                    await self._connection()
            except Refused as refused:
                self.refusals.append(refused.status)
                self.gone = refused.status in (204, 404)
            except (OSError, EOFError, TimeoutError):
                pass
            if not self.ended:
                await asyncio.sleep(self._pause_s * self._choose.uniform(0.5, 1.5))
                self._at = (self._at + 1) % len(self._urls)

    def _heard(self, chunk: bytes) -> None:
        """Take note of what came, heartbeats too: for readers that want to."""

    async def _connection(self) -> None:
        events, frames = self.reading.events, Frames()
        self.connections += 1
        last = events[-1].id if events else self.reading.cursor
        url = f"{self._urls[self._at]}/v1/jobs/{self.reading.job_id}/events"
        body = stream(url, last)
        try:
            async for chunk in body:
                self._heard(chunk)
                for event in frames.feed(chunk):
                    events.append(event)
                    self._news.set()
                    if event.event in LAST and len(events) > 1 and events[-2].event in LAST:
                        return
        finally:
            await body.aclose()  # type: ignore[attr-defined]
