"""Probes: is this process alive, may it be sent work."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.answers import Probe
from api.deadline import deadline
from api.document import problems
from api.problems import Problem
from api.routes.jobs import json_response
from api.state import state
from shared.errors import Unavailable
from shared.redis import REDIS_FAULTS, problem

router = APIRouter()


@router.get("/livez", responses={200: {"model": Probe}})
async def livez() -> Response:
    """Say that the event loop turns. Redis' absence is no reason to restart an API process."""
    return json_response({"status": "ok"})


@router.get("/readyz", responses={200: {"model": Probe}, **problems(503)})
async def readyz(request: Request) -> Response:
    """Say whether this process can serve: Redis answers and will not drop jobs."""
    try:
        async with deadline():
            why = await problem(state(request).redis)
    except (*REDIS_FAULTS, Unavailable):
        why = "Redis does not answer."
    if why is not None:
        raise Problem(503, "not_ready", why, {"Retry-After": "1"})
    return json_response({"status": "ready"})
