"""What a provider is to the rest of the worker."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from shared.prices import Usage
from shared.requests import JobRequest


class Sink(Protocol):
    """Takes what a provider sends, as it comes."""

    @property
    def full(self) -> bool:
        """Say whether to wait for `room()` before reading on."""

    async def room(self) -> None:
        """Wait until more can be taken."""

    def text(self, text: str) -> None:
        """Take a piece of the answer."""

    def reasoning(self, text: str) -> None:
        """Take a piece of the thinking that the provider shows."""

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None:
        """Take a piece of a tool call's arguments; id and name come with its first piece."""

    def usage(self, usage: Usage) -> None:
        """Learn what the call has taken so far, where the provider says it before the end."""


class Finish(NamedTuple):
    """How a provider ended an answer that is whole."""

    reason: str
    """`stop`, `length`, `tool_calls`, `content_filter`, or the provider's own word."""
    usage: Usage | None
    """None when the provider sent no figure."""
    reasoning_blocks: Sequence[Mapping[str, str]] = ()
    """Thinking as the provider wants it back in a follow-up (`shared.messages.Block`)."""


def word(reason: object) -> str:
    """Return a provider's reason as one plain word; what is none is `other`."""
    if isinstance(reason, str) and reason.isascii() and reason.isprintable() and len(reason) <= 64:
        return reason
    return "other"


class Provider(Protocol):
    """One provider's API. Cancelling `generate` closes the connection of the call, also while it is silent."""

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        """Run one call; return only when the provider has said that the answer is whole.

        One call is one request: nothing is retried in here. Raises what the SDK raises, `StreamError` for an
        error that comes in mid-stream, `Truncated` for a stream that ends without its end marker.
        """

    async def close(self) -> None:
        """Give back all connections."""


class StreamError(Exception):
    """An error after HTTP 200: an event in mid-stream, or a body in place of one.

    `error` is the provider's own word or object. It tells what happened (`worker.failures`) and is shown to nobody.
    """

    def __init__(self, error: object) -> None:
        super().__init__()
        self.error = error


class NotAStream(Exception):
    """A whole document where a stream was asked for."""


class Truncated(Exception):
    """The stream ended cleanly, without the marker that the answer is whole."""


class NotConfigured(Exception):
    """This worker has no such provider, or no key for it."""
