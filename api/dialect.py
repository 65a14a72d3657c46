"""How a log is told to one reader: as our own events (SSE, NDJSON), or in the words of another API (`api.faces`)."""

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final, Protocol

from api.connection import http_chunk
from api.negotiation import NDJSON, SSE
from api.relay import Batch, Frame
from shared.events import Entry

RETRY_MS: Final = (1_000, 3_000)
"""Between these a stream is told to wait before it comes back: those of one process do not come all at once."""

PING: Final = b": ping\n"
"""One newline, not two: behind an `id:` line the OpenAI SDK and two other clients take an empty block for an event."""


class Dialect(Protocol):
    """The bytes that one reader gets. Asked for each entry once, in order."""

    media_type: str
    ping: bytes
    """A sign of life on a quiet stream; may be empty."""
    tells_once: bool
    """Whether what was asked for has to be sent: a translation remembers that it told it."""
    over: bool
    """Whether all has been told, so that the body may end."""
    gave_up: bool
    """Whether that was before the job's end: its client has been told so, and does not come back."""

    def opening(self) -> bytes:
        """Return what stands before everything else."""

    def body(self, entries: Sequence[Entry]) -> bytes:
        """Return the next entries, all that come together."""

    def chunk(self, batch: Batch) -> bytes:
        """Return the same as one chunk of an HTTP body; nothing where it has nothing to say."""


def sse_frame(entry: Entry) -> bytes:
    """Return the entry as a frame. `id:` comes last: one client moves its cursor at that very line."""
    if entry.sse is None:
        entry.sse = b"event: %b\ndata: %b\nid: %d-%d\n\n" % (entry.event.encode(), entry.data, *entry.id)
    return entry.sse


def ndjson_line(entry: Entry) -> bytes:
    return b'{"id":"%d-%d","event":"%b","data":%b}\n' % (*entry.id, entry.event.encode(), entry.data)


class Plain:
    """Our own events: a frame an entry, the same for every reader."""

    tells_once = False
    gave_up = False

    def __init__(self, media_type: str, frame: Frame, ping: bytes) -> None:
        self.media_type = media_type
        self.ping = ping
        self.over = False
        self._frame = frame

    @classmethod
    def of(cls, media_type: str) -> "Plain":
        return cls(SSE, sse_frame, PING) if media_type == SSE else cls(NDJSON, ndjson_line, b"")

    def opening(self) -> bytes:
        """Open the block of the first event, so that `retry:` stands in no block of its own."""
        return b"retry: %d\n" % random.randint(*RETRY_MS) + PING if self.media_type == SSE else b""

    def body(self, entries: Sequence[Entry]) -> bytes:
        self.over = entries[-1].last
        return b"".join([self._frame(entry) for entry in entries])

    def chunk(self, batch: Batch) -> bytes:
        return batch.chunk(self._frame)


class Translation(ABC):
    """Another API's words: what an entry is told as depends on what was told before it."""

    media_type = SSE
    ping = PING
    tells_once = True
    over = False
    gave_up = False

    def opening(self) -> bytes:
        # Neither `retry:` nor `id:`: these clients do not come back by themselves, and stumble over both.
        return PING

    def body(self, entries: Sequence[Entry]) -> bytes:
        return b"".join([self.tell(entry) for entry in entries if not self.over])

    def chunk(self, batch: Batch) -> bytes:
        body = self.body(batch.entries)
        return http_chunk(body) if body else b""

    @abstractmethod
    def tell(self, entry: Entry) -> bytes:
        """Return the frames of the next entry, and set `over` behind the last one."""
