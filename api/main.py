"""`uvicorn api.main:app`: one API process."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from api import access_log, document, problems
from api.connection import note_connection
from api.cors import Cors
from api.counting import counted
from api.faces import errors
from api.faces.registry import BODIES, ROUTERS
from api.request_id import identified
from api.routes import events, health, jobs, metrics, models, ops, page, usage
from api.state import State
from shared import logs, telemetry
from shared.files import allow_many
from shared.garbage import spare_the_start
from shared.metrics import ApiMetrics
from shared.prices import Prices
from shared.redis import REDIS_FAULTS, Scripts
from shared.requests import JobRequest
from shared.secrecy import is_doubtful
from shared.settings import Settings, load_settings

if TYPE_CHECKING:
    from shared.traces import Traces

logger = logging.getLogger("uvicorn.error")
"""Where uvicorn says what happens to the process itself."""

LOAD_AGAIN_S = 0.5


class App(FastAPI):
    cors_origins: Sequence[str] = ()
    metrics: ApiMetrics
    traced: ASGIApp | None = None
    """What its requests go through first where there are traces."""

    def build_middleware_stack(self) -> ASGIApp:
        """Put CORS in front of all: FastAPI would answer a 500 without it."""
        stack = super().build_middleware_stack()
        return Cors(stack, self.cors_origins) if self.cors_origins else stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            note_connection(scope, send)
            send = counted(self.metrics, scope, send)
            send = identified(scope, send)
            if self.traced is not None:
                await self.traced(scope, receive, send)
                return
        await super().__call__(scope, receive, send)


def create_app(settings: Settings, traces: "Traces | None" = None) -> FastAPI:
    """Build an API process around its settings; nothing is connected before its lifespan begins."""
    prices = Prices.read(settings.prices)
    if settings.auth == "off":
        logger.warning("REJOIN_AUTH=off: everybody on this machine may do everything; nobody else is answered")
    elif any(is_doubtful(secret.get_secret_value()) for secret in settings.secret):
        logger.warning("REJOIN_SECRET can be guessed: whoever does reads any job's events")
    if settings.auth != "off" and not settings.api_keys:
        logger.info("REJOIN_API_KEYS is empty: only keys that `rejoin keys create` has made are let in")

    @asynccontextmanager
    async def lifespan(app: App) -> AsyncIterator[None]:
        here = State.build(settings, prices, app.metrics)
        app.state.rejoin = here
        tasks = [asyncio.create_task(_load(here.scripts)), asyncio.create_task(here.tally.run(), name="tally")]
        await here.plane.start()
        await here.hub.start()
        if settings.auth == "required":
            await here.known_keys.start()
        yield
        for task in tasks:
            task.cancel()
        await here.known_keys.stop()
        await here.hub.stop()
        await here.courier.close()
        await here.plane.stop()
        await here.redis.close()
        if traces is not None:
            await traces.close()

    app = App(
        title="Rejoin",
        version="0.1.0",
        summary="Generation that outlives the connection",
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.shows_docs else None,
        # The page that comes with the framework runs scripts of a CDN in our origin.
        docs_url=None,
        redoc_url=None,
        # Such a redirect leads to whatever host the request names.
        redirect_slashes=False,
        # The framework's own spans would tell of tickets, its logs of what was sent, and by the environment alone.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    access_log.install()
    problems.install(app, errors.render)
    app.cors_origins = settings.cors_origins
    app.metrics = ApiMetrics()
    if traces is not None:
        # Only here: without traces nothing of theirs is imported.
        from api.tracing import Traced

        app.traced = Traced(super(App, app).__call__, traces)
    for module in (events, jobs, usage, models, ops, health, metrics, page):
        app.include_router(module.router)
    for router in ROUTERS:
        app.include_router(router)
    page.mount_files(app)
    document.install(app, (JobRequest, *BODIES))
    return app


async def _load(scripts: Scripts) -> None:
    """Send the scripts ahead; Redis may come later than we do (`readyz` tells)."""
    while True:
        with suppress(*REDIS_FAULTS):
            await scripts.load()
            return
        await asyncio.sleep(LOAD_AGAIN_S)


def __getattr__(name: str) -> FastAPI:
    """Build `app` when a server first asks for it, so that importing this module does no work."""
    if name == "app":
        settings = load_settings("api")
        logs.configure(settings.log_level, settings.log_format)
        allow_many()
        app = create_app(settings, telemetry.start("api"))
        spare_the_start()
        # uvicorn asks twice: without this the second one would have exporters and lines in the log of its own.
        globals()["app"] = app
        return app
    raise AttributeError(name)
