"""Errors as RFC 9457 `application/problem+json`, each with a stable `code`. No input, host or stack is shown."""

import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from api import limits
from shared import errors, telemetry
from shared.redis import REDIS_FAULTS, RedisError

MEDIA_TYPE: Final = "application/problem+json"
RETRY_AFTER_S: Final = 1
_BRANCH: Final = re.compile(r"str|list\[.*\]|function-.*")


class Problem(Exception):
    """A refusal, as the client will see it."""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **members: Any
    ) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members

    def response(self) -> Response:
        body = {
            "type": f"urn:rejoin:problem:{self.code}",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.members,
        }
        return Response(orjson.dumps(body), self.status, self.headers, MEDIA_TYPE)


def not_found() -> Problem:
    """Unknown and foreign jobs look the same, byte for byte."""
    return Problem(404, "job_not_found", "There is no such job.")


def nothing_here() -> Problem:
    return Problem(404, "not_found", "There is nothing here.")


def refused(code: str, field: str, why: str) -> Problem:
    """Return the 422 problem of one field."""
    return Problem(422, code, f"{field}: {why}", errors=[{"field": field, "message": why}])


def unavailable() -> Problem:
    return Problem(
        503, "unavailable", "The service cannot take this request right now.", {"Retry-After": str(RETRY_AFTER_S)}
    )


def invalid(found: Sequence[ErrorDetails]) -> Problem:
    """Return the problem of a body or query that does not fit, naming fields and never their values."""
    first = found[0]
    if first["type"] == "json_invalid":
        return Problem(400, "invalid_json", "The body is not JSON.")
    listed = [{"field": _field(error), "message": error["msg"]} for error in found[:20]]
    code = "unknown_field" if first["type"] == "extra_forbidden" else "invalid_request"
    return Problem(422, code, f"{listed[0]['field'] or 'body'}: {listed[0]['message']}", errors=listed)


def _field(error: ErrorDetails) -> str:
    """Name the field as its sender knows it, without the branches of our unions."""
    return ".".join(str(part) for part in error["loc"] if not _BRANCH.fullmatch(str(part)))


def _of(error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case errors.JobNotFound():
            return not_found()
        case errors.JobLive():
            return Problem(409, "job_live", "The job has not ended yet; cancel it first.")
        case errors.ChatBusy():
            return Problem(409, error.code, "The chat is still being answered: wait for the end, or stop it.")
        case errors.BadCursor():
            return Problem(400, error.code, str(error))
        case errors.KeyMismatch():
            return Problem(422, error.code, "This Idempotency-Key was used for another request.")
        case errors.LimitReached():
            return Problem(429, error.code, limits.DETAILS[error.code], limits.refusal_headers(error))
        case errors.QueueFull():
            return Problem(503, error.code, str(error), {"Retry-After": str(RETRY_AFTER_S)})
        case RequestValidationError():
            return invalid([_without_place(found) for found in error.errors()])
        case HTTPException():
            return _of_http(error)
        case ClientDisconnect():
            return Problem(400, "client_left", "The client left before its request was whole.")
        case _ if isinstance(error, (*REDIS_FAULTS, errors.Unavailable)):
            return unavailable()
    return Problem(500, "internal_error", "The server failed on this request.")


def _without_place(found: ErrorDetails) -> ErrorDetails:
    """Drop FastAPI's `query`, `path` or `body` in front of the field's name."""
    return {**found, "loc": found["loc"][1:]}


def _of_http(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return nothing_here()
    if error.status_code == 405:
        return Problem(405, "method_not_allowed", "This resource has no such method.", error.headers)
    return Problem(error.status_code, "refused", HTTPStatus(error.status_code).phrase, error.headers)


def install(app: FastAPI, render: Callable[[str, Problem], Response]) -> None:
    """Make every error that leaves a route a problem, told as the request's path wants it."""

    async def handle(request: Request, error: Exception) -> Response:
        problem = _of(error)
        telemetry.tell("rejoin.problem", problem.code)
        return render(request.scope["path"], problem)

    ours = (Problem, errors.RejoinError)
    others = (RedisError, OSError, RequestValidationError, HTTPException, ClientDisconnect, Exception)
    for kind in (*ours, *others):
        app.add_exception_handler(kind, handle)
