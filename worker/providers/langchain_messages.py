"""A conversation as LangChain's messages."""

from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolCall, ToolMessage

from shared.events import load
from shared.messages import Block, FlatCall, ImagePart, Message
from shared.requests import JobRequest


def messages(request: JobRequest) -> list[BaseMessage]:
    """Return the request's messages, its instructions first."""
    said = [_message(message) for message in request.messages]
    return said if request.system is None else [SystemMessage(request.system), *said]


def _message(message: Message) -> BaseMessage:
    match message.role:
        case "system":
            return SystemMessage(message.text())
        case "user":
            return HumanMessage(_content(message))
        case "tool":
            status: Literal["success", "error"] = "error" if message.is_error else "success"
            return ToolMessage(message.text(), tool_call_id=message.tool_call_id, status=status)
    return AIMessage(_thought(message), tool_calls=[_call(call) for call in message.tool_calls])


def _content(message: Message) -> Any:
    if not message.images():
        return message.text()
    assert isinstance(message.content, list)
    # OpenAI's shape of an image: every chat model of LangChain takes it and translates it.
    return [
        {"type": "image_url", "image_url": part.image_url.model_dump(exclude_none=True)}
        if isinstance(part, ImagePart)
        else {"type": "text", "text": part.text}
        for part in message.content
    ]


def _thought(message: Message) -> Any:
    """Return an answer's content, behind the thoughts that led to it."""
    text = message.text()
    if not message.reasoning_blocks:
        return text
    return [*map(_block, message.reasoning_blocks), *([{"type": "text", "text": text}] if text else [])]


def _block(block: Block) -> dict[str, Any]:
    """Return a thought in the words of the provider that signed it."""
    match block.type:
        case "thinking":
            return {"type": "thinking", "thinking": block.text, "signature": block.signature or ""}
        case "redacted_thinking":
            return {"type": "redacted_thinking", "data": block.data or ""}
    summary = [{"type": "summary_text", "text": block.text}] if block.text else []
    return {"type": "reasoning", "id": block.id, "encrypted_content": block.data, "summary": summary}


def _call(call: FlatCall) -> ToolCall:
    return ToolCall(name=call.name, args=load(call.arguments.encode() or b"{}"), id=call.id, type="tool_call")
