"""What the SDKs share: the HTTP client under them, and how a stream's events are taken."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

import httpx2

from shared.events import dump, load
from worker.providers.base import NotAStream, Room, StreamError
from worker.providers.calls import HEADERS, UNREAD, Calls
from worker.providers.connection import Answer
from worker.providers.sse import ServerSentEvent, SseDecoder
from worker.providers.transport import ANSWER, ENCODED

DRAIN_S: Final = 0.1
"""How long an answer's last bytes may take after its end marker, so that the connection can be used again."""

DOCUMENTS: Final = ("application/json", "text/html")
"""What proxies and servers that do not stream answer 200 with. Other types, and none, are taken for a stream."""


def client(transport: httpx2.AsyncBaseTransport) -> httpx2.AsyncClient:
    """Return the HTTP client of one SDK, over the connections that all of them share."""
    headers = {"Accept-Encoding": "identity"}
    return httpx2.AsyncClient(transport=transport, timeout=None, follow_redirects=False, headers=headers)


async def stream(calls: Calls, path: str, body: object, sink: Room, take: Callable[[ServerSentEvent], bool]) -> None:
    """Make one call and hand its events to `take`; the connection is free or closed behind it.

    The SDK adds the address, keys and headers, and turns a status into its own error. The body is ours, and is plain
    JSON: what the SDK's typed methods do to it costs a third of the call.
    """
    await _hear(await calls.post(path, dump(body)), sink, take)


async def _hear(response: httpx2.Response, sink: Room, take: Callable[[ServerSentEvent], bool]) -> None:
    try:
        if response.extensions[ENCODED]:
            raise NotAStream
        if _media_type(response) in DOCUMENTS:
            await _refuse(response)
        await _listen(response, sink, take)
    finally:
        await response.aclose()


def _media_type(response: httpx2.Response) -> str:
    # (The bytes: httpx2 tries encodings on all headers before it gives one out as a text.)
    kinds = [value for name, value in response.headers.raw if name.lower() == b"content-type"]
    return b", ".join(kinds).decode("latin-1").partition(";")[0].strip().lower()


async def _refuse(response: httpx2.Response) -> NoReturn:
    """Raise what a document says that came in place of a stream."""
    try:
        said = load(await response.aread())
    except ValueError:
        said = None
    if isinstance(said, dict) and said.get("error") is not None:
        raise StreamError(said["error"])
    raise NotAStream


async def follow(
    client: Any, path: str, query: Mapping[str, object], sink: Room, take: Callable[[ServerSentEvent], bool]
) -> None:
    """As `stream`, for events that are there to be had: by GET."""
    options = {"headers": HEADERS, "params": query}
    await _hear(await client.get(path, cast_to=httpx2.Response, options=options), sink, take)


async def read(client: Any, path: str) -> Any:
    """Return the JSON behind a path."""
    response: httpx2.Response = await client.get(path, **UNREAD)
    try:
        return load(await response.aread())
    finally:
        await response.aclose()


async def tell(client: Any, path: str) -> None:
    """POST nothing to a path, and take what is answered for done."""
    response: httpx2.Response = await client.post(path, **UNREAD)
    await response.aclose()


async def _listen(response: httpx2.Response, sink: Room, take: Callable[[ServerSentEvent], bool]) -> None:
    """Hand each event to `take` as it arrives, until that says it was the last, or the body ends.

    No faster than the sink has room. Raises what `take` raises, and httpx2's errors.
    """
    answer: Answer = response.extensions[ANSWER]
    feed = SseDecoder().feed
    done = False

    def chunk(data: bytes) -> None:
        nonlocal done
        if done:
            return
        for event in feed(data):
            if take(event):
                done = True
                answer.wake()
                return
        if sink.full and not done:
            answer.hold()
            answer.wake()

    answer.pour(chunk)
    while not (done or (answer.whole and answer.error is None)):
        await answer.turn()
        if not done:
            # It may have been held, and the sink emptied since.
            if sink.full:
                await sink.room()
            answer.go_on()
    if not answer.whole:
        answer.go_on()
        with suppress(TimeoutError, httpx2.HTTPError):
            async with asyncio.timeout(DRAIN_S):
                while not answer.whole:
                    await answer.turn()
