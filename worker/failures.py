"""What went wrong at a provider: one table from exception to a stable code. Nothing of a provider's text passes.

A provider's message may hold a host, an organisation or a key, so the reader gets our sentence for the code.
"""

from typing import Final, NamedTuple

import anthropic
import httpx2
import openai

from worker.providers.base import NotConfigured, StreamError, Truncated
from worker.providers.sse import EventTooLarge
from worker.providers.transport import StaleConnection


class Failure(NamedTuple):
    code: str
    retryable: bool
    message: str
    retry_after_s: float | None = None


# code: (retryable, message)
CODES: Final = {
    "provider_not_configured": (False, "The workers have no key for this provider."),
    "provider_authentication": (False, "The provider refused the server's credentials."),
    "provider_permission": (False, "The provider does not allow this model or request."),
    "provider_bad_request": (False, "The provider refused the request as invalid."),
    "provider_model_not_found": (False, "The provider does not know this model."),
    "context_too_long": (False, "The input is too long for this model."),
    "content_refused": (False, "The provider refused the content."),
    "invalid_output": (True, "The answer is not of the shape that was asked for."),
    "provider_rate_limited": (True, "The provider is limiting requests."),
    "provider_quota_exhausted": (False, "The server's quota at the provider is used up."),
    "provider_overloaded": (True, "The provider is overloaded."),
    "provider_error": (True, "The provider failed."),
    "provider_timeout": (True, "The provider did not answer in time."),
    "provider_unreachable": (True, "The provider could not be reached, or cut the connection."),
    "provider_truncated": (True, "The provider's answer ended before it was whole."),
    "provider_protocol": (True, "The provider's answer could not be read."),
    "first_token_timeout": (True, "The provider sent no first token in time."),
    "idle_timeout": (True, "The provider fell silent in mid-answer."),
    "job_timeout": (True, "The job took longer than it may."),
    "storage_full": (True, "The server has no room for the answer."),
    "internal_error": (True, "The worker failed on this job."),
}

# The types and codes that providers use in error bodies and error events.
KINDS: Final = {
    "authentication_error": "provider_authentication",
    "invalid_api_key": "provider_authentication",
    "permission_error": "provider_permission",
    "billing_error": "provider_quota_exhausted",
    "insufficient_quota": "provider_quota_exhausted",
    "not_found_error": "provider_model_not_found",
    "model_not_found": "provider_model_not_found",
    "context_length_exceeded": "context_too_long",
    "string_above_max_length": "context_too_long",
    "request_too_large": "context_too_long",
    "content_policy_violation": "content_refused",
    "content_filter": "content_refused",
    "invalid_request_error": "provider_bad_request",
    "rate_limit_error": "provider_rate_limited",
    "rate_limit_exceeded": "provider_rate_limited",
    "overloaded_error": "provider_overloaded",
    "timeout_error": "provider_timeout",
}

STATUSES: Final = {
    400: "provider_bad_request",
    401: "provider_authentication",
    402: "provider_quota_exhausted",
    403: "provider_permission",
    404: "provider_model_not_found",
    408: "provider_timeout",
    413: "context_too_long",
    422: "provider_bad_request",
    429: "provider_rate_limited",
    503: "provider_overloaded",
    504: "provider_timeout",
    529: "provider_overloaded",
}


# What our own reading of an answer stumbles over when the answer is not what the API says.
UNREADABLE: Final = (
    openai.APIError,
    anthropic.APIError,
    EventTooLarge,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
)


UNKNOWN: Final = ("internal_error", "provider_protocol")
"""Codes of what no SDK has raised: our own faults, or an answer that we could not read."""


def failure(code: str, retry_after_s: float | None = None) -> Failure:
    """Return the failure of a code."""
    retryable, message = CODES[code]
    return Failure(code, retryable, message, retry_after_s)


def explain(error: BaseException) -> Failure:
    """Translate whatever an attempt raised."""
    match error:
        case NotConfigured():
            return failure("provider_not_configured")
        case Truncated():
            return failure("provider_truncated")
        case StreamError():
            return failure(KINDS.get(error.kind, "provider_error"))
        case openai.APIStatusError() | anthropic.APIStatusError():
            return _by_status(error)
        case openai.APITimeoutError() | anthropic.APITimeoutError():
            return failure("provider_timeout")
        case openai.APIConnectionError() | anthropic.APIConnectionError():
            return failure("provider_unreachable")
        case httpx2.TimeoutException():
            return failure("provider_timeout")
        case httpx2.HTTPError() | OSError():
            return failure("provider_unreachable")
        case _ if isinstance(error, UNREADABLE):
            return failure("provider_protocol")
    return failure("internal_error")


def is_stale_connection(error: BaseException) -> bool:
    """Say whether a kept-alive connection was closed at the moment of its reuse: repeating the call is safe."""
    return isinstance(error.__cause__, StaleConnection)


def _by_status(error: openai.APIStatusError | anthropic.APIStatusError) -> Failure:
    code = None
    for kind in (getattr(error, "code", None), getattr(error, "type", None)):
        specific = KINDS.get(str(kind))
        # A type as broad as the status adds nothing; a code such as context_length_exceeded does.
        if specific is not None and specific != "provider_bad_request":
            code = specific
            break
    if code is None:
        fallback = "provider_error" if error.status_code >= 500 else "provider_bad_request"
        code = STATUSES.get(error.status_code, fallback)
    return failure(code, _retry_after_s(error.response.headers))


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Read `retry-after-ms`, else `retry-after` in seconds; a date is not worth parsing: providers send seconds."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return None
