"""A log as the AI SDK's UI message stream, which `useChat` reads.

All of an answer is one step of a message. That is what lets a lost attempt be taken back in mid-stream: `reset-step`
drops the step's parts from the page, and the next attempt's come in their place.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from api.dialect import PING, Translation
from api.faces.ai_sdk_messages import OURS, Part, arguments, tool_name
from api.faces.failures import unfinished
from api.faces.telling import Arguments, Call, Ended, Queued, Restarted, Started, Step, Telling, Text, Thought
from shared.events import CANCELLED, COMPLETED, QUEUED, REASONING, RESTARTED, TOKEN, Entry, dump, load, quoted_text

HEADERS: Final = {"x-vercel-ai-ui-message-stream": "v1"}

DONE: Final = b"data: [DONE]\n\n"

REASONS: Final = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
}

_KINDS: Final = {TOKEN: "text", REASONING: "reasoning"}
"""What part of a message an entry is a piece of."""


def chunk(type: str, **fields: Any) -> bytes:
    return b"data: %b\n\n" % dump({"type": type, **fields})


class UIChunks(Translation):
    """One job's log as chunks of a message. `before`: earlier steps of the message, for a page that begins anew."""

    def __init__(self, job_id: str, message_id: str, before: Sequence[Part] = ()) -> None:
        self._job_id = job_id
        self._message_id = message_id
        self._before = before
        self._metadata: dict[str, Any] = {"jobId": job_id}
        self._telling = Telling()
        self._parts = 0
        self._open: str | None = None
        """The kind of the part that is being written, `text` or `reasoning`."""
        self._head = b""
        """A piece of that part, up to its text."""
        self._waits = False
        self._calls: list[_ToolCall] = []

    def opening(self) -> bytes:
        start = chunk("start", messageId=self._message_id, messageMetadata=self._metadata)
        return PING + start + b"".join(earlier(self._before)) + chunk("start-step")

    def body(self, entries: Sequence[Entry]) -> bytes:
        """Leave out what is over already: attempts that were lost, a wait that has ended."""
        if len(entries) == 1:
            return super().body(entries)
        again = [number for number, entry in enumerate(entries) if entry.event == RESTARTED]
        return super().body(
            [
                entry
                for number, entry in enumerate(entries)
                if number >= (again[-1] if again else 0) and (entry.event != QUEUED or entry is entries[-1])
            ]
        )

    def tell(self, entry: Entry) -> bytes:
        if _KINDS.get(entry.event, "") == self._open and (text := quoted_text(entry)) is not None:
            # More of the part that is being written, as nearly every entry is.
            self._telling.more(entry, text)
            return self._head + text + b"}\n\n"
        return b"".join([self._step(step) for step in self._telling.steps(entry)])

    def _step(self, step: Step) -> bytes:
        match step:
            case Text(text):
                return self._delta("text", text)
            case Thought(text):
                return self._delta("reasoning", text)
            case Call(_, id, name):
                self._calls.append(_ToolCall(id, name))
                return self._close() + chunk("tool-input-start", toolCallId=id, toolName=name)
            case Arguments(number, piece):
                call = self._calls[number]
                call.arguments += piece
                return chunk("tool-input-delta", toolCallId=call.id, inputTextDelta=piece)
            case Queued(position):
                self._waits = True
                return chunk("data-queue", data={"position": position}, transient=True)
            case Started(provider, model):
                return self._started(provider, model)
            case Restarted(provider, model):
                return self._reset() + self._started(provider, model)
            case Ended(event, data):
                return self._end(event, data)

    def _delta(self, kind: str, text: str) -> bytes:
        opening = b""
        if self._open != kind:
            opening = self._close()
            self._parts += 1
            self._open = kind
            self._head = chunk(f"{kind}-delta", id=self._part, delta="").removesuffix(b'""}\n\n')
            opening += chunk(f"{kind}-start", id=self._part)
        return opening + chunk(f"{kind}-delta", id=self._part, delta=text)

    @property
    def _part(self) -> str:
        return f"{self._open}-{self._parts}"

    def _close(self) -> bytes:
        """End the part that is being written, if one is."""
        if self._open is None:
            return b""
        ending = chunk(f"{self._open}-end", id=self._part)
        self._open = None
        return ending

    def _started(self, provider: str, model: str) -> bytes:
        self._metadata |= {"provider": provider, "model": model}
        if not self._waits:
            return b""
        self._waits = False
        return chunk("data-queue", data={"position": 0}, transient=True)

    def _reset(self) -> bytes:
        self._open = None
        self._calls = []
        return chunk("reset-step")

    def _end(self, event: str, data: dict[str, Any]) -> bytes:
        self.over = True
        ending = self._close()
        if event == COMPLETED:
            # Not before: a page runs a tool as soon as its input is there, and the attempt might still be lost.
            ending += b"".join([call.ready(self._job_id) for call in self._calls])
            reason = REASONS.get(data["finish_reason"], "other")
        elif event == CANCELLED:
            ending += chunk("abort", reason="cancelled")
            reason = "interrupted"
        else:
            return ending + chunk("error", errorText=unfinished(event, data).detail) + DONE
        finish = chunk("finish", finishReason=reason, messageMetadata=self._metadata | _figures(data))
        return ending + chunk("finish-step") + finish + DONE


