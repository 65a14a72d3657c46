"""One reader's view of one log: replay, merge, live, snapshot, end.

What the hub brings is only taken when its id proves that nothing stands between it and what the reader has;
else the log itself is read, from the same cursor, with the same read as at the start.

A reader that waits for news has them written at once, from where they arrive (`Outlet`): waking its task for
each token costs as much as all the rest. Whatever the outlet does not take goes to the task.
"""

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from api.connection import http_chunk
from api.streams import Seat
from shared.clock import mono_s
from shared.events import START, Answer, Entry, EventId
from shared.log import Log
from shared.redis import REDIS_FAULTS

MAX_INBOX_BYTES: Final = 256 * 1024
"""Kept for a reader that is busy sending; beyond it, it reads the log when it has time."""

RETRY_S: Final = 0.25
LISTEN_S: Final = 1.0


class LogGone(Exception):
    """The log that is being read does not exist any more."""


Frame = Callable[[Entry], bytes]


class Batch:
    """Entries of one log that follow each other directly, encoded once for all who read them."""

    __slots__ = ("_chunks", "before", "came_s", "ends", "entries", "last", "tail")

    def __init__(self, entries: list[Entry]) -> None:
        self.entries = entries
        first, last = entries[0], entries[-1]
        self.before = EventId(first.id.attempt, first.id.seq - 1)
        """The one cursor that nothing stands between and the first of them: none for an attempt's opening."""
        self.last = last.id
        self.tail = last.tail
        self.ends = last.last
        """Whether the log's last event is among them."""
        self.came_s = mono_s()
        self._chunks: dict[Frame, bytes] = {}

    @property
    def size(self) -> int:
        return sum([len(entry.data) for entry in self.entries])

    def chunk(self, frame: Frame) -> bytes:
        """Return all of them in one dialect, as one chunk of an HTTP body."""
        chunk = self._chunks.get(frame)
        if chunk is None:
            chunk = self._chunks[frame] = http_chunk(b"".join([frame(entry) for entry in self.entries]))
        return chunk


class Outlet(Protocol):
    """Writes to a client without waiting. Each says whether it did: not when the client takes nothing just now."""

    def deliver(self, batch: Batch) -> bool: ...

    def ping(self) -> bool: ...


