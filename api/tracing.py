"""One span a request, which the job that it submits goes on from, wherever that runs."""

from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared import logs, telemetry
from shared.traces import SERVER, Traces, fail

TRACED: Final = ("/v1/", "/api/")
"""Not the page's files, nor what probes ask all day."""

_METHODS: Final = frozenset(("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH"))


class Traced:
    """Stands before an app whose requests are traced. Of what a client wrote into path and query nothing is told."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app = app
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not scope["path"].startswith(TRACED):
            return await self._app(scope, receive, send)
        method = scope["method"] if scope["method"] in _METHODS else "_OTHER"
        given = [value for name, value in scope["headers"] if name == b"traceparent"]
        parent = telemetry.parse(given[0].decode("latin-1")) if len(given) == 1 else None
        span = self._traces.span(method, SERVER, parent, {"http.request.method": method})
        telemetry.enter(span)
        logs.note(trace_id=f"{span.get_span_context().trace_id:032x}")
        status = 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception:
            status = status or 500
            raise
        finally:
            if (route := getattr(scope.get("route"), "path", None)) is not None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            if status >= 500:
                fail(span, str(status))
            span.end()
