"""The words of a script for servers that speak OpenAI's chat completions in an accent: vLLM, Ollama, Azure, others."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Quirks:
    """How all of this answer's frames differ from OpenAI's, wherever in the script it stands.

    `crlf` and `space` hold for every dialect, the rest for streamed chat completions.
    """

    role: Literal["first", "alone", "each", "never"] = "first"
    """`alone`: an opening chunk with nothing but the role; `each`: no such chunk, the role in every delta (Ollama)."""
    usage: Literal["asked", "each", "finish"] = "asked"
    """`each`: figures so far in every chunk, asked or not (vLLM's continuous usage); `finish`: in the finishing chunk
    and in none of their own."""
    tool_calls: Literal["pieces", "whole"] = "pieces"
    """`whole`: name and arguments in one chunk (Ollama). `Arguments` cannot follow then."""
    tool_index: Literal["rising", "zero", "none"] = "rising"
    """`zero`: all parallel calls claim to be the first; `none`: there is no index (older Ollama)."""
    done: bool = True
    """Whether `[DONE]` ends the stream."""
    crlf: bool = False
    """Whether lines end with CR LF."""
    space: bool = True
    """Whether a space follows `data:`."""


@dataclass(frozen=True)
class EmptyChunk:
    """Send a chunk without choices (Azure's first, with what its filter found in the prompt). Elsewhere: nothing."""
