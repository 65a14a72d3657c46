"""The worker's own three routes, on `REJOIN_WORKER_PORT`: `/livez`, `/readyz`, `/metrics`.

A dozen requests a minute from a probe and a scraper, of one line each: no framework for that. Every answer ends its
connection; what is slow, long or too much is dropped.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from shared.private import is_private

logger = logging.getLogger(__name__)

LONGEST_S: Final = 5.0
"""How long a request may take to be there, and its answer to be taken."""

LONGEST_HEAD: Final = 8 * 1024
MOST: Final = 32
"""Connections at once."""

TEXT: Final = "text/plain; charset=utf-8"

Answer = tuple[int, str, bytes]
"""Status, media type, body."""


class Port:
    def __init__(
        self,
        ready: Callable[[], Awaitable[str | None]],
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        *,
        shows_all: bool,
    ) -> None:
        """`ready`: says why not, or None. `metrics`: the figures for an `Accept`, and their media type.

        `shows_all`: whether they are for anybody, not only for private addresses.
        """
        self._ready = ready
        self._metrics = metrics
        self._shows_all = shows_all
        self._server: asyncio.Server | None = None
        self._open = 0

    async def open(self, port: int) -> None:
        """Serve from now on, on all addresses; end the process with one line where that cannot be."""
        try:
            self._server = await asyncio.start_server(self._serve, None, port, limit=LONGEST_HEAD)
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else type(error).__name__
            raise SystemExit(f"rejoin: REJOIN_WORKER_PORT: cannot listen on {port} ({why})") from error

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MOST:
                async with asyncio.timeout(LONGEST_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    peer = writer.get_extra_info("peername")
                    shows = self._shows_all or (bool(peer) and is_private(peer[0]))
                    writer.write(await self._respond(head.decode("latin-1"), shows=shows))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            self._open -= 1
            writer.close()

    async def _respond(self, head: str, *, shows: bool) -> bytes:
        line, *headers = head.split("\r\n")
        method, _, rest = line.partition(" ")
        path = rest.partition(" ")[0].partition("?")[0]
        try:
            status, media_type, body = await self._answer(method, path, headers, shows=shows)
        except Exception:
            logger.exception("no answer to a probe")
            status, media_type, body = 500, TEXT, b"failed\n"
        said = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
            f"Content-Type: {media_type}",
            f"Content-Length: {len(body)}",
            "Cache-Control: no-store",
            "Connection: close",
            *(["Allow: GET, HEAD"] if status == 405 else []),
        )
        return "\r\n".join([*said, "", ""]).encode("latin-1") + (b"" if method == "HEAD" else body)

    async def _answer(self, method: str, path: str, headers: list[str], *, shows: bool) -> Answer:
        if path not in ("/livez", "/readyz", "/metrics") or (path == "/metrics" and not shows):
            return 404, TEXT, b"nothing here\n"
        if method not in ("GET", "HEAD"):
            return 405, TEXT, b"GET or HEAD\n"
        if path == "/livez":
            return 200, TEXT, b"ok\n"
        if path == "/readyz":
            why = await self._ready()
            return (200, TEXT, b"ready\n") if why is None else (503, TEXT, why.encode() + b"\n")
        body, media_type = await self._metrics(_accept(headers))
        return 200, media_type, body


def _accept(headers: list[str]) -> str:
    for header in headers:
        name, _, value = header.partition(":")
        if name.lower() == "accept":
            return value.strip()
    return ""
