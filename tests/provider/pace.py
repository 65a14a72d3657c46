"""One timer a millisecond for all streams together: 500 paced streams would otherwise spend their time in timers."""

import asyncio
import math


class Pace:
    """Wake sleepers on the loop's clock, at most a millisecond late."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._slots: dict[int, list[asyncio.Future[None]]] = {}

    async def until(self, due_s: float) -> None:
        """Return when `loop.time()` is `due_s`; at once (but not without a turn of the loop) if it was already."""
        if due_s <= self._loop.time():
            await asyncio.sleep(0)
            return
        slot = math.ceil(due_s * 1000)
        sleepers = self._slots.get(slot)
        if sleepers is None:
            sleepers = self._slots[slot] = []
            self._loop.call_at(slot / 1000, self._wake, slot)
        woken: asyncio.Future[None] = self._loop.create_future()
        sleepers.append(woken)
        await woken

    def _wake(self, slot: int) -> None:
        for woken in self._slots.pop(slot):
            if not woken.done():
                woken.set_result(None)
