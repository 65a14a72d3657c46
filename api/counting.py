"""Counts answers by their route's template: never by a path, which clients choose."""

from typing import Final

from starlette.types import Message, Scope, Send

from shared.metrics import OTHER, ApiMetrics

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
FILES: Final = "/page"
"""What is mounted has no template."""


def counted(metrics: ApiMetrics, scope: Scope, send: Send) -> Send:
    """Return a `send` that counts the answer when it begins: a stream may go on for long."""

    async def send_and_count(message: Message) -> None:
        if message["type"] == "http.response.start":
            method = scope["method"] if scope["method"] in METHODS else OTHER
            metrics.requests[method, _template(scope), str(message["status"])].inc()
        await send(message)

    return send_and_count


def _template(scope: Scope) -> str:
    route = scope.get("route")
    if route is None:
        return FILES if scope["path"].startswith(FILES + "/") else OTHER
    template: str = route.path
    return template
