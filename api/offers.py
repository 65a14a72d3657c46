"""Which models there are to ask for."""

from collections.abc import Mapping

from shared.prices import Prices
from shared.settings import ProviderConfig


def is_name(pattern: str, providers: Mapping[str, ProviderConfig]) -> bool:
    """Say whether what a key may ask for is one model, of a provider that is set up."""
    return not pattern.endswith("*") and pattern.partition("/")[0] in providers


def offered(providers: Mapping[str, ProviderConfig], prices: Prices) -> list[str]:
    """Return the models to offer: those that the operator names, else those of the price table."""
    ordered = {"demo": providers["demo"], **providers}
    return [f"{name}/{model}" for name, config in ordered.items() for model in _models(name, config, prices)]


_OPENAI = ("gpt-", "o1", "o3", "o4")
_FAMILY = {"openai": _OPENAI, "openai-responses": _OPENAI, "anthropic": ("claude-",)}


def _models(name: str, config: ProviderConfig, prices: Prices) -> list[str]:
    if config.models:
        return config.models
    if config.api_key is None and config.base_url is None:
        return []
    return [model for model in prices.models() if model.startswith(_FAMILY.get(name, ()))]
