"""Opens connections to providers: names, both families of addresses, TLS, the proxy of the environment."""

import asyncio
import base64
import logging
import os
import socket
import ssl
from functools import cache
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohappyeyeballs
import httpx2

from worker.providers.connection import Connection

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S: Final = 10.0
"""Silence after the connect is judged by the attempt's own clocks (`Attempt.watch`), not here."""

EYEBALLS_S: Final = 0.25
"""Head start of one address before the next is tried too (RFC 8305, § 8)."""

MAX_PROXY_HEAD_BYTES: Final = 16 * 1024


class Origin(NamedTuple):
    """Whom a connection leads to."""

    scheme: str
    host: str
    port: int


@cache
def _trusted(*environment: str | None) -> ssl.SSLContext:
    """Return whom TLS trusts, as the environment says: read once, as it takes 25 ms."""
    return httpx2.create_ssl_context()


class Dialer:
    def __init__(self) -> None:
        self._tls = _trusted(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
        self._proxies = getproxies()
        for name in ("http", "https", "all"):
            if (proxy := self._proxies.get(name)) and _way(proxy) is None:
                # (Its address may have a password in it.)
                logger.warning(
                    "%s_PROXY: only http:// proxies are known; who is behind it is out of reach", name.upper()
                )

    def plain_proxy(self, origin: Origin) -> bool:
        """Say whether requests go to a proxy that reads them: `http:` only, `https:` goes through a tunnel."""
        return origin.scheme == "http" and self._proxy(origin) is not None

    def credentials(self, origin: Origin) -> str | None:
        """Return the `Proxy-Authorization` for this origin's proxy, if it asks for one."""
        proxy = self._proxy(origin)
        if proxy is None or _way(proxy) is None:
            return None
        user = urlsplit(proxy)
        if user.username is None:
            return None
        pair = f"{unquote(user.username)}:{unquote(user.password or '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()

    async def connect(self, origin: Origin) -> Connection:
        """Open a connection. Raises httpx2.ConnectError, or ConnectTimeout when that takes too long."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return await self._connect(origin)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("no connection in time") from error
        except OSError as error:
            raise httpx2.ConnectError("cannot connect") from error

    async def _connect(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        proxy = self._proxy(origin)
        if proxy is None:
            sock = await _open(origin.host, origin.port)
        else:
            way = _way(proxy)
            if way is None:
                raise httpx2.ConnectError("only http:// proxies are known")
            sock = await _open(*way)
            if origin.scheme == "https":
                try:
                    await self._tunnel(sock, origin)
                except BaseException:
                    sock.close()
                    raise
        tls, name = (self._tls, origin.host) if origin.scheme == "https" else (None, None)
        _, connection = await loop.create_connection(Connection, sock=sock, ssl=tls, server_hostname=name)
        return connection

    async def _tunnel(self, sock: socket.socket, origin: Origin) -> None:
        """Ask the proxy on this socket for a connection to the origin; not a byte of the origin's is read."""
        loop = asyncio.get_running_loop()
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}"
        user = f"Proxy-Authorization: {who}\r\n" if (who := self.credentials(origin)) else ""
        await loop.sock_sendall(sock, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{user}\r\n".encode("ascii"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            # The origin does not speak first under TLS, so what is there is the proxy's.
            piece = await loop.sock_recv(sock, 1 if head else 12)
            if not piece or len(head) > MAX_PROXY_HEAD_BYTES:
                raise httpx2.ConnectError("the proxy did not answer")
            head += piece
        if head.split(b" ", 2)[1:2] != [b"200"]:
            raise httpx2.ConnectError("the proxy refused")

    def _proxy(self, origin: Origin) -> str | None:
        """Return the proxy of the environment, as the SDKs do."""
        if not self._proxies or proxy_bypass(f"{origin.host}:{origin.port}"):
            return None
        proxy = self._proxies.get(origin.scheme) or self._proxies.get("all")
        return proxy if proxy is None or "://" in proxy else f"http://{proxy}"


def _way(proxy: str) -> tuple[str, int] | None:
    """Return host and port of a proxy; None when it is one that we cannot talk to."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        return (parts.hostname, parts.port or 80) if parts.scheme == "http" and parts.hostname else None
    except ValueError:
        return None


async def _open(host: str, port: int) -> socket.socket:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=EYEBALLS_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock
