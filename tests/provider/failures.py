"""How the real providers fail: status, error body and headers of each, as they have been seen."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from tests.provider.breaks import Failure, FailureKind, HttpError

OPENAI: Final[Mapping[FailureKind, HttpError]] = {
    "rate_limit": HttpError(
        429,
        "requests",
        "Rate limit reached for this model on requests per min (RPM): Limit 3, Used 3, Requested 1. "
        "Please try again in 20s.",
        "rate_limit_exceeded",
        headers={
            "x-ratelimit-limit-requests": "3",
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "20s",
        },
    ),
    "quota": HttpError(
        429,
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
        "insufficient_quota",
    ),
    "overloaded": HttpError(503, "server_error", "The engine is currently overloaded, please try again later."),
    "server_error": HttpError(500),
    "unavailable": HttpError(503, "service_unavailable", "The service is temporarily unavailable."),
    "authentication": HttpError(401),
    "permission": HttpError(
        403, "invalid_request_error", "Project does not have access to the model.", "model_not_found"
    ),
    "model_not_found": HttpError(404),
    "context_length": HttpError(
        400,
        "invalid_request_error",
        "This model's maximum context length is 128000 tokens. However, your messages resulted in 130001 tokens. "
        "Please reduce the length of the messages.",
        "context_length_exceeded",
        "messages",
    ),
    "content_policy": HttpError(
        400,
        "invalid_request_error",
        "Invalid prompt: your prompt was flagged as potentially violating our usage policy. "
        "Please try again with a different prompt.",
        "invalid_prompt",
    ),
    "request_too_large": HttpError(
        413, "invalid_request_error", "The request body is larger than this server accepts.", "request_too_large"
    ),
    "timeout": HttpError(504, "server_error", "The request timed out."),
}

RESPONSES: Final[Mapping[FailureKind, HttpError]] = {
    **OPENAI,
    "context_length": HttpError(
        400,
        "invalid_request_error",
        "Your input exceeds the context window of this model. Please adjust your input and try again.",
        "context_length_exceeded",
        "input",
    ),
}

ANTHROPIC: Final[Mapping[FailureKind, HttpError]] = {
    "rate_limit": HttpError(
        429,
        "rate_limit_error",
        "This request would exceed your organization's rate limit of 50 requests per minute.",
        headers={
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": "2026-11-21T00:00:20Z",
        },
    ),
    # Not a 402 or a 429: the API words it as an invalid request.
    "quota": HttpError(
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API. "
        "Please go to Plans & Billing to upgrade or purchase credits.",
    ),
    "overloaded": HttpError(529, headers={"x-should-retry": "true"}),
    "server_error": HttpError(500),
    "unavailable": HttpError(503, "api_error", "The service is temporarily unavailable."),
    "authentication": HttpError(401),
    "permission": HttpError(403),
    "model_not_found": HttpError(404, message="model: no-such-model"),
    # Only the message tells it from any other invalid request.
    "context_length": HttpError(400, "invalid_request_error", "prompt is too long: 215180 tokens > 200000 maximum"),
    "content_policy": HttpError(400, "invalid_request_error", "Output blocked by content filtering policy"),
    "request_too_large": HttpError(413),
    "timeout": HttpError(504),
}


def failed(table: Mapping[FailureKind, HttpError], step: Failure) -> HttpError:
    """Return the failure's answer, with what the script adds."""
    error = table[step.kind]
    return replace(error, headers={**error.headers, **step.headers}, retry_after_s=step.retry_after_s)


def openai_retry_headers(retry_after_s: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(retry_after_s)), "retry-after-ms": str(round(retry_after_s * 1000))}


def anthropic_retry_headers(retry_after_s: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(retry_after_s))}
