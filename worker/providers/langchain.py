"""A LangChain Runnable of the operator's: a chat model, a chain that ends in text, or an agent's graph.

It runs in the worker's own loop: one that blocks it (a synchronous call in an async method) holds all jobs of the
worker, and its lease. Runnables that are only synchronous are run in threads by LangChain, and cannot be stopped there.
"""

import importlib
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final, cast

import httpx
import httpx2
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.configurable import DynamicRunnable

from shared.events import dump
from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from shared.tools import Named
from worker.failures import UNKNOWN, explain
from worker.providers.base import Finish, Sink, StreamError, Truncated, word
from worker.providers.langchain_messages import messages
from worker.providers.openai_request import response_format, tool

logger = logging.getLogger(__name__)

UNBOUND: Final = frozenset(("system", "images", "finish_reason"))
"""What the messages carry, or the answer: everything else is bound, and only a chat model can be bound to it."""

REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos_token": "stop",
    "max_tokens": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "safety": "content_filter",
}


class LangChainProvider:
    def __init__(self, name: str, config: ProviderConfig) -> None:
        """Import the runnable, or end the process with one line that says why it cannot be used."""
        self._runnable = _imported(name, config.runnable or "")
        self._tells_reason = "finish_reason" in config.honours
        self._is_graph = hasattr(self._runnable, "stream_mode")
        bound = [what for what in config.honours if what not in UNBOUND]
        if bound and not hasattr(self._runnable, "bind_tools"):
            sys.exit(f"rejoin: REJOIN_PROVIDERS: {name!r} honours {bound[0]}, but is no chat model")

    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        answer = _Answer(sink, is_graph=self._is_graph)
        async with aclosing(_told(self._stream(request))) as chunks:
            async for chunk in chunks:
                answer.take(chunk)
                if sink.full:
                    await sink.room()
        return answer.finish(tells_reason=self._tells_reason)

    async def close(self) -> None:
        return None

    def _stream(self, request: JobRequest) -> AsyncIterator[Any]:
        said = messages(request)
        # LangChain's own way to choose a model at run time (`init_chat_model`, `configurable_fields`).
        config: RunnableConfig = {"configurable": {"model": request.model}}
        if self._is_graph:
            return self._runnable.astream({"messages": said}, config, stream_mode="messages")
        runnable = self._runnable
        if isinstance(runnable, DynamicRunnable):
            # What is bound to it would otherwise be bound to its default.
            runnable, config = runnable.prepare(config)
        return _bound(runnable, request).astream(said, config)


def _imported(name: str, reference: str) -> Runnable[Any, Any]:
    module, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for attribute in path.split("."):
            found = getattr(found, attribute)
    except (ImportError, AttributeError) as error:
        sys.exit(f"rejoin: REJOIN_PROVIDERS: {name!r}: {error}")
    except Exception as error:
        sys.exit(f"rejoin: REJOIN_PROVIDERS: {name!r}: {module} cannot be imported ({type(error).__name__})")
    if not isinstance(found, Runnable):
        sys.exit(f"rejoin: REJOIN_PROVIDERS: {name!r}: {reference} is no Runnable")
    return found


def _bound(runnable: Any, request: JobRequest) -> Runnable[Any, Any]:
    """Bind what is asked for. What is not honoured has been refused long before."""
    if request.tools:
        choice = {"tool_choice": _choice(request)} if request.tool_choice is not None else {}
        runnable = runnable.bind_tools([tool(function) for function in request.tools], **choice)
    optional = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop or None,
        "seed": request.seed,
        "response_format": response_format(request),
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
    }
    asked = {name: value for name, value in optional.items() if value is not None}
    bound: Runnable[Any, Any] = runnable.bind(**asked) if asked else runnable
    return bound


def _choice(request: JobRequest) -> str | None:
    """Return the choice in LangChain's words: `any` for `required`, and a tool's bare name."""
    if isinstance(request.tool_choice, Named):
        return request.tool_choice.name
    return "any" if request.tool_choice == "required" else request.tool_choice


