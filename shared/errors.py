"""The tree of faults that can reach a caller. Outcomes of a job are values, not exceptions.

RejoinError
├── Unavailable      Redis cannot be reached in time          503
│   └── Damaged          what is kept of the job makes no sense
├── JobNotFound      no such job, or somebody else's          404
├── JobLive          the job has not ended yet                409
├── ChatBusy         the chat has a live answer               409
├── BadCursor        a Last-Event-ID that is not an event id  400
├── KeyMismatch      an Idempotency-Key of another request    422
├── QueueFull        too many jobs wait                       503
└── LimitReached     the owner has had what it may have       429
    ├── RateLimited      POSTs of a minute
    ├── TooManyJobs      queued and running
    ├── TooManyStreams   open streams
    └── BudgetSpent      the day's cost
"""

from shared.quotas import Standings


class RejoinError(Exception):
    """Something that a caller is told, with a stable ``code``."""

    code = "error"


class Unavailable(RejoinError):
    code = "unavailable"


class JobNotFound(RejoinError):
    code = "job_not_found"


class JobLive(RejoinError):
    code = "job_live"


class ChatBusy(RejoinError):
    code = "chat_busy"


class Damaged(Unavailable):
    """Somebody else has written under the job's keys, or Redis has lost a part of it."""


class BadCursor(RejoinError):
    code = "invalid_last_event_id"


class QueueFull(RejoinError):
    code = "queue_full"


class KeyMismatch(RejoinError):
    code = "idempotency_mismatch"


class LimitReached(RejoinError):
    """One of the owner's own limits: waiting helps, another server does not."""

    def __init__(self, standings: Standings, retry_in_ms: int | None = None) -> None:
        """`standings`: what the client is told of its limits. `retry_in_ms`: None where nobody knows."""
        super().__init__(self.code)
        self.standings = standings
        self.retry_in_ms = retry_in_ms


class RateLimited(LimitReached):
    code = "rate_limited"


class TooManyJobs(LimitReached):
    code = "too_many_jobs"


class TooManyStreams(LimitReached):
    code = "too_many_streams"


class BudgetSpent(LimitReached):
    code = "budget_spent"
