"""A conversation in the blocks of Anthropic's messages, as ours."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.faces.anthropic_thoughts import Given, Redacted, Thinking, Thoughts
from api.problems import refused
from shared.events import dump

Mark = dict[str, Any] | None
"""Where Anthropic's own service is to cache."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SystemText(_Strict):
    type: Literal["text"]
    text: str
    cache_control: Mark = None
    citations: list[Any] | None = None


class TextBlock(SystemText):
    """A text; of an answer, it may name what it cites of Anthropic's documents, and what the SDK has read in it."""

    parsed_output: Any = None


class Base64(_Strict):
    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class Url(_Strict):
    type: Literal["url"]
    url: str


class ImageBlock(_Strict):
    type: Literal["image"]
    source: Annotated[Base64 | Url, Field(discriminator="type")]
    cache_control: Mark = None

    def part(self) -> dict[str, Any]:
        source = self.source
        url = source.url if isinstance(source, Url) else f"data:{source.media_type};base64,{source.data}"
        return {"type": "image_url", "image_url": {"url": url}}


class ToolResult(_Strict):
    type: Literal["tool_result"]
    tool_use_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    content: str | list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]] | None = None
    is_error: bool | None = None
    toolset_name: None = None
    cache_control: Mark = None


class DirectCaller(_Strict):
    type: Literal["direct"]


class ToolUse(_Strict):
    type: Literal["tool_use"]
    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    input: dict[str, Any]
    caller: DirectCaller | None = None
    toolset_name: None = None
    cache_control: Mark = None

    def call(self) -> dict[str, Any]:
        return {"id": self.id, "name": self.name, "arguments": dump(self.input).decode()}


UserBlock = Annotated[TextBlock | ImageBlock | ToolResult, Field(discriminator="type")]
AssistantBlock = Annotated[TextBlock | Thinking | Redacted | ToolUse, Field(discriminator="type")]


class UserTurn(_Strict):
    role: Literal["user"]
    content: str | list[UserBlock]


class AssistantTurn(_Strict):
    role: Literal["assistant"]
    content: str | list[AssistantBlock]


class SystemTurn(_Strict):
    role: Literal["system"]
    content: str | list[SystemText]


Turn = Annotated[UserTurn | AssistantTurn | SystemTurn, Field(discriminator="role")]


def joined(blocks: Iterable[SystemText]) -> str:
    return "\n\n".join(block.text for block in blocks)


def messages(turns: Sequence[Turn], thoughts: Thoughts) -> list[dict[str, Any]]:
    """Return the conversation; `thoughts` puts back what was thought. Raises the problem of what it cannot be."""
    found: list[dict[str, Any]] = []
    for number, turn in enumerate(turns):
        match turn:
            case UserTurn():
                found += _user(turn, f"messages.{number}")
            case AssistantTurn():
                found += _assistant(turn, number, thoughts)
            case SystemTurn(content=content):
                found.append({"role": "system", "content": content if isinstance(content, str) else joined(content)})
        if not turn.content and not (turn.role == "assistant" and number == len(turns) - 1):
            raise refused("invalid_request", f"messages.{number}", "only a last message of the assistant may be empty")
    return found


def thoughts_of(turns: Sequence[Turn]) -> Iterator[Given]:
    """Yield the thinking that is given back, in its order."""
    for turn in turns:
        if isinstance(turn, AssistantTurn) and isinstance(turn.content, list):
            yield from (block for block in turn.content if isinstance(block, Thinking | Redacted))


def unfinished_from(turns: Sequence[Turn]) -> int:
    """Return where the turn begins that still goes on: behind the last message that is more than results of tools."""
    for number in range(len(turns) - 1, -1, -1):
        turn = turns[number]
        if isinstance(turn, UserTurn) and not _only_results(turn):
            return number + 1
    return 0


def _only_results(turn: UserTurn) -> bool:
    return isinstance(turn.content, list) and all(isinstance(block, ToolResult) for block in turn.content)


def _user(turn: UserTurn, path: str) -> list[dict[str, Any]]:
    """Results are messages of their own; the pictures among them are shown by the user, behind all results."""
    if isinstance(turn.content, str):
        return [{"role": "user", "content": turn.content}]
    results: list[dict[str, Any]] = []
    shown: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for number, block in enumerate(turn.content):
        match block:
            case ToolResult():
                if said:
                    raise refused("invalid_request", f"{path}.content.{number}", "results of tools have to come first")
                results.append(_result(block))
                shown += _pictures(block)
            case ImageBlock():
                said.append(block.part())
            case TextBlock(text=text):
                said.append({"type": "text", "text": text})
    parts = shown + said
    return results + ([{"role": "user", "content": parts}] if parts else [])


PICTURE: Final = "(an image, below)"


def _result(block: ToolResult) -> dict[str, Any]:
    content = block.content or ""
    if isinstance(content, list):
        content = "".join(part.text for part in content if isinstance(part, TextBlock)) or PICTURE
    failed = {"is_error": True} if block.is_error else {}
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content, **failed}


def _pictures(block: ToolResult) -> list[dict[str, Any]]:
    parts = block.content if isinstance(block.content, list) else []
    pictures = [part.part() for part in parts if isinstance(part, ImageBlock)]
    return [{"type": "text", "text": f"(the result of {block.tool_use_id})"}, *pictures] if pictures else []


def _assistant(turn: AssistantTurn, number: int, thoughts: Thoughts) -> list[dict[str, Any]]:
    """A thought behind the text begins a message of its own: its place matters to whoever has thought it."""
    if isinstance(turn.content, str):
        return [{"role": "assistant", "content": turn.content}] if turn.content else []
    given = {i: block for i, block in enumerate(turn.content) if isinstance(block, Thinking | Redacted)}
    thought = thoughts.of(given, number)
    found = [_said()]
    for i, block in enumerate(turn.content):
        match block:
            case TextBlock(text=text):
                found[-1]["content"] += text
            case ToolUse():
                found[-1]["tool_calls"].append(block.call())
            case _:
                if found[-1]["content"] and not found[-1]["tool_calls"]:
                    found.append(_said())
                found[-1]["reasoning_blocks"] += thought[i]
    return [
        message for message in found if any(message[name] for name in ("content", "tool_calls", "reasoning_blocks"))
    ]


def _said() -> dict[str, Any]:
    return {"role": "assistant", "content": "", "tool_calls": [], "reasoning_blocks": []}
