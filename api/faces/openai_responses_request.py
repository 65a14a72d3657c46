"""The body of `POST /v1/responses` as a job's request."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.faces.extras import Extras, job_request
from api.faces.target import Target
from api.problems import refused
from shared.requests import JobRequest

_FORBID: Final = ConfigDict(extra="forbid")

Include = Literal[
    # Of tools that nobody has here, and of input that is not told: there is nothing to leave out.
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "message.input_image.image_url",
]
"""What may be asked to be included: neither sealed reasoning, which stays here, nor log probabilities."""


class StreamOptions(BaseModel):
    model_config = _FORBID

    include_obfuscation: bool | None = None


class TextOptions(BaseModel):
    model_config = _FORBID

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(BaseModel):
    """`summary` is what the provider shows of its thinking, whichever is asked for."""

    model_config = _FORBID

    effort: str | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: Literal["auto", "concise", "detailed"] | None = None
    context: Literal["auto"] | None = None
    mode: Literal["standard"] | None = None


class ResponsesRequest(Extras):
    """What OpenAI's clients send. Fields that only concern OpenAI's own service are taken and mean nothing here."""

    model: str
    input: str | list[dict[str, Any]]
    instructions: str | None = None
    previous_response_id: str | None = None
    background: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    metadata: dict[str, Any] | None = None
    include: list[Include] | None = None

    truncation: Literal["auto", "disabled"] | None = None
    """Nothing is ever cut out here: what is too long fails."""

    # As they would be if nobody had set them.
    parallel_tool_calls: Literal[True] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None
    context_management: Annotated[list[Any], Field(max_length=0)] | None = None
    conversation: None = None
    max_tool_calls: None = None
    moderation: None = None
    prompt: None = None

    # Of OpenAI's own service.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None

    def check(self) -> None:
        """Raise the problem of fields that do not go together."""
        if self.stream_options is not None and not self.stream:
            raise refused("invalid_request", "stream_options", "only with stream")
        if self.background and self.store is False:
            raise refused("invalid_request", "background", "needs store")

    def face(self, target: Target) -> dict[str, Any]:
        """Return the fields of the response that the job's own request does not tell."""
        said = {
            "max_output_tokens": self.max_output_tokens,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "safety_identifier": self.safety_identifier,
            "truncation": self.truncation,
            "user": self.user,
            "reasoning": None if self.reasoning is None else self._reasoning(self.reasoning),
        }
        return {
            "model": str(target),
            "background": bool(self.background),
            "store": self.store is not False,
            "max_output_tokens": None,
            **{name: value for name, value in said.items() if value is not None},
        }

    @staticmethod
    def _reasoning(asked: ReasoningOptions) -> dict[str, Any]:
        return {"effort": asked.effort, "summary": asked.summary or asked.generate_summary}

    def job(self, target: Target, messages: list[dict[str, Any]]) -> JobRequest:
        """Return the job to create; raise the problem of what it cannot be."""
        # Who holds the connection wants the answer; in the background nobody has to.
        behaviour = {"on_disconnect": "continue" if self.background else "cancel", **self.extras()}
        return job_request(
            provider=target.provider,
            model=target.model,
            messages=messages,
            system=self.instructions,
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            tools=None if self.tools is None else [_tool(tool) for tool in self.tools],
            tool_choice=self.tool_choice,
            response_format=None if self.text is None else _format(self.text.format),
            reasoning=None if self.reasoning is None else {"effort": self.reasoning.effort or "medium"},
            metadata=self.metadata,
            **behaviour,
        )


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise refused("unsupported_parameter", "tools", "only those of type function")
    return {name: value for name, value in tool.items() if value is not None}


def _format(format: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the shape of the answer as the job's request nests it."""
    if format is None or format.get("type") != "json_schema":
        return format
    schema = {name: value for name, value in format.items() if name != "type" and value is not None}
    return {"type": "json_schema", "json_schema": schema}
