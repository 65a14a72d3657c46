"""Anthropic messages as they are on the wire: named events around content blocks, or one message."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tests.provider.breaks import Failure, HttpError, StreamError
from tests.provider.calls import Call, DialectName
from tests.provider.checks import anthropic_complaint
from tests.provider.complaints import Complaint
from tests.provider.dialect import Wire, compact, string
from tests.provider.failures import ANTHROPIC, anthropic_retry_headers, failed
from tests.provider.seals import sealed, signature
from tests.provider.steps import Step, Usage

_STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}

_ERRORS = {
    400: ("invalid_request_error", "Invalid request"),
    401: ("authentication_error", "invalid x-api-key"),
    403: ("permission_error", "Your API key does not have permission to use the specified resource"),
    404: ("not_found_error", "model not found"),
    402: ("billing_error", "There is an issue with your organization's billing."),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_API_ERROR = ("api_error", "Internal server error")

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class AnthropicMessages:
    """`POST /v1/messages`."""

    name: DialectName = "anthropic"

    def complaint(self, headers: Mapping[str, str], body: Any) -> Complaint | None:
        return anthropic_complaint(headers, body)

    def wire(self, call: Call, usage: Usage | None, steps: Sequence[Step]) -> Wire:
        usage = usage or Usage(input=0, output=0)
        return _Stream(call, usage) if call.stream else _Whole(call, usage)

    def headers(self, number: int) -> dict[str, str]:
        return {"request-id": f"req_{number:08x}"}

    def failure(self, step: Failure) -> HttpError:
        return failed(ANTHROPIC, step)

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        return anthropic_retry_headers(retry_after_s)

    def error_body(self, number: int, step: HttpError) -> dict[str, Any]:
        type_, message = _ERRORS.get(step.status, _API_ERROR if step.status >= 500 else _ERRORS[400])
        error = {"type": step.type or type_, "message": step.message or message}
        return {"type": "error", "error": error, "request_id": f"req_{number:08x}"}

    def models(self, ids: list[str]) -> dict[str, Any]:
        rows = [
            {
                "type": "model",
                "id": id,
                "display_name": id,
                "created_at": "2025-11-21T00:00:00Z",
                "lifecycle": "active",
            }
            for id in ids
        ]
        return {"data": rows, "has_more": False, "first_id": ids[0], "last_id": ids[-1]}


class _Stream:
    """Events. Blocks open with the first delta of their kind, close before the next, and their indexes rise."""

    whole_tool_calls = False

    def __init__(self, call: Call, usage: Usage) -> None:
        self._call = call
        self._usage = usage
        self._begun = False
        self._pinged = False
        self._index = -1
        self._open: str | None = None
        self._refusal: str | None = None
        self._thought = ""
        self._text = b""

    def open(self) -> bytes:
        return b""

    def begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        usage = {**_input(self._usage), "output_tokens": min(1, self._usage.output), "service_tier": "standard"}
        return _event("message_start", message=_message(self._call, [], None, None, usage))

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        frame = string(text, utf8) + b"}}\n\n"
        if self._open == "text":
            return self._text + frame
        opening = self._block("text", text="")
        self._text = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
            b'"delta":{"type":"text_delta","text":' % self._index
        )
        return opening + self._text + frame

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        opening = b""
        if self._open != "thinking":
            opening = self._block("thinking", thinking="", signature="")
            self._thought = ""
        self._thought += text
        return opening + (self._delta("thinking_delta", thinking=text) if text else b"")

    def redacted(self, hidden: str) -> bytes:
        return self._block("redacted_thinking", data=sealed(self._call.model, hidden)) + self._close()

    def refusal(self, text: str) -> bytes:
        self._refusal = (self._refusal or "") + text
        return self.begin()

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        return self._block("tool_use", id=id, name=name, input={})

    def arguments(self, piece: str) -> bytes:
        return self._delta("input_json_delta", partial_json=piece)

    def ping(self, *, event: bool = False) -> bytes:
        return _PING

    def empty(self) -> bytes:
        return b""

    def finish(self, reason: str, text: str = "") -> bytes:
        delta = _stop(self._call, _STOP_REASONS.get(reason, reason), self._refusal)
        return (
            (self.text(text) if text else self.begin())
            + self._close()
            + _event("message_delta", delta=delta, usage=_output(self._usage))
        )

    def end(self) -> bytes:
        return _event("message_stop")

    def error(self, step: StreamError) -> bytes:
        return _event("error", error={"type": step.type or "overloaded_error", "message": step.message})

    def _block(self, type_: str, **block: Any) -> bytes:
        before = self.begin() + self._close()
        self._index += 1
        self._open = type_
        opening = _event("content_block_start", index=self._index, content_block={"type": type_, **block})
        ping = b"" if self._pinged else _PING
        self._pinged = True
        return before + opening + ping

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        signed = b""
        if self._open == "thinking":
            signed = self._delta("signature_delta", signature=signature(self._call.model, self._thought))
        self._open = None
        return signed + _event("content_block_stop", index=self._index)

    def _delta(self, type_: str, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": type_, **delta})


class _Whole:
    """One message."""

    whole_tool_calls = False

    def __init__(self, call: Call, usage: Usage) -> None:
        self._call = call
        self._usage = usage
        self._content: list[dict[str, Any]] = []
        self._arguments = ""
        self._refusal: str | None = None
        self._stop = "end_turn"

    def open(self) -> bytes:
        return b""

    def begin(self) -> bytes:
        return b""

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        self._block("text", text="")["text"] += text
        return b""

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        block = self._block("thinking", thinking="", signature="")
        block["thinking"] += text
        block["signature"] = signature(self._call.model, block["thinking"])
        return b""

    def redacted(self, hidden: str) -> bytes:
        self._content.append({"type": "redacted_thinking", "data": sealed(self._call.model, hidden)})
        return b""

    def refusal(self, text: str) -> bytes:
        self._refusal = (self._refusal or "") + text
        return b""

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        self._content.append({"type": "tool_use", "id": id, "name": name, "input": {}})
        self._arguments = ""
        return b""

    def arguments(self, piece: str) -> bytes:
        self._arguments += piece
        with suppress(ValueError):  # not whole yet
            self._content[-1]["input"] = json.loads(self._arguments)
        return b""

    def ping(self, *, event: bool = False) -> bytes:
        return b""

    def empty(self) -> bytes:
        return b""

    def finish(self, reason: str, text: str = "") -> bytes:
        if text:
            self.text(text)
        self._stop = _STOP_REASONS.get(reason, reason)
        return b""

    def end(self) -> bytes:
        usage = {**_input(self._usage), **_output(self._usage), "service_tier": "standard"}
        return compact(_message(self._call, self._content, self._stop, self._refusal, usage)).encode()

    def error(self, step: StreamError) -> bytes:
        return b""

    def _block(self, type_: str, **block: Any) -> dict[str, Any]:
        if not self._content or self._content[-1]["type"] != type_:
            self._content.append({"type": type_, **block})
        return self._content[-1]


def _event(type_: str, **fields: Any) -> bytes:
    return f"event: {type_}\ndata: {compact({'type': type_, **fields})}\n\n".encode()


def _stop(call: Call, stop: str | None, refusal: str | None) -> dict[str, Any]:
    # Whichever it would have been: the first.
    sequence = call.body["stop_sequences"][0] if stop == "stop_sequence" and call.body.get("stop_sequences") else None
    reasons: dict[str, Any] = {"stop_reason": stop, "stop_sequence": sequence}
    if stop == "refusal":
        reasons["stop_details"] = {"type": "refusal", "category": None, "explanation": refusal}
    return reasons


def _message(
    call: Call, content: list[dict[str, Any]], stop: str | None, refusal: str | None, usage: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": f"msg_{call.number:08x}",
        "type": "message",
        "role": "assistant",
        "model": call.model,
        "content": content,
        **_stop(call, stop, refusal),
        "usage": usage,
    }


def _input(usage: Usage) -> dict[str, Any]:
    written = {"ephemeral_5m_input_tokens": usage.cache_written, "ephemeral_1h_input_tokens": 0}
    return {
        "input_tokens": usage.input - usage.cached - usage.cache_written,
        "cache_creation_input_tokens": usage.cache_written,
        "cache_read_input_tokens": usage.cached,
        **({"cache_creation": written} if usage.cache_written else {}),
    }


def _output(usage: Usage) -> dict[str, Any]:
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}
    return {"output_tokens": usage.output, **details}
