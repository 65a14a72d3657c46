"""The conversation of a request, in one neutral shape that each provider's file translates.

It is the OpenAI chat shape, as most know it; a job's own `tool_calls` and `reasoning_blocks` can be given back as they
are.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, field_validator, model_validator

MAX_IMAGES: Final = 100
IMAGE_TOKENS: Final = 1_000
"""What an image counts for in an estimate: about a full screenshot at the larger providers."""

_DATA_URL: Final = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+={0,2}")


# (Errors would quote what they were given, wherever they are logged.)
STRICT: Final = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Strict(BaseModel):
    """Takes what it names, and nothing else."""

    model_config = STRICT


class TextPart(Strict):
    type: Literal["text"]
    text: str


class ImageUrl(Strict):
    url: str
    detail: Literal["auto", "low", "high"] | None = None

    @field_validator("url")
    @classmethod
    def _check(cls, url: str) -> str:
        if not (_DATA_URL.fullmatch(url) or re.fullmatch(r"https?://[^\s\"<>\\^`{|}\x00-\x1f]+", url)):
            raise ValueError("expected https://… or data:image/png;base64,… (png, jpeg, gif, webp)")
        return url


class ImagePart(Strict):
    type: Literal["image_url"]
    image_url: Annotated[
        ImageUrl,
        BeforeValidator(
            lambda value: {"url": value} if isinstance(value, str) else value, json_schema_input_type=ImageUrl | str
        ),
    ]

    def data(self) -> tuple[str, str] | None:
        """Return media type and base64 of an image that came along; None for one that the provider fetches."""
        head, comma, payload = self.image_url.url.partition(",")
        if not comma or not head.startswith("data:"):
            return None
        return head.removeprefix("data:").removesuffix(";base64"), payload


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


def _flat_call(value: Any) -> Any:
    """Take OpenAI's nested tool call as well as the flat one of a job."""
    if isinstance(value, dict):
        flat = {name: item for name, item in value.items() if name not in ("type", "function", "index")}
        return {**flat, **value["function"]} if isinstance(value.get("function"), dict) else flat
    return value


class FlatCall(Strict):
    id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    arguments: str


class GivenCall(FlatCall):
    """One as it stands in a job."""

    index: int | None = None


class CalledFunction(Strict):
    name: str
    arguments: str


class NestedCall(Strict):
    """The same as OpenAI has it. (For the document: it is read as a flat one.)"""

    id: str
    type: Literal["function"]
    function: CalledFunction
    index: int | None = None


ToolCall = Annotated[FlatCall, BeforeValidator(_flat_call, json_schema_input_type=GivenCall | NestedCall)]


class Block(Strict):
    """One block of thinking as its provider wants it back: readable and signed, or sealed."""

    type: Literal["thinking", "redacted_thinking", "reasoning"]
    text: str = ""
    signature: str | None = None
    data: str | None = None
    id: str | None = None


class Message(Strict):
    role: Literal["system", "user", "assistant", "tool"]
    content: Annotated[str | list[Part], Field(union_mode="left_to_right")] | None = None
    tool_calls: list[ToolCall] = []
    tool_call_id: str | None = None
    is_error: bool = False
    """Whether this result of a tool says how it failed."""
    reasoning_blocks: list[Block] = []

    @model_validator(mode="after")
    def _check(self) -> "Message":
        if self.content is None and not self.tool_calls:
            raise ValueError("content is missing")
        if self.role != "assistant" and (self.tool_calls or self.reasoning_blocks):
            raise ValueError("only the assistant has tool_calls and reasoning_blocks")
        if (self.role == "tool") != (self.tool_call_id is not None):
            raise ValueError("tool_call_id belongs to role tool")
        if self.is_error and self.role != "tool":
            raise ValueError("is_error belongs to role tool")
        if self.role != "user" and self.images():
            raise ValueError("only the user's messages have images")
        return self

    def text(self) -> str:
        """Return the content as one string."""
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or () if isinstance(part, TextPart))

    def result(self) -> str:
        """Return a tool's result for providers that have no other place for its failure than its words."""
        return f"Error: {self.text()}" if self.is_error else self.text()

    def images(self) -> list[ImagePart]:
        return [part for part in self.content if isinstance(part, ImagePart)] if isinstance(self.content, list) else []

    def token_estimate(self) -> int:
        """Guess the tokens: four characters each."""
        characters = len(self.text()) + sum(len(call.name) + len(call.arguments) for call in self.tool_calls)
        return -(-characters // 4) + IMAGE_TOKENS * len(self.images())


def unanswered(messages: list[Message]) -> str | None:
    """Return the id of the first tool result that answers no call before it; every provider refuses those."""
    known: set[str] = set()
    for message in messages:
        known |= {call.id for call in message.tool_calls}
        if message.tool_call_id is not None and message.tool_call_id not in known:
            return message.tool_call_id
    return None
