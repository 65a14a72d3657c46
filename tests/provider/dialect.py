"""What the player needs of a wire format; openai_chat.py, openai_responses.py and anthropic_messages.py are those."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tests.provider.breaks import Drop, Failure, HttpError, StreamError
from tests.provider.calls import Call, DialectName
from tests.provider.complaints import Complaint
from tests.provider.steps import Step, Usage


class Outlet(Protocol):
    """Where an answer goes: a connection, or a log that connections are fed from."""

    @property
    def full(self) -> bool: ...
    async def writable(self) -> None: ...
    async def flushed(self) -> None: ...
    def reply(self, status: int, headers: Mapping[str, str], body: bytes) -> None: ...
    def head(self, status: int, headers: Mapping[str, str]) -> None: ...
    def send(self, piece: bytes) -> None: ...
    async def dribble(self, data: bytes, size: int, gap_s: float) -> None: ...
    def end(self, piece: bytes = b"") -> None: ...
    async def drop(self, how: Drop) -> None: ...


class Wire(Protocol):
    """An answer's bytes: a streamed one's frames delta by delta, a whole one's all at `end`."""

    whole_tool_calls: bool
    """Whether a tool call's arguments come with its name, in `tool_call`."""

    def open(self) -> bytes: ...
    def begin(self) -> bytes: ...
    def text(self, text: str, *, utf8: bool = False) -> bytes: ...
    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes: ...
    def redacted(self, hidden: str) -> bytes: ...
    def refusal(self, text: str) -> bytes: ...
    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes: ...
    def arguments(self, piece: str) -> bytes: ...
    def ping(self, *, event: bool = False) -> bytes: ...
    def empty(self) -> bytes: ...
    def finish(self, reason: str, text: str = "") -> bytes: ...
    def end(self) -> bytes: ...
    def error(self, step: StreamError) -> bytes: ...


class Dialect(Protocol):
    """A provider's HTTP side."""

    name: DialectName

    def complaint(self, headers: Mapping[str, str], body: Any) -> Complaint | None:
        """Return why the real provider would refuse this request, if it would."""

    def wire(self, call: Call, usage: Usage | None, steps: Sequence[Step]) -> Wire:
        """Return an empty answer to a (flat) script; with usage None it reports none."""

    def headers(self, number: int) -> dict[str, str]:
        """Return what the provider's own answers carry beside the content type."""

    def failure(self, step: Failure) -> HttpError:
        """Return how the provider fails then."""

    def error_body(self, number: int, step: HttpError) -> dict[str, Any]:
        """Return the provider's JSON for an HTTP error."""

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        """Return how the provider says when to come again."""

    def models(self, ids: list[str]) -> dict[str, Any]:
        """Return the list of models."""


def error_answer(dialect: Dialect, number: int, step: HttpError) -> tuple[int, dict[str, str], bytes]:
    """Return an HTTP error's status, headers and body."""
    body = compact(dialect.error_body(number, step)).encode() if step.body is None else step.body
    headers = {"content-type": "application/json", **dialect.headers(number)}
    if step.retry_after_s is not None:
        headers.update(dialect.retry_headers(step.retry_after_s))
    return step.status, {**headers, **{name.lower(): value for name, value in step.headers.items()}}, body


def compact(value: object, *, utf8: bool = False) -> str:
    """Return one line of JSON without spaces, in ASCII unless it may be UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=not utf8)


def string(text: str, utf8: bool = False) -> bytes:
    """Return a text as a JSON string."""
    if utf8:
        return json.dumps(text, ensure_ascii=False).encode()
    return json.encoder.encode_basestring_ascii(text).encode("ascii")


def names(field: str | Sequence[str]) -> Sequence[str]:
    """Return the names of a field that may have several."""
    return (field,) if isinstance(field, str) else field
