"""What becomes of an attempt that failed: the same again, the next fallback, or the end."""

import random
from typing import Final, NamedTuple

from shared.queue import Full, Refusal
from shared.requests import JobRequest
from worker.failures import Failure

TRIES: Final = 3
"""How often one provider and model is asked for an answer that it cannot begin."""

FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 8.0

LONGEST_PAUSE_S: Final = 60.0
"""How long a model is not asked, at most, by a provider that answers 429 and does not say how long."""

LONGEST_WORD_S: Final = 3600.0
"""What a provider may ask for: after that somebody looks whether it still means it."""

LOOK_AGAIN_S: Final = 0.2
"""Between two looks for room when another call has to end first. Whoever looks goes before all that wait in line."""

RATE_LIMITED: Final = "provider_rate_limited"

RUN_LOST: Final = "provider_run_lost"
"""There is nothing to go on with, so that also what was begun is asked for again."""

AGAIN: Final = frozenset((RATE_LIMITED, "provider_overloaded", "provider_error", "provider_unreachable", RUN_LOST))
"""What passes by itself, and costs nothing to ask again: silence may have been worked on."""

LISTEN_AGAIN: Final = AGAIN - {RUN_LOST} | {"provider_timeout", "provider_truncated"}
"""What may befall a listener while the provider's own run goes on."""

OURS: Final = frozenset(("internal_error", "storage_full", "job_timeout", "invalid_output", "output_unchecked"))
"""No other provider would do better."""


class Step(NamedTuple):
    """What is asked next, and after how long."""

    reason: str
    """As the reader is told it: `provider_error` or `fallback`; empty where the answer goes on."""
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


def refusal(failure: Failure) -> Refusal | None:
    """Return for how long nobody is to ask a model that has answered with this failure; None when it was no 429."""
    if failure.code != RATE_LIMITED:
        return None
    asked_s = failure.retry_after_s or 0.0
    first_s = FIRST_WAIT_S * random.uniform(1, 2)
    return Refusal(min(max(asked_s, 0.0), LONGEST_WORD_S), first_s, LONGEST_PAUSE_S)


def no_room(request: JobRequest, step: Step, full: Full, left_s: float) -> Step | None:
    """Return what to do when whom `step` asks has no room: the next fallback, if that may be sooner, or wait.

    None when the job has no time for it.
    """
    wait_s = LOOK_AGAIN_S if full.wait_s is None else full.wait_s
    soon = full.wait_s is not None and wait_s <= LONGEST_WAIT_S and wait_s < left_s
    if step.fallback < len(request.fallbacks) and not soon:
        other = request.fallbacks[step.fallback]
        return Step("fallback", other.provider, other.model, step.fallback + 1, 0.0)
    wait_s *= random.uniform(1, 1.2)
    return step._replace(wait_s=wait_s) if wait_s < left_s else None


def listen_again(request: JobRequest, failure: Failure, fallback: int, deaf: int, left_s: float) -> Step | None:
    """Return how to go on with a run after `deaf` listeners in a row that heard nothing; None to give it up."""
    if failure.code not in LISTEN_AGAIN or deaf >= TRIES:
        return None
    wait_s = max(_backoff_s(deaf), failure.retry_after_s or 0)
    return Step("", request.provider, request.model, fallback, wait_s) if wait_s < left_s else None


def _backoff_s(tries: int) -> float:
    return min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (tries - 1)) * random.uniform(0.5, 1)
