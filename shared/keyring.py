"""API keys that are made by a command: kept as hashes, each with what it may do."""

from decimal import Decimal
from typing import Annotated, Final, NamedTuple

from pydantic import StringConstraints

MODEL_PATTERN: Final = r"^[a-z0-9][a-z0-9_.-]{0,63}/([^*]{1,200}|[^*]{0,200}\*)$"

ModelPattern = Annotated[str, StringConstraints(pattern=MODEL_PATTERN)]
"""`provider/model`, or the beginning of such names with a `*` behind it: `provider/*`."""


class Limits(NamedTuple):
    """Which limits count, in place of the settings', when a key asks; None is the settings' own.

    What is counted is the owner's, over all of its keys.
    """

    rate_limit: int | None = None
    max_active_jobs: int | None = None
    max_streams: int | None = None
    daily_usd: Decimal | None = None


def covers(patterns: tuple[str, ...], provider: str, model: str) -> bool:
    """Say whether a model is among those that a key may ask for: all, where it names none."""
    name = f"{provider}/{model}"
    return not patterns or any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )
