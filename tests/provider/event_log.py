"""What a background response has sent so far: readable from any event on, by any number of readers, live to its end."""

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from tests.provider.breaks import CutReader, Drop

# At the head of a frame only: text inside cannot forge it.
_NUMBER = re.compile(rb'(?:event: ?[^\r\n]*\r?\n)?data: ?\{"type":"[^"]*","sequence_number":(\d+)')
_FRAME = re.compile(rb"(?<=\n\n)|(?<=\n\r\n)")


@dataclass
class Frame:
    """One event, or bytes of the script's own that follow it."""

    after: int
    """Its sequence number, or that of the last event before it; -1 before the first."""
    data: bytes
    dribble: tuple[int, float] | None = None


@dataclass
class CutHere:
    """A place where the next readers lose their connection."""

    after: int
    step: CutReader
    early: bool
    """Whether it comes before any answer."""
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.step.times


class EventLog:
    """Takes a played script as a connection does (dialect.Outlet), and keeps it."""

    full = False

    def __init__(self) -> None:
        self.headers: Mapping[str, str] | None = None
        """The answer's, once they may be sent."""
        self.early_cuts: list[CutHere] = []
        self.over = False
        self.broken = False
        """Whether the double has failed, and its script with it."""
        self._entries: list[Frame | CutHere] = []
        self._last = -1
        self._waiters: list[asyncio.Future[None]] = []

    # A player writes with these.

    async def writable(self) -> None:
        return None

    async def flushed(self) -> None:
        return None

    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        raise NotImplementedError("a request that is refused makes no response")

    def head(self, status: int, headers: Mapping[str, str]) -> None:
        self.headers = headers
        self._wake()

    def send(self, piece: bytes) -> None:
        self._append(piece, None)

    async def dribble(self, data: bytes, size: int, gap_s: float) -> None:
        self._append(data, (size, gap_s))

    def end(self, piece: bytes = b"") -> None:
        self.send(piece)
        self.close()

    async def drop(self, how: Drop) -> None:
        self.cut(CutReader(how=how))

    def cut(self, step: CutReader) -> None:
        """Let the next readers that come to this place lose their connection."""
        place = CutHere(self._last, step, early=self.headers is None)
        if place.early:
            self.early_cuts.append(place)
        else:
            self._entries.append(place)
        self._wake()

    def close(self, *, broken: bool = False) -> None:
        """Nothing follows: readers come to the end."""
        self.over = True
        self.broken = broken
        self._wake()

    # Readers read with these.

    async def follow(self, after: int) -> AsyncIterator[Frame | CutHere]:
        """Yield what comes behind event `after`, up to now and on to the end; cuts also right behind it."""
        place = 0
        while True:
            while place < len(self._entries):
                entry = self._entries[place]
                place += 1
                if entry.after > after or (isinstance(entry, CutHere) and entry.after == after):
                    yield entry
            if self.over:
                return
            await self.news()

    async def news(self) -> None:
        """Return when anything has changed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def _append(self, piece: bytes, dribble: tuple[int, float] | None) -> None:
        for data in filter(None, _FRAME.split(piece)):
            number = _NUMBER.match(data)
            if number is not None:
                self._last = int(number[1])
            self._entries.append(Frame(self._last, data, dribble))
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
