"""What a worker says of itself to operators, with each renewal of its lease: slots, and how fast its answers come."""

from collections.abc import Mapping
from typing import Final

from shared.clock import mono_s
from shared.overview import LISTED, Report
from worker.attempt import Attempt
from worker.slots import Slots

CHARACTERS: Final = 4
"""A token's, as in every estimate of ours."""

LEAST_S: Final = 0.2
"""Between two counts of an answer: over less, a rate is chance."""


class Reporter:
    def __init__(self, slots: Slots, attempts: Mapping[str, Attempt]) -> None:
        """`attempts`: by job, those that have been here longest first; it goes on changing."""
        self._slots = slots
        self._attempts = attempts
        self._opened_s = mono_s()
        self._counts: dict[str, tuple[int, int, float]] = {}
        """Of each job: the attempt, its characters and the time, when it was last counted."""

    def report(self) -> bytes:
        """Return it as it is to be kept. Bounded: of the jobs here, only so many are listed anywhere."""
        now_s, rates = mono_s(), {}
        counts: dict[str, tuple[int, int, float]] = {}
        for job_id, attempt in list(self._attempts.items())[:LISTED]:
            if attempt.first_token_s is None:
                continue
            number, characters = attempt.claim.attempt, attempt.log.characters
            before = self._counts.get(job_id)
            if before is None or before[0] != number:
                before = (number, 0, min(attempt.first_token_s, now_s - LEAST_S))
            counts[job_id] = (number, characters, now_s)
            rates[job_id] = round((characters - before[1]) / CHARACTERS / max(LEAST_S, now_s - before[2]), 1)
        self._counts = counts
        return Report(self._slots.most, self._slots.resting, int(now_s - self._opened_s), rates).dump()
