"""What may be asked for beside the messages: the fields of `POST /v1/jobs`, as keywords."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from rejoin.errors import Misuse

Messages = str | Sequence[Mapping[str, Any]]
"""A question, or a conversation: `[{"role": "user", "content": "…"}, …]`."""


class Asked(TypedDict, total=False):
    """docs/API.md says what each of them means."""

    system: str
    max_tokens: int
    temperature: float
    top_p: float
    stop: str | list[str]
    seed: int
    tools: list[dict[str, Any]]
    tool_choice: str | dict[str, Any]
    response_format: dict[str, Any]
    reasoning: dict[str, str]
    fallbacks: list[dict[str, str]]
    on_worker_lost: Literal["restart", "fail", "continue"]
    on_disconnect: Literal["continue", "cancel"]
    disconnect_grace_s: float
    timeout_s: float
    priority: Literal["low", "normal", "high"]
    metadata: dict[str, str]


def body(messages: Messages, model: str | None, provider: str | None, asked: Asked) -> dict[str, Any]:
    """Return the JSON of a POST. `model` is `provider/model`, unless the provider is named apart."""
    if model is None:
        raise Misuse("no model: name one, provider/model, here or when the client is made")
    if provider is None:
        provider, slash, model = model.partition("/")
        if not slash:
            raise Misuse(f"{provider!r} is no provider/model")
    told = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
    return {"provider": provider, "model": model, "messages": told, **asked}
