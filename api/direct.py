"""How our endpoints are called: who asks is found first, then what the signature wants of path and query.

FastAPI makes its document of the same signatures. It would also call them, as it calls any endpoint there may be, with
trees of dependencies and stacks of what is to be closed: a quarter to a half of what else a request costs in Python.
"""

from collections.abc import Callable, Coroutine
from inspect import Parameter, signature
from typing import Any, get_type_hints

from fastapi import Request
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError, create_model
from starlette.responses import Response

from api.problems import invalid


class Direct(APIRoute):
    """Calls `endpoint(request, caller, …)`: the caller is `Asking` or `Reading`, the rest values of path and query."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint, hints = self.endpoint, get_type_hints(self.endpoint, include_extras=True)
        first, second, *others = signature(endpoint).parameters.values()
        assert (first.name, second.name) == ("request", "caller")
        find_caller = hints["caller"].__metadata__[0].dependency
        asked = _model(others, hints) if others else None

        async def handle(request: Request) -> Response:
            caller = await find_caller(request)
            values = {} if asked is None else _read(request, asked)
            response: Response = await endpoint(request, caller, **values)
            return response

        return handle


def _model(parameters: list[Parameter], hints: dict[str, Any]) -> type[BaseModel]:
    """Return what reads these parameters, by their types and what FastAPI's `Path` and `Query` say of them."""
    fields: dict[str, Any] = {
        each.name: (hints[each.name], ... if each.default is Parameter.empty else each.default) for each in parameters
    }
    return create_model("Asked", **fields)


def _read(request: Request, asked: type[BaseModel]) -> dict[str, Any]:
    try:
        return dict(asked.model_validate({**request.query_params, **request.path_params}))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
