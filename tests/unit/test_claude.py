"""Which model takes what: by its name, on whatever platform; and nothing is asked of one that its API refuses."""

import itertools
from typing import Any

import pytest

from shared.capabilities import can_continue
from shared.claude import CLAUDES, NEWEST, NO_CLAUDE, UNREAD, Claude, claude, refused_field
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from tests.provider.checks import anthropic_complaint
from worker.providers.anthropic_request import body

TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
SCHEMA = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "properties": {}}}}
ARRAY = {"type": "json_schema", "json_schema": {"schema": {"type": "array", "items": {"type": "string"}}}}
OBJECT = {"type": "json_object"}


def request(model: str, **fields: Any) -> JobRequest:
    messages = [{"role": "user", "content": "JSON, please"}]
    return JobRequest.model_validate({"provider": "anthropic", "model": model, "messages": messages, **fields})


@pytest.mark.parametrize(
    ("model", "known"),
    [
        ("claude-3-haiku-20240307", CLAUDES["haiku-3"]),
        ("claude-3-5-sonnet-latest", CLAUDES["sonnet-3-5"]),
        ("claude-3-7-sonnet-20250219", CLAUDES["sonnet-3-7"]),
        ("claude-sonnet-4-20250514", CLAUDES["sonnet-4"]),
        ("claude-sonnet-4-0", CLAUDES["sonnet-4"]),
        ("claude-opus-4-1-20250805", CLAUDES["opus-4-1"]),
        ("claude-haiku-4-5", CLAUDES["haiku-4-5"]),
        ("claude-haiku-4-5@20251001", CLAUDES["haiku-4-5"]),
        ("us.anthropic.claude-opus-4-6-v1:0", CLAUDES["opus-4-6"]),
        ("anthropic/claude-opus-4.8", CLAUDES["opus-4-8"]),
        ("claude-sonnet-5", CLAUDES["sonnet-5"]),
        ("claude-sonnet-5-20260701", CLAUDES["sonnet-5"]),
        ("claude-sonnet-5-5", CLAUDES["sonnet-5-5"]),
        ("claude-mythos-preview", CLAUDES["mythos-preview"]),
        ("claude-opus-5-5", NEWEST),
        ("claude-fable-5-1", NEWEST),
        ("claude-opus-4-9", NEWEST),
        ("claude-haiku-10", NEWEST),
        ("claude-haiku-4-5-1m", CLAUDES["haiku-4-5"]),
        ("claude-novel", UNREAD),
        ("claude-", UNREAD),
        ("our-claude", UNREAD),
        ("MiniMax-M3", NO_CLAUDE),
        ("m", NO_CLAUDE),
    ],
)
def test_a_model_is_known_by_its_name(model: str, known: Claude) -> None:
    assert claude(model) == known


FIELDS: list[dict[str, Any]] = [
    {},
    *[{"reasoning": {"effort": effort}} for effort in ("none", "minimal", "low", "medium", "high")],
    {"temperature": 0.5},
    {"temperature": 1},
    {"top_p": 0.5},
    {"top_p": 1},
    {"max_tokens": 100},
    {"max_tokens": 1_100},
    {"tools": [TOOL], "tool_choice": "auto"},
    {"tools": [TOOL], "tool_choice": "required"},
    {"response_format": SCHEMA},
    {"response_format": ARRAY},
    {"response_format": OBJECT},
    {"seed": 1},
]


def refused_by(known: Claude, body: dict[str, Any]) -> str | None:
    """Say what a model's API would answer 400 to, as its documentation has it."""
    thinking = (body.get("thinking") or {}).get("type")
    output = body.get("output_config") or {}
    taken = {"none": (None,), "budget": (None, "enabled"), "adaptive": (None, "adaptive", known.off)}[known.thinking]
    wrong = {
        "thinking": thinking not in taken,
        "sampling": not known.samples and not body.keys().isdisjoint(("temperature", "top_p")),
        "tool_choice": not known.forces and (body.get("tool_choice") or {}).get("type") in ("any", "tool"),
        "format": not known.schemas and "format" in output,
        "effort": known.thinking != "adaptive" and "effort" in output,
    }
    return next((name for name, is_wrong in wrong.items() if is_wrong), None)


@pytest.mark.parametrize("model", ["m", *(f"claude-{name}" for name in CLAUDES), "claude-opus-5-5", "claude-novel"])
def test_what_is_not_refused_at_the_door_is_not_refused_by_the_api(model: str) -> None:
    taken = 0
    for one, other in itertools.product(FIELDS, FIELDS):
        asked = request(model, **one, **{name: value for name, value in other.items() if name not in one})
        if refused_field(asked) is None:
            taken += 1
            sent = body(asked)
            assert refused_by(claude(model), sent) is None, (one, other)
            assert anthropic_complaint({"anthropic-version": "2023-06-01"}, sent) is None, (one, other)
    assert taken > 10, "it can be asked for something"


