"""`Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the same key makes a repeated POST the same one."""

from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request

from api.problems import Problem
from shared.jobs import Idempotency
from shared.requests import JobRequest

MAX_CHARACTERS: Final = 255

PARAMETER: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "One for each job that is wanted; a repeat with the same one within 24 hours gives the same job.",
    "schema": {"type": "string", "minLength": 1, "maxLength": MAX_CHARACTERS, "pattern": "^[ -~]+$"},
}


def idempotency(request: Request, job: JobRequest, face: Mapping[str, Any] | None = None) -> Idempotency | None:
    """Return the request's key with the hash of what is asked for; None without one, a 400 problem for a bad one."""
    keys = request.headers.getlist("idempotency-key")
    if not keys:
        return None
    (key, *others) = keys
    if others or not 0 < len(key) <= MAX_CHARACTERS or not (key.isascii() and key.isprintable()):
        expected = f"Idempotency-Key: expected one, of 1 to {MAX_CHARACTERS} printable ASCII characters."
        raise Problem(400, "invalid_idempotency_key", expected)
    return Idempotency(key, job.fingerprint(face))
