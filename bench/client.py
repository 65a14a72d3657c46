"""The readers: bare sockets that parse no more than they must, so that what is measured is the server."""

import asyncio
import math
import random
import re
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import orjson

_STAMP: Final = re.compile(rb"\b(\d{9,19}) ")
_EVENT: Final = re.compile(rb"^event: (?!queued|started)", re.MULTILINE)
_END: Final = re.compile(rb"^(?:event: (completed|failed|cancelled)|data: \[DONE\])", re.MULTILINE)
HEAD_END: Final = b"\r\n\r\n"


@dataclass
class Seen:
    """What one reader saw. Times are `time.monotonic_ns()`."""

    asked_ns: int = 0
    first_ns: int = 0
    ended_ns: int = 0
    tokens: int = 0
    events: int = 0
    """Events that brought tokens, and the last one."""
    end: str = ""
    judged_ns: tuple[float, float] = (0, math.inf)
    """From when to when lags are kept."""
    lags_ns: list[int] = field(default_factory=list)
    """Provider's write to reader's socket, a number a token."""

    @property
    def ttft_s(self) -> float:
        return (self.first_ns - self.asked_ns) / 1e9


class Line(asyncio.Protocol):
    """One connection: requests one after another, each answered whole or streamed."""

    def __init__(self, key: str | None = None) -> None:
        self.transport: Any = None
        self._key = b"" if key is None else b"Authorization: Bearer %b\r\n" % key.encode()
        self.seen: Seen | None = None
        self.bytes_seen = 0
        self._buffer = b""
        self._done: asyncio.Future[bytes] | None = None

    @classmethod
    async def open(cls, port: int, key: str | None = None, *, tls: ssl.SSLContext | None = None) -> "Line":
        _, line = await asyncio.get_running_loop().create_connection(lambda: cls(key), "127.0.0.1", port, ssl=tls)
        return line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_exception(ConnectionError("closed by the server"))

    def close(self) -> None:
        self.transport.abort()

    def _send(self, method: str, path: str, body: bytes, accept: str) -> "asyncio.Future[bytes]":
        kind = b"Content-Type: application/json\r\n" if body else b""
        head = b"%b %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: %b\r\n%b%bContent-Length: %d\r\n\r\n"
        self._buffer = b""
        self._done = asyncio.get_running_loop().create_future()
        asked = method.encode(), path.encode(), accept.encode()
        self.transport.write(head % (*asked, self._key, kind, len(body)) + body)
        return self._done

    async def ask(self, method: str, path: str, body: object = None) -> bytes:
        """Return the body of an answer with a length."""
        self.seen = None
        return await self._send(method, path, b"" if body is None else orjson.dumps(body), "application/json")

    async def stream(self, method: str, path: str, body: object = None, seen: Seen | None = None) -> Seen:
        """Read a stream of events up to its last one."""
        self.seen = seen or Seen()
        self.seen.asked_ns = self.seen.asked_ns or time.monotonic_ns()
        await self._send(method, path, b"" if body is None else orjson.dumps(body), "text/event-stream")
        return self.seen

    def data_received(self, data: bytes) -> None:
        self.bytes_seen += len(data)
        if self.seen is None:
            self._whole(data)
        else:
            self._events(data)

    def _whole(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(HEAD_END)
        if not found or self._done is None or self._done.done():
            return
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if length is not None and len(body) >= int(length[1]):
            if head[9:10] != b"2":
                self._done.set_exception(RuntimeError(f"refused: {head[:60]!r} {body[:300]!r}"))
            else:
                self._done.set_result(body)

    def _events(self, data: bytes) -> None:
        """Count whole lines; the rest of a line waits for its end."""
        now_ns = time.monotonic_ns()
        seen = self.seen
        assert seen is not None
        if self._buffer:
            data = self._buffer + data
        cut = data.rfind(b"\n") + 1
        data, self._buffer = data[:cut], data[cut:]
        if data.startswith(b"HTTP/1.1") and data[9:12] != b"200" and self._done is not None:
            self._done.set_exception(RuntimeError(f"refused: {data[:300]!r}"))
            return
        stamps = _STAMP.findall(data)
        if stamps:
            if not seen.tokens:
                seen.first_ns = now_ns
            seen.tokens += len(stamps)
            if seen.judged_ns[0] <= now_ns <= seen.judged_ns[1]:
                seen.lags_ns += [now_ns - int(stamp) for stamp in stamps]
        seen.events += len(_EVENT.findall(data))
        end = _END.search(data)
        if end is not None and self._done is not None and not self._done.done():
            seen.ended_ns, seen.end = now_ns, (end[1] or b"completed").decode()
            if seen.end != "completed":
                self._done.set_exception(RuntimeError(f"the answer {seen.end}: {data[-300:]!r}"))
                return
            # What still comes is the end of the body, and nobody's business.
            self._done.set_result(b"")


def job(model: str, prompt: str = "Hi") -> dict[str, object]:
    return {"provider": "openai", "model": model, "messages": [{"role": "user", "content": prompt}]}


def chat(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}]}


class Read(Protocol):
    """Reads one answer from whatever listens on a port."""

    async def __call__(self, port: int, model: str, seen: Seen | None = None) -> Seen: ...


async def read_ours(port: int, model: str, seen: Seen | None = None) -> Seen:
    """POST a job, subscribe to it, read it to its end: what a page does."""
    line = await Line.open(port)
    try:
        seen = seen or Seen()
        seen.asked_ns = time.monotonic_ns()
        created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model)))
        return await line.stream("GET", created["events_url"], seen=seen)
    finally:
        line.close()


async def read_ours_at_once(port: int, model: str, seen: Seen | None = None) -> Seen:
    """POST a job with `Accept: text/event-stream` and read the answer to that."""
    line = await Line.open(port)
    try:
        return await line.stream("POST", "/v1/jobs", job(model), seen)
    finally:
        line.close()


async def read_direct(port: int, model: str, seen: Seen | None = None) -> Seen:
    """Ask the tutorials' design for the same."""
    line = await Line.open(port)
    try:
        return await line.stream("POST", "/chat", chat(model), seen)
    finally:
        line.close()


async def read_provider(port: int, model: str, seen: Seen | None = None) -> Seen:
    """Ask the provider itself, with nothing in between."""
    line = await Line.open(port)
    try:
        return await line.stream("POST", "/v1/chat/completions", {**chat(model), "stream": True}, seen)
    finally:
        line.close()


async def crowd(
    read: Read,
    port: int,
    model: str,
    streams: int,
    over_s: float,
    seed: int = 1,
    *,
    judged_s: tuple[float, float] = (0, math.inf),
) -> list[Seen]:
    """Read so many answers at once, each begun at its own moment of the first `over_s` seconds.

    `judged_s`: lags are kept of what comes between these two moments.
    """
    moments = random.Random(seed)
    now_ns = time.monotonic_ns()
    judged_ns = (now_ns + judged_s[0] * 1e9, now_ns + judged_s[1] * 1e9)

    async def one() -> Seen:
        await asyncio.sleep(moments.uniform(0, over_s))
        return await read(port, model, Seen(judged_ns=judged_ns))

    return await asyncio.gather(*[one() for _ in range(streams)])


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of all values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def lags_ms(crowd: Sequence[Seen]) -> list[float]:
    return [lag_ns / 1e6 for seen in crowd for lag_ns in seen.lags_ns]
