"""Redis' clock as this process knows it: how long ago it was what another process has had stamped there.

The only clock that two processes share. Ours is set by it now and then: the answer to `TIME` was written between our
asking and our hearing it.
"""

from typing import Final

from shared.clock import mono_s
from shared.redis import Multiplexer

DRIFT: Final = 1e-4
"""By how much two machines' clocks may part, seconds a second: five times what quartz does."""

OLD_S: Final = 60.0
"""What is known for so long is replaced by what is heard; twice as long, and it says nothing."""


class RedisClock:
    def __init__(self, redis: Multiplexer) -> None:
        self._redis = redis
        self._ahead_s = 0.0
        self._unsure_s = 0.0
        self._looked_s: float | None = None

    async def look(self) -> None:
        """Compare the clocks. A look that took long, as the process was busy, does not spoil what is known better."""
        asked_s = mono_s()
        seconds, microseconds = map(int, await self._redis.read("TIME"))
        heard_s = mono_s()
        self.note(asked_s, seconds + microseconds / 1e6, heard_s)

    def note(self, asked_s: float, told_s: float, heard_s: float) -> None:
        ahead_s, unsure_s = told_s - (asked_s + heard_s) / 2, (heard_s - asked_s) / 2
        if self._looked_s is not None and heard_s - self._looked_s < OLD_S:
            known_s = self._unsure_s + (heard_s - self._looked_s) * DRIFT
            # Where the two do not meet, one of the clocks has been set.
            if known_s < unsure_s and abs(ahead_s - self._ahead_s) <= known_s + unsure_s:
                return
        self._ahead_s, self._unsure_s, self._looked_s = ahead_s, unsure_s, heard_s

    def since_s(self, stamp: bytes, now_s: float) -> float | None:
        """Return the seconds since a moment, `<s> <µs>` as Redis tells it; None when the clock is not known."""
        if self._looked_s is None or now_s - self._looked_s > 2 * OLD_S:
            return None
        seconds, _, microseconds = stamp.partition(b" ")
        try:
            return max(0.0, now_s + self._ahead_s - int(seconds) - int(microseconds) / 1e6)
        except ValueError:
            return None
