"""The table of providers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from tests.provider import EmptyChunk, NoUsage, Quirks, ScriptedProvider, Step

Feature = Literal[
    "system",
    "max_tokens",
    "temperature",
    "top_p",
    "stop",
    "seed",
    "tools",
    "forced_tool",
    "images",
    "json_object",
    "json_schema",
    "reasoning",
]


def _chat(provider: ScriptedProvider) -> dict[str, Any]:
    return {"kind": "openai", "base_url": provider.openai_url}


def _messages(provider: ScriptedProvider) -> dict[str, Any]:
    return {"kind": "anthropic", "base_url": provider.anthropic_url}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A provider as these tests know it. What it does not say of itself it does as OpenAI's chat completions do."""

    name: str
    label: str = ""
    """What the tests call it, where one provider has several rows."""
    config: Callable[[ScriptedProvider], dict[str, Any]] | None
    """Its row in `REJOIN_PROVIDERS`; None where it is built in."""
    cannot: Mapping[Feature, str] = field(default_factory=dict)
    """What it cannot honour, and the field that a 422 then names."""

    model: str = "m-{}"
    """What its models are called: some are known by their names."""
    accent: Sequence[Quirks | NoUsage] = ()
    """How this server's answers differ."""
    opening: Sequence[Step] = ()
    """What it sends before every answer."""
    thought: str = "reasoning_content"
    """Under which name it shows its thinking (chat completions)."""

    shows_thinking: bool = True
    calls_in_pieces: bool = True
    """Whether the arguments of a call come piece by piece."""
    json_by_tool: bool = False
    """Whether `json_object` makes it call a tool."""
    signs: bool = False
    """Whether it wants its thinking back, and knows it again."""

    background: bool = False
    """Whether an answer goes on without its connection: one that is cut is listened to again, one that is given up is
    cancelled."""

    tells_usage: bool = True
    tells_reason: bool = True
    """Whether it says how an answer ended; without that, a clean end is all there is."""
    tells_refusal: bool = False
    """Whether a refusal is a reason of its own, and not just the text of an answer."""
    marks_refusal: bool = True
    """Whether it marks the text of a refusal as one, where that is text."""
    stream_error: str = "provider_error"
    """What an error of the default kind in mid-stream is."""
    unreadable: str = "provider_protocol"
    """What an answer is that is no JSON."""
    never_begun: tuple[str, str] = ("failed", "provider_truncated")
    """How an answer ends that has nothing in it, not even an end."""


_TEXT_ALONE: Final[Mapping[Feature, str]] = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "stop": "stop",
    "seed": "seed",
    "tools": "tools",
    "forced_tool": "tools",
    "images": "messages",
    "json_object": "response_format",
    "json_schema": "response_format",
    "reasoning": "reasoning",
}

CHAT_MODEL: Final = {
    "kind": "langchain",
    "runnable": "tests.conformance.runnables:chat",
    "honours": [
        "system", "max_tokens", "temperature", "top_p", "stop", "seed",
        "tools", "images", "response_format", "reasoning", "finish_reason",
    ],
}  # fmt: skip

ROWS: Final[Sequence[Row]] = (
    Row(name="openai", config=None),
    Row(
        name="openai-responses",
        config=None,
        cannot={"stop": "stop", "seed": "seed"},
        background=True,
        signs=True,
        never_begun=("completed", "stop"),
    ),
    Row(
        name="anthropic",
        config=None,
        cannot={"seed": "seed"},
        json_by_tool=True,
        signs=True,
        tells_refusal=True,
        stream_error="provider_overloaded",
    ),
    # What is not in the table of models is taken for the newest.
    Row(
        name="anthropic",
        label="newest-claude",
        config=None,
        model="claude-opus-99-{}",
        cannot={"seed": "seed", "temperature": "temperature", "top_p": "top_p", "forced_tool": "tool_choice"},
        signs=True,
        tells_refusal=True,
        stream_error="provider_overloaded",
    ),
    # Compatible servers, each with what is known of its kind.
    Row(
        name="vllm",
        config=_chat,
        accent=(Quirks(usage="each"),),
    ),
    Row(
        name="ollama",
        config=_chat,
        accent=(Quirks(role="each", tool_calls="whole", tool_index="zero"),),
        thought="reasoning",
        calls_in_pieces=False,
    ),
    Row(
        name="older-ollama",
        config=_chat,
        accent=(Quirks(role="each", tool_calls="whole", tool_index="none"), NoUsage()),
        calls_in_pieces=False,
        tells_usage=False,
    ),
    Row(
        name="llama.cpp",
        config=_chat,
        accent=(Quirks(role="alone", usage="finish"),),
    ),
    Row(
        name="azure-like",
        config=_chat,
        opening=(EmptyChunk(), EmptyChunk()),
    ),
    Row(
        name="terse",
        config=_chat,
        accent=(Quirks(role="never", done=False, crlf=True, space=False), NoUsage()),
        tells_usage=False,
    ),
    Row(
        name="messages-like",
        config=_messages,
        cannot={"seed": "seed"},
        accent=(Quirks(crlf=True, space=False),),
        json_by_tool=True,
        signs=True,
        tells_refusal=True,
        stream_error="provider_overloaded",
    ),
    # Of what an integration raises only the SDKs' own exceptions can be told apart.
    Row(
        name="langchain",
        config=lambda provider: {**CHAT_MODEL},
        marks_refusal=False,
        unreadable="provider_error",
        never_begun=("failed", "provider_error"),
    ),
    Row(
        name="langchain-chain",
        config=lambda provider: {"kind": "langchain", "runnable": "tests.conformance.runnables:chain"},
        cannot=_TEXT_ALONE,
        shows_thinking=False,
        tells_usage=False,
        tells_reason=False,
        marks_refusal=False,
        unreadable="provider_error",
        never_begun=("failed", "provider_error"),
    ),
)

DEMO: Final = Row(
    name="demo",
    config=None,
    cannot={
        "tools": "tools",
        "forced_tool": "tools",
        "images": "messages",
        "json_object": "response_format",
        "json_schema": "response_format",
        "reasoning": "reasoning",
    },
)
"""Says what it says, in its own time: only what needs no script is asked of it."""
