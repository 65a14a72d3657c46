"""OpenAI chat completions as they are on the wire: chunks ended by `[DONE]`, or one object."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from tests.provider.breaks import Failure, HttpError, StreamError
from tests.provider.calls import Call, DialectName
from tests.provider.checks import openai_complaint
from tests.provider.complaints import Complaint
from tests.provider.dialect import Wire, compact, names, string
from tests.provider.failures import OPENAI, failed, openai_retry_headers
from tests.provider.openai_compatible import FINISH_REASONS, CompatibleStream, usage_object
from tests.provider.openai_errors import error_object, http_error_object
from tests.provider.quirks import Quirks
from tests.provider.script import quirks
from tests.provider.steps import Step, Usage


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    name: DialectName = "openai"

    def complaint(self, headers: Mapping[str, str], body: Any) -> Complaint | None:
        return openai_complaint(body)

    def wire(self, call: Call, usage: Usage | None, steps: Sequence[Step]) -> Wire:
        if not call.stream:
            return _Whole(call, usage)
        options = call.body.get("stream_options")
        asked = isinstance(options, dict) and options.get("include_usage") is True
        accent = quirks(steps)
        if accent != Quirks(crlf=accent.crlf, space=accent.space):
            return CompatibleStream(call, usage, accent, asked=asked)
        return _Stream(call, usage, asked=asked)

    def headers(self, number: int) -> dict[str, str]:
        return {"x-request-id": f"req_{number:08x}", "openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def failure(self, step: Failure) -> HttpError:
        return failed(OPENAI, step)

    def error_body(self, number: int, step: HttpError) -> dict[str, Any]:
        return http_error_object(step)

    def retry_headers(self, retry_after_s: float) -> dict[str, str]:
        return openai_retry_headers(retry_after_s)

    def models(self, ids: list[str]) -> dict[str, Any]:
        rows = [{"id": id, "object": "model", "created": 1763700000, "owned_by": "scripted"} for id in ids]
        return {"object": "list", "data": rows}


class _Stream:
    """Chunks. With `stream_options.include_usage` each has `"usage":null`, and one without choices has the figures."""

    whole_tool_calls = False

    def __init__(self, call: Call, usage: Usage | None, *, asked: bool) -> None:
        self._usage = usage if asked else None
        self._chunk = (
            b'data: {"id":"chatcmpl-%08x","object":"chat.completion.chunk","created":%d,"model":%b,'
            b'"service_tier":"default","system_fingerprint":"fp_1","choices":'
            % (call.number, time.time(), string(call.model))
        )
        self._tail = (b',"usage":null' if asked else b"") + b"}\n\n"
        self._delta = self._chunk + b'[{"index":0,"delta":'
        self._delta_tail = b',"logprobs":null,"finish_reason":null}]' + self._tail
        self._text = self._delta + b'{"content":'
        self._text_tail = b"}" + self._delta_tail
        self._begun = False
        self._tools = 0

    def open(self) -> bytes:
        return b""

    def begin(self, first: bytes = b'"content":"","refusal":null') -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return b'%b{"role":"assistant",%b}%b' % (self._delta, first, self._delta_tail)

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        frame = self._text + string(text, utf8) + self._text_tail
        return frame if self._begun else self.begin() + frame

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        fields = b",".join(b"%b:%b" % (string(name), string(text)) for name in names(field))
        return self.begin() + b"%b{%b}%b" % (self._delta, fields, self._delta_tail)

    def redacted(self, hidden: str) -> bytes:
        return b""

    def refusal(self, text: str) -> bytes:
        return self.begin() + b'%b{"refusal":%b}%b' % (self._delta, string(text), self._delta_tail)

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        call = b'"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":""}}]' % (
            self._tools,
            string(id),
            string(name),
        )
        self._tools += 1
        if not self._begun:
            return self.begin(b'"content":null,' + call)
        return b"%b{%b}%b" % (self._delta, call, self._delta_tail)

    def arguments(self, piece: str) -> bytes:
        return b'%b{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}%b' % (
            self._delta,
            self._tools - 1,
            string(piece),
            self._delta_tail,
        )

    def ping(self, *, event: bool = False) -> bytes:
        return b": keep-alive\n\n"

    def empty(self) -> bytes:
        return self._chunk + b"[]" + self._tail

    def finish(self, reason: str, text: str = "") -> bytes:
        word = string(FINISH_REASONS.get(reason, reason))
        delta = b'{"content":%b}' % string(text) if text else b"{}"
        return self.begin() + b'%b%b,"logprobs":null,"finish_reason":%b}]%b' % (self._delta, delta, word, self._tail)

    def end(self) -> bytes:
        usage = b""
        if self._usage is not None:
            usage = b'%b[],"usage":%b}\n\n' % (self._chunk, compact(usage_object(self._usage)).encode())
        return usage + b"data: [DONE]\n\n"

    def error(self, step: StreamError) -> bytes:
        type_ = step.type or "server_error"
        error = error_object(type_, step.message, step.code or type_, None)
        return f"data: {compact(error)}\n\n".encode()


class _Whole:
    """One `chat.completion` object."""

    whole_tool_calls = False

    def __init__(self, call: Call, usage: Usage | None) -> None:
        self._call = call
        self._usage = usage
        self._message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        self._tools: list[dict[str, Any]] = []
        self._finish = "stop"

    def open(self) -> bytes:
        return b""

    def begin(self) -> bytes:
        return b""

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        return self._add("content", text)

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        for name in names(field):
            self._add(name, text)
        return b""

    def redacted(self, hidden: str) -> bytes:
        return b""

    def refusal(self, text: str) -> bytes:
        return self._add("refusal", text)

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        self._tools.append({"id": id, "type": "function", "function": {"name": name, "arguments": ""}})
        return b""

    def arguments(self, piece: str) -> bytes:
        self._tools[-1]["function"]["arguments"] += piece
        return b""

    def ping(self, *, event: bool = False) -> bytes:
        return b""

    def empty(self) -> bytes:
        return b""

    def finish(self, reason: str, text: str = "") -> bytes:
        if text:
            self._add("content", text)
        self._finish = FINISH_REASONS.get(reason, reason)
        return b""

    def end(self) -> bytes:
        tools = {"tool_calls": self._tools} if self._tools else {}
        if not tools and self._message["refusal"] is None:
            self._add("content", "")
        choice = {
            "index": 0,
            "message": {**self._message, **tools},
            "logprobs": None,
            "finish_reason": self._finish,
        }
        body = {
            "id": f"chatcmpl-{self._call.number:08x}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": self._call.model,
            "choices": [choice],
            "service_tier": "default",
            "system_fingerprint": "fp_1",
        }
        if self._usage is not None:
            body["usage"] = usage_object(self._usage)
        return compact(body).encode()

    def error(self, step: StreamError) -> bytes:
        return b""

    def _add(self, field: str, text: str) -> bytes:
        self._message[field] = (self._message.get(field) or "") + text
        return b""
