"""Thinking: an event of its own, never part of the text."""

import pytest

from tests.conformance.bench import Bench
from tests.provider import Reasoning, Text

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_thinking_is_told_apart_from_the_answer(bench: Bench) -> None:
    bench.script(Reasoning("Hm. ", bench.row.thought), Reasoning("Yes.", bench.row.thought), Text("42"))
    answer = await bench.answer()
    thought = "".join(event.data["text"] for event in answer.events if event.event == "reasoning")
    assert thought == answer.job["reasoning"] == ("Hm. Yes." if bench.row.shows_thinking else "")
    assert answer.text == answer.job["text"] == "42"


async def test_what_is_signed_is_kept_for_the_next_turn(bench: Bench) -> None:
    bench.script(Reasoning("Hm.", bench.row.thought), Text("42"))
    blocks = (await bench.answer()).job["reasoning_blocks"]
    assert bool(blocks) is bench.row.signs
    assert all(block.get("signature") or block.get("data") or block.get("id") for block in blocks)
