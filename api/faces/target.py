"""Whom a face's `model` means: `provider/model`, or a bare model of the default provider."""

from typing import NamedTuple

from api.state import State


class Target(NamedTuple):
    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"


def target(here: State, model: str, provider: str) -> Target:
    """Return who is asked for a model; `provider` is the one whose API the client speaks.

    Only a provider that there is counts as one: other servers have slashes in the names of their models.
    """
    first, _, rest = model.partition("/")
    if rest and first in here.providers:
        return Target(first, rest)
    default = here.settings.default_model
    return Target(provider if default is None else default.partition("/")[0], model)


def default_target(here: State) -> Target:
    """Return who is asked where the client names no model: `REJOIN_DEFAULT_MODEL`, else the first that is offered."""
    default = here.settings.default_model or next((name for name in here.offers if not name.startswith("demo/")), "")
    first, _, rest = default.partition("/")
    return Target(first, rest) if rest else Target("demo", "tour")
