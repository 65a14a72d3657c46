"""OpenAI chat completions, and every server that speaks them."""

from contextlib import aclosing
from typing import Any, Final

import httpx2
from openai import AsyncOpenAI

from shared.events import load
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from worker.providers import http
from worker.providers.base import Finish, NotConfigured, Sink, StreamError, Truncated, word

CONTINUE: Final = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM's words for: go on from the last message instead of answering it."""


class OpenAIProvider:
    """Streams `POST /chat/completions`, through the SDK's request and over its aiohttp transport."""

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
        reason, usage = "", None
        create = self._client.chat.completions.with_streaming_response.create
        # As `extra_body`, which replaces the rest: the SDK walks typed parameters at a third of the cost of the call,
        # and finds plain JSON in them.
        call = create(model=request.model, messages=(), stream=True, extra_body=self._body(request))
        async with call as response, aclosing(http.events(response, sink)) as stream:
            async for event in stream:
                if event.data == b"[DONE]":
                    await http.drain(stream)
                    break
                chunk = load(event.data)
                if (error := chunk.get("error")) is not None:
                    raise StreamError(_kind(error))
                usage = _usage(chunk.get("usage")) or usage
                if not (choices := chunk.get("choices")):
                    continue
                delta = choices[0].get("delta") or {}
                if text := delta.get("reasoning_content") or delta.get("reasoning"):
                    sink.reasoning(text)
                if text := delta.get("content") or delta.get("refusal"):
                    sink.text(text)
                reason = choices[0].get("finish_reason") or reason
        if not reason:
            raise Truncated
        return Finish(word(reason), usage)

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


def _usage(raw: dict[str, Any] | None) -> Usage | None:
    if not raw:
        return None
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
