"""What the client raises: one tree, and a class for each `code` that a caller may want to catch.

ClientError
├── Unreachable           nobody answered for as long as patience lasts
├── Unexpected            somebody answered, but not Rejoin
├── Problem               the server refused: `status`, `code`, `detail`
│   ├── Unauthorized, NotFound, InvalidRequest, LimitReached, Unavailable, … and below them the codes
├── JobFailed             `text()` alone: the job ended without an answer
└── JobCancelled
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

PASSING: Final = frozenset((408, 429, 502, 503, 504))
"""Statuses that may be another one a moment later."""


class ClientError(Exception):
    """Everything that a client of Rejoin raises."""


class Unreachable(ClientError):
    """No server answered, or each connection broke, for as long as patience lasts."""


class Unexpected(ClientError):
    """What answered does not speak as Rejoin does."""


class Misuse(ClientError, ValueError):
    """What was given to the client cannot be sent."""


class Problem(ClientError):
    """The server refused (RFC 9457). `code` is stable; `str()` is the server's own sentence."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        """`{"field", "message"}` of each field that is wrong."""
        self.retry_after_s = retry_after_s

    @property
    def passing(self) -> bool:
        """Whether the same may be answered differently a moment later."""
        return self.status in PASSING


class Unauthorized(Problem):
    """The key opens nothing here, or there is none."""


class NotFound(Problem): ...


class JobNotFound(NotFound):
    """There is no such job, it has expired, or it is somebody else's."""


class JobLive(Problem):
    """The job has not ended yet."""


class InvalidRequest(Problem):
    """What is asked for cannot be asked; `errors` names the fields."""


class UnknownProvider(InvalidRequest): ...


class ModelNotAllowed(InvalidRequest): ...


class UnsupportedParameter(InvalidRequest): ...


class InvalidSchema(InvalidRequest): ...


class IdempotencyMismatch(InvalidRequest):
    """The Idempotency-Key was used for another request."""


class LimitReached(Problem):
    """The owner has taken what it may, for now; `retry_after_s` says for how long."""


class RateLimited(LimitReached): ...


class TooManyJobs(LimitReached): ...


class TooManyStreams(LimitReached): ...


class BudgetSpent(LimitReached): ...


class Unavailable(Problem):
    """The server cannot take this right now."""


class QueueFull(Unavailable): ...


class JobFailed(ClientError):
    """The job ended without an answer; `text` is what there was of one."""

    def __init__(self, job_id: str, code: str, message: str, retryable: bool, text: str) -> None:
        super().__init__(f"{code}: {message}")
        self.job_id, self.code, self.message, self.retryable, self.text = job_id, code, message, retryable, text


class JobCancelled(ClientError):
    """Somebody has cancelled the job; `text` is what there was of an answer."""

    def __init__(self, job_id: str, text: str) -> None:
        super().__init__(f"{job_id} was cancelled")
        self.job_id, self.text = job_id, text


_BY_CODE: Final[dict[str, type[Problem]]] = {
    "job_not_found": JobNotFound,
    "job_live": JobLive,
    "unknown_provider": UnknownProvider,
    "model_not_allowed": ModelNotAllowed,
    "unsupported_parameter": UnsupportedParameter,
    "invalid_schema": InvalidSchema,
    "idempotency_mismatch": IdempotencyMismatch,
    "rate_limited": RateLimited,
    "too_many_jobs": TooManyJobs,
    "too_many_streams": TooManyStreams,
    "budget_spent": BudgetSpent,
    "queue_full": QueueFull,
}
_BY_STATUS: Final[dict[int, type[Problem]]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,
    404: NotFound,
    413: InvalidRequest,
    415: InvalidRequest,
    422: InvalidRequest,
    429: LimitReached,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}


def problem_of(status: int, told: object, retry_after: str | None) -> Problem:
    """Return the refusal of an answer; one that is not Rejoin's (a proxy's 502) has the code `http_502`."""
    said: Mapping[str, Any] = told if isinstance(told, dict) else {}
    code = str(said.get("code") or f"http_{status}")
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status, Problem)
    detail = str(said.get("detail") or f"The server answered {status}.")
    wait_s = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdecimal() else None
    found = said.get("errors")
    return kind(status, code, detail, found if isinstance(found, list) else (), wait_s)
