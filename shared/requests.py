"""What a client may ask for: the body of `POST /v1/jobs`, checked before anything is queued."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_MESSAGES = 2_000
MAX_METADATA = 16
"""As in the OpenAI API: 16 pairs, names of 64 and values of 512 characters."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Strict):
    type: Literal["text"]
    text: str


class Message(_Strict):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str | list[TextPart], Field(union_mode="left_to_right")]

    def text(self) -> str:
        """Return the content as one string."""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class Reasoning(_Strict):
    effort: Literal["none", "minimal", "low", "medium", "high"]


class Fallback(_Strict):
    provider: Name
    model: Name


class JobRequest(_Strict):
    """One generation. Only `provider`, `model` and `messages` are needed; anything unknown is refused."""

    provider: Name
    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Annotated[
        list[Annotated[str, StringConstraints(min_length=1, max_length=1_000)]],
        Field(max_length=16),
        BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    ] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    tools: list[dict[str, Any]] = []
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    reasoning: Reasoning | None = None
    fallbacks: list[Fallback] = []
    on_worker_lost: Literal["restart", "fail", "continue"] = "restart"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    disconnect_grace_s: Annotated[float, Field(ge=0, le=3600)] = 15
    timeout_s: Annotated[float, Field(gt=0, le=86_400)] | None = None
    priority: Literal["low", "normal", "high"] = "normal"
    metadata: Annotated[
        dict[
            Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)],
            Annotated[str, StringConstraints(max_length=512), AfterValidator(_printable)],
        ],
        Field(max_length=MAX_METADATA),
    ] = {}

    @property
    def leave_grace_s(self) -> float | None:
        """How long nobody may read the job before it is cancelled; None when that is no reason."""
        return self.disconnect_grace_s if self.on_disconnect == "cancel" else None

    def unsupported(self) -> str | None:
        """Name the first field that asks for what is not built yet: refused, never ignored."""
        asked = {
            "tools": bool(self.tools),
            "tool_choice": self.tool_choice not in (None, "auto", "none"),
            "response_format": self.response_format not in (None, {"type": "text"}),
            "reasoning": self.reasoning is not None,
            "fallbacks": bool(self.fallbacks),
            "priority": self.priority != "normal",
        }
        return next((name for name, is_asked in asked.items() if is_asked), None)

    def continued_from(self, text: str) -> "JobRequest":
        """Return the request for the rest of an answer that begins with `text`."""
        left = None if self.max_tokens is None else max(1, self.max_tokens - -(-len(text) // 4))
        messages = [*self.messages, Message(role="assistant", content=text)]
        return self.model_copy(update={"messages": messages, "max_tokens": left})

    def input_estimate(self) -> int:
        """Guess the tokens of the input: four characters each."""
        characters = len(self.system or "") + sum(len(message.text()) for message in self.messages)
        return -(-characters // 4)
