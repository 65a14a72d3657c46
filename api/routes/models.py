"""`GET /v1/models`: what may be asked for, in the shape of OpenAI's list, which is also that of Anthropic's."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.access import Caller
from api.answers import ModelPage, ModelShown
from api.asking import Asking
from api.direct import Direct
from api.document import problems
from api.offers import is_name
from api.problems import Problem
from api.routes.jobs import json_response
from api.state import State, state

router = APIRouter(route_class=Direct)

EPOCH: Final = "1970-01-01T00:00:00Z"
"""When a model was made: nobody tells us."""


@router.get("/v1/models", responses={200: {"model": ModelPage}, **problems(401, 503)})
async def models(request: Request, caller: Asking) -> Response:
    """List `provider/model` for every provider that is set up, `demo` first, as far as the caller may ask for it."""
    names = _names(state(request), caller)
    first, last = (names[0], names[-1]) if names else (None, None)
    data = [_model(name) for name in names]
    return json_response({"object": "list", "data": data, "has_more": False, "first_id": first, "last_id": last})


@router.get("/v1/models/{name:path}", responses={200: {"model": ModelShown}, **problems(401, 404, 503)})
async def model(request: Request, caller: Asking, name: str) -> Response:
    """Return one of them."""
    if name not in _names(state(request), caller):
        raise Problem(404, "model_not_found", "There is no such model.")
    return json_response(_model(name))


def _names(here: State, caller: Caller) -> list[str]:
    names = [name for name in here.offers if caller.may_ask(*name.split("/", 1))]
    return names + [name for name in caller.models if name not in names and is_name(name, here.providers)]


def _model(name: str) -> dict[str, Any]:
    openai = {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]}
    return {**openai, "type": "model", "display_name": name, "created_at": EPOCH, "lifecycle": "active"}
