"""How many jobs a worker runs at once. A job that waits for long to ask again takes no slot meanwhile."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

KEPT_S: Final = 2.0
"""How long a job that waits keeps its slot: to give it up for a back-off of half a second could cost minutes."""


class Slots:
    """Whoever holds the jobs counts them; here is counted how many of them rest.

    Else the calls of one model, all of them refused with a `Retry-After`, would keep those of all others from a start.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.changed = asyncio.Event()
        """There may be a free one."""
        self._resting = 0
        self._returning = 0

    def free(self, held: int) -> int:
        """Return how many new jobs may start in a worker that holds so many: who returns from a rest comes first.

        However many rest, it never holds more than twice as many as it runs.
        """
        running = held - self._resting
        return max(0, min(self.most - running - self._returning, 2 * self.most - held))

    @property
    def resting(self) -> int:
        return self._resting

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Take no slot for a while."""
        self._resting += 1
        self.changed.set()
        try:
            yield
        finally:
            self._resting -= 1

    @contextmanager
    def rest_after(self, wait_s: float) -> Iterator[None]:
        """Take no slot for as long as this takes longer than that."""
        with ExitStack() as stack:
            timer = asyncio.get_running_loop().call_later(wait_s, stack.enter_context, self.rest())
            try:
                yield
            finally:
                timer.cancel()

    @contextmanager
    def claim(self) -> Iterator[None]:
        """Keep new jobs from the next slot that comes free."""
        self._returning += 1
        try:
            yield
        finally:
            self._returning -= 1

    def has_one(self, held: int) -> bool:
        """Say whether there is a slot for one that returns."""
        return held - self._resting < self.most
