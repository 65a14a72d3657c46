"""What each kind of provider can honour: asked before anything is queued."""

from shared.requests import JobRequest
from shared.settings import ProviderConfig


def refused_field(config: ProviderConfig, request: JobRequest) -> str | None:
    """Name the first field of the request that this provider cannot honour; None when it can honour all."""
    if (field := request.unsupported()) is not None:
        return field
    if config.kind == "anthropic":
        if request.seed is not None:
            return "seed"
        if request.temperature is not None and request.temperature > 1:
            return "temperature"
        if all(message.role == "system" for message in request.messages):
            return "messages"
    return None
