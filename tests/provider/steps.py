"""The words of a script: what one call sends, in order, and how it ends (breaks.py: badly).

A script that does not say how it ends finishes properly: finish reason, usage, end marker. One without `Usage` reports
one output token for every piece that it sends (text, reasoning, refusal, arguments) and one for each tool's name; as
input one token for every four characters of text in the request, rounded up.

Any text will do: CR, LF, NUL, U+2028, a forged SSE frame, a lone surrogate, a surrogate pair split over two steps. It
travels as ASCII JSON (`\\ud83d`), like the real providers' unless `utf8=True`.
"""

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.provider.breaks import Cut, CutReader, Eof, Failure, HttpError, Silence, StreamError
from tests.provider.gate import Gate
from tests.provider.quirks import EmptyChunk, Quirks


@dataclass(frozen=True)
class Text:
    """One delta of the answer. With `utf8` its characters travel as UTF-8, not as `\\u` escapes."""

    text: str
    utf8: bool = False


@dataclass(frozen=True)
class Tokens:
    """Many deltas, `delay_s` between them: the given pieces; or a text cut into `n`, without `n` into words.

    Paced against the clock, so that lateness does not add up; to the millisecond.
    """

    text: str | Sequence[str]
    n: int | None = None
    delay_s: float = 0.0

    def __post_init__(self) -> None:
        if self.n is not None and not (isinstance(self.text, str) and 0 < self.n <= len(self.text)):
            raise ValueError("n cuts a text of at least n characters")

    @property
    def count(self) -> int:
        return len(self.pieces())

    def pieces(self) -> Sequence[str]:
        """Return the deltas; joined they are the text."""
        if not isinstance(self.text, str):
            return self.text
        if self.n is None:
            return re.findall(r"\s*\S+|\s+", self.text)
        bounds = [len(self.text) * i // self.n for i in range(self.n + 1)]
        return [self.text[a:b] for a, b in pairwise(bounds)]


@dataclass(frozen=True)
class Stamps:
    """`count` deltas, `delay_s` between them, each the `time.monotonic_ns()` of its sending and a space."""

    count: int
    delay_s: float = 0.0

    def pieces(self) -> Iterator[str]:
        """Yield stamps of the moment they are asked for."""
        return (f"{time.monotonic_ns()} " for _ in range(self.count))


@dataclass(frozen=True)
class Reasoning:
    """One delta of thinking: OpenAI-compatible `reasoning_content`; Responses a summary; Anthropic a thinking block.

    `field` is another name for the compatible servers' one, or several: some send the same text under two names.
    With an empty text Anthropic's block has its signature only, as with `"display": "omitted"`.
    """

    text: str
    field: str | Sequence[str] = "reasoning_content"


@dataclass(frozen=True)
class RedactedThinking:
    """Thinking that the provider shows only sealed: Anthropic `redacted_thinking`; Responses a reasoning item without
    a summary; chat completions nothing."""

    hidden: str = "hidden"


@dataclass(frozen=True)
class Refusal:
    """One delta of a refusal: OpenAI `refusal`; Anthropic stop reason `refusal` with this as its explanation."""

    text: str


@dataclass(frozen=True)
class ToolCall:
    """Begin a tool call and send its arguments, JSON text in one piece or several."""

    id: str
    name: str
    arguments: str | Sequence[str] = ()

    def pieces(self) -> Sequence[str]:
        return (self.arguments,) if isinstance(self.arguments, str) else self.arguments


@dataclass(frozen=True)
class Arguments:
    """One more piece of the last tool call's arguments (e.g. behind a gate)."""

    piece: str


@dataclass(frozen=True)
class Headers:
    """Send status and headers here. Without this step they go out at once, as real providers do."""


@dataclass(frozen=True)
class Begin:
    """Send what opens a stream here (role chunk; message_start). Without this step it goes with the first delta.

    Responses: `response.in_progress`, before which a background response is `queued`. Without this step at once.
    """


@dataclass(frozen=True)
class Ping:
    """Send a keep-alive: OpenAI-compatible servers a comment, Anthropic `event: ping`.

    With `event` Responses sends what the live API has been seen to send: an event `keepalive`, numbered like the
    others, that the SDK does not know (strict validation fails on it).
    """

    event: bool = False


@dataclass(frozen=True)
class Delay:
    """Do nothing for a while."""

    seconds: float


@dataclass(frozen=True)
class Wait:
    """Hold here until the test opens the gate."""

    gate: Gate


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What the call reports as used. `cached` and `cache_written` are part of `input`, `reasoning` of `output`, in any
    dialect.

    (Anthropic counts input that it read from or wrote to its cache beside `input_tokens`: it is sent so.)
    """

    input: int
    output: int
    cached: int = 0
    reasoning: int = 0
    cache_written: int = 0


@dataclass(frozen=True)
class NoUsage:
    """Send no usage chunk even if asked; Responses says null. (Anthropic's format requires usage: it says 0.)"""


@dataclass(frozen=True)
class Finish:
    """Finish with `stop`, `length`, `tool_calls`, `content_filter` or `refusal`, in the dialect's own word for it.

    Any other word is sent as it is. Usage and the end marker follow at the script's end: other steps may come between.
    With `text` a last delta: chat completions send it in the finishing chunk itself, as compatible servers do.
    """

    reason: str = "stop"
    text: str = ""


@dataclass(frozen=True)
class RawBytes:
    """Put these bytes into the body, in a write of their own. (Not streamed: they are the body.)

    They count as nothing: `Eof()` behind them if they bring their own end.
    """

    data: bytes


@dataclass(frozen=True)
class Dribble:
    """Play `steps` with every frame cut into writes of `size` bytes, `gap_s` apart: segments end anywhere."""

    steps: Sequence["Step"]
    size: int = 1
    gap_s: float = 0.001


Step = (
    Text
    | Tokens
    | Stamps
    | Reasoning
    | RedactedThinking
    | Refusal
    | ToolCall
    | Arguments
    | Headers
    | Begin
    | Ping
    | Delay
    | Wait
    | Silence
    | Cut
    | CutReader
    | Eof
    | HttpError
    | Failure
    | StreamError
    | Usage
    | NoUsage
    | Finish
    | RawBytes
    | Dribble
    | Quirks
    | EmptyChunk
)
