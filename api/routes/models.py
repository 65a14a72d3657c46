"""`GET /v1/models`: what may be asked for, in the shape of OpenAI's list."""

from collections.abc import Mapping

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.answers import ModelPage
from api.asking import Asking
from api.document import problems
from api.routes.jobs import json_response
from api.state import state
from shared.prices import Prices
from shared.settings import ProviderConfig

router = APIRouter()


@router.get("/v1/models", responses={200: {"model": ModelPage}, **problems(401, 503)})
async def models(request: Request, caller: Asking) -> Response:
    """List `provider/model` for every provider that is set up, `demo` first, as far as the caller may ask for it."""
    here = state(request)
    offers = offered(here.providers, here.prices)
    names = [name for name in offers if caller.may_ask(*name.split("/", 1))]
    names += [name for name in caller.models if name not in names and is_name(name, here.providers)]
    data = [{"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0]} for name in names]
    return json_response({"object": "list", "data": data})


def is_name(pattern: str, providers: Mapping[str, ProviderConfig]) -> bool:
    """Say whether what a key may ask for is one model, of a provider that is set up."""
    return not pattern.endswith("*") and pattern.partition("/")[0] in providers


def offered(providers: Mapping[str, ProviderConfig], prices: Prices) -> list[str]:
    """Return the models to offer: those that the operator names, else those of the price table."""
    ordered = {"demo": providers["demo"], **providers}
    return [f"{name}/{model}" for name, config in ordered.items() for model in _models(name, config, prices)]


_OPENAI = ("gpt-", "o1", "o3", "o4")
_FAMILY = {"openai": _OPENAI, "openai-responses": _OPENAI, "anthropic": ("claude-",)}


def _models(name: str, config: ProviderConfig, prices: Prices) -> list[str]:
    if config.models:
        return config.models
    if config.api_key is None and config.base_url is None:
        return []
    return [model for model in prices.models() if model.startswith(_FAMILY.get(name, ()))]
