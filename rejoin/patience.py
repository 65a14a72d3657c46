"""When to try again, and when to give up."""

import random
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Patience:
    """How a client bears a server that is away: it comes back after `first_s`, then after twice as long each time.

    Each wait is drawn from its upper half, so that a thousand clients that were cut together do not come together. A
    server's `Retry-After` is waited for.
    """

    give_up_s: float = 60.0
    """Without any sign of life in between. A stream that goes on, with whatever cuts, is never given up."""
    first_s: float = 0.1
    longest_s: float = 5.0

    def tries(self) -> "Tries":
        return Tries(self)


class Tries:
    """One call's, or one stream's, misfortunes in a row."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience
        self.failed = 0
        self._since_s: float | None = None

    def sign_of_life(self) -> None:
        """Take it that the server is there: nobody gives up now."""
        self._since_s = None

    def success(self) -> None:
        """Forget them all: what was wanted has come."""
        self.failed, self._since_s = 0, None

    def wait_s(self, why: Exception, retry_after_s: float | None = None) -> float:
        """Return how long to wait before the next try; raise `why` when that would be beyond all patience."""
        now_s = time.monotonic()
        self._since_s = now_s if self._since_s is None else self._since_s
        longest_s: float = min(self._patience.longest_s, self._patience.first_s * 2 ** min(self.failed, 30))
        wait_s = max(longest_s * random.uniform(0.5, 1.0), retry_after_s or 0.0)
        if now_s + wait_s - self._since_s > self._patience.give_up_s:
            raise why
        self.failed += 1
        return wait_s
