"""Counts the streams that owners have open in this process, and tells Redis, where those of all processes add up.

Redis is told whole numbers, never differences: whatever is lost or said twice, the next word puts it right. An opening
is told at once and waits for the answer; closings are told together, a moment later.
"""

import asyncio
import logging
import secrets
from collections import Counter
from contextlib import suppress
from typing import Final

from shared import quotas
from shared.errors import TooManyStreams
from shared.quotas import Quota
from shared.redis import REDIS_FAULTS
from shared.streams import Bid, OpenStreams

logger = logging.getLogger(__name__)

RENEW_S: Final = 1.0
GATHER_S: Final = 0.02
"""What closes within so short a time is told in one go."""


class Seat:
    """One stream of an owner, counted from here on until it is left."""

    def __init__(self, streams: "Streams", owner: str, most: int) -> None:
        self._streams = streams
        self.owner = owner
        self._left = False
        self.bid: Final = streams.count(owner, most)

    def leave(self) -> None:
        """Count it no more; the second time does nothing."""
        if not self._left:
            self._left = True
            self._streams.discount(self.owner)

    def taken(self) -> None:
        """Note that Redis has counted it."""
        self._streams.told(self.owner, self.bid)


class Streams:
    def __init__(self, open_streams: OpenStreams) -> None:
        self._open_streams = open_streams
        self._process = secrets.token_hex(8)
        self._here: Counter[str] = Counter()
        self._untold: set[str] = set()
        """Whose number Redis may have wrong."""
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="streams")

    async def stop(self) -> None:
        """Tell Redis what has closed; what has not, it forgets by itself."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with suppress(*REDIS_FAULTS):
            await self._tell()

    def seat(self, owner: str, quota: Quota) -> Seat:
        """Count one more stream of an owner here, whose bid is to be put to Redis."""
        return Seat(self, owner, quota.streams)

    async def open(self, owner: str, quota: Quota) -> Seat:
        """Return a seat for one more stream of an owner; raise TooManyStreams when it may have none."""
        seat = self.seat(owner, quota)
        try:
            if not await self._open_streams.open(owner, seat.bid):
                raise TooManyStreams([quotas.streams(quota)])
        except BaseException:
            seat.leave()
            raise
        seat.taken()
        return seat

    # From the seats.

    def count(self, owner: str, most: int) -> Bid:
        if not self._here:
            # From now on there is a word to renew.
            self._changed.set()
        self._here[owner] += 1
        return Bid(self._process, self._here[owner], most)

    def discount(self, owner: str) -> None:
        self._here[owner] -= 1
        if not self._here[owner]:
            del self._here[owner]
        self._tell_of(owner)

    def told(self, owner: str, bid: Bid) -> None:
        # Another one has opened or closed meanwhile, and may have been told of before.
        if bid.here != self._here[owner]:
            self._tell_of(owner)

    def _tell_of(self, owner: str) -> None:
        self._untold.add(owner)
        self._changed.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_S if self._here else None):
                    await self._changed.wait()
                await asyncio.sleep(GATHER_S)
            self._changed.clear()
            try:
                await self._tell()
            except REDIS_FAULTS as error:
                logger.warning("open streams not told (%s)", type(error).__name__)
                await asyncio.sleep(RENEW_S / 4)
                self._changed.set()

    async def _tell(self) -> None:
        untold, self._untold = self._untold, set()
        try:
            known = await self._open_streams.hold(self._process, {owner: self._here[owner] for owner in untold})
        except BaseException:
            self._untold |= untold
            raise
        others = self._here.keys() - untold
        if not known and others:
            # Redis was away, or this process was, for too long; or Redis has lost all.
            self._untold |= others
            self._changed.set()
