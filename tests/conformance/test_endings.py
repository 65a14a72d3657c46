"""How an answer ends, and what it took."""

import pytest

from tests.conformance.bench import Bench
from tests.provider import Finish, NoUsage, Refusal, Text, Tokens, Usage

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
async def test_the_reason_is_told(bench: Bench, reason: str) -> None:
    bench.script(Text("So"), Finish(reason))
    answer = await bench.answer()
    assert answer.end == ("completed", reason if bench.row.tells_reason else "stop")
    assert answer.job["finish_reason"] == answer.last.data["finish_reason"]


async def test_a_refusal_is_an_answer(bench: Bench) -> None:
    bench.script(Refusal("I will not."))
    answer = await bench.answer()
    if bench.row.tells_refusal:
        assert (answer.end, answer.text) == (("completed", "content_filter"), "")
    else:
        assert (answer.end, answer.text) == (("completed", "stop"), "I will not.")
        marked = {event.data.get("refusal", False) for event in answer.events if event.event == "token"}
        assert marked == {bench.row.marks_refusal}


async def test_usage_is_the_provider_s_own(bench: Bench) -> None:
    bench.script(Tokens("One two three."), Usage(input=1000, output=50, cached=600, reasoning=20))
    answer = await bench.answer()
    usage = answer.job["usage"]
    assert usage == answer.last.data["usage"]
    if not bench.row.tells_usage:
        assert usage["estimated"] is True
        return
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (1000, 50, False)
    assert (usage["cached_input_tokens"], usage["reasoning_tokens"]) == (600, 20)


async def test_what_is_written_to_the_cache_is_input_too(bench: Bench) -> None:
    bench.script(Text("ok"), Usage(input=1000, output=5, cached=100, cache_written=300))
    if bench.row.tells_usage:
        assert (await bench.answer()).job["usage"]["input_tokens"] == 1000


async def test_without_figures_usage_is_estimated(bench: Bench) -> None:
    if bench.row.signs and not bench.row.background:
        return  # Anthropic's format has figures always.
    bench.script(Text("four score and seven"), NoUsage())
    usage = (await bench.answer()).job["usage"]
    assert (usage["input_tokens"], usage["output_tokens"], usage["estimated"]) == (1, 5, True)
