"""What went wrong at a provider: one table from exception to a stable code. Nothing of a provider's text passes.

A provider's message may hold a host, an organisation or a key, so the reader gets our sentence for the code.
"""

import math
import re
import time
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

import anthropic
import httpx2
import openai

from worker.providers.base import AnswerTooLarge, NotAStream, NotConfigured, RunLost, StreamError, Truncated
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
    "provider_run_lost": (True, "The provider has lost the answer that it was working on."),
    "provider_protocol": (True, "The provider's answer could not be read."),
    "output_unchecked": (True, "The answer could not be checked in time."),
    "answer_too_large": (False, "The answer is longer than it may be."),
    "first_token_timeout": (True, "The provider sent no first token in time."),
    "idle_timeout": (True, "The provider fell silent in mid-answer."),
    "job_timeout": (True, "The job took longer than it may."),
    "storage_full": (True, "The server has no room for the answer."),
    "internal_error": (True, "The worker failed on this job."),
}

# The codes and types of providers' error objects, wherever they tell more than the status they come with.
KINDS: Final = {
    "authentication_error": "provider_authentication",
    "invalid_api_key": "provider_authentication",
    "account_deactivated": "provider_authentication",
    "permission_error": "provider_permission",
    "unsupported_country_region_territory": "provider_permission",
    "billing_error": "provider_quota_exhausted",
    "billing_hard_limit_reached": "provider_quota_exhausted",
    "billing_not_active": "provider_quota_exhausted",
    "insufficient_quota": "provider_quota_exhausted",
    "not_found_error": "provider_model_not_found",
    "model_not_found": "provider_model_not_found",
    "DeploymentNotFound": "provider_model_not_found",
    "context_length_exceeded": "context_too_long",
    "exceed_context_size_error": "context_too_long",
    "string_above_max_length": "context_too_long",
    "request_too_large": "context_too_long",
    "invalid_prompt": "content_refused",
    "content_policy_violation": "content_refused",
    "image_content_policy_violation": "content_refused",
    "misalignment_policy_violation": "content_refused",
    "bio_policy": "content_refused",
    "content_filter": "content_refused",
    "rate_limit_error": "provider_rate_limited",
    "rate_limit_exceeded": "provider_rate_limited",
    "overloaded_error": "provider_overloaded",
    "engine_overloaded": "provider_overloaded",
    "data_residency_mismatch": "provider_permission",
    "invalid_image": "provider_bad_request",
    "invalid_image_format": "provider_bad_request",
    "invalid_base64_image": "provider_bad_request",
    "invalid_image_url": "provider_bad_request",
    "image_too_large": "provider_bad_request",
    "image_too_small": "provider_bad_request",
    "image_parse_error": "provider_bad_request",
    "image_file_too_large": "provider_bad_request",
    "unsupported_image_media_type": "provider_bad_request",
    "empty_image_file": "provider_bad_request",
    "failed_to_download_image": "provider_bad_request",
    "image_file_not_found": "provider_bad_request",
    "timeout_error": "provider_timeout",
}

BAD_REQUESTS: Final = frozenset(("invalid_request_error", "BadRequestError"))
"""As broad as the status 400; in a stream there is no status."""

STATUSES: Final = {
    400: "provider_bad_request",
    401: "provider_authentication",
    402: "provider_quota_exhausted",
    403: "provider_permission",
    404: "provider_model_not_found",
    408: "provider_timeout",
    409: "provider_error",
    413: "context_too_long",
    422: "provider_bad_request",
    429: "provider_rate_limited",
    503: "provider_overloaded",
    504: "provider_timeout",
    524: "provider_timeout",
    529: "provider_overloaded",
}

LONGEST_MESSAGE: Final = 10_000
"""Of what is looked through for words that tell what is wrong."""

WORDY: Final = frozenset((None, 400, 413, 422, 500))
"""Statuses (or none, in a stream) under which only the message tells what is wrong."""

