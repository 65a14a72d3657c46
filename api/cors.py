"""Cross-origin requests: answers that a page of an allowed origin may read, errors included; nothing for any other."""

from collections.abc import Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Send

from api.problems import Problem

METHODS: Final = ("GET", "POST", "DELETE")
_OF_SDKS: Final = (
    "X-API-Key", "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access", "User-Agent",
    *(f"X-Stainless-{name}" for name in (
        "Arch", "Helper-Method", "Lang", "OS", "Package-Version", "Poll-Helper", "Retry-Count", "Runtime",
        "Runtime-Version", "Timeout",
    )),
)  # fmt: skip
"""What OpenAI's and Anthropic's clients send from a page as well."""

REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", *_OF_SDKS)
RESPONSE_HEADERS: Final = (
    "Location", "X-Job-ID", "Retry-After", "RateLimit", "RateLimit-Policy", "Idempotency-Replayed", "WWW-Authenticate",
    "X-Request-ID", "request-id", "x-should-retry",
)  # fmt: skip


class Cors(CORSMiddleware):
    """Stands before everything else, so that a page can read what became of its request even when that is a 500.

    Origins are compared byte for byte, and never with credentials: keys are sent by pages that have them, not by
    browsers on their own.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        super().__init__(app, origins, METHODS, REQUEST_HEADERS)

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400 and len(request_headers.getlist("origin")) == 1:
            return answer
        refused = Problem(400, "cors_refused", "This origin may not ask this with this method and these headers.")
        refused.headers["Vary"] = answer.headers["Vary"]
        return refused.response()

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers.add_vary_header("Origin")
            match request_headers.getlist("origin"):
                case [origin] if self.is_allowed_origin(origin):
                    headers["Access-Control-Allow-Origin"] = origin
                    headers["Access-Control-Expose-Headers"] = ", ".join(RESPONSE_HEADERS)
        await send(message)
