"""The OpenAPI document, where routes' signatures do not say it all: bodies read by hand, problems, headers."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final, get_args

from fastapi import FastAPI
from pydantic import BaseModel

from api.answers import EVENT_ID, EventName, EventShown, ProblemBody
from api.negotiation import JSON, NDJSON, SSE
from api.problems import MEDIA_TYPE

Responses = dict[int | str, dict[str, Any]]

_SCHEMAS: Final = "#/components/schemas/"

_TEXT: Final[dict[str, Any]] = {"schema": {"type": "string"}}
_WHOLE_NUMBER: Final[dict[str, Any]] = {"required": True, "schema": {"type": "integer", "minimum": 1}}

HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {"WWW-Authenticate": {"required": True, **_TEXT}},
    429: {
        "Retry-After": _WHOLE_NUMBER,
        "RateLimit": {"required": True, **_TEXT},
        "RateLimit-Policy": {"required": True, **_TEXT},
    },
    503: {"Retry-After": _WHOLE_NUMBER},
}

JOB_HEADERS: Final[dict[str, Any]] = {
    "Location": {"required": True, **_TEXT},
    "X-Job-ID": {"required": True, **_TEXT},
    "RateLimit": {"required": True, **_TEXT},
    "RateLimit-Policy": {"required": True, **_TEXT},
    "Idempotency-Replayed": {"schema": {"type": "string", "enum": ["true"]}},
}

_FRAME: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "event": {"type": "string", "enum": list(get_args(EventName))},
        "data": {"type": "string", "contentMediaType": JSON},
        "id": {"type": "string", "pattern": EVENT_ID},
        "retry": {"type": "integer", "minimum": 0},
    },
    "required": ["event", "data", "id"],
}

STREAMED: Final[dict[str, Any]] = {
    SSE: {"itemSchema": _FRAME},
    NDJSON: {"itemSchema": {"$ref": f"{_SCHEMAS}{EventShown.__name__}"}},
}
"""Said as OpenAPI 3.2 says it, like FastAPI does; readers of 3.1 pass over it."""

LAST_EVENT_ID: Final[dict[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The id of the last event that the reader has; it counts before `last_event_id`.",
    "schema": {"type": "string", "pattern": EVENT_ID},
}


def problems(*statuses: int) -> Responses:
    """Return what a route's refusals look like, for its `responses`."""
    return {
        status: {
            "description": HTTPStatus(status).phrase,
            "content": {MEDIA_TYPE: {"schema": {"$ref": f"{_SCHEMAS}{ProblemBody.__name__}"}}},
            **({"headers": HEADERS[status]} if status in HEADERS else {}),
        }
        for status in statuses
    }


def body_of(model: type[BaseModel], **more: Any) -> dict[str, Any]:
    """Return what a route's `openapi_extra` says of a body that is read by hand; `install` has to know the model."""
    schema = {"$ref": f"{_SCHEMAS}{model.__name__}"}
    return {"requestBody": {"required": True, "content": {JSON: {"schema": schema}}}, **more}


def install(app: FastAPI, bodies: Sequence[type[BaseModel]]) -> None:
    """Have the app's document tell of what no signature shows, and of no 422 that cannot be."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _complete(original(), bodies)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _complete(document: dict[str, Any], bodies: Sequence[type[BaseModel]]) -> dict[str, Any]:
    schemas: dict[str, Any] = document.setdefault("components", {}).setdefault("schemas", {})
    models: list[type[BaseModel]] = [*bodies, ProblemBody]
    for model in models:
        schema = model.model_json_schema(ref_template=f"{_SCHEMAS}{{model}}")
        schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
    # What FastAPI says of wrong parameters is not what `api.problems` makes of them.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            if "HTTPValidationError" in str(answers.get("422")):
                del answers["422"]
    return document
