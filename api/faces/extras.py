"""What Rejoin's own API has and others have not: any face takes it beside its own fields (`extra_body` of an SDK)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from api.problems import invalid
from shared.requests import JobRequest


class Extras(BaseModel):
    """The beginning of a face's request. What is not named is refused: nothing of a request is dropped in silence."""

    model_config = ConfigDict(extra="forbid")

    fallbacks: list[Any] | None = None
    on_worker_lost: str | None = None
    on_disconnect: Literal["continue", "cancel"] | None = None
    disconnect_grace_s: float | None = None
    timeout_s: float | None = None
    priority: str | None = None

    def extras(self) -> dict[str, Any]:
        """Return what is set of them, as a job's fields."""
        return {name: value for name in Extras.model_fields if (value := getattr(self, name)) is not None}


class Generation(Extras):
    """The same for faces whose words for a generation are our own, which nearly are OpenAI's."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    def terms(self) -> dict[str, Any]:
        """Return all of these as a job's fields."""
        return {name: getattr(self, name) for name in Generation.model_fields.keys() - Extras.model_fields.keys()}


def job_request(**fields: Any) -> JobRequest:
    """Return the job that a face's request stands for; None is a field that is not set. Raises its problem."""
    try:
        return JobRequest.model_validate({name: value for name, value in fields.items() if value is not None})
    except ValidationError as error:
        raise invalid(error.errors(include_url=False, include_input=False, include_context=False)) from None
