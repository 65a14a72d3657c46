"""Requests as bytes: what no client would send, as it is."""

import asyncio
from typing import NamedTuple

Headers = list[tuple[bytes, bytes]]


OWN = ("date", "x-request-id")
"""What differs from one answer to the next, whatever is asked."""


class Wire(NamedTuple):
    """What came back; status 0 where the connection was cut without a word."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def shown(self) -> tuple[int, dict[str, str], bytes]:
        """All of it that does not go by the clock."""
        return self.status, {name: value for name, value in self.headers.items() if name not in OWN}, self.body


async def send(url: str, request: bytes) -> Wire:
    """Send bytes, read until the server closes; a request should ask it to (`Connection: close`)."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    answer = b""
    try:
        async with asyncio.timeout(10):
            writer.write(request)
            while chunk := await reader.read(65536):
                answer += chunk
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()
    head, _, rest = answer.partition(b"\r\n\r\n")
    if not head:
        return Wire(0, {}, b"")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Wire(int(first.split()[1]), headers, rest)


async def ask(url: str, method: bytes, path: bytes, headers: Headers, content: bytes = b"") -> Wire:
    """Send one request with just these headers, and with what HTTP needs."""
    lines = [method + b" " + path + b" HTTP/1.1", b"Host: x", b"Connection: close"]
    lines += [name + b": " + value for name, value in headers]
    if content:
        lines += [b"Content-Type: application/json", b"Content-Length: %d" % len(content)]
    return await send(url, b"\r\n".join(lines) + b"\r\n\r\n" + content)
