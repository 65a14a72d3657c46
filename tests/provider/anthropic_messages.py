"""Anthropic messages as they are on the wire: named events around content blocks, or one message."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from tests.provider.calls import Call, DialectName
from tests.provider.checks import anthropic_complaint
from tests.provider.dialect import Wire, compact, string
from tests.provider.steps import HttpError, StreamError, Usage

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
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit"),
    504: ("timeout_error", "Request timed out"),
    529: ("overloaded_error", "Overloaded"),
}
_API_ERROR = ("api_error", "Internal server error")

SIGNATURE = "c2lnbmF0dXJl"
"""What ends every thinking block."""

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


class AnthropicMessages:
    """`POST /v1/messages`."""

    name: DialectName = "anthropic"

    def complaint(self, headers: Mapping[str, str], body: Any) -> str | None:
        return anthropic_complaint(headers, body)

    def wire(self, call: Call, usage: Usage | None) -> Wire:
        usage = usage or Usage(input=0, output=0)
        return _Stream(call, usage) if call.stream else _Whole(call, usage)

    def headers(self, number: int) -> dict[str, str]:
        return {"request-id": f"req_{number:08x}"}

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

    def __init__(self, call: Call, usage: Usage) -> None:
        self._call = call
        self._usage = usage
        self._begun = False
        self._pinged = False
        self._index = -1
        self._open: str | None = None
        self._refusal: str | None = None
        self._text = b""

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

    def reasoning(self, text: str, field: str) -> bytes:
        opening = b"" if self._open == "thinking" else self._block("thinking", thinking="", signature="")
        return opening + self._delta("thinking_delta", thinking=text)

    def refusal(self, text: str) -> bytes:
        self._refusal = (self._refusal or "") + text
        return self.begin()

    def tool_call(self, id: str, name: str) -> bytes:
        return self._block("tool_use", id=id, name=name, input={})

    def arguments(self, piece: str) -> bytes:
        return self._delta("input_json_delta", partial_json=piece)

    def ping(self) -> bytes:
        return _PING

    def finish(self, reason: str) -> bytes:
        delta = _stop(_STOP_REASONS.get(reason, reason), self._refusal)
        return self.begin() + self._close() + _event("message_delta", delta=delta, usage=_output(self._usage))

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
        signature = self._delta("signature_delta", signature=SIGNATURE) if self._open == "thinking" else b""
        self._open = None
        return signature + _event("content_block_stop", index=self._index)

    def _delta(self, type_: str, **delta: str) -> bytes:
        return _event("content_block_delta", index=self._index, delta={"type": type_, **delta})


class _Whole:
    """One message."""

    def __init__(self, call: Call, usage: Usage) -> None:
        self._call = call
        self._usage = usage
        self._content: list[dict[str, Any]] = []
        self._arguments = ""
        self._refusal: str | None = None
        self._stop = "end_turn"

    def begin(self) -> bytes:
        return b""

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        self._block("text", text="")["text"] += text
        return b""

    def reasoning(self, text: str, field: str) -> bytes:
        self._block("thinking", thinking="", signature=SIGNATURE)["thinking"] += text
        return b""

    def refusal(self, text: str) -> bytes:
        self._refusal = (self._refusal or "") + text
        return b""

    def tool_call(self, id: str, name: str) -> bytes:
        self._content.append({"type": "tool_use", "id": id, "name": name, "input": {}})
        self._arguments = ""
        return b""

    def arguments(self, piece: str) -> bytes:
        self._arguments += piece
        with suppress(ValueError):  # not whole yet
            self._content[-1]["input"] = json.loads(self._arguments)
        return b""

    def ping(self) -> bytes:
        return b""

    def finish(self, reason: str) -> bytes:
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


def _stop(stop: str | None, refusal: str | None) -> dict[str, Any]:
    reasons: dict[str, Any] = {"stop_reason": stop, "stop_sequence": None}
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
        **_stop(stop, refusal),
        "usage": usage,
    }


def _input(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input - usage.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
    }


def _output(usage: Usage) -> dict[str, Any]:
    details = {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}
    return {"output_tokens": usage.output, **details}
