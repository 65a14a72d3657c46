"""Reading a request's body: bounded, JSON, and nothing else."""

import asyncio
from typing import Final, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from api.problems import Problem, invalid

LONGEST_S: Final = 30.0
"""How long a body may take: a megabyte at 35 kB/s."""

Model = TypeVar("Model", bound=BaseModel)


async def read_json(request: Request, model: type[Model], max_bytes: int) -> Model:
    """Return the body as a model; raise the problem 415, 413, 400 or 422 that it has."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" and not (media.startswith("application/") and media.endswith("+json")):
        raise Problem(415, "unsupported_media_type", "Send the body as application/json.")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise Problem(415, "unsupported_media_type", "Send the body without a content encoding.")
    raw = await _read(request, max_bytes)
    try:
        return model.model_validate_json(raw)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    """Read the body, giving up as soon as it is too large, also when it does not say so before."""
    too_large = Problem(413, "body_too_large", f"The body may have {max_bytes} bytes.")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(LONGEST_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > max_bytes:
                    raise too_large
    except TimeoutError:
        # Its rest would be taken for the next request's head.
        raise Problem(408, "body_too_slow", "The body took too long.", {"Connection": "close"}) from None
    return bytes(body)
