"""Refusals in the words of other APIs, with their statuses, so that their SDKs raise their own exceptions."""

import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from starlette.responses import Response

from api.problems import Problem

Render = Callable[[Problem], Response]

_CODES: Final = {
    "unauthorized": "invalid_api_key",
    "rate_limited": "rate_limit_exceeded",
    "budget_spent": "insufficient_quota",
    "unknown_provider": "model_not_found",
    "model_not_allowed": "model_not_found",
}
"""Our codes that OpenAI has words of its own for."""

_FIELDS: Final = {"provider": "model", "reasoning": "reasoning_effort"}
_RESPONSES_FIELDS: Final = {
    "provider": "model",
    "system": "instructions",
    "max_tokens": "max_output_tokens",
    "messages": "input",
    "response_format": "text.format",
}
"""What the API calls the fields of a job, by the first of their names."""

_STATUSES: Final = {"unknown_provider": 404, "model_not_allowed": 404}


def _status(problem: Problem) -> int:
    """Return the status that other APIs have for it: they know no 422."""
    return _STATUSES.get(problem.code) or (400 if problem.status == 422 else problem.status)


def _json(body: Mapping[str, Any], status: int, headers: Mapping[str, str]) -> Response:
    return Response(orjson.dumps(body), status, dict(headers), "application/json")


def openai_error(problem: Problem, fields: Mapping[str, str] = _FIELDS) -> dict[str, Any]:
    """Return what stands under `error` in OpenAI's words. `fields`: what it calls ours."""
    status = _status(problem)
    if status == 429:
        kind = "insufficient_quota" if problem.code == "budget_spent" else "rate_limit_error"
    else:
        kind = "server_error" if status >= 500 else "invalid_request_error"
    field = next((error["field"] for error in problem.members.get("errors", ()) if error.get("field")), None)
    param = None if field is None else fields.get(field.partition(".")[0], field)
    return {
        "message": problem.detail if param == field else problem.detail.replace(f"{field}:", f"{param}:", 1),
        "type": kind,
        "param": param,
        "code": _CODES.get(problem.code, problem.code),
    }


def openai(problem: Problem) -> Response:
    return _json({"error": openai_error(problem)}, _status(problem), problem.headers)


def openai_responses(problem: Problem) -> Response:
    return _json({"error": openai_error(problem, _RESPONSES_FIELDS)}, _status(problem), problem.headers)


_ANTHROPIC: Final = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}


_ANTHROPIC_FIELDS: Final = {
    "provider": "model",
    "reasoning": "thinking",
    "response_format": "output_config.format",
    "stop": "stop_sequences",
}
"""What a face's request calls the fields of a job."""


def _anthropic_status(problem: Problem) -> int:
    """Return the status that Anthropic has for it: its word for "come back later" is 529."""
    return 529 if problem.status == 503 else _status(problem)


def anthropic_error(problem: Problem, request_id: str) -> dict[str, Any]:
    """Return the refusal in Anthropic's words."""
    status = _anthropic_status(problem)
    kind = _ANTHROPIC.get(status, "api_error" if status >= 500 else "invalid_request_error")
    field, colon, why = problem.detail.partition(": ")
    message = f"{_ANTHROPIC_FIELDS.get(field, field)}{colon}{why}"
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def anthropic(problem: Problem) -> Response:
    # A job that has failed has one already.
    id = problem.headers.get("request-id", f"req_{secrets.token_hex(16)}")
    return _json(anthropic_error(problem, id), _anthropic_status(problem), {**problem.headers, "request-id": id})


def ai_sdk(problem: Problem) -> Response:
    """`useChat` shows the body as the error's message."""
    return Response(problem.detail, problem.status, dict(problem.headers), "text/plain; charset=utf-8")


def models(problem: Problem) -> Response:
    """Ours and OpenAI's at once: both ask for the same list."""
    problem.members = {**problem.members, "error": openai_error(problem)}
    return problem.response()


RENDERERS: Final[Mapping[str, Render]] = {
    "/v1/chat/completions": openai,
    "/v1/responses": openai_responses,
    "/v1/messages": anthropic,
    "/api/chat": ai_sdk,
    "/v1/models": models,
}
"""By the beginning of the path; everything else is a problem of ours."""


def render(path: str, problem: Problem) -> Response:
    for beginning, words in RENDERERS.items():
        if path == beginning or path.startswith(beginning + "/"):
            return words(problem)
    return problem.response()
