"""A request in the words of OpenAI's chat completions, and of every server that speaks them."""

from typing import Any, Final

from shared.messages import FlatCall, ImagePart, Message
from shared.requests import JobRequest
from shared.tools import Function, Named

CONTINUE: Final = {"continue_final_message": True, "add_generation_prompt": False}
"""vLLM's words for: go on from the last message instead of answering it."""


def body(request: JobRequest, *, limit: str, continues: bool) -> dict[str, Any]:
    """Return the body of the call. `limit`: what this server calls the most tokens of an answer."""
    messages = [_message(message) for message in request.messages]
    if request.system is not None:
        messages.insert(0, {"role": "system", "content": request.system})
    optional = {
        limit: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": request.stop or None,
        "seed": request.seed,
        "tools": [tool(function) for function in request.tools] or None,
        "tool_choice": _choice(request) if request.tools else None,
        "response_format": response_format(request),
        "reasoning_effort": request.reasoning.effort if request.reasoning else None,
    }
    return {
        "model": request.model,
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
        **(CONTINUE if continues and messages[-1]["role"] == "assistant" else {}),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _message(message: Message) -> dict[str, Any]:
    translated: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.tool_calls:
        translated["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id is not None:
        translated["tool_call_id"] = message.tool_call_id
    return translated


def _content(message: Message) -> Any:
    if not message.images():
        return None if message.content is None else message.result()
    assert isinstance(message.content, list)
    return [
        {"type": "image_url", "image_url": part.image_url.model_dump(exclude_none=True)}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in message.content
    ]


def _call(call: FlatCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def tool(function: Function) -> dict[str, Any]:
    return {"type": "function", "function": function.model_dump(exclude_none=True)}


def response_format(request: JobRequest) -> dict[str, Any] | None:
    if request.json_format is None:
        return None
    return request.json_format.model_dump(by_alias=True, exclude_none=True)


def _choice(request: JobRequest) -> Any:
    if isinstance(request.tool_choice, Named):
        return {"type": "function", "function": {"name": request.tool_choice.name}}
    return request.tool_choice
