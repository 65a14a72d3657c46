"""The body of `POST /v1/messages` as a job's request."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.faces.anthropic_messages_turns import SystemText, Turn, joined, messages
from api.faces.anthropic_thoughts import Thoughts
from api.faces.extras import Extras, job_request
from api.faces.target import Target
from api.problems import refused
from shared.requests import JobRequest

STRICT: Final = ConfigDict(extra="forbid", strict=True)

LEAST_BUDGET: Final = 1_024

BUDGETS: Final = {"high": 16_384, "medium": 8_192, "low": 2_048, "minimal": LEAST_BUDGET}
"""The effort that a budget of thinking stands for: the most that it has room for."""

EFFORTS: Final = {"xhigh": "high", "max": "high"}
"""Efforts beyond the highest that every provider has."""


class _Strict(BaseModel):
    model_config = STRICT


class Enabled(_Strict):
    type: Literal["enabled"]
    budget_tokens: Annotated[int, Field(ge=LEAST_BUDGET)]
    display: Literal["summarized", "omitted"] | None = None


class Adaptive(_Strict):
    type: Literal["adaptive"]
    display: Literal["summarized", "omitted"] | None = None


class Disabled(_Strict):
    type: Literal["disabled"]


Thinking = Annotated[Enabled | Adaptive | Disabled, Field(discriminator="type")]


class JsonFormat(_Strict):
    type: Literal["json_schema"]
    schema_: Annotated[dict[str, Any], Field(alias="schema")]


class OutputConfig(_Strict):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonFormat | None = None


class CustomTool(_Strict):
    """A tool of the client's own. Those that Anthropic runs itself have other types."""

    type: Literal["custom"] | None = None
    name: str
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None

    # As they would be if nobody had set them.
    allowed_callers: list[Literal["direct"]] | None = None
    defer_loading: Literal[False] | None = None
    input_examples: Annotated[list[Any], Field(max_length=0)] | None = None

    # How Anthropic's own service sends and bills it.
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None

    def function(self) -> dict[str, Any]:
        described = {"description": self.description, "strict": self.strict}
        given = {name: value for name, value in described.items() if value is not None}
        return {"name": self.name, "parameters": self.input_schema, **given}


class _Choice(_Strict):
    disable_parallel_tool_use: Literal[False] | None = None


class Auto(_Choice):
    type: Literal["auto"]


class AnyTool(_Choice):
    type: Literal["any"]


class OneTool(_Choice):
    type: Literal["tool"]
    name: str


class NoTool(_Choice):
    type: Literal["none"]


Choice = Annotated[Auto | AnyTool | OneTool | NoTool, Field(discriminator="type")]


class Prompt(_Strict):
    """What an answer is to be given to."""

    model: str
    messages: list[Turn]
    system: str | list[SystemText] | None = None
    tools: list[CustomTool] | None = None
    tool_choice: Choice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None

    def job(self, target: Target, thoughts: Thoughts, **more: Any) -> JobRequest:
        """Return the job to create; raise the problem of what it cannot be."""
        effort = self.effort(asks_anthropic=thoughts.wanted)
        return job_request(
            provider=target.provider,
            model=target.model,
            messages=messages(self.messages, thoughts),
            system=joined(self.system) if isinstance(self.system, list) else self.system,
            tools=None if self.tools is None else [tool.function() for tool in self.tools],
            tool_choice=self._choice(),
            response_format=self._format(),
            reasoning=None if effort is None else {"effort": effort},
            **more,
        )

    @property
    def thinks(self) -> bool:
        return self.thinking is not None and self.thinking.type != "disabled"

    @property
    def shows_thinking(self) -> bool:
        return not isinstance(self.thinking, Enabled | Adaptive) or self.thinking.display != "omitted"

    def effort(self, *, asks_anthropic: bool) -> str | None:
        """Return how hard to think, asked for in whichever words; None where nothing was said of it."""
        if isinstance(self.thinking, Disabled):
            # Where it is no word of the provider's, it is what models do that nobody asks to think.
            return "none" if asks_anthropic else None
        if self.output_config is not None and self.output_config.effort is not None:
            return EFFORTS.get(self.output_config.effort, self.output_config.effort)
        if isinstance(self.thinking, Enabled):
            budget = self.thinking.budget_tokens
            return next(effort for effort, least in BUDGETS.items() if budget >= least)
        return None if self.thinking is None else "high"

    def _choice(self) -> Any:
        match self.tool_choice:
            case None:
                return None
            case OneTool(name=name):
                return {"name": name}
            case AnyTool():
                return "required"
        return self.tool_choice.type

    def _format(self) -> dict[str, Any] | None:
        if self.output_config is None or self.output_config.format is None:
            return None
        return {"type": "json_schema", "json_schema": {"schema": self.output_config.format.schema_}}


class Metadata(_Strict):
    user_id: str | None = None


class MessagesRequest(Prompt, Extras):
    """What Anthropic's clients send. Fields that only concern Anthropic's own service are taken and mean nothing."""

    model_config = STRICT

    max_tokens: int
    stop_sequences: list[Annotated[str, StringConstraints(min_length=1)]] | None = None
    temperature: float | None = None
    top_p: float | None = None
    metadata: Metadata | None = None
    stream: bool | None = None

    # As they would be if nobody had set them.
    top_k: None = None
    container: None = None
    speed: Literal["standard"] | None = None

    # Of Anthropic's own service.
    service_tier: str | None = None
    inference_geo: str | None = None
    diagnostics: dict[str, Any] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None

    def answer(self, target: Target, thoughts: Thoughts) -> JobRequest:
        """Return the job to create; raise the problem of what it cannot be."""
        if isinstance(self.thinking, Enabled) and self.thinking.budget_tokens >= self.max_tokens:
            raise refused("invalid_request", "thinking.budget_tokens", "has to be below max_tokens")
        user = None if self.metadata is None else self.metadata.user_id
        # Who holds the connection wants the answer: it is given up with the connection.
        behaviour = {"on_disconnect": "cancel", **self.extras()}
        return self.job(
            target,
            thoughts,
            max_tokens=self.max_tokens,
            stop=self.stop_sequences,
            temperature=self.temperature,
            top_p=self.top_p,
            metadata=None if user is None else {"user_id": user},
            **behaviour,
        )
