"""Gates: a test holds a stream at a point, looks around, and lets it go. In place of every sleep."""

import asyncio


class Gate:
    """Hold every stream that comes to its `Wait(gate)` until `open()`; then let all pass, for ever."""

    def __init__(self, name: str = "") -> None:
        self.name = name
        self._open = asyncio.Event()
        self._arrivals = 0
        self._arrived = asyncio.Condition()

    def open(self) -> None:
        self._open.set()

    async def reached(self, count: int = 1, timeout_s: float = 5.0) -> None:
        """Return once `count` streams have come to this gate: all that precedes it in the script has been sent.

        Raises TimeoutError.
        """
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: self._arrivals >= count)

    async def passed(self) -> None:
        """Arrive, and return when the gate is open (for the player)."""
        async with self._arrived:
            self._arrivals += 1
            self._arrived.notify_all()
        await self._open.wait()
