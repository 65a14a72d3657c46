"""OpenAI chat completions, and every server that speaks them."""

from typing import Any

from openai import AsyncOpenAI

from shared.events import load
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from worker.providers import http
from worker.providers.base import Finish, NotConfigured, Sink, StreamError, Truncated, figure, model_name, word
from worker.providers.calls import Calls
from worker.providers.openai_request import body
from worker.providers.sse import ServerSentEvent
from worker.providers.transport import Transport


class OpenAIProvider:
    """Streams `POST /chat/completions`, through the SDK's request and over our own transport."""

    def __init__(self, config: ProviderConfig, transport: Transport, *, compatible: bool = False) -> None:
        """`compatible`: a server that speaks the API as it was before OpenAI renamed `max_tokens`."""
        self._continues = config.continues
        key = config.api_key.get_secret_value() if config.api_key else None
        if key is None and config.base_url is None:
            raise NotConfigured
        self._limit = "max_tokens" if compatible else "max_completion_tokens"
        self._client = AsyncOpenAI(
            # Servers of one's own often need no key; the SDK needs one.
            api_key=key or "none",
            base_url=config.base_url,
            max_retries=0,
            timeout=None,
            http_client=http.client(transport),
        )
        self._calls = Calls(self._client, transport)

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        answer = _Answer(sink)
        await http.stream(
            self._calls,
            "/chat/completions",
            body(request, limit=self._limit, continues=bool(self._continues)),
            sink,
            answer.take,
        )
        return answer.finish()

    async def close(self) -> None:
        await self._client.close()


class _Answer:
    """Reads one answer, event by event."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._reason = ""
        self._model: str | None = None
        self._usage: Usage | None = None
        self._calls: dict[str, int] = {}
        """The number of a tool call by its id. Numbers are ours, in the order in which calls begin."""
        self._begun: dict[Any, int] = {}
        """The number of the call whose arguments go on under an index."""

    def take(self, event: ServerSentEvent) -> bool:
        """Take one event; True at the end marker."""
        if event.data == b"[DONE]":
            return True
        chunk = load(event.data)
        if "error" in chunk and chunk["error"] is not None:
            raise StreamError(chunk["error"])
        if choices := chunk.get("choices"):
            choice = choices[0]
            delta = choice.get("delta") or {}
            if text := delta.get("content"):
                self._sink.text(text)
            if text := delta.get("refusal"):
                self._sink.refusal(text)
            if text := delta.get("reasoning_content") or delta.get("reasoning"):
                self._sink.reasoning(text)
            for piece in delta.get("tool_calls") or ():
                self._tool_call(piece)
            if reason := choice.get("finish_reason"):
                self._reason, self._model = reason, model_name(chunk.get("model"))
        elif chunk.get("object") == "error":
            raise StreamError(chunk)
        if raw := chunk.get("usage"):
            self._usage = _usage(raw)
            if self._usage is not None:
                self._sink.usage(self._usage)
        return False

    def _tool_call(self, piece: dict[str, Any]) -> None:
        """Take a piece of a tool call. Some servers send a call whole, without an index, or each under index 0."""
        function = piece.get("function") or {}
        id, index = piece.get("id"), piece.get("index")
        if id and id not in self._calls:
            number = self._calls[id] = self._begun[index] = len(self._calls)
            self._sink.tool_call(number, function.get("arguments") or "", id, function.get("name"))
        elif arguments := function.get("arguments"):
            number = self._calls[id] if id else self._begun.get(index, len(self._calls) - 1)
            self._sink.tool_call(number, arguments)

    def finish(self) -> Finish:
        """Return how it ended; raise Truncated when it did not."""
        if not self._reason:
            raise Truncated
        reason = "tool_calls" if self._calls and self._reason == "stop" else word(self._reason)
        return Finish(reason, self._usage, model=self._model)


def _usage(raw: Any) -> Usage | None:
    if not isinstance(raw, dict):
        return None
    details, written = raw.get("prompt_tokens_details"), raw.get("completion_tokens_details")
    return Usage.told(
        input_tokens=figure(raw, "prompt_tokens"),
        cached_input_tokens=figure(details, "cached_tokens"),
        output_tokens=figure(raw, "completion_tokens"),
        reasoning_tokens=figure(written, "reasoning_tokens"),
    )