async def _told(stream: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """Yield what the runnable streams; what it raises comes out as one of the failures that have a code."""
    try:
        # A generator, whatever LangChain's signature says: closing it closes what it reads from.
        async with aclosing(cast("AsyncGenerator[Any, None]", stream)):
            async for chunk in stream:
                yield chunk
    except Exception as error:
        raise _known(error) from error


def _known(error: Exception) -> Exception:
    """Return an error of the SDKs or of a connection as it is; of anything else only that it happened."""
    for cause in (error, error.__cause__):
        match cause:
            case httpx.TimeoutException():
                return httpx2.ReadTimeout("")
            case httpx.TransportError():
                return httpx2.ReadError("")
            case Exception() if explain(cause).code not in UNKNOWN:
                return cause
    logger.warning("a runnable raised %s", type(error).__name__)
    return StreamError("runnable")


class _Answer:
    """Puts one answer together, chunk by chunk."""

    def __init__(self, sink: Sink, *, is_graph: bool) -> None:
        """`is_graph`: what is streamed are pairs of a message and its place; the calls in it are the graph's own."""
        self._sink = sink
        self._is_graph = is_graph
        self._reason = ""
        self._usage: UsageMetadata | None = None
        self._calls: dict[str, int] = {}
        """The number of a tool call by its id."""
        self._begun: dict[Any, int] = {}
        """The number of the call whose arguments go on under an index."""
        self._thoughts: list[dict[str, str]] = []

    def take(self, chunk: Any) -> None:
        """Take one chunk. Raises TypeError for what is neither text nor a message."""
        if self._is_graph:
            chunk, _ = chunk
        if isinstance(chunk, str):
            if chunk:
                self._sink.text(chunk)
        elif isinstance(chunk, AIMessage):
            self._message(chunk)
        elif not (self._is_graph and isinstance(chunk, BaseMessage)):
            raise TypeError("a runnable has to stream text or messages")

    def _message(self, message: AIMessage) -> None:
        if isinstance(message.content, str) and "reasoning_content" not in message.additional_kwargs:
            # Nearly every chunk; the blocks below cost twenty times as much.
            if message.content:
                self._sink.text(message.content)
        else:
            for block in message.content_blocks:
                self._block(block)
        if not self._is_graph:
            self._tool_calls(message)
        if message.usage_metadata is not None:
            self._usage = add_usage(self._usage, message.usage_metadata)
        told = message.response_metadata
        self._reason = told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason") or self._reason

    def _block(self, block: Any) -> None:
        match block["type"]:
            case "text" if block["text"]:
                self._sink.text(block["text"])
            case "reasoning":
                self._reasoning(block)
            case "non_standard" if block["value"].get("type") == "redacted_thinking":
                self._thoughts.append({"type": "redacted_thinking", "data": block["value"]["data"]})

    def _reasoning(self, block: Any) -> None:
        """Show a piece of thinking, and keep what its provider wants back: a signature, or the sealed thought."""
        text = block.get("reasoning") or ""
        if text:
            self._sink.reasoning(text)
        if sealed := block.get("encrypted_content"):
            self._thoughts.append({"type": "reasoning", "id": block.get("id") or "", "data": sealed, "text": text})
            return
        if not self._thoughts or self._thoughts[-1]["type"] != "thinking" or self._thoughts[-1]["signature"]:
            self._thoughts.append({"type": "thinking", "text": "", "signature": ""})
        self._thoughts[-1]["text"] += text
        self._thoughts[-1]["signature"] += (block.get("extras") or {}).get("signature") or ""

    def _tool_calls(self, message: AIMessage) -> None:
        if not isinstance(message, AIMessageChunk):
            for call in message.tool_calls:
                self._tool_call(call["id"], None, call["name"], dump(call["args"]).decode())
            return
        for piece in message.tool_call_chunks:
            self._tool_call(piece["id"], piece["index"], piece["name"], piece["args"] or "")

    def _tool_call(self, id: str | None, index: Any, name: str | None, arguments: str) -> None:
        if id and id not in self._calls:
            number = self._calls[id] = self._begun[index] = len(self._calls)
            self._sink.tool_call(number, arguments, id, name)
        elif arguments:
            number = self._calls[id] if id else self._begun.get(index, len(self._calls) - 1)
            self._sink.tool_call(number, arguments)

    def finish(self, *, tells_reason: bool) -> Finish:
        """Return how it ended. A clean end is the runnable's word for a whole answer, unless it has a better one."""
        if tells_reason and not self._reason:
            raise Truncated
        reason = word(self._reason or "stop")
        reason = REASONS.get(reason.lower(), reason)
        if self._calls and reason == "stop":
            reason = "tool_calls"
        signed = [thought for thought in self._thoughts if thought.get("signature") or thought.get("data")]
        return Finish(reason, None if self._usage is None else _usage(self._usage), signed)


def _usage(told: UsageMetadata) -> Usage | None:
    return Usage.told(
        input_tokens=told["input_tokens"],
        cached_input_tokens=(told.get("input_token_details") or {}).get("cache_read") or 0,
        output_tokens=told["output_tokens"],
        reasoning_tokens=(told.get("output_token_details") or {}).get("reasoning") or 0,
    )
