"""The tree of faults that can reach a caller. Outcomes of a job are values, not exceptions.

RejoinError
├── Unavailable      Redis cannot be reached in time          503
├── JobNotFound      no such job, or somebody else's          404
├── JobLive          the job has not ended yet                409
├── BadCursor        a Last-Event-ID that is not an event id  400
└── QueueFull        too many jobs wait                       503
"""


class RejoinError(Exception):
    """Something that a caller is told, with a stable ``code``."""

    code = "error"


class Unavailable(RejoinError):
    code = "unavailable"


class JobNotFound(RejoinError):
    code = "job_not_found"


class JobLive(RejoinError):
    code = "job_live"


class BadCursor(RejoinError):
    code = "invalid_last_event_id"


class QueueFull(RejoinError):
    code = "queue_full"
