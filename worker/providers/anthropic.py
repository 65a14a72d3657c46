"""Anthropic messages, and every server that speaks them."""

from typing import Any, Final

from anthropic import AsyncAnthropic

from shared.claude import json_way
from shared.events import load
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from worker.providers import http
from worker.providers.anthropic_request import body
from worker.providers.base import (
    AnswerTooLarge,
    Finish,
    NotConfigured,
    Sink,
    StreamError,
    Truncated,
    figure,
    model_name,
    text,
    word,
)
from worker.providers.calls import Calls
from worker.providers.sse import ServerSentEvent
from worker.providers.transport import Transport

REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


FIGURES: Final = (
    "input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens", "output_tokens_details",
)  # fmt: skip

MAX_SEALED_BYTES: Final = 1024 * 1024
"""Of an answer's signatures and sealed thoughts, some kilobytes each, which go into the job's record."""

BLOCK_BYTES: Final = 100
"""What each block, and each piece of it, counts for beside its bytes."""


class AnthropicProvider:
    """Streams `POST /v1/messages`, through the SDK's request and over our own transport."""

    def __init__(self, config: ProviderConfig, transport: Transport) -> None:
        key = config.api_key.get_secret_value() if config.api_key else None
        if key is None and config.base_url is None:
            raise NotConfigured
        self._client = AsyncAnthropic(
            # Given always: without one the SDK looks for credentials on the disk.
            api_key=key or "none",
            base_url=config.base_url,
            max_retries=0,
            timeout=None,
            # Its own spans can have what is said, by the environment alone, and their ids would be sent along.
            open_telemetry={"traces": False, "propagation": False},
            http_client=http.client(transport),
        )
        self._calls = Calls(self._client, transport)

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        answer = _Answer(sink, as_text=json_way(request) == "tool")
        await http.stream(self._calls, "/v1/messages", body(request), sink, answer.take)
        return answer.finish()

    async def close(self) -> None:
        await self._client.close()


class _Answer:
    """Reads one answer, event by event."""

    def __init__(self, sink: Sink, *, as_text: bool) -> None:
        """`as_text`: the one tool that is called is no tool but the shape of the answer."""
        self._sink = sink
        self._as_text = as_text
        self._reason = ""
        self._stop_sequence: str | None = None
        self._model: str | None = None
        self._usage: dict[str, Any] = {}
        self._whole = False
        self._calls: dict[int, int] = {}
        """The number of a tool call by the index of its block."""
        self._thoughts: dict[int, dict[str, str]] = {}
        self._pieces: dict[int, list[str]] = {}
        """The text of a thought by the index of its block, joined in the end."""
        self._sealed = 0
        """Bytes of what is kept for the next turn and shown to nobody."""

    def take(self, event: ServerSentEvent) -> bool:
        """Take one event; True at the end marker."""
        if event.event == b"content_block_delta":
            self._delta(load(event.data))
        elif event.event == b"content_block_start":
            self._block(load(event.data))
        elif event.event == b"message_start":
            message = load(event.data)["message"]
            self._model = model_name(message.get("model"))
            self._used(message.get("usage"))
            if (usage := _usage(self._usage)) is not None:
                self._sink.usage(usage)
        elif event.event == b"message_delta":
            message = load(event.data)
            self._reason = message["delta"].get("stop_reason") or self._reason
            self._stop_sequence = message["delta"].get("stop_sequence") or self._stop_sequence
            self._used(message.get("usage"))
        elif event.event == b"message_stop":
            self._whole = True
        elif event.event == b"error":
            raise StreamError(load(event.data).get("error"))
        return self._whole

    def _used(self, told: object) -> None:
        """Take figures of usage. They are cumulative: what a later event names replaces what the start said."""
        if isinstance(told, dict):
            self._usage.update({name: told[name] for name in FIGURES if told.get(name) is not None})

    def _keep(self, sealed: str) -> str:
        self._sealed += len(sealed) + BLOCK_BYTES
        if self._sealed > MAX_SEALED_BYTES:
            raise AnswerTooLarge
        return sealed

    def _block(self, begun: dict[str, Any]) -> None:
        """Open a block of the answer; text has nothing to open."""
        index, block = begun["index"], begun["content_block"]
        match block["type"]:
            case "tool_use" if not self._as_text:
                self._calls[index] = len(self._calls)
                self._sink.tool_call(self._calls[index], "", block["id"], block["name"])
            case "thinking":
                self._thoughts[index] = {"type": "thinking", "text": "", "signature": self._keep("")}
                self._pieces[index] = []
            case "redacted_thinking":
                self._thoughts[index] = {"type": "redacted_thinking", "data": self._keep(text(block["data"]))}

    def _delta(self, piece: dict[str, Any]) -> None:
        delta = piece["delta"]
        match delta["type"]:
            case "text_delta":
                self._sink.text(delta["text"])
            case "thinking_delta":
                self._pieces[piece["index"]].append(delta["thinking"])
                self._sink.reasoning(delta["thinking"])
            case "signature_delta":
                self._thoughts[piece["index"]]["signature"] += self._keep(text(delta["signature"]))
            case "input_json_delta":
                if self._as_text:
                    self._sink.text(delta["partial_json"])
                elif delta["partial_json"]:
                    self._sink.tool_call(self._calls[piece["index"]], delta["partial_json"])

    def finish(self) -> Finish:
        """Return how it ended; raise Truncated when it did not."""
        if not self._whole:
            raise Truncated
        for index, pieces in self._pieces.items():
            self._thoughts[index]["text"] = "".join(pieces)
        reason = word(self._reason or "stop")
        if self._as_text and reason == "tool_use":
            reason = "end_turn"
        thoughts = list(self._thoughts.values())
        return Finish(REASONS.get(reason, reason), _usage(self._usage), thoughts, self._stop_sequence, self._model)


def _usage(raw: dict[str, Any]) -> Usage | None:
    """Add up Anthropic's figures: what it read from and wrote to its cache comes on top of `input_tokens`."""
    cached = figure(raw, "cache_read_input_tokens")
    parts: list[Any] = [figure(raw, "input_tokens"), cached, figure(raw, "cache_creation_input_tokens")]
    return Usage.told(
        input_tokens=sum(parts) if all(type(part) is int for part in parts) else None,
        cached_input_tokens=cached,
        output_tokens=figure(raw, "output_tokens"),
        reasoning_tokens=figure(raw.get("output_tokens_details"), "thinking_tokens"),
    )
