"""The providers of this worker, by the names that jobs use."""

import sys

from shared.settings import ProviderConfig, Settings
from worker.providers.anthropic import AnthropicProvider
from worker.providers.base import NotConfigured, Provider
from worker.providers.demo import DemoProvider
from worker.providers.openai import OpenAIProvider
from worker.providers.responses import ResponsesProvider
from worker.providers.transport import Transport


def _make(name: str, config: ProviderConfig, transport: Transport) -> Provider:
    match config.kind:
        case "openai":
            return OpenAIProvider(config, transport, compatible=name != "openai")
        case "openai-responses":
            return ResponsesProvider(config, transport)
        case "anthropic":
            return AnthropicProvider(config, transport)
        case "langchain":
            return _langchain(name, config)
        case "demo":
            return DemoProvider()


def _langchain(name: str, config: ProviderConfig) -> Provider:
    """Return a runnable's provider, or end the process with one line that says what is missing."""
    try:
        # Only here: an extra, and half a second for those who do not use it.
        from worker.providers.langchain import LangChainProvider
    except ModuleNotFoundError as error:
        sys.exit(f"rejoin: REJOIN_PROVIDERS: {name!r} needs {error.name}: pip install langchain-core")
    return LangChainProvider(name, config)


class Providers:
    def __init__(self, settings: Settings) -> None:
        self._providers: dict[str, Provider] = {}
        transport = Transport()
        for name, config in settings.providers().items():
            try:
                self._providers[name] = _make(name, config, transport)
            except NotConfigured:
                continue

    def get(self, name: str) -> Provider:
        """Return a provider, or raise NotConfigured."""
        try:
            return self._providers[name]
        except KeyError:
            raise NotConfigured from None

    def names(self) -> list[str]:
        return list(self._providers)

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()
