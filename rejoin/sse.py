"""Server-Sent Events, as the HTML standard reads them: bytes in, cut anywhere; frames out.

https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation
"""

from collections.abc import Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    event: str
    data: str
    id: str
    """The last id that the stream has given, with this frame or before it; empty without one."""


class Frames:
    """Takes one connection's bytes as they come. What is not whole when the connection ends was never sent."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        """The beginning of a line that has no end yet: joined once, as one line may come in thousands of pieces."""
        self._skip_newline = False
        self._first = True
        self._event = ""
        self._data: list[str] = []
        self._id = ""

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        if self._skip_newline and chunk:
            # The second half of a CR LF whose first half has ended the line already.
            chunk, self._skip_newline = chunk.removeprefix(b"\n"), False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._pieces.append(chunk)
            return
        # Of bytes, `splitlines` knows LF, CR and CR LF, as the standard does. (Of str it knows many more.)
        lines = b"".join((*self._pieces, chunk)).splitlines(keepends=True)
        self._pieces = [] if lines[-1].endswith((b"\n", b"\r")) else [lines.pop()]
        self._skip_newline = not self._pieces and lines[-1].endswith(b"\r")
        for line in lines:
            if (frame := self._line(line.rstrip(b"\r\n"))) is not None:
                yield frame

    def _line(self, line: bytes) -> Frame | None:
        if self._first:
            line, self._first = line.removeprefix(BOM), False
        if not line:
            return self._dispatch()
        name, _, raw = line.partition(b":")
        value = raw.removeprefix(b" ").decode("utf-8", "replace")
        match name:
            case b"event":
                self._event = value
            case b"data":
                self._data.append(value)
            case b"id" if "\0" not in value:
                self._id = value
        # Anything else is a comment (the heartbeat), `retry`, which is for clients without a back-off, or unknown.
        return None

    def _dispatch(self) -> Frame | None:
        event, data = self._event, self._data
        self._event, self._data = "", []
        return Frame(event or "message", "\n".join(data), self._id) if data else None
