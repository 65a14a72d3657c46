"""The events of OpenAI's Responses API: a response that is written item by item, each event with its number."""

import time
from collections.abc import Sequence
from typing import Any

from tests.provider.breaks import StreamError
from tests.provider.calls import Call
from tests.provider.dialect import compact, string
from tests.provider.responses_object import response_object, usage_object
from tests.provider.seals import sealed
from tests.provider.steps import Usage

_INCOMPLETE = {"length": "max_output_tokens"}
_COMPLETE = ("stop", "tool_calls", "refusal", "stop_sequence")
_ERROR_CODES = {"rate_limit_error": "rate_limit_exceeded", "invalid_request_error": "invalid_prompt"}


class ResponseEvents:
    """Events. Items, and parts in them, open with their first delta and close before the next; their indexes rise."""

    whole_tool_calls = False

    def __init__(self, call: Call, usage: Usage | None, *, held: bool) -> None:
        """`held`: the script says itself when the response is in progress."""
        self._call = call
        self._usage = usage
        self._held = held
        background = call.body.get("background") is True
        self.status = "queued" if background else "in_progress"
        self.last_sequence: int | None = None
        self._prefix = ["created", "queued", "in_progress"] if background else ["created", "in_progress"]
        self._response = response_object(call)
        self._items: list[dict[str, Any]] = []
        self._item_open = False
        self._part: dict[str, Any] | None = None
        self._text = b""
        self._reason = "stop"

    def response(self) -> dict[str, Any]:
        """Return the Response object as it is now; what it holds of an answer shows at its end."""
        done = self.status in ("completed", "incomplete")
        over = {
            "output": self._items if done else [],
            "usage": usage_object(self._usage) if done and self._usage is not None else None,
        }
        if self.status == "incomplete":
            over["incomplete_details"] = {"reason": _INCOMPLETE.get(self._reason, self._reason)}
        return {**self._response, "status": self.status, **over}

    def open(self) -> bytes:
        if not self._held:
            return self.begin()
        return b"".join(self._next_of_prefix() for _ in self._prefix[:-1]) if self.status == "queued" else b""

    def begin(self) -> bytes:
        return b"".join(self._next_of_prefix() for _ in list(self._prefix))

    def text(self, text: str, *, utf8: bool = False) -> bytes:
        opening, part = self._open_part("output_text", {"annotations": [], "logprobs": [], "text": ""})
        part["text"] += text
        return opening + self._text % (self._number(), string(text, utf8))

    def reasoning(self, text: str, field: str | Sequence[str]) -> bytes:
        opening = b""
        if self._part is None or self._part["type"] != "summary_text":
            opening = self._open_item("reasoning", "rs", {"summary": []})
            self._part = {"type": "summary_text", "text": ""}
            opening += self._event("reasoning_summary_part.added", **self._at(), summary_index=0, part=dict(self._part))
        self._part["text"] += text
        return opening + self._event("reasoning_summary_text.delta", **self._at(), summary_index=0, delta=text)

    def redacted(self, hidden: str) -> bytes:
        secret = {"encrypted_content": sealed(self._call.model, hidden)} if self._seals else {}
        return self._open_item("reasoning", "rs", {"summary": [], **secret}) + self._close_item("completed")

    def refusal(self, text: str) -> bytes:
        opening, part = self._open_part("refusal", {"refusal": ""})
        part["refusal"] += text
        return opening + self._event("refusal.delta", **self._at(), content_index=self._content_index, delta=text)

    def tool_call(self, id: str, name: str, arguments: str = "") -> bytes:
        return self._open_item("function_call", "fc", {"arguments": "", "call_id": id, "name": name})

    def arguments(self, piece: str) -> bytes:
        self._items[-1]["arguments"] += piece
        return self._event("function_call_arguments.delta", **self._at(), delta=piece)

    def ping(self, *, event: bool = False) -> bytes:
        return self._numbered("keepalive") if event else b": keep-alive\n\n"

    def empty(self) -> bytes:
        return b""

    def finish(self, reason: str, text: str = "") -> bytes:
        before = self.text(text) if text else self.begin()
        self._reason = reason
        return before + self._close_item("completed" if reason in _COMPLETE else "incomplete")

    def end(self) -> bytes:
        self.status = "completed" if self._reason in _COMPLETE else "incomplete"
        self._response["completed_at"] = int(time.time()) if self.status == "completed" else None
        return self._event(self.status, response=self.response())

    def error(self, step: StreamError) -> bytes:
        frames = [self.begin()]
        type_ = step.type or "server_error"
        code = step.code or _ERROR_CODES.get(type_, type_)
        self.status = "failed"
        self._response["error"] = {"code": code, "message": step.message}
        for kind in step.events:
            if kind == "failed":
                frames.append(self._event("failed", response=self.response()))
            elif kind == "flat_error":
                frames.append(self._numbered("error", code=code, message=step.message, param=None))
            else:
                error = {"type": type_, "code": code, "message": step.message, "param": None}
                frames.append(self._numbered("error", error=error))
        return b"".join(frames)

    @property
    def _seals(self) -> bool:
        """Whether reasoning items carry what the server needs to know them again."""
        body = self._call.body
        return "reasoning.encrypted_content" in (body.get("include") or ()) or body.get("store") is False

    @property
    def _content_index(self) -> int:
        return len(self._items[-1]["content"]) - 1

    def _next_of_prefix(self) -> bytes:
        event = self._prefix.pop(0)
        if event == "in_progress":
            self.status = event
        return self._event(event, response=self.response())

    def _open_item(self, type_: str, prefix: str, fields: dict[str, Any]) -> bytes:
        before = self.begin() + self._close_item("completed")
        id = f"{prefix}_{self._call.number:08x}_{len(self._items)}"
        status = {} if type_ == "reasoning" else {"status": "in_progress"}
        self._items.append({"id": id, "type": type_, **status, **fields})
        self._item_open = True
        return before + self._event("output_item.added", output_index=len(self._items) - 1, item=self._items[-1])

    def _close_item(self, status: str) -> bytes:
        if not self._item_open:
            return b""
        item = self._items[-1]
        frames = [self._close_part()]
        if item["type"] == "function_call":
            frames.append(self._event("function_call_arguments.done", **self._at(), arguments=item["arguments"]))
        if "status" in item:
            item["status"] = status
        self._item_open = False
        frames.append(self._event("output_item.done", output_index=len(self._items) - 1, item=item))
        return b"".join(frames)

    def _open_part(self, type_: str, fields: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Open a part of a message, and the message if none is open."""
        if self._part is not None and self._part["type"] == type_:
            return b"", self._part
        if self._item_open and self._items[-1]["type"] == "message":
            before = self._close_part()
        else:
            before = self._open_item("message", "msg", {"content": [], "role": "assistant"})
        part = self._part = {"type": type_, **fields}
        self._items[-1]["content"].append(part)
        where = {**self._at(), "content_index": self._content_index}
        opening = before + self._event("content_part.added", **where, part=part)
        self._text = (
            b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":%%d,'
            b'%b,"delta":%%b,"logprobs":[]}\n\n' % compact(where)[1:-1].encode()
        )
        return opening, part

    def _close_part(self) -> bytes:
        part, self._part = self._part, None
        if part is None:
            return b""
        if part["type"] == "summary_text":
            item = self._items[-1]
            item["summary"].append(part)
            if self._seals:
                item["encrypted_content"] = sealed(self._call.model, part["text"])
            where = {**self._at(), "summary_index": 0}
            text = self._event("reasoning_summary_text.done", **where, text=part["text"])
            return text + self._event("reasoning_summary_part.done", **where, part=part)
        where = {**self._at(), "content_index": self._content_index}
        if part["type"] == "refusal":
            done = self._event("refusal.done", **where, refusal=part["refusal"])
        else:
            done = self._event("output_text.done", **where, text=part["text"], logprobs=[])
        return done + self._event("content_part.done", **where, part=part)

    def _at(self) -> dict[str, Any]:
        return {"item_id": self._items[-1]["id"], "output_index": len(self._items) - 1}

    def _event(self, name: str, **fields: Any) -> bytes:
        return self._numbered(f"response.{name}", **fields)

    def _numbered(self, type_: str, **fields: Any) -> bytes:
        value = {"type": type_, "sequence_number": self._number(), **fields}
        return f"event: {type_}\ndata: {compact(value)}\n\n".encode()

    def _number(self) -> int:
        self.last_sequence = 0 if self.last_sequence is None else self.last_sequence + 1
        return self.last_sequence


class WholeResponse(ResponseEvents):
    """One Response object."""

    def end(self) -> bytes:
        super().end()
        return compact(self.response()).encode()
