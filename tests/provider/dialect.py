"""What the player needs of a wire format; openai_chat.py and anthropic_messages.py are the two there are."""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from tests.provider.calls import Call, DialectName
from tests.provider.steps import HttpError, StreamError, Usage


class Wire(Protocol):
    """An answer's bytes: a streamed one's frames delta by delta, a whole one's all at `end`."""

    def begin(self) -> bytes: ...
    def text(self, text: str, *, utf8: bool = False) -> bytes: ...
    def reasoning(self, text: str, field: str) -> bytes: ...
    def refusal(self, text: str) -> bytes: ...
    def tool_call(self, id: str, name: str) -> bytes: ...
    def arguments(self, piece: str) -> bytes: ...
    def ping(self) -> bytes: ...
    def finish(self, reason: str) -> bytes: ...
    def end(self) -> bytes: ...
    def error(self, step: StreamError) -> bytes: ...


class Dialect(Protocol):
    """A provider's HTTP side."""

    name: DialectName

    def complaint(self, headers: Mapping[str, str], body: Any) -> str | None:
        """Return why the real provider would refuse this request, if it would."""

    def wire(self, call: Call, usage: Usage | None) -> Wire:
        """Return an empty answer; with usage None it reports none."""

    def headers(self, number: int) -> dict[str, str]:
        """Return what the provider's own answers carry beside the content type."""

    def error_body(self, number: int, step: HttpError) -> dict[str, Any]:
        """Return the provider's JSON for an HTTP error."""

    def models(self, ids: list[str]) -> dict[str, Any]:
        """Return the list of models."""


def compact(value: object) -> str:
    """Return one line of ASCII JSON without spaces."""
    return json.dumps(value, separators=(",", ":"))


def string(text: str, utf8: bool = False) -> bytes:
    """Return a text as a JSON string."""
    if utf8:
        return json.dumps(text, ensure_ascii=False).encode()
    return json.encoder.encode_basestring_ascii(text).encode("ascii")
