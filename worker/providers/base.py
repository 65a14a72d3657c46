"""What a provider is to the rest of the worker."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from shared.prices import Usage
from shared.requests import JobRequest
from worker.providers.run import Run


class Room(Protocol):
    """Bounds what is read and not yet stored."""

    @property
    def full(self) -> bool:
        """Say whether to wait for `room()` before reading on."""

    async def room(self) -> None:
        """Wait until more can be taken."""


class Sink(Room, Protocol):
    """Takes what a provider sends, as it comes."""

    @property
    def run(self) -> Run | None:
        """The provider's own run behind this answer, where there is one; from the start, when it was begun before."""

    def running(self, run: Run) -> None:
        """Learn of a run that goes on whoever listens. Its `at` is to say what has been handed on, at any time."""

    def text(self, text: str) -> None:
        """Take a piece of the answer."""

    def refusal(self, text: str) -> None:
        """Take a piece of the answer that the provider marks as its refusal to give one."""

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
    stop_sequence: str | None = None
    """Which of the request's `stop` ended the answer, where the provider says it."""
    model: str | None = None
    """Which model it says that it was."""


def word(reason: object) -> str:
    """Return a provider's reason as one plain word; what is none is `other`."""
    if isinstance(reason, str) and reason.isascii() and reason.isprintable() and len(reason) <= 64:
        return reason
    return "other"


def model_name(told: object) -> str | None:
    """Return the model that a provider says has answered; None for what is no plain name."""
    name = word(told)
    return None if name == "other" else name


def figure(told: object, name: str) -> object:
    """Return what a provider says under a name of its usage, whatever that is (`Usage.told`); 0 for nothing."""
    return (told.get(name) or 0) if isinstance(told, dict) else 0


def text(value: object) -> str:
    """Return a text of a provider's. Raises TypeError for what is none."""
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


class Provider(Protocol):
    """One provider's API. Cancelling `generate` closes the connection of the call, also while it is silent."""

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        """Run one call; return only when the provider has said that the answer is whole.

        One call is one request: nothing is retried in here. Raises what the SDK raises, `StreamError` for an
        error that comes in mid-stream, `Truncated` for a stream that ends without its end marker.
        """

    async def close(self) -> None:
        """Give back all connections."""


@runtime_checkable
class Background(Provider, Protocol):
    """A provider whose runs go on without a listener: `generate` goes on with the sink's run, where it has one.

    Cancelling `generate` ends the listening, not the run.
    """

    async def cancel(self, run_id: str) -> None:
        """End a run. May be repeated; returns when nothing of it goes on any more, raises when that is unknown."""


class StreamError(Exception):
    """An error after HTTP 200: an event in mid-stream, or a body in place of one.

    `error` is the provider's own word or object. It tells what happened (`worker.failures`) and is shown to nobody.
    """

    def __init__(self, error: object) -> None:
        super().__init__()
        self.error = error


class NotAStream(Exception):
    """A whole document where a stream was asked for."""


class AnswerTooLarge(Exception):
    """More than one answer may have, and no end in sight."""


class Truncated(Exception):
    """The stream ended cleanly, without the marker that the answer is whole."""


class RunLost(Exception):
    """A run cannot be gone on with: the provider does not know it any more, or has ended it unfinished."""


class NotConfigured(Exception):
    """This worker has no such provider, or no key for it."""
