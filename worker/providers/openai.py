"""OpenAI chat completions, and every server that speaks them."""

from typing import Any, Final

import httpx2
from openai import AsyncOpenAI

from shared.events import load
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from worker.providers import http
from worker.providers.base import Finish, NotConfigured, Sink, StreamError, Truncated, word
from worker.providers.sse import ServerSentEvent

CONTINUE: Final = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM's words for: go on from the last message instead of answering it."""


class OpenAIProvider:
    """Streams `POST /chat/completions`, through the SDK's request and over our own transport."""

    def __init__(
        self, config: ProviderConfig, transport: httpx2.AsyncBaseTransport, *, compatible: bool = False
    ) -> None:
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

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        answer = _Answer(sink)
        await http.stream(self._client, "/chat/completions", self._body(request), sink, answer.take)
        return answer.finish()

    async def close(self) -> None:
        await self._client.close()

    def _body(self, request: JobRequest) -> dict[str, Any]:
        messages: list[dict[str, Any]] = []
        if request.system is not None:
            messages.append({"role": "system", "content": request.system})
        messages += [{"role": message.role, "content": message.text()} for message in request.messages]
        optional = {
            self._limit: request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "stop": request.stop or None,
            "seed": request.seed,
        }
        return {
            "model": request.model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            **(CONTINUE if self._continues and messages[-1]["role"] == "assistant" else {}),
            **{name: value for name, value in optional.items() if value is not None},
        }


class _Answer:
    """Reads one answer, event by event."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._reason = ""
        self._usage: Usage | None = None

    def take(self, event: ServerSentEvent) -> bool:
        """Take one event; True at the end marker."""
        if event.data == b"[DONE]":
            return True
        chunk = load(event.data)
        if "error" in chunk and chunk["error"] is not None:
            raise StreamError(_kind(chunk["error"]))
        if choices := chunk.get("choices"):
            choice = choices[0]
            delta = choice.get("delta") or {}
            if text := delta.get("content") or delta.get("refusal"):
                self._sink.text(text)
            elif text := delta.get("reasoning_content") or delta.get("reasoning"):
                self._sink.reasoning(text)
            if reason := choice.get("finish_reason"):
                self._reason = reason
        if raw := chunk.get("usage"):
            self._usage = _usage(raw)
        return False

    def finish(self) -> Finish:
        """Return how it ended; raise Truncated when it did not."""
        if not self._reason:
            raise Truncated
        return Finish(word(self._reason), self._usage)


def _usage(raw: dict[str, Any]) -> Usage:
    details = raw.get("prompt_tokens_details") or {}
    return Usage(
        input_tokens=raw.get("prompt_tokens") or 0,
        cached_input_tokens=details.get("cached_tokens") or 0,
        output_tokens=raw.get("completion_tokens") or 0,
    )


def _kind(error: object) -> str:
    """Return the type or code of an error frame, whose shape differs between servers."""
    if isinstance(error, dict):
        return str(error.get("code") or error.get("type") or "error")
    return "error"
