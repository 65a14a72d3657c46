"""The words of a script for what goes wrong: connections that end, errors, a provider that falls silent.

A call that hangs on its connection is over when that is. A background response (Responses API) is not: what drops a
connection there drops one reader's, at that place in the events, and the script goes on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Drop = Literal["rst", "fin", "eof"]
"""RST; FIN in the middle of the body; the body's clean end, without an end marker."""

FailureKind = Literal[
    "rate_limit",
    "quota",
    "overloaded",
    "server_error",
    "unavailable",
    "authentication",
    "permission",
    "model_not_found",
    "context_length",
    "content_policy",
    "request_too_large",
    "timeout",
]

StreamErrorEvent = Literal["error", "flat_error", "failed"]


@dataclass(frozen=True)
class Silence:
    """Keep the connection open and send nothing until the client leaves."""


@dataclass(frozen=True)
class Cut:
    """Abort the connection: RST, or with `fin` a FIN in the middle of the body. As the first step: before any answer.

    Everything before it has left this machine's buffers, but a client may drop what it has not read when the RST
    comes: put a gate in front if the test counts on it. A background response goes on (see `CutReader`).
    """

    fin: bool = False


@dataclass(frozen=True)
class Eof:
    """End the body cleanly here, with no end marker. (Not streamed: FIN in place of an answer.)

    A background response goes on (see `CutReader`).
    """


@dataclass(frozen=True)
class HttpError:
    """Answer with this status instead of a stream. Type, code and message default to what the provider says then.

    `body`, if given, is sent as it is (a proxy's HTML, say). `retry_after_s` becomes the provider's own headers for it.
    Only waits may precede it.
    """

    status: int
    type: str | None = None
    message: str | None = None
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True)
class Failure:
    """Fail as this provider does when that happens: its status, body and headers, whichever dialect is spoken.

    Only waits may precede it.
    """

    kind: FailureKind
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class StreamError:
    """Report an error inside the stream, after HTTP 200. Nothing is added at the script's end then.

    Not streamed it is an HTTP error. The type defaults to `server_error` (OpenAI), `overloaded_error` (Anthropic).
    `events` says how the Responses API reports it: an `error` event (nested, as the live API sends it, or flat, as it
    is documented), a `response.failed`, or both, one after the other, which is what it does.
    """

    type: str | None = None
    message: str = "The server had an error while processing your request"
    code: str | None = None
    events: Sequence[StreamErrorEvent] = ("error", "failed")


@dataclass(frozen=True, kw_only=True)
class CutReader:
    """Drop the connection of the first reader (of the first `times` readers) that comes to this place in the events.

    Whether that is the POST or a later GET is for the clients to say, not for the clock: the cut waits for its reader,
    while a background response goes on. What hangs on its connection ends here, as with `Cut` or `Eof`.

    With `fin` (the default) the reader has had everything before. As the first step: before any answer to the POST.
    `then` is what the next GETs get in place of an answer, one each.
    """

    how: Drop = "fin"
    times: int = 1
    then: Sequence[HttpError | Failure | Silence | Cut] = ()
