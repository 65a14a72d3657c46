"""OpenAI chat completions as they are on the wire: chunks ended by `[DONE]`, or one object."""

import time
from collections.abc import Mapping
from typing import Any

from tests.provider.calls import Call, DialectName
from tests.provider.checks import openai_complaint
from tests.provider.dialect import Wire, compact, string
from tests.provider.steps import HttpError, StreamError, Usage

_FINISH = {"refusal": "stop", "stop_sequence": "stop"}

_ERRORS: dict[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "Invalid request."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    403: ("invalid_request_error", "unsupported_country_region_territory", "Country or region not supported"),
    404: ("invalid_request_error", "model_not_found", "The model does not exist or you do not have access to it."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached. Please try again later."),
    503: ("server_error", None, "The engine is currently overloaded, please try again later."),
}
_SERVER_ERROR = ("server_error", None, "The server had an error while processing your request. Sorry about that!")


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    name: DialectName = "openai"

    def complaint(self, headers: Mapping[str, str], body: Any) -> str | None:
        return openai_complaint(body)

    def wire(self, call: Call, usage: Usage | None) -> Wire:
        if not call.stream:
            return _Whole(call, usage)
        options = call.body.get("stream_options")
        return _Stream(call, usage, asked=isinstance(options, dict) and options.get("include_usage") is True)

    def headers(self, number: int) -> dict[str, str]:
        return {"x-request-id": f"req_{number:08x}", "openai-version": "2020-10-01", "openai-processing-ms": "1"}

    def error_body(self, number: int, step: HttpError) -> dict[str, Any]:
        type_, code, message = _ERRORS.get(step.status, _SERVER_ERROR if step.status >= 500 else _ERRORS[400])
        if step.type is not None:
            type_, code = step.type, None
        return _error(type_, step.message or message, step.code or code, step.param)

    def models(self, ids: list[str]) -> dict[str, Any]:
        rows = [{"id": id, "object": "model", "created": 1763700000, "owned_by": "scripted"} for id in ids]
        return {"object": "list", "data": rows}


class _Stream:
    """Chunks. With `stream_options.include_usage` each has `"usage":null`, and one without choices has the figures."""

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

    def begin(self, first: bytes = b'"content":"","refusal":null') -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return b'%b{"role":"assistant",%b}%b' % (self._delta, first, self._delta_tail)

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        frame = self._text + string(text, utf8) + self._text_tail
        return frame if self._begun else self.begin() + frame

    def reasoning(self, text: str, field: str) -> bytes:
        return self.begin() + b"%b{%b:%b}%b" % (self._delta, string(field), string(text), self._delta_tail)

    def refusal(self, text: str) -> bytes:
        return self.begin() + b'%b{"refusal":%b}%b' % (self._delta, string(text), self._delta_tail)

    def tool_call(self, id: str, name: str) -> bytes:
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

    def ping(self) -> bytes:
        return b": keep-alive\n\n"

    def finish(self, reason: str) -> bytes:
        word = string(_FINISH.get(reason, reason))
        return self.begin() + b'%b{},"logprobs":null,"finish_reason":%b}]%b' % (self._delta, word, self._tail)

    def end(self) -> bytes:
        usage = b""
        if self._usage is not None:
            usage = b'%b[],"usage":%b}\n\n' % (self._chunk, compact(_usage(self._usage)).encode())
        return usage + b"data: [DONE]\n\n"

    def error(self, step: StreamError) -> bytes:
        type_ = step.type or "server_error"
        error = _error(type_, step.message, step.code or type_, None)
        return f"data: {compact(error)}\n\n".encode()


class _Whole:
    """One `chat.completion` object."""

    def __init__(self, call: Call, usage: Usage | None) -> None:
        self._call = call
        self._usage = usage
        self._message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
        self._tools: list[dict[str, Any]] = []
        self._finish = "stop"

    def begin(self) -> bytes:
        return b""

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        return self._add("content", text)

    def reasoning(self, text: str, field: str) -> bytes:
        return self._add(field, text)

    def refusal(self, text: str) -> bytes:
        return self._add("refusal", text)

    def tool_call(self, id: str, name: str) -> bytes:
        self._tools.append({"id": id, "type": "function", "function": {"name": name, "arguments": ""}})
        return b""

    def arguments(self, piece: str) -> bytes:
        self._tools[-1]["function"]["arguments"] += piece
        return b""

    def ping(self) -> bytes:
        return b""

    def finish(self, reason: str) -> bytes:
        self._finish = _FINISH.get(reason, reason)
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
            body["usage"] = _usage(self._usage)
        return compact(body).encode()

    def error(self, step: StreamError) -> bytes:
        return b""

    def _add(self, field: str, text: str) -> bytes:
        self._message[field] = (self._message.get(field) or "") + text
        return b""


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _error(type_: str, message: str, code: str | None, param: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "param": param, "code": code}}
