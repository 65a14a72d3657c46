"""What a request is called in logs, and to who asked: its own `X-Request-ID` where that is sane, else one of ours."""

import re
import secrets
from typing import Final

from starlette.types import Message, Scope, Send

from shared import logs

NAME: Final = b"x-request-id"
_SANE: Final = re.compile(rb"[0-9A-Fa-f-]{8,64}|[0-9A-HJKMNP-TV-Z]{26}")
"""A UUID, or other hexadecimal digits, as proxies make them; or a ULID. No words: it is logged, a key must not be."""


def identified(scope: Scope, send: Send) -> Send:
    """Name a request; return a `send` that gives its answer the name as well."""
    given = [value for name, value in scope["headers"] if name == NAME]
    sane = len(given) == 1 and _SANE.fullmatch(given[0])
    request_id: bytes = given[0] if sane else secrets.token_hex(16).encode()
    logs.note(request_id=request_id.decode())
    header = (b"x-request-id", request_id)

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), header]
        await send(message)

    return named
