"""What each of Anthropic's models takes, and what its API refuses of a request.

Older models by name; a version that is not in the table is newer than it, and taken for the newest. Where the name
tells nothing, nothing is refused: a gateway's own is asked in the newest words, one that is no Claude's in the older
ones, which other servers that speak messages know.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from shared.requests import JobRequest
from shared.tools import Named

LEAST_BUDGET: Final = 1_024
"""Tokens: the smallest budget of thinking, which has to be below `max_tokens`."""


class Claude(NamedTuple):
    """What a model takes."""

    thinking: Literal["none", "budget", "adaptive"]
    """How it is asked to think: not at all, up to so many tokens, or as it sees fit."""
    off: Literal["unasked", "disabled", "between_tools", "never"] = "unasked"
    """How it is kept from thinking: by not asking for it, by a word of the API, or not at all."""
    samples: bool = True
    """Whether it takes a temperature and a top_p other than 1."""
    forces: bool = True
    """Whether it can be made to call a tool."""
    prefills: bool = True
    """Whether it goes on from the beginning of an answer."""
    schemas: bool = True
    """Whether it knows `output_config.format`."""

    @property
    def always_thinks(self) -> bool:
        """Say whether it thinks without having been asked to."""
        return self.off != "unasked"


NEWEST: Final = Claude("adaptive", off="never", samples=False, forces=False, prefills=False)

UNREAD: Final = Claude("adaptive", prefills=False)

NO_CLAUDE: Final = Claude("budget")

CLAUDES: Final[Mapping[str, Claude]] = {
    **dict.fromkeys(("haiku-3", "sonnet-3", "opus-3", "haiku-3-5", "sonnet-3-5"), Claude("none", schemas=False)),
    **dict.fromkeys(("sonnet-3-7", "sonnet-4", "opus-4"), Claude("budget", schemas=False)),
    **dict.fromkeys(("opus-4-1", "opus-4-5", "haiku-4-5"), Claude("budget")),
    "sonnet-4-5": Claude("budget", prefills=False),
    **dict.fromkeys(("opus-4-6", "sonnet-4-6"), Claude("adaptive", prefills=False)),
    **dict.fromkeys(("opus-4-7", "opus-4-8"), Claude("adaptive", samples=False, prefills=False)),
    **dict.fromkeys(
        ("sonnet-5", "opus-5", "haiku-5-5"), Claude("adaptive", off="disabled", samples=False, prefills=False)
    ),
    **dict.fromkeys(
        ("mythos-preview", "mythos-5", "fable-5"), Claude("adaptive", off="never", samples=False, prefills=False)
    ),
    "sonnet-5-5": NEWEST._replace(off="between_tools"),
}

FAMILIES: Final = frozenset(name.partition("-")[0] for name in CLAUDES)

_NAME: Final = re.compile(
    r"claude-(?:(?P<before>\d(?:-\d)?)-)?(?P<family>[a-z]+)(?P<behind>(?:-(?:\d{1,2}|preview)(?![0-9a-z]))*)"
)
"""The version stood before the family once and stands behind it since; dates and endings of platforms follow."""


def claude(model: str) -> Claude:
    """Return what a model takes, by its name: `claude-opus-4-5-20251101`, `claude-3-7-sonnet-latest`, also inside
    the names of other platforms."""
    if "claude" not in model:
        return NO_CLAUDE
    found = _NAME.search(model.replace(".", "-"))
    if found is None or found["family"] not in FAMILIES:
        return UNREAD
    version = f"-{found['before']}" if found["before"] else found["behind"]
    return CLAUDES.get(found["family"] + version.removesuffix("-0"), NEWEST)


def json_way(request: JobRequest) -> Literal["schema", "tool", "words"] | None:
    """Say how a model is made to answer in JSON: its schemas are those of objects; else by a tool, or by asking."""
    if request.json_format is None:
        return None
    known = claude(request.model)
    if known.schemas and (request.json_format.schema_value or {}).get("type") == "object":
        return "schema"
    return "tool" if known.forces else "words"


def refused_field(request: JobRequest) -> str | None:
    """Name the first field of the request that the model's API would refuse; None when it takes all."""
    known = claude(request.model)
    thinks_in_budget = request.thinks and known.thinking == "budget"
    refused = {
        "seed": request.seed is not None,
        "reasoning": known.thinking == "none" if request.thinks else request.reasoning and known.off == "never",
        "temperature": _temperature(request, known),
        "top_p": request.top_p is not None and request.top_p < _least_top_p(request, known),
        "tool_choice": _is_forced(request) and (thinks_in_budget or not known.forces),
        "max_tokens": thinks_in_budget and request.max_tokens is not None and request.max_tokens <= LEAST_BUDGET,
        # The tool that makes such an answer has to be forced.
        "response_format": json_way(request) == "tool" and (bool(request.tools) or thinks_in_budget),
        "messages": all(message.role == "system" for message in request.messages),
    }
    return next((name for name, is_refused in refused.items() if is_refused), None)


def _temperature(request: JobRequest, known: Claude) -> bool:
    if request.temperature is None or request.temperature == 1:
        return False
    return request.temperature > 1 or request.thinks or not known.samples


def _least_top_p(request: JobRequest, known: Claude) -> float:
    if not known.samples:
        return 1
    return 0.95 if request.thinks else 0


def _is_forced(request: JobRequest) -> bool:
    return request.tool_choice == "required" or isinstance(request.tool_choice, Named)
