"""What becomes of an attempt that failed: the same again, the next fallback, or the end."""

import random
from typing import Final, NamedTuple

from shared.requests import JobRequest
from worker.failures import Failure

TRIES: Final = 3
"""How often one provider and model is asked for an answer that it cannot begin."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 8.0

AGAIN: Final = frozenset(("provider_rate_limited", "provider_overloaded", "provider_error", "provider_unreachable"))
"""What passes by itself, and costs nothing to ask again: silence may have been worked on."""

OURS: Final = frozenset(("internal_error", "storage_full", "job_timeout", "invalid_output"))
"""No other provider would do better."""


class Step(NamedTuple):
    """What is asked next, and after how long."""

    reason: str
    """As the reader is told it: `provider_error` or `fallback`."""
    provider: str
    model: str
    fallback: int
    """How many of the job's fallbacks have had their turn, this one included."""
    wait_s: float


def next_step(
    request: JobRequest, failure: Failure, fallback: int, tries: int, left_s: float, *, begun: bool = False
) -> Step | None:
    """Return what to do after `tries` failures of the present target; None when the job has failed.

    `left_s`: what is left of the job's time. A wait that would outlast it is not begun.
    `begun`: it failed in mid-answer, which has been paid for, and is not asked of the same provider again.
    """
    if failure.code in AGAIN and failure.retryable and tries < TRIES and not begun:
        wait_s = max(_backoff_s(tries), failure.retry_after_s or 0)
        # A provider that asks for patience is asked again only where nobody else can answer sooner.
        if wait_s < left_s and (wait_s <= LONGEST_WAIT_S or fallback == len(request.fallbacks)):
            return Step("provider_error", request.provider, request.model, fallback, wait_s)
    if failure.code not in OURS and fallback < len(request.fallbacks) and left_s > 0:
        other = request.fallbacks[fallback]
        return Step("fallback", other.provider, other.model, fallback + 1, 0.0)
    return None


def _backoff_s(tries: int) -> float:
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1)) * random.uniform(0.5, 1)
