"""Who asks, as a route's parameter: found before anything else of the request is looked at (`direct.py`)."""

from typing import Annotated, Any, Final

from fastapi import Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.security.base import SecurityBase

from api.access import Caller
from api.state import state


class _ByKey(SecurityBase):
    """FastAPI writes into the document what is a scheme of its own kind; asking is ours."""

    scheme_name = "key"
    model = HTTPBearer(description="An API key: `Authorization: Bearer <key>`. None is needed with `REJOIN_AUTH=off`.")

    async def __call__(self, request: Request) -> Caller:
        return await state(request).access.caller(request)


class _ByTicket(SecurityBase):
    scheme_name = "ticket"
    # (Its location goes by its alias, which mypy's plugin does not see.)
    model = APIKey(
        **{"in": APIKeyIn.query},
        name="ticket",
        description="As in a job's `events_url`: for this one job's events, for ten minutes.",
    )

    async def __call__(self, request: Request) -> Caller:
        return await state(request).access.reader(request, request.path_params["job_id"])


class _ByOpsKey(_ByKey):
    async def __call__(self, request: Request) -> Caller:
        return await state(request).access.operator(request)


Asking = Annotated[Caller, Security(_ByKey())]
"""By key. Whoever has none gets 401, whatever else is wrong."""

Reading = Annotated[Caller, Security(_ByTicket())]
"""By key, or by a ticket for the job in the path."""

Operating = Annotated[Caller, Security(_ByOpsKey())]
"""By a key with the right to operate. To one without it there is no such route."""

BY_KEY_TOO: Final[dict[str, Any]] = {"security": [{"key": []}]}
"""What the document has to be told of a route that is `Reading`."""
