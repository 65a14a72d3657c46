"""A request in the words of Anthropic's messages."""

from typing import Any, Final

from anthropic import transform_schema

from shared.capabilities import LEAST_THINKING, forced_json
from shared.events import load
from shared.messages import Block, ImagePart, Message
from shared.requests import JobRequest
from shared.tools import Function, Named

DEFAULT_MAX_TOKENS: Final = 4096
"""Anthropic's API requires a limit; every model of today accepts this one."""

BUDGETS: Final = {"minimal": LEAST_THINKING, "low": 2_048, "medium": 8_192, "high": 16_384}
"""Tokens of thinking for an effort; it has to stay below `max_tokens`."""


JSON_TOOL: Final = {
    "name": "answer",
    "description": "Give the answer as one JSON object.",
    "input_schema": {"type": "object", "additionalProperties": True},
}


def body(request: JobRequest) -> dict[str, Any]:
    """Return the body of the call."""
    system = [request.system] if request.system is not None else []
    system += [message.text() for message in request.messages if message.role == "system"]
    budget = BUDGETS[request.reasoning.effort] if request.thinks and request.reasoning else 0
    most = request.max_tokens or DEFAULT_MAX_TOKENS + budget
    optional = {
        "system": "\n\n".join(system) or None,
        "stop_sequences": request.stop or None,
        # The SDK's own methods have dropped these two; the API takes them for the models that sample.
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request) if request.tools else None,
        **_format(request),
        "thinking": {"type": "enabled", "budget_tokens": min(budget, most - 1)} if budget else None,
    }
    return {
        "model": request.model,
        "messages": _messages(request.messages),
        "max_tokens": most,
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _format(request: JobRequest) -> dict[str, Any]:
    """Ask for JSON: by a schema, or by a tool that has to be called and takes any object."""
    if request.json_format is None:
        return {}
    if forced_json(request):
        return {"tools": [JSON_TOOL], "tool_choice": {"type": "tool", "name": JSON_TOOL["name"]}}
    schema = transform_schema(request.json_format.schema_value or {})
    return {"output_config": {"format": {"type": "json_schema", "schema": schema}}}


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Translate all but the system's; results of tools that follow each other are one turn of the user."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            result = {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text()}
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"].append(result)
            else:
                turns.append({"role": "user", "content": [result]})
        else:
            turns.append({"role": message.role, "content": _content(message)})
    return turns


def _content(message: Message) -> Any:
    if not (message.images() or message.tool_calls or message.reasoning_blocks):
        return message.text()
    parts: list[dict[str, Any]] = [_block(block) for block in message.reasoning_blocks]
    if isinstance(message.content, list):
        parts += [
            _image(part) if isinstance(part, ImagePart) else {"type": "text", "text": part.text}
            for part in message.content
        ]
    elif message.content:
        parts.append({"type": "text", "text": message.content})
    parts += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": load(call.arguments.encode() or b"{}")}
        for call in message.tool_calls
    ]
    return parts


def _block(block: Block) -> dict[str, Any]:
    if block.type == "redacted_thinking":
        return {"type": "redacted_thinking", "data": block.data or ""}
    return {"type": "thinking", "thinking": block.text, "signature": block.signature or ""}


def _image(part: ImagePart) -> dict[str, Any]:
    if (data := part.data()) is not None:
        return {"type": "image", "source": {"type": "base64", "media_type": data[0], "data": data[1]}}
    return {"type": "image", "source": {"type": "url", "url": part.image_url.url}}


def _tool(tool: Function) -> dict[str, Any]:
    described = {"description": tool.description, "strict": tool.strict}
    return {
        "name": tool.name,
        "input_schema": {"type": "object", **tool.parameters},
        **{name: value for name, value in described.items() if value is not None},
    }


def _choice(request: JobRequest) -> Any:
    match request.tool_choice:
        case Named(name=name):
            return {"type": "tool", "name": name}
        case "required":
            return {"type": "any"}
        case None:
            return None
    return {"type": request.tool_choice}