NONE, LOW, HIGH = ({"reasoning": {"effort": effort}} for effort in ("none", "low", "high"))


@pytest.mark.parametrize(
    ("model", "fields", "field"),
    [
        ("claude-opus-4-8", {"temperature": 0.5}, "temperature"),
        ("claude-opus-4-6", {"temperature": 0.5}, None),
        ("claude-opus-4-6", {"temperature": 0.5, **LOW}, "temperature"),
        ("claude-opus-5", {"top_p": 0.99}, "top_p"),
        ("claude-opus-5", {"temperature": 1.0, "top_p": 1.0}, None),
        ("claude-opus-5", NONE, None),
        ("claude-opus-5-5", NONE, "reasoning"),
        ("claude-3-5-haiku-latest", NONE, None),
        ("claude-3-5-haiku-latest", LOW, "reasoning"),
        ("claude-opus-5", {"tools": [TOOL], "tool_choice": "required"}, None),
        ("claude-opus-5-5", {"tools": [TOOL], "tool_choice": "required"}, "tool_choice"),
        ("claude-opus-5-5", {"tools": [TOOL], "tool_choice": "auto"}, None),
        ("claude-haiku-4-5", {"tools": [TOOL], "tool_choice": "required", **LOW}, "tool_choice"),
        ("claude-haiku-4-5", {"max_tokens": 1_024, **LOW}, "max_tokens"),
        ("claude-opus-5", {"max_tokens": 1_024, **LOW}, None),
        ("claude-haiku-4-5", {"response_format": OBJECT, **LOW}, "response_format"),
        ("claude-opus-5-5", {"response_format": OBJECT, "tools": [TOOL], **LOW}, None),
        ("claude-opus-5-5", {"seed": 1}, "seed"),
    ],
)
def test_what_a_model_does_not_take_is_named(model: str, fields: dict[str, Any], field: str | None) -> None:
    assert refused_field(request(model, **fields)) == field


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "output_config"),
    [
        ("claude-haiku-4-5", {}, None, None),
        ("claude-haiku-4-5", HIGH, {"type": "enabled", "budget_tokens": 16_384}, None),
        ("claude-opus-4-8", {}, None, None),
        ("claude-opus-4-8", LOW, {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("claude-opus-4-8", NONE, None, None),
        ("claude-opus-5", {}, {"type": "adaptive", "display": "summarized"}, None),
        ("claude-opus-5", NONE, {"type": "disabled"}, None),
        ("claude-sonnet-5-5", NONE, {"type": "between_tools"}, None),
        ("claude-opus-5-5", HIGH, {"type": "adaptive", "display": "summarized"}, {"effort": "high"}),
    ],
)
def test_thinking_is_asked_for_in_the_model_s_words(
    model: str, fields: dict[str, Any], thinking: dict[str, Any] | None, output_config: dict[str, Any] | None
) -> None:
    sent = body(request(model, **fields))
    assert (sent.get("thinking"), sent.get("output_config")) == (thinking, output_config)


def test_thoughts_have_room_beside_the_answer() -> None:
    """They count against `max_tokens`: a default that is for the answer alone would cut it."""
    plain, asked, always = (
        body(request(model, **fields))["max_tokens"]
        for model, fields in (("claude-opus-4-8", {}), ("claude-opus-4-8", HIGH), ("claude-opus-5", {}))
    )
    assert plain < asked == always
    assert body(request("claude-opus-5", max_tokens=50))["max_tokens"] == 50


def test_effort_and_schema_share_their_place() -> None:
    output = body(request("claude-opus-5-5", response_format=SCHEMA, **LOW))["output_config"]
    assert output.keys() == {"effort", "format"}


@pytest.mark.parametrize("format", [OBJECT, ARRAY])
def test_one_that_cannot_be_forced_is_asked_for_json_in_words(format: dict[str, Any]) -> None:
    sent = body(request("claude-opus-5-5", system="Be brief.", response_format=format))
    assert sent["system"].startswith("Be brief.\n\nAnswer with ")
    assert ('"items"' in sent["system"]) is (format is ARRAY)
    assert not sent.keys() & {"tools", "tool_choice"}


@pytest.mark.parametrize(("model", "goes_on"), [("m", True), ("claude-haiku-4-5", True), ("claude-opus-4-6", False)])
def test_only_some_go_on_from_a_beginning(model: str, goes_on: bool) -> None:
    assert can_continue(ProviderConfig(kind="anthropic"), request(model)) is goes_on
