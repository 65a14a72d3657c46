"""A request in the words of OpenAI's Responses."""

from typing import Any, Final

from shared.messages import Block, FlatCall, ImagePart, Message
from shared.requests import JobRequest
from shared.tools import Function, Named

ALWAYS: Final[dict[str, Any]] = {
    "background": True,
    "stream": True,
    # What is not stored cannot be listened to again.
    "store": True,
    # Padding against those who guess tokens from the lengths of packets: it would be most of the bytes.
    "stream_options": {"include_obfuscation": False},
}


def body(request: JobRequest) -> dict[str, Any]:
    """Return the body of the call."""
    items = [item for message in request.messages for item in _items(message)]
    if request.system is not None:
        # Not as `instructions`: JSON has to be mentioned among the messages, by whoever asks for it.
        items.insert(0, {"role": "system", "content": request.system})
    optional = {
        "max_output_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": [_tool(tool) for tool in request.tools] or None,
        "tool_choice": _choice(request) if request.tools else None,
        "text": _format(request),
        **_reasoning(request),
    }
    return {
        "model": request.model,
        "input": items,
        **ALWAYS,
        **{name: value for name, value in optional.items() if value is not None},
    }


def _items(message: Message) -> list[dict[str, Any]]:
    """Translate one message; what an assistant thought, said and called are items of their own."""
    if message.role == "tool":
        return [{"type": "function_call_output", "call_id": message.tool_call_id, "output": message.result()}]
    items = [_block(block) for block in message.reasoning_blocks if block.type == "reasoning"]
    if message.content is not None:
        items.append({"role": message.role, "content": _content(message)})
    return items + [_call(call) for call in message.tool_calls]


def _content(message: Message) -> Any:
    if not message.images():
        return message.text()
    assert isinstance(message.content, list)
    return [
        _image(part) if isinstance(part, ImagePart) else {"type": "input_text", "text": part.text}
        for part in message.content
    ]


def _image(part: ImagePart) -> dict[str, Any]:
    return {"type": "input_image", "image_url": part.image_url.url, "detail": part.image_url.detail or "auto"}


def _block(block: Block) -> dict[str, Any]:
    """Give a thought back: under seal where it came so, else by the name that it is stored under."""
    summary = [{"type": "summary_text", "text": block.text}] if block.text else []
    sealed = {} if block.data is None else {"encrypted_content": block.data}
    return {"type": "reasoning", "id": block.id, "summary": summary, **sealed}


def _call(call: FlatCall) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}


def _tool(tool: Function) -> dict[str, Any]:
    # Strict unless told otherwise, here alone.
    return {"type": "function", **tool.model_dump(exclude_none=True), "strict": bool(tool.strict)}


def _choice(request: JobRequest) -> Any:
    if isinstance(request.tool_choice, Named):
        return {"type": "function", "name": request.tool_choice.name}
    return request.tool_choice


def _format(request: JobRequest) -> dict[str, Any] | None:
    if request.json_format is None:
        return None
    schema = request.json_format.json_schema
    described = {} if schema is None else schema.model_dump(by_alias=True, exclude_none=True)
    return {"format": {"type": request.json_format.type, **described}}


def _reasoning(request: JobRequest) -> dict[str, Any]:
    """Ask for thinking, for what may be shown of it, and for the seal by which any later turn can give it back."""
    if request.reasoning is None:
        return {}
    if not request.thinks:
        return {"reasoning": {"effort": "none"}}
    effort = {"effort": request.reasoning.effort, "summary": "auto"}
    # Models that do not think refuse the seal: it is asked for with the thinking only.
    return {"reasoning": effort, "include": ["reasoning.encrypted_content"]}
