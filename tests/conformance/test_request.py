"""What the client asks reaches the provider, or is refused with the field's name; nothing is dropped in silence."""

from typing import Any

import pytest

from tests.conformance.bench import HI, Bench
from tests.conformance.ears import PIXEL
from tests.conformance.rows import Feature

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_the_turns_are_the_client_s(bench: Bench) -> None:
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Two"},
        {"role": "user", "content": [{"type": "text", "text": "Thr"}, {"type": "text", "text": "ee"}]},
    ]
    await bench.answer(messages=turns)
    assert bench.heard()["turns"] == [("user", "One"), ("assistant", "Two"), ("user", "Three")]


async def test_instructions_stand_before_them(bench: Bench) -> None:
    await bench.answer(system="Be brief.")
    heard = bench.heard()
    assert (heard["system"], heard["turns"]) == ("Be brief.", [("user", "Hi")])


@pytest.mark.parametrize(
    ("feature", "value"),
    [("max_tokens", 77), ("temperature", 0.5), ("top_p", 0.9), ("stop", ["END", "."]), ("seed", 7)],
)
async def test_a_parameter_is_passed_on(bench: Bench, feature: Feature, value: Any) -> None:
    if await bench.ask(feature, **{feature: value}) is not None:
        assert bench.heard()[feature] == value


@pytest.mark.parametrize("feature", ["temperature", "top_p", "stop", "seed"])
async def test_what_is_not_asked_is_not_sent(bench: Bench, feature: str) -> None:
    await bench.answer()
    assert not bench.heard().get(feature)


@pytest.mark.parametrize("url", [PIXEL, "https://example.com/cat.png"], ids=["data", "address"])
async def test_images_reach_it(bench: Bench, url: str) -> None:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    if await bench.ask("images", messages=[{"role": "user", "content": content}]) is not None:
        heard = bench.heard()
        assert (heard["images"], heard["turns"]) == ([url], [("user", "What is it?")])


@pytest.mark.parametrize("effort", ["minimal", "low", "medium", "high"])
async def test_effort_reaches_it(bench: Bench, effort: str) -> None:
    if await bench.ask("reasoning", reasoning={"effort": effort}) is not None:
        assert bench.heard()["effort"]


async def test_more_effort_is_more(bench: Bench) -> None:
    if "reasoning" not in bench.row.cannot:
        for effort in ("low", "high"):
            await bench.answer(reasoning={"effort": effort})
        low, high = (bench.hearing(call)["effort"] for call in bench.calls)
        assert (low, high) == ("low", "high") or low < high


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
IMAGE = {"type": "image_url", "image_url": {"url": PIXEL}}
NEEDS: dict[Feature, dict[str, Any]] = {
    "max_tokens": {"max_tokens": 16},
    "temperature": {"temperature": 0.5},
    "top_p": {"top_p": 0.5},
    "stop": {"stop": ["END"]},
    "seed": {"seed": 1},
    "tools": {"tools": [TOOL]},
    "forced_tool": {"tools": [TOOL], "tool_choice": "required"},
    "images": {"messages": [{"role": "user", "content": [IMAGE]}]},
    "json_object": {"response_format": {"type": "json_object"}},
    "json_schema": {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "object"}}}},
    "reasoning": {"reasoning": {"effort": "low"}},
}


@pytest.mark.parametrize("feature", NEEDS)
async def test_what_it_cannot_honour_is_refused_also_for_a_fallback(any_bench: Bench, feature: Feature) -> None:
    """422 with the field's name, before anything is queued; what the row does not name is not refused."""
    row = any_bench.row
    if (field := row.cannot.get(feature)) is not None:
        await any_bench.refuse(field, **NEEDS[feature])
        request = {"provider": "openai", "model": any_bench.model, "messages": HI, **NEEDS[feature]}
        request["fallbacks"] = [{"provider": row.name, "model": any_bench.model}]
        response = await any_bench.client.http.post("/v1/jobs", json=request)
        assert response.status_code == 422
        assert f"cannot honour {field}" in response.json()["detail"]
        assert not any_bench.calls
    elif row.name != "demo":
        assert (await any_bench.answer(**NEEDS[feature])).events
