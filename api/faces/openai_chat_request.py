"""The body of `POST /v1/chat/completions` as a job's request."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.faces.extras import Generation, job_request
from api.faces.target import Target
from api.problems import refused
from shared.requests import JobRequest


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatRequest(Generation):
    """What OpenAI's clients send. Fields that only concern OpenAI's own service are taken and mean nothing here."""

    model: str
    messages: list[dict[str, Any]]
    max_completion_tokens: int | None = None
    reasoning_effort: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    # As they would be if nobody had set them.
    n: Literal[1] | None = None
    logprobs: Literal[False] | None = None
    parallel_tool_calls: Literal[True] | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    audio: None = None
    moderation: None = None
    prediction: None = None
    top_logprobs: Annotated[int, Field(ge=0, le=0)] | None = None

    # Of OpenAI's own service.
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    store: bool | None = None

    def job(self, target: Target) -> JobRequest:
        """Return the job to create; raise the problem of what it cannot be."""
        if self.stream_options is not None and not self.stream:
            raise refused("invalid_request", "stream_options", "only with stream")
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise refused("invalid_request", "max_tokens", "differs from max_completion_tokens")
        # Who holds the connection wants the answer: it is given up with the connection.
        behaviour = {"on_disconnect": "cancel", **self.extras()}
        terms = {**self.terms(), "max_tokens": next(iter(limits), None)}
        return job_request(
            provider=target.provider,
            model=target.model,
            messages=[_message(message) for message in self.messages],
            reasoning=None if self.reasoning_effort is None else {"effort": self.reasoning_effort},
            **{**terms, **behaviour},
        )


_UNSAID = ("name", "refusal", "annotations", "audio", "reasoning_content", "reasoning", "parsed")
"""What clients give back of an answer that is no part of the conversation for other providers."""


def _message(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message in the neutral shape, which is nearly OpenAI's own."""
    kept = {name: value for name, value in message.items() if name not in _UNSAID and value is not None}
    if kept.get("role") == "developer":
        kept["role"] = "system"
    if isinstance(kept.get("tool_calls"), list):
        kept["tool_calls"] = [_call(call) for call in kept["tool_calls"]]
    if isinstance(kept.get("content"), list):
        kept["content"] = [_part(part) for part in kept["content"]]
    if "content" not in kept and kept.get("role") == "assistant" and not kept.get("tool_calls"):
        kept["content"] = message.get("refusal") or ""
    return kept


def _call(call: Any) -> Any:
    """Drop what the SDK has read out of the arguments for its own user."""
    if not (isinstance(call, dict) and isinstance(call.get("function"), dict)):
        return call
    function = {name: value for name, value in call["function"].items() if name != "parsed_arguments"}
    return {"id": call.get("id"), **function}


def _part(part: Any) -> Any:
    """Take a refusal for the text that it was."""
    if isinstance(part, dict) and part.get("type") == "refusal":
        return {"type": "text", "text": part.get("refusal")}
    return part
