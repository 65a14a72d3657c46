"""Whatever a client sends, the scripted provider answers or refuses: its checks never fail themselves."""

import copy
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.provider.checks import anthropic_complaint, openai_complaint, responses_complaint

SCHEMA = {"type": "object", "properties": {"a": {"anyOf": [{"type": "string"}]}}, "required": ["a"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
PIXEL = "data:image/png;base64,iVBORw0KGgo="

CHAT: Any = {
    "model": "m",
    "messages": [
        {
            "role": "user",
            "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": PIXEL}}],
        },
        {
            "role": "assistant",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "20"},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": CLOSED, "strict": True}}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CLOSED, "strict": True}},
    "stop": ["a"],
}
RESPONSES: Any = {
    "model": "m",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "?"}, {"type": "input_image", "image_url": PIXEL}]},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "20"},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": CLOSED, "strict": True}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "x", "schema": CLOSED, "strict": True}},
    "reasoning": {"effort": "low"},
    "include": ["reasoning.encrypted_content"],
}
MESSAGES: Any = {
    "model": "m",
    "max_tokens": 2048,
    "system": [{"type": "text", "text": "Be brief"}],
    "messages": [
        {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "20"}]},
    ],
    "tools": [{"name": "f", "input_schema": SCHEMA}, {"type": "web_search_20250305", "name": "web_search"}],
    "tool_choice": {"type": "auto"},
    "thinking": {"type": "adaptive"},
    "output_config": {"format": {"type": "json_schema", "schema": CLOSED}},
}
ODD: list[Any] = [None, True, 0, -1, 1.5, "", "x", "function", [], {}, [None], [[]], ["x"], {"type": []}, {"a": {}}]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value inside a JSON value."""
    if path:
        yield path
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


def mutant(body: Any, dice: random.Random) -> Any:
    """Return the body with a few values replaced, or gone."""
    body = copy.deepcopy(body)
    for _ in range(dice.choice([1, 1, 2, 3])):
        *path, last = dice.choice(list(places(body)))
        place = body
        for key in path:
            place = place[key]
        if dice.random() < 0.2:
            del place[last]
        else:
            place[last] = copy.deepcopy(dice.choice(ODD))
    return body


@pytest.mark.parametrize("seed", range(3))
def test_no_body_is_too_odd_to_be_judged(seed: int):
    dice = random.Random(seed)
    headers = {"anthropic-version": "2026-10-21"}
    assert (
        openai_complaint(CHAT) is responses_complaint(RESPONSES, {}) is anthropic_complaint(headers, MESSAGES) is None
    )
    refused = 0
    for _ in range(300):
        refused += openai_complaint(mutant(CHAT, dice)) is not None
        refused += responses_complaint(mutant(RESPONSES, dice), {}) is not None
        refused += anthropic_complaint(headers, mutant(MESSAGES, dice)) is not None
    assert 300 < refused < 900
