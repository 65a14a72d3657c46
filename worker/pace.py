"""How fast answers come: to the first token, from piece to piece, as a whole.

Only a few answers at a time are timed piece by piece, by a method that stands before the sink's own while they are:
whatever the worker's load, it costs no more than that, and the others nothing.
"""

from typing import Final

from shared.clock import mono_s
from shared.metrics import WorkerMetrics
from shared.prices import Usage
from shared.queue import Claim

TIMED: Final = 4
"""Answers that are timed at once. Each piece of theirs costs a look at the clock."""

KEPT_GAPS: Final = 64
"""Of a long answer every second, fourth, … gap is kept."""

LEAST_TOKENS: Final = 10
LEAST_S: Final = 0.05
"""Shorter answers have no speed to speak of."""


class Paces:
    """Opened once a worker."""

    def __init__(self, metrics: WorkerMetrics) -> None:
        self.metrics = metrics
        self.timed = 0

    def of(self, claim: Claim) -> "Pace":
        return Pace(self, claim)


class Pace:
    """That of one attempt."""

    def __init__(self, paces: Paces, claim: Claim) -> None:
        self._paces = paces
        self._claim = claim
        self._opened_s = self._asked_s = mono_s()
        self._first_s: float | None = None
        self._thinks = False
        self._per_second: float | None = None
        self._timed = False
        self._heard_s = 0.0
        self._heard = 0
        self._every = 1
        self._gaps: list[float] = []

    def begin(self) -> bool:
        """Say whether this answer is to be timed by `piece`; `end` has to follow."""
        self._timed = self._paces.timed < TIMED
        self._paces.timed += self._timed
        return self._timed

    def ask(self) -> None:
        """Note that the provider is called."""
        self._asked_s = mono_s()

    def first(self, now_s: float, *, thinks: bool) -> None:
        """Note its first token; with what an earlier attempt has begun there was one before."""
        self._first_s, self._thinks = now_s, thinks
        claim = self._claim
        if claim.base == claim.attempt:
            waited_s = (claim.claimed_ms - claim.created_ms) / 1000 + self._asked_s - self._opened_s
            self._paces.metrics.first_token(claim.provider, claim.model, waited_s, now_s - self._asked_s)

    def piece(self) -> None:
        """Note a piece of text."""
        now_s, before_s = mono_s(), self._heard_s
        self._heard_s = now_s
        self._heard += 1
        if self._heard > 1 and self._heard % self._every == 0:
            self._gaps.append(now_s - before_s)
            if len(self._gaps) == 2 * KEPT_GAPS:
                self._gaps, self._every = self._gaps[1::2], self._every * 2

    def whole(self, usage: Usage | None) -> None:
        """Note that the answer is whole, and what the provider says that it took."""
        if usage is None or self._first_s is None:
            return
        # (Tokens that nobody was shown came before the first one.)
        tokens = usage.output_tokens - (0 if self._thinks else usage.reasoning_tokens)
        took_s = mono_s() - self._first_s
        if tokens >= LEAST_TOKENS and took_s >= LEAST_S:
            self._per_second = tokens / took_s

    def end(self) -> None:
        """Tell of it."""
        self._paces.timed -= self._timed
        self._timed = False
        if self._gaps or self._per_second is not None:
            self._paces.metrics.answered(self._claim.provider, self._claim.model, self._per_second, self._gaps)
            self._gaps, self._per_second = [], None
