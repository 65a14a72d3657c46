"""The body of `POST /api/chat` as a job's request."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from api.faces.ai_sdk_messages import UIMessage, conversation
from api.faces.extras import Generation, job_request
from api.faces.target import Target, default_target, target
from api.problems import refused
from api.state import State
from shared.requests import JobRequest

ChatId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class UIChatRequest(Generation):
    """What `useChat` sends, and beside it, by its `body`, what the page wants of a job."""

    id: ChatId
    messages: list[UIMessage]
    trigger: Literal["submit-message", "regenerate-message"] = "submit-message"
    message_id: Annotated[str | None, Field(alias="messageId")] = None

    provider: str | None = None
    model: str | None = None
    system: str | None = None
    reasoning: dict[str, Any] | None = None
    chat_policy: Literal["interrupt", "reject"] | None = None

    def target(self, here: State) -> Target:
        """Return who is asked: `model` names its provider, or `provider` does, or the operator has."""
        if self.model is None:
            if self.provider is not None:
                raise refused("invalid_request", "model", "which one of this provider's?")
            return default_target(here)
        if self.provider is not None:
            return Target(self.provider, self.model)
        return target(here, self.model, default_target(here).provider)

    def continued(self) -> UIMessage | None:
        """Return the answer that the page puts the new one's parts behind, as it does when tools have been called."""
        if self.trigger != "submit-message" or not self.messages:
            return None
        named = [message for message in self.messages if self.message_id is not None and message.id == self.message_id]
        message = named[-1] if named else self.messages[-1]
        return message if message.role == "assistant" and message.id else None

    def job(self, target: Target, thoughts: Mapping[str, Sequence[Any]]) -> JobRequest:
        """Return the job to create; raise the problem of what it cannot be."""
        return job_request(
            provider=target.provider,
            model=target.model,
            messages=conversation(self.messages, thoughts),
            system=self.system,
            reasoning=self.reasoning,
            **{**self.terms(), **self.extras()},
        )
