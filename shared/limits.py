"""What the operator lets a provider, or one of its models, be asked by all workers together."""

from collections.abc import Mapping
from typing import Annotated

import orjson
from pydantic import BaseModel, ConfigDict, Field

Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000_000)]


class Limit(BaseModel):
    """None: as much as there is to ask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    concurrent: Count | None = None
    """Calls at once."""
    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    """Input and output together, as estimated before and told after."""


def scope_of(provider: str, model: str) -> str:
    """Return what a limit or a pause of one model goes by; the provider's own goes by its name alone."""
    return f"{provider}/{model}"


def for_scripts(limits: Mapping[str, Limit]) -> bytes:
    """Return the limits as the scripts want them; nothing when there are none, which costs nothing."""
    if not limits:
        return b""
    return orjson.dumps({scope: limit.model_dump(exclude_none=True) for scope, limit in limits.items()})
