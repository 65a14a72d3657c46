"""Who asks, as a route's parameter: FastAPI settles it before it looks at anything else of the request."""

from typing import Annotated

from fastapi import Depends, Request

from api.access import Caller
from api.state import state


async def _caller(request: Request) -> Caller:
    return await state(request).access.caller(request)


async def _reader(request: Request) -> Caller:
    return await state(request).access.reader(request, request.path_params["job_id"])


Asking = Annotated[Caller, Depends(_caller)]
"""By key. Whoever has none gets 401, whatever else is wrong."""

Reading = Annotated[Caller, Depends(_reader)]
"""By key, or by a ticket for the job in the path."""
