"""LangChain runnables as an operator may have them, answered by the scripted provider."""

from collections.abc import AsyncIterator
from typing import Any

import httpx2
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import ConfigurableField, Runnable, RunnableConfig, RunnableGenerator
from openai import AsyncOpenAI

base_url = ""
"""Where the scripted provider is; set by whoever has started it."""


class Chat(BaseChatModel):
    """A chat model over the OpenAI SDK, as `langchain-openai` has one."""

    model: str = "unset"

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError

    def bind_tools(self, tools: Any, *, tool_choice: str | None = None, **kwargs: Any) -> Runnable:
        choice: Any = {"any": "required"}.get(tool_choice or "", tool_choice)
        if choice not in (None, "auto", "none", "required"):
            choice = {"type": "function", "function": {"name": choice}}
        return self.bind(tools=tools, **({} if choice is None else {"tool_choice": choice}), **kwargs)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked: dict[str, Any] = {
            "model": self.model,
            "messages": convert_to_openai_messages(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **({"stop": stop} if stop else {}),
            **kwargs,
        }
        async with (
            AsyncOpenAI(
                base_url=base_url,
                api_key="sk-canary-openai",
                max_retries=0,
                http_client=httpx2.AsyncClient(verify=False, trust_env=False),
            ) as client,
            await client.chat.completions.create(**asked) as chunks,
        ):
            async for chunk in chunks:
                yield ChatGenerationChunk(message=_message(chunk.model_dump()))


def _message(chunk: dict[str, Any]) -> AIMessageChunk:
    choice = (chunk["choices"] or [{}])[0]
    delta = choice.get("delta") or {}
    message = AIMessageChunk(content=delta.get("content") or delta.get("refusal") or "")
    if thought := delta.get("reasoning_content"):
        message.additional_kwargs["reasoning_content"] = thought
    if reason := choice.get("finish_reason"):
        message.response_metadata["finish_reason"] = reason
    message.tool_call_chunks = [
        {
            "type": "tool_call_chunk",
            "index": call["index"],
            "id": call.get("id"),
            "name": call["function"].get("name"),
            "args": call["function"].get("arguments"),
        }
        for call in delta.get("tool_calls") or ()
    ]
    if usage := chunk.get("usage"):
        message.usage_metadata = {
            "input_tokens": usage["prompt_tokens"],
            "output_tokens": usage["completion_tokens"],
            "total_tokens": usage["total_tokens"],
            "input_token_details": {"cache_read": usage["prompt_tokens_details"]["cached_tokens"]},
            "output_token_details": {"reasoning": usage["completion_tokens_details"]["reasoning_tokens"]},
        }
    return message


chat = Chat().configurable_fields(model=ConfigurableField(id="model"))
"""One runnable for any model, as `init_chat_model` gives one."""


async def _texts(inputs: AsyncIterator[Any], config: RunnableConfig) -> AsyncIterator[str]:
    async for messages in inputs:
        async for chunk in chat.astream(messages, config):
            if text := str(chunk.text):
                yield text


chain: Runnable[Any, str] = RunnableGenerator(_texts)  # type: ignore[arg-type]
"""A chain that ends in text. (LangChain gives it the config if it takes one; its types do not say so.)"""