class _ToolCall:
    """A tool call, as far as it has been told."""

    def __init__(self, id: str, name: str) -> None:
        self.id = id
        self.name = name
        self.arguments = ""

    def ready(self, job_id: str) -> bytes:
        """Return the call's whole input, or that it is none."""
        call = {"toolCallId": self.id, "toolName": self.name, "providerMetadata": {OURS: {"jobId": job_id}}}
        try:
            return chunk("tool-input-available", **call, input=load(self.arguments.encode() or b"{}"))
        except ValueError:
            return chunk("tool-input-error", **call, input=self.arguments, errorText="The tool's input is not JSON.")


def _figures(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an answer took, in the SDK's words."""
    usage = data["usage"]
    figures = {
        "usage": {
            "inputTokens": usage["input_tokens"],
            "cachedInputTokens": usage["cached_input_tokens"],
            "outputTokens": usage["output_tokens"],
            "totalTokens": usage["input_tokens"] + usage["output_tokens"],
            "estimated": usage.get("estimated", False),
        },
        "costUsd": data.get("cost_usd"),
        "durationMs": data.get("duration_ms"),
    }
    return {name: value for name, value in figures.items() if value is not None}


_AS_THEY_ARE: Final = ("source-url", "source-document", "steering-message")


def earlier(parts: Sequence[Part]) -> Iterator[bytes]:
    """Yield parts of a message as the chunks that bring a page to them again.

    A tool's input comes as if it was being written: at `tool-input-available` a page would run the tool a second time.
    """
    for number, part in enumerate(parts):
        type, id = part["type"], f"earlier-{number}"
        if type == "step-start":
            yield chunk("start-step")
        elif type in ("text", "reasoning"):
            metadata = _given(part, providerMetadata="providerMetadata")
            yield chunk(f"{type}-start", id=id, **metadata)
            yield chunk(f"{type}-delta", id=id, delta=part.get("text", ""))
            yield chunk(f"{type}-end", id=id)
        elif type == "dynamic-tool" or type.startswith("tool-"):
            yield from _earlier_call(part)
        elif type in _AS_THEY_ARE or type.startswith("data-"):
            yield b"data: %b\n\n" % dump(part)


def _earlier_call(part: Part) -> Iterator[bytes]:
    id = part["toolCallId"]
    dynamic = {"dynamic": True} if part["type"] == "dynamic-tool" else {}
    more = {**dynamic, **_given(part, title="title", providerMetadata="callProviderMetadata")}
    yield chunk("tool-input-start", toolCallId=id, toolName=tool_name(part, ""), **more)
    yield chunk("tool-input-delta", toolCallId=id, inputTextDelta=arguments(part))
    if part.get("state") == "output-available":
        yield chunk("tool-output-available", toolCallId=id, output=part.get("output"), **dynamic)
    elif part.get("state") == "output-error":
        yield chunk("tool-output-error", toolCallId=id, errorText=part["errorText"], **dynamic)


def _given(part: Part, **names: str) -> dict[str, Any]:
    return {ours: part[theirs] for ours, theirs in names.items() if part.get(theirs) is not None}
