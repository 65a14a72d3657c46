"""The HTTP under both SDKs: aiohttp behind httpx2's interface, one pool of connections for all providers.

The SDKs bring such a transport of their own. Ours differs in what an attempt must know: whether a connection that
failed was a kept-alive one, which a provider may close at the very moment of its reuse (28 of 512 calls under
load), and that a refused connection is no time-out. It reads what has arrived, not chunk by chunk.
"""

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, Final
from urllib.request import getproxies, proxy_bypass

import aiohttp
import httpx2

CONNECT_TIMEOUT_S: Final = 10.0
"""Silence after the connect is judged by the attempt's own clocks (`Attempt.watch`), not here."""

KEEP_ALIVE_S: Final = 30.0


class StaleConnection(httpx2.ConnectError):
    """A kept-alive connection was closed under a request that got no byte of an answer: repeating it is safe."""


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Opened with its first request. Closing it twice is fine: several clients share it."""

    def __init__(self, max_connections: int) -> None:
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext = httpx2.create_ssl_context()
        self._proxies = getproxies()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request, return when the answer's headers are there. Raises httpx2's errors."""
        fate = SimpleNamespace(reused=False)
        with _translated(fate):
            response = await self._open().request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
                auto_decompress=False,
                proxy=self._proxy(request.url),
                trace_request_ctx=fate,
            )
        return httpx2.Response(
            response.status,
            headers=list(response.raw_headers),
            stream=_Body(response),
            request=request,
            extensions={"http_version": b"HTTP/1.1"},
        )

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_reuse)
            connector = aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEP_ALIVE_S, ssl=self._tls)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=timeout, trace_configs=[trace], auto_decompress=False
            )
        return self._session

    def _proxy(self, url: httpx2.URL) -> str | None:
        """Return the proxy of the environment, as the SDKs do (aiohttp asks two threads for it on every request)."""
        if not self._proxies or proxy_bypass(url.host):
            return None
        return self._proxies.get(url.scheme) or self._proxies.get("all")


class _Body(httpx2.AsyncByteStream):
    """An answer's bytes, as they arrive."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _translated(None):
            async for chunk in self._response.content.iter_any():
                yield chunk

    async def aclose(self) -> None:
        """Give the connection back if the answer was read to its end; close it, at once, if not."""
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


async def _note_reuse(_: aiohttp.ClientSession, context: SimpleNamespace, __: Any) -> None:
    context.trace_request_ctx.reused = True


@contextmanager
def _translated(fate: SimpleNamespace | None) -> Iterator[None]:
    """Turn aiohttp's errors into httpx2's: `fate` before the answer's first byte, None behind it."""
    try:
        yield
    except (aiohttp.ServerTimeoutError, TimeoutError) as error:
        raise httpx2.ConnectTimeout(str(error)) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx2.ConnectError("cannot connect") from error
    except (aiohttp.ClientConnectionError, ConnectionError) as error:
        if fate is not None and fate.reused:
            raise StaleConnection("closed while idle") from error
        raise httpx2.ReadError("connection lost") from error
    except aiohttp.ClientPayloadError as error:
        raise httpx2.ReadError("answer cut off") from error
    except aiohttp.ClientError as error:
        raise httpx2.RemoteProtocolError(type(error).__name__) from error
