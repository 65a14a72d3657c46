"""A provider that says nothing is given up, and its call is closed."""

import pytest

from tests.conformance.bench import Bench
from tests.provider import Delay, Ping, Silence, Step, Text

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = {"first_token_timeout_s": 0.3, "idle_timeout_s": 0.3}


@pytest.mark.parametrize(
    ("script", "code"),
    [([Silence()], "first_token_timeout"), ([Text("x"), Silence()], "idle_timeout")],
    ids=["before the first token", "in mid-answer"],
)
async def test_silence_is_given_up(bench: Bench, script: list[Step], code: str) -> None:
    bench.script(*script)
    answer = await bench.answer()
    assert answer.end == ("failed", code)
    assert await bench.given_up(bench.calls[0])
    assert len(bench.calls) == 1, "it may have been billed"


async def test_pings_are_no_tokens(bench: Bench) -> None:
    bench.script(*[step for _ in range(10) for step in (Ping(), Delay(0.1))], Text("late"))
    assert (await bench.answer()).end == ("failed", "first_token_timeout")
