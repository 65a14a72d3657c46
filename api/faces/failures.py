"""What a failed job is to a client of another API: a refusal like any other, its status by our code."""

from typing import Any, Final

from api.problems import Problem
from shared.events import CANCELLED

_BAD: Final = 400
_BUSY: Final = 503
_LATE: Final = 504
_THEIRS: Final = 502
_OURS: Final = 500

_STATUSES: Final = {
    "provider_bad_request": _BAD,
    "context_too_long": _BAD,
    "content_refused": _BAD,
    "provider_model_not_found": 404,
    "provider_rate_limited": 429,
    "provider_overloaded": _BUSY,
    "storage_full": _BUSY,
    **dict.fromkeys(("provider_timeout", "first_token_timeout", "idle_timeout", "job_timeout"), _LATE),
    # Of the server's own trouble with its provider: nothing is wrong with the client's key.
    **dict.fromkeys(
        (
            *("provider_not_configured", "provider_authentication", "provider_permission", "provider_quota_exhausted"),
            *("provider_error", "provider_unreachable", "provider_truncated", "provider_run_lost"),
            *("provider_protocol", "invalid_output"),
        ),
        _THEIRS,
    ),
}


def failed(error: dict[str, Any]) -> Problem:
    """Return the refusal for a job's error, `{code, message, retryable}`: SDKs are told whether to ask again."""
    headers = {"x-should-retry": "true" if error["retryable"] else "false"}
    return Problem(_STATUSES.get(error["code"], _OURS), error["code"], error["message"], headers)


def cancelled() -> Problem:
    """Return what somebody is told who waited for a job that another one has cancelled. No API has a word for it."""
    return Problem(409, "job_cancelled", "The answer was cancelled.", {"x-should-retry": "false"})


def attempt_lost() -> Problem:
    """Return what ends an answer that cannot be taken back, where the attempt that told it was lost."""
    return Problem(500, "attempt_lost", "The attempt that wrote this answer was lost; the answer was begun again.")


def unfinished(event: str, data: dict[str, Any]) -> Problem:
    """Return the refusal for the end of a job that is not `completed`."""
    return cancelled() if event == CANCELLED else failed(data)