class Reader:
    """Yields a log's entries in order, each once, from a cursor to the last event."""

    def __init__(
        self,
        log: Log,
        job_id: str,
        cursor: EventId,
        listening: asyncio.Future[None],
        *,
        counts: bool = False,
        key: str | None = None,
        seat: Seat | None = None,
        merges: bool = True,
        refresh: Callable[[], Awaitable[bool]] | None = None,
        stale: bool = False,
    ) -> None:
        """`refresh`: brings to the log what is decided elsewhere, and says whether there is such a job. `stale`: it is
        to do so before the first look."""
        self.key = key
        """The API key by which it reads."""
        self.counts = counts
        """Whether a job that minds is cancelled some time after this reader, should it be the last, has left."""
        self.seat = seat
        """The stream that it is among its owner's; None for one that nobody counts."""
        self.job_id = job_id
        self.cursor = cursor
        self.active_s = mono_s()
        """When something was last yielded, or written past the task."""
        self.detached = False
        """Whether nobody reads here any more."""
        self.outlet: Outlet | None = None
        """Where what comes while `batches` waits may go at once."""
        self.on_stall: Callable[[], None] = self.end
        """Cuts the client off."""
        self.stalled = False
        """Whether that has been done, as the client took nothing for too long."""
        self.snapshots = 0
        """How often the log did not hold the cursor."""
        self._log = log
        self._merges = merges
        self._refresh = refresh
        self._stale = stale
        self._listening = listening
        self._inbox: deque[Entry] = deque()
        self._inbox_bytes = 0
        self._lagging = True
        self._doubtful = cursor != START
        self._cursor_data: bytes | None = None
        self._ended = False
        self._nudged = False
        self._parked = False
        """Whether `batches` waits, and all that it yielded has been sent."""
        self._wake = asyncio.Event()

    # From the hub.

    def offer(self, batch: Batch) -> None:
        """Take new entries, unless so many wait that the log is the better place for them."""
        if self._lagging:
            return
        if self._parked and self._hand_out(batch):
            # In front of nobody: the task waits, and the client has it.
            self.active_s = batch.came_s
            self.cursor = batch.last
            self._cursor_data = batch.tail
            return
        self._inbox_bytes += batch.size
        if self._inbox_bytes > MAX_INBOX_BYTES:
            self.lag()
            return
        self._inbox += batch.entries
        self._wake.set()

    def _hand_out(self, batch: Batch) -> bool:
        """Write what follows the cursor, past the task that waits; the end is that task's to write."""
        return (
            self.outlet is not None
            and self.cursor == batch.before
            and not batch.ends
            and not self._inbox
            and not self._ended
            and self.outlet.deliver(batch)
        )

    def lag(self) -> None:
        """Forget what waits and read the log instead."""
        self._empty()
        self._lagging = True
        self._wake.set()

    def doubt(self) -> None:
        """Read the log, and first see whether it still is the one that the cursor is from."""
        self._doubtful = self.cursor != START
        self._stale = self._refresh is not None
        self.lag()

    def nudge(self, now_s: float) -> None:
        """Send something, be it nothing."""
        if self._parked and self.outlet is not None and not self._inbox and self.outlet.ping():
            self.active_s = now_s
            return
        self._nudged = True
        self._wake.set()

    def leave(self) -> None:
        """Let go of the client: whoever still has the reader on a list holds no more than that."""
        self.detached = True
        self.outlet = None
        self.on_stall = self.end
        self._cursor_data = None
        self._empty()

    def end(self) -> None:
        """Stop after what is being yielded."""
        self._ended = True
        self._wake.set()

    # To the response.

    async def batches(self, *, once: bool = False) -> AsyncGenerator[list[Entry], None]:
        """Yield what is new, oldest first, until the last event is out. An empty batch is a sign of life.

        Starts with a snapshot when the log does not hold the cursor. Waits while Redis is away. Raises LogGone.
        `once`: end when all that the log holds now is out.
        """
        while not self._ended:
            try:
                if self._stale:
                    await self._freshen_unless_ended()
                if self._doubtful:
                    # A doubt that comes up meanwhile is a new one.
                    self._doubtful = False
                    try:
                        snapshot = await self._snapshot()
                    except REDIS_FAULTS:
                        self._doubtful = True
                        raise
                    if snapshot is not None:
                        self.snapshots += 1
                        yield self._passed([snapshot])
                async for batch in self._replay():
                    yield self._passed(batch)
                    if batch[-1].last or self._ended:
                        return
                if once:
                    return
            except REDIS_FAULTS:
                self._lagging = True
                await self._pause()
            if self._lagging and self._nudged:
                self._nudged = False
                yield self._passed([])
            while not self._lagging and not self._ended:
                self._parked = True
                await self._wake.wait()
                self._parked = False
                self._wake.clear()
                batch = self._take()
                if batch or self._nudged:
                    self._nudged = False
                    yield self._passed(batch)
                    if batch and batch[-1].last:
                        return

    def _passed(self, batch: list[Entry]) -> list[Entry]:
        self.active_s = mono_s()
        if batch:
            self.cursor = batch[-1].id
            self._cursor_data = batch[-1].tail
        return batch

    async def _replay(self) -> AsyncIterator[list[Entry]]:
        """Yield what the log holds behind the cursor, neighbouring texts merged unless each one counts."""
        if not self._listening.done():
            await asyncio.wait([self._listening], timeout=LISTEN_S)
        if self._listening.done():
            # From here on the hub brings whatever the read below does not see.
            self._lagging = False
            self._empty()
        read = False
        async for page in self._log.pages(self.job_id, self.cursor, merged=self._merges):
            read = True
            yield page
        if read or await self._log.last(self.job_id) is not None:
            return
        # Elsewhere it may not have begun yet.
        await self._freshen()
        async for page in self._log.pages(self.job_id, self.cursor, merged=self._merges):
            yield page

    async def _freshen(self) -> None:
        """Have everything in the log that is decided about the job; raise LogGone when there is none."""
        self._stale = False
        try:
            known = self._refresh is not None and await self._refresh()
        except REDIS_FAULTS:
            self._stale = True
            raise
        if not known:
            raise LogGone

    async def _freshen_unless_ended(self) -> None:
        """The same, but where the last event is there: a server that takes no writes can still be read."""
        self._stale = False
        try:
            last = await self._log.last(self.job_id)
        except REDIS_FAULTS:
            self._stale = True
            raise
        if last is None or not last.last:
            await self._freshen()

    def _take(self) -> list[Entry]:
        """Return the waiting entries that follow each other; at the first that does not, turn to the log."""
        batch: list[Entry] = []
        cursor = self.cursor
        while self._inbox:
            entry = self._inbox.popleft()
            if entry.id <= cursor:
                continue
            if not cursor.precedes(entry.id):
                self.lag()
                break
            batch.append(entry)
            cursor = entry.id
        self._inbox_bytes = 0
        return batch

    def _empty(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0

    async def _snapshot(self) -> Entry | None:
        """Return the state up to the newest entry before the end, if the log does not hold the cursor.

        A Redis that came back without its last writes may hold another entry under the same id.
        """
        held = await self._log.get(self.job_id, self.cursor)
        if held is not None and self._cursor_data in (None, held.data):
            return None
        if held is None and await self._log.last(self.job_id) is None:
            await self._freshen()
        answer, latest = Answer(), None
        async for page in self._log.pages(self.job_id):
            for entry in page:
                if entry.last:
                    break
                answer.add(entry)
                latest = entry.id
        if latest is None:
            raise LogGone
        return answer.snapshot(latest)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(RETRY_S * random.uniform(0.5, 1.5)):
                await self._wake.wait()
        except TimeoutError:
            return
        self._wake.clear()
