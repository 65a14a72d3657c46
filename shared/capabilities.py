"""What each kind of provider can honour: asked before anything is queued."""

from collections.abc import Sequence

from shared import claude
from shared.requests import JobRequest
from shared.settings import ProviderConfig


def can_continue(config: ProviderConfig, request: JobRequest) -> bool:
    """Say whether this provider goes on from the beginning of such an answer, given as the last message."""
    return request.only_text and not request.fallbacks and prefills(config, request.model)


def prefills(config: ProviderConfig, model: str) -> bool:
    """Say whether a last message of the assistant's is taken for the beginning of the answer."""
    if config.continues is not None:
        return config.continues
    if config.kind == "anthropic":
        return claude.claude(model).prefills
    return config.kind == "demo"


def generates_alone(config: ProviderConfig) -> bool:
    """Say whether its runs go on without their listener: how far one was read has to be written with what was read."""
    return config.kind == "openai-responses"


def takes_max_tokens(config: ProviderConfig) -> bool:
    """Say whether this provider can be told to end an answer at a number of tokens."""
    return config.kind != "langchain" or "max_tokens" in config.honours


def refused_field(config: ProviderConfig, request: JobRequest) -> str | None:
    """Name the first field of the request that this provider cannot honour; None when it can honour all."""
    match config.kind:
        case "anthropic":
            return claude.refused_field(request)
        case "openai-responses":
            return _responses(request)
        case "langchain":
            return _langchain(request, config.honours)
        case "demo":
            return _demo(request)
    return None


def _responses(request: JobRequest) -> str | None:
    if request.stop:
        return "stop"
    if request.seed is not None:
        return "seed"
    if request.max_tokens is not None and request.max_tokens < LEAST_OUTPUT:
        return "max_tokens"
    return None


LEAST_OUTPUT = 16
"""Tokens: the smallest limit that OpenAI's Responses take."""


def _langchain(request: JobRequest, honours: Sequence[str]) -> str | None:
    """What the operator says of the runnable is all that can be known without importing it."""
    asked = {
        "system": request.system is not None or any(message.role == "system" for message in request.messages),
        "max_tokens": request.max_tokens is not None,
        "temperature": request.temperature is not None,
        "top_p": request.top_p is not None,
        "stop": bool(request.stop),
        "seed": request.seed is not None,
        "tools": bool(request.tools),
        "response_format": request.json_format is not None,
        "reasoning": request.reasoning is not None,
        "images": any(message.images() for message in request.messages),
    }
    refused = next((name for name, is_asked in asked.items() if is_asked and name not in honours), None)
    return "messages" if refused == "images" else refused


def _demo(request: JobRequest) -> str | None:
    asked = {
        "tools": request.tools,
        "reasoning": request.thinks,
        "response_format": request.json_format is not None,
        "messages": any(message.images() or message.role == "tool" for message in request.messages),
    }
    return next((name for name, is_asked in asked.items() if is_asked), None)
