"""`GET /metrics`: this process' figures, and what waits in Redis, as Prometheus reads them."""

import asyncio
from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.document import problems
from api.problems import Problem
from api.scrapers import is_scraper
from api.state import state

router = APIRouter()

_TEXTS: Final[dict[str, Any]] = {
    media_type: {"schema": {"type": "string"}} for media_type in ("text/plain", "application/openmetrics-text")
}


@router.get("/metrics", response_class=Response, responses={200: {"content": _TEXTS}, **problems(404)})
async def metrics(request: Request) -> Response:
    """Tell how much goes on here; nothing of whom, or of what. For scrapers of the same network, without a key."""
    here = state(request)
    if here.settings.metrics != "open" and not is_scraper(request):
        raise Problem(404, "not_found", "There is nothing here.")
    waiting = [*await here.backlog.metrics(), *await here.courier.metrics()]
    # (Milliseconds, in which streams go on.)
    text, media_type = await asyncio.to_thread(here.exposition.render, request.headers.get("accept", ""), waiting)
    return Response(text, 200, {"Content-Type": media_type, "Cache-Control": "no-store"})
