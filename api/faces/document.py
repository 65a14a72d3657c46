"""What the OpenAPI document says of the faces: their refusals, in the words of the API that they speak."""

from typing import Any, Final

from pydantic import BaseModel

from api.answers import Shown
from api.document import HEADERS, Responses
from api.negotiation import SSE


class OpenAIError(Shown):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIErrorBody(Shown):
    error: OpenAIError


class AnthropicError(Shown):
    type: str
    message: str


class AnthropicErrorBody(Shown):
    type: str
    error: AnthropicError
    request_id: str


_FRAME: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "required": ["data"],
}

STREAM: Final[dict[str, Any]] = {SSE: {"itemSchema": _FRAME}}
"""Events, which other APIs write with a name or without, and never with an id."""

HAPPENS: Final = (400, 401, 404, 408, 409, 413, 415, 429, 500, 502, 503, 504)
"""What a request for an answer may be refused with, and what the failure of its job may be told as."""


TEXT: Final = "text/plain"


def sentences(*statuses: int) -> Responses:
    """Return what a route's refusals look like that are a sentence each."""
    return {
        status: {
            "description": "Refused, and why.",
            "content": {TEXT: {"schema": {"type": "string"}}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status in statuses
    }


def refusals(body: type[BaseModel], *statuses: int) -> Responses:
    """Return what a route's refusals look like, for its `responses`."""
    return {
        status: {
            "description": "Refused.",
            "model": body,
            # The failure of a job has none of them.
            "headers": {name: {**header, "required": False} for name, header in HEADERS.get(status, {}).items()},
        }
        for status in statuses
    }
