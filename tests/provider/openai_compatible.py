"""Chat completions as other servers stream them: vLLM, Ollama, Azure and their kin, by the script's quirks."""

import time
from collections.abc import Sequence
from typing import Any

from tests.provider.breaks import StreamError
from tests.provider.calls import Call
from tests.provider.dialect import compact, names
from tests.provider.openai_errors import error_object
from tests.provider.quirks import Quirks
from tests.provider.steps import Usage

FINISH_REASONS = {"refusal": "stop", "stop_sequence": "stop"}


class CompatibleStream:
    """Chunks, but for what the quirks say as OpenAI's."""

    def __init__(self, call: Call, usage: Usage | None, quirks: Quirks, *, asked: bool) -> None:
        self.whole_tool_calls = quirks.tool_calls == "whole"
        self._usage = usage
        self._quirks = quirks
        self._asked = asked
        self._shared = {
            "id": f"chatcmpl-{call.number:08x}",
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": call.model,
        }
        self._begun = quirks.role in ("each", "never")
        self._tools = 0
        self._sent = 0

    def open(self) -> bytes:
        return b""

    def begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return self._chunk({"role": "assistant", **({} if self._quirks.role == "alone" else {"content": ""})})

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        return self._delta({"content": text}, utf8=utf8)

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        return self._delta(dict.fromkeys(names(field), text))

    def redacted(self, hidden: str) -> bytes:
        return b""

    def refusal(self, text: str) -> bytes:
        return self._delta({"refusal": text})

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        self._tools += 1
        call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
        return self._delta({"tool_calls": [{**self._index(), **call}]})

    def arguments(self, piece: str) -> bytes:
        return self._delta({"tool_calls": [{**self._index(), "function": {"arguments": piece}}]})

    def ping(self, *, event: bool = False) -> bytes:
        return b": keep-alive\n\n"

    def empty(self) -> bytes:
        return self._frame({**self._shared, "choices": [], **self._figures(final=False)})

    def finish(self, reason: str, text: str = "") -> bytes:
        begin = self.begin()
        self._sent += bool(text)
        return begin + self._chunk({"content": text} if text else {}, FINISH_REASONS.get(reason, reason))

    def end(self) -> bytes:
        usage = b""
        if self._usage is not None and self._asked and self._quirks.usage != "finish":
            usage = self._frame({**self._shared, "choices": [], "usage": usage_object(self._usage)})
        return usage + (b"data: [DONE]\n\n" if self._quirks.done else b"")

    def error(self, step: StreamError) -> bytes:
        type_ = step.type or "server_error"
        return self._frame(error_object(type_, step.message, step.code or type_, None))

    def _index(self) -> dict[str, int]:
        if self._quirks.tool_index == "none":
            return {}
        return {"index": 0 if self._quirks.tool_index == "zero" else self._tools - 1}

    def _delta(self, delta: dict[str, Any], *, utf8: bool = False) -> bytes:
        begin = self.begin()
        self._sent += 1
        return begin + self._chunk(delta, utf8=utf8)

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None, *, utf8: bool = False) -> bytes:
        if self._quirks.role == "each":
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        figures = self._figures(final=finish_reason is not None)
        return self._frame({**self._shared, "choices": [choice], **figures}, utf8=utf8)

    def _figures(self, *, final: bool) -> dict[str, Any]:
        if self._usage is not None and self._quirks.usage == "finish" and final:
            return {"usage": usage_object(self._usage)}
        if self._usage is not None and self._quirks.usage == "each":
            so_far = self._usage.output if final else min(self._sent, self._usage.output)
            return {
                "usage": {
                    "prompt_tokens": self._usage.input,
                    "total_tokens": self._usage.input + so_far,
                    "completion_tokens": so_far,
                }
            }
        return {"usage": None} if self._asked else {}

    def _frame(self, value: dict[str, Any], *, utf8: bool = False) -> bytes:
        return f"data: {compact(value, utf8=utf8)}\n\n".encode()


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's figures of a chat completion."""
    written = {"cache_write_tokens": usage.cache_written} if usage.cache_written else {}
    return {
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
        "prompt_tokens_details": {"cached_tokens": usage.cached, "audio_tokens": 0, **written},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
