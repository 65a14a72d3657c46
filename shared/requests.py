"""What a client may ask for: the body of `POST /v1/jobs`, checked before anything is queued."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StringConstraints, model_validator

from shared.messages import MAX_IMAGES, STRICT, Message, Strict, unanswered
from shared.tools import Named, ResponseFormat, Tool, ToolChoice

MAX_MESSAGES = 2_000
MAX_TOOLS = 128
MAX_FALLBACKS = 5
MAX_METADATA = 16
"""As in the OpenAI API: 16 pairs, names of 64 and values of 512 characters."""


def _printable(value: str) -> str:
    if not value.isprintable():
        raise ValueError("control characters are not allowed")
    return value


Name = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_printable)]
Stop = Annotated[str, StringConstraints(min_length=1, max_length=1_000)]


class Reasoning(Strict):
    effort: Literal["none", "minimal", "low", "medium", "high"]


class Fallback(Strict):
    provider: Name
    model: Name


class JobRequest(BaseModel):
    """One generation. Only `provider`, `model` and `messages` are needed; anything unknown is refused."""

    model_config = STRICT

    provider: Name
    model: Name
    messages: Annotated[list[Message], Field(min_length=1, max_length=MAX_MESSAGES)]
    system: str | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: Annotated[
        list[Stop],
        Field(max_length=16),
        BeforeValidator(
            lambda value: [value] if isinstance(value, str) else value,
            json_schema_input_type=Stop | Annotated[list[Stop], Field(max_length=16)],
        ),
    ] = []
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] = []
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None
    reasoning: Reasoning | None = None
    fallbacks: Annotated[list[Fallback], Field(max_length=MAX_FALLBACKS)] = []
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

    def fingerprint(self, face: Mapping[str, Any] | None = None) -> str:
        """Return a hash of all that is asked for: the same for bodies that differ only in how they are written.

        `face`: what another API has asked for beside it.
        """
        asked = self.model_dump(mode="json", exclude_defaults=True, by_alias=True)
        if face is not None:
            asked["face"] = dict(face)
        return hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def at_most(self, max_tokens: int) -> "JobRequest":
        """Return the same request for an answer of so many tokens at most."""
        if self.max_tokens is not None and self.max_tokens <= max_tokens:
            return self
        return self.model_copy(update={"max_tokens": max_tokens})

    @model_validator(mode="after")
    def _fits_together(self) -> "JobRequest":
        names = [tool.name for tool in self.tools]
        if len(set(names)) < len(names):
            raise ValueError("tools: two have the same name")
        if isinstance(self.tool_choice, Named) and self.tool_choice.name not in names:
            raise ValueError("tool_choice: names none of the tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice: there are no tools")
        if unanswered(self.messages) is not None:
            raise ValueError("messages: a tool_call_id answers no tool call before it")
        if sum(len(message.images()) for message in self.messages) > MAX_IMAGES:
            raise ValueError(f"messages: more than {MAX_IMAGES} images")
        return self

    @property
    def json_format(self) -> ResponseFormat | None:
        """The shape of an answer that is to be JSON; None for text."""
        return self.response_format if self.response_format is not None and self.response_format.is_json else None

    @property
    def thinks(self) -> bool:
        return self.reasoning is not None and self.reasoning.effort != "none"

    @property
    def only_text(self) -> bool:
        """Say whether the answer is text alone, so that another attempt can go on from its beginning."""
        return not (self.tools or self.thinks)

    def asked_of(self, provider: str, model: str) -> "JobRequest":
        """Return the same request to another provider or model."""
        if (provider, model) == (self.provider, self.model):
            return self
        return self.model_copy(update={"provider": provider, "model": model})

    def continued_from(self, text: str) -> "JobRequest":
        """Return the request for the rest of an answer that begins with `text`."""
        left = None if self.max_tokens is None else max(1, self.max_tokens - -(-len(text) // 4))
        messages = [*self.messages, Message(role="assistant", content=text)]
        return self.model_copy(update={"messages": messages, "max_tokens": left})

    def input_estimate(self) -> int:
        """Guess the tokens of the input: four characters each."""
        tools = sum(len(tool.model_dump_json()) for tool in self.tools)
        characters = len(self.system or "") + tools
        return -(-characters // 4) + sum(message.token_estimate() for message in self.messages)
