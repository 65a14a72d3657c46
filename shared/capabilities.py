"""What each kind of provider can honour: asked before anything is queued."""

from shared.requests import JobRequest
from shared.settings import ProviderConfig


def can_continue(config: ProviderConfig) -> bool:
    """Say whether this provider goes on from the beginning of an answer, given as the last message."""
    if config.continues is not None:
        return config.continues
    return config.kind in ("anthropic", "demo")


def refused_field(config: ProviderConfig, request: JobRequest) -> str | None:
    """Name the first field of the request that this provider cannot honour; None when it can honour all."""
    if config.kind == "anthropic":
        if request.seed is not None:
            return "seed"
        if request.temperature is not None and request.temperature > 1:
            return "temperature"
        if all(message.role == "system" for message in request.messages):
            return "messages"
    return None
