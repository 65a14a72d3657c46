"""What can be said of a script before it is played."""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from tests.provider.breaks import CutReader, Failure, HttpError
from tests.provider.quirks import Quirks
from tests.provider.steps import (
    Arguments,
    Delay,
    Dribble,
    Finish,
    NoUsage,
    Reasoning,
    RedactedThinking,
    Refusal,
    Stamps,
    Step,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)

_BEFORE_ERRORS = (Delay, Wait, Usage, NoUsage, Quirks)


def check(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the script if it can be played. Raises ValueError."""
    steps_flat = list(flat(steps))
    whole_calls = quirks(steps_flat).tool_calls == "whole"
    for i, step in enumerate(steps_flat):
        if isinstance(step, HttpError | Failure) and not all(isinstance(s, _BEFORE_ERRORS) for s in steps_flat[:i]):
            raise ValueError("only waits may precede HttpError: its status is the first thing sent")
        if isinstance(step, Arguments) and not any(isinstance(s, ToolCall) for s in steps_flat[:i]):
            raise ValueError("Arguments continue a ToolCall")
        if isinstance(step, Arguments) and whole_calls:
            raise ValueError("Arguments cannot follow a ToolCall that was sent whole")
        if isinstance(step, CutReader) and step.times < 1:
            raise ValueError("CutReader cuts at least one reader")
        if isinstance(step, Text) and step.utf8:
            step.text.encode()  # a lone surrogate has no UTF-8
    return tuple(steps)


def flat(steps: Iterable[Step]) -> Iterator[Step]:
    """Yield the steps, those inside others in place of these."""
    for step in steps:
        if isinstance(step, Dribble):
            yield from flat(step.steps)
        else:
            yield step


def quirks(steps: Iterable[Step]) -> Quirks:
    """Return the script's quirks: the last it names, or none."""
    found = Quirks()
    for step in steps:
        if isinstance(step, Quirks):
            found = step
    return found


def natural_end(steps: Sequence[Step]) -> str:
    """Return the finish reason of a script that names none."""
    if any(isinstance(s, ToolCall) for s in steps):
        return "tool_calls"
    if any(isinstance(s, Refusal) for s in steps):
        return "refusal"
    return "stop"


def plausible_usage(steps: Sequence[Step], body: dict[str, Any]) -> Usage:
    """Return what a script without Usage reports: one output token a piece, one input token for four characters."""
    output = reasoning = 0
    for step in steps:
        match step:
            case Text() | Refusal() | Arguments():
                output += 1
            case Reasoning() | RedactedThinking():
                output += 1
                reasoning += 1
            case Tokens() | Stamps():
                output += step.count
            case ToolCall():
                output += 1 + len(step.pieces())
            case Finish(text=text) if text:
                output += 1
    fields = ("system", "messages", "instructions", "input")
    characters = sum(map(len, chain.from_iterable(_texts(body.get(name)) for name in fields)))
    return Usage(input=max(1, math.ceil(characters / 4)), output=output, reasoning=reasoning)


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings under `content` and `text` of messages and content blocks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(value.get("content"))
        yield from _texts(value.get("text"))