MESSAGES: Final = [
    (re.compile(pattern, re.IGNORECASE), code)
    for pattern, code in (
        # Anthropic; OpenAI and vLLM; vLLM; Ollama and llama.cpp; Gemini
        (r"prompt is too long|exceed context limit", "context_too_long"),
        (r"maximum context length|context window", "context_too_long"),
        (r"longer than the maximum model length|too long to fit", "context_too_long"),
        (r"exceeds? (the |the available |maximum )?context (length|size)", "context_too_long"),
        (r"exceeds the maximum number of tokens", "context_too_long"),
        (
            r"credit balance is too low|exceeded your current quota|insufficient (balance|credits)",
            "provider_quota_exhausted",
        ),
        # Anthropic; Azure; OpenAI
        (r"content filtering policy|content management policy|violating our usage policy", "content_refused"),
    )
]
"""What providers give no code for. Their words change: what is not found here is a bad request like any other."""


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
        case AnswerTooLarge():
            return failure("answer_too_large")
        case Truncated():
            return failure("provider_truncated")
        case RunLost():
            return failure("provider_run_lost")
        case NotAStream():
            return failure("provider_protocol")
        case StreamError():
            return failure(_code(None, error.error))
        case openai.APIStatusError() | anthropic.APIStatusError():
            return _by_status(error)
        case openai.APITimeoutError() | anthropic.APITimeoutError() if not _is_connect(error.__cause__):
            return failure("provider_timeout")
        case openai.APIConnectionError() | anthropic.APIConnectionError():
            return failure("provider_unreachable")
        case httpx2.TimeoutException() if not _is_connect(error):
            return failure("provider_timeout")
        case httpx2.HTTPError() | OSError():
            return failure("provider_unreachable")
        case _ if isinstance(error, UNREADABLE):
            return failure("provider_protocol")
    return failure("internal_error")


def is_stale_connection(error: BaseException) -> bool:
    """Say whether a kept-alive connection was closed at the moment of its reuse: repeating the call is safe."""
    # (An SDK wraps it, where it has made the call.)
    return isinstance(error, StaleConnection) or isinstance(error.__cause__, StaleConnection)


def _is_connect(error: BaseException | None) -> bool:
    """Say whether there was no connection yet: then nobody has worked on the request."""
    return isinstance(error, httpx2.ConnectTimeout)


def _by_status(error: openai.APIStatusError | anthropic.APIStatusError) -> Failure:
    body, headers = error.body, error.response.headers
    # One SDK gives the object inside, the other all of it.
    inner = body["error"] if isinstance(body, dict) and body.get("error") else body
    why = failure(_code(error.status_code, inner), _retry_after_s(headers))
    return why._replace(retryable=False) if headers.get("x-should-retry") == "false" else why


def _code(status: int | None, error: object) -> str:
    """Return the code of a provider's error object, which came with a status, or in mid-stream without one."""
    kinds, message = _said(error)
    for kind in kinds:
        if (code := KINDS.get(kind)) is not None:
            # Known to the provider, but not for us.
            return "provider_permission" if status == 403 and code == "provider_model_not_found" else code
    if status in WORDY:
        for pattern, code in MESSAGES:
            if pattern.search(message):
                return code
    if status is None:
        if not BAD_REQUESTS.isdisjoint(kinds):
            return "provider_bad_request"
        # Compatible servers put the status into the object.
        status = next((int(kind) for kind in kinds if re.fullmatch("[1-5][0-9][0-9]", kind)), 500)
    if status < 400:
        # A redirection, which nobody follows with a key in hand.
        return "provider_protocol"
    return STATUSES.get(status) or ("provider_error" if status >= 500 else "provider_bad_request")


def _said(error: object) -> tuple[list[str], str]:
    """Return codes and types, the closer one first, and the message of an error object, whatever its shape."""
    if isinstance(error, str):
        return [error[:LONGEST_MESSAGE]], error[:LONGEST_MESSAGE]
    if not isinstance(error, dict):
        return [], ""
    deeper = error.get("innererror")
    kinds = [error.get("code"), error.get("type"), deeper.get("code") if isinstance(deeper, dict) else None]
    message = error.get("message") or error.get("detail")
    if isinstance(message, str):
        message = message[:LONGEST_MESSAGE]
    return [str(kind) for kind in kinds if isinstance(kind, str | int)], message if isinstance(message, str) else ""


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """Read `retry-after-ms`, else `Retry-After`: seconds, or a date (RFC 9110 § 10.2.3)."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if (text := headers.get(name)) is None:
            continue
        try:
            wait_s = float(text) * unit_s
        except ValueError:
            until, now = _date_s(text), _date_s(headers.get("date", ""))
            if until is None:
                continue
            wait_s = until - (time.time() if now is None else now)
        if math.isfinite(wait_s):
            return max(0.0, wait_s)
    return None


def _date_s(text: str) -> float | None:
    """Return an HTTP date as seconds since 1970; None when it is none."""
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, OverflowError):
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
