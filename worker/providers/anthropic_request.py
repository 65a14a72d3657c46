"""A request in the words of Anthropic's messages."""

from typing import Any, Final

from anthropic import transform_schema

from shared.claude import LEAST_BUDGET, Claude, claude, json_way
from shared.events import dump, load
from shared.messages import Block, ImagePart, Message
from shared.requests import JobRequest
from shared.tools import Function, Named

DEFAULT_MAX_TOKENS: Final = 4096
"""Anthropic's API requires a limit; every model of today accepts this one."""

BUDGETS: Final = {"minimal": LEAST_BUDGET, "low": 2_048, "medium": 8_192, "high": 16_384}
"""Tokens of thinking for an effort; it has to stay below `max_tokens`."""

EFFORTS: Final = {"minimal": "low", "low": "low", "medium": "medium", "high": "high"}
"""An effort in the words of models that think as they see fit; `high` is their default."""

JSON_TOOL: Final = {
    "name": "answer",
    "description": "Give the answer as one JSON object.",
    "input_schema": {"type": "object", "additionalProperties": True},
}


def body(request: JobRequest) -> dict[str, Any]:
    """Return the body of the call."""
    known = claude(request.model)
    system = [request.system] if request.system is not None else []
    system += [message.text() for message in request.messages if message.role == "system"]
    if json_way(request) == "words":
        system.append(_in_words(request))
    effort = _effort(request, known)
    room = BUDGETS[effort] if effort else 0
    most = request.max_tokens or DEFAULT_MAX_TOKENS + room
    optional = {
        "system": "\n\n".join(system) or None,
        "stop_sequences": request.stop or None,
        # The SDK's own methods have dropped these two; the API takes them for the models that sample.
        "temperature": request.temperature if known.samples else None,
        "top_p": request.top_p if known.samples else None,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request) if request.tools else None,
        **_forced_tool(request),
        "thinking": _thinking(request, known, min(room, most - 1)),
        "output_config": _output_config(request, known) or None,
    }
    return {
        "model": request.model,
        "messages": _messages(request.messages),
        "max_tokens": most,
        "stream": True,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _is_adaptive(known: Claude) -> bool:
    return known.thinking == "adaptive"


def _effort(request: JobRequest, known: Claude) -> str | None:
    """Return how hard the model will think, asked or not; None when it does not."""
    if request.reasoning is not None:
        return request.reasoning.effort if request.thinks else None
    return "high" if known.always_thinks else None


def _thinking(request: JobRequest, known: Claude, budget: int) -> dict[str, Any] | None:
    """Ask for thoughts that can be read: newer models leave them out unless told, and look dead meanwhile."""
    if request.reasoning is not None and not request.thinks:
        return {"type": known.off} if known.off in ("disabled", "between_tools") else None
    if not (request.thinks or known.always_thinks):
        return None
    if _is_adaptive(known):
        return {"type": "adaptive", "display": "summarized"}
    return {"type": "enabled", "budget_tokens": budget}


def _output_config(request: JobRequest, known: Claude) -> dict[str, Any]:
    """Return what the answer is to be like: its schema, and the effort that goes into it."""
    wanted: dict[str, Any] = {}
    if request.reasoning is not None and request.thinks and _is_adaptive(known):
        wanted["effort"] = EFFORTS[request.reasoning.effort]
    if json_way(request) == "schema" and request.json_format is not None:
        wanted["format"] = {"type": "json_schema", "schema": transform_schema(request.json_format.schema_value or {})}
    return wanted


def _forced_tool(request: JobRequest) -> dict[str, Any]:
    """Ask for JSON by a tool that has to be called and takes any object."""
    if json_way(request) != "tool":
        return {}
    return {"tools": [JSON_TOOL], "tool_choice": {"type": "tool", "name": JSON_TOOL["name"]}}


def _in_words(request: JobRequest) -> str:
    """Ask for JSON of models that cannot be forced. The answer is checked in the end, as every one is."""
    asked = "Answer with one JSON object and nothing else: no words before or after it, no code fence."
    schema = request.json_format.schema_value if request.json_format is not None else None
    if schema is None:
        return asked
    wanted = dump(schema).decode()
    return f"Answer with JSON that fits this schema and nothing else, no code fence: {wanted}"


def _messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Translate all but the system's; results of tools that follow each other are one turn of the user."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        if message.role == "system":
            continue
        if message.role == "tool":
            result = _result(message)
            if turns and turns[-1]["role"] == "user" and isinstance(turns[-1]["content"], list):
                turns[-1]["content"].append(result)
            else:
                turns.append({"role": "user", "content": [result]})
        else:
            turns.append({"role": message.role, "content": _content(message)})
    return turns


def _result(message: Message) -> dict[str, Any]:
    failed = {"is_error": True} if message.is_error else {}
    return {"type": "tool_result", "tool_use_id": message.tool_call_id, "content": message.text(), **failed}


def _content(message: Message) -> Any:
    if not (message.images() or message.tool_calls or message.reasoning_blocks):
        return message.text()
    # Another provider's thoughts are no use here.
    parts: list[dict[str, Any]] = [_block(block) for block in message.reasoning_blocks if block.type != "reasoning"]
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
