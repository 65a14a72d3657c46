"""Tools: offered in the provider's words, called in pieces, answered in the next turn."""

from typing import Any

import pytest

from tests.conformance.bench import Bench
from tests.conformance.rows import Feature
from tests.provider import Arguments, Finish, Reasoning, RedactedThinking, Text, ToolCall, Wait

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
WEATHER: dict[str, Any] = {"type": "function", "function": FUNCTION}
TOOLS: dict[str, Any] = {"tools": [WEATHER]}
ASKED = {"role": "user", "content": "Weather in Paris?"}


async def test_a_call_is_streamed_and_whole_in_the_job(bench: Bench) -> None:
    pieces = ['{"ci', 'ty":"', 'Paris"}'] if bench.row.calls_in_pieces else '{"city":"Paris"}'
    bench.script(Text("Let me look. "), ToolCall("call_1", "get_weather", pieces), Finish("tool_calls"))
    if (answer := await bench.ask("tools", **TOOLS)) is None:
        return
    told = [event.data for event in answer.events if event.event == "tool_call"]
    assert (told[0]["index"], told[0]["id"], told[0]["name"]) == (0, "call_1", "get_weather")
    assert all("id" not in piece for piece in told[1:])
    assert "".join(piece["arguments"] for piece in told) == '{"city":"Paris"}'
    assert (answer.end, answer.job["text"]) == (("completed", "tool_calls"), "Let me look. ")
    assert answer.job["tool_calls"] == [
        {"index": 0, "id": "call_1", "name": "get_weather", "arguments": '{"city":"Paris"}'}
    ]


async def test_parallel_calls_are_kept_apart(bench: Bench) -> None:
    last: Any = ['{"city"', ':"Oslo"}'] if bench.row.calls_in_pieces else '{"city":"Oslo"}'
    bench.script(
        ToolCall("a", "get_weather", '{"city":"Rome"}'), ToolCall("b", "get_weather", last), Finish("tool_calls")
    )
    if (answer := await bench.ask("tools", **TOOLS)) is not None:
        assert [(call["index"], call["id"], call["arguments"]) for call in answer.job["tool_calls"]] == [
            (0, "a", '{"city":"Rome"}'),
            (1, "b", '{"city":"Oslo"}'),
        ]


async def test_arguments_can_be_read_while_they_come(bench: Bench) -> None:
    if "tools" in bench.row.cannot or not bench.row.calls_in_pieces:
        return
    gate = bench.provider.gate()
    bench.script(ToolCall("a", "get_weather", '{"city":'), Wait(gate), Arguments('"Rome"}'))
    job_id = await bench.submit(**TOOLS)
    await bench.client.until(job_id, "tool_call")
    assert (await bench.client.job(job_id))["tool_calls"][0]["arguments"] in ("", '{"city":')
    gate.open()
    answer = await bench.ended(job_id)
    assert answer.job["tool_calls"][0]["arguments"] == '{"city":"Rome"}'
    assert answer.end == ("completed", "tool_calls"), "also where the provider says no more than that it has stopped"


@pytest.mark.parametrize("nested", [True, False], ids=["OpenAI's nesting", "flat"])
async def test_what_a_tool_is_reaches_the_provider(bench: Bench, nested: bool) -> None:
    tool = WEATHER if nested else {"type": "function", **FUNCTION}
    if await bench.ask("tools", tools=[tool]) is not None:
        heard = bench.heard()
        assert heard["tools"] == [("get_weather", FUNCTION["description"], PARAMETERS)]
        assert heard.get("tool_choice") in (None, "auto")


@pytest.mark.parametrize("choice", ["auto", "none", "required", "get_weather"])
async def test_which_tool_is_to_be_called_is_the_client_s_to_say(bench: Bench, choice: str) -> None:
    named = {"type": "function", "function": {"name": "get_weather"}}
    feature: Feature = "tools" if choice in ("auto", "none") else "forced_tool"
    asked = named if choice == "get_weather" else choice
    if await bench.ask(feature, **TOOLS, tool_choice=asked) is not None:
        assert bench.heard()["tool_choice"] == choice


@pytest.mark.parametrize("thinking", [False, True], ids=["plain", "thinking"])
async def test_a_job_s_answer_is_taken_back_in_the_next_turn(bench: Bench, thinking: bool) -> None:
    """The scripted provider refuses a result without its call, and a thought whose signature is not its own."""
    row = bench.row
    thoughts = [Reasoning("Which city? ", row.thought), Reasoning("Paris.", row.thought)] if thinking else []
    sealed = [RedactedThinking("hidden")] if thinking and row.signs else []
    bench.script(*thoughts, *sealed, ToolCall("call_1", "get_weather", '{"city":"Paris"}'), Finish("tool_calls"))
    fields: dict[str, Any] = {**TOOLS, **({"reasoning": {"effort": "low"}} if thinking else {})}
    if (first := await bench.ask("tools", messages=[ASKED], **fields)) is None:
        return
    said = {name: first.job[name] for name in ("tool_calls", "reasoning_blocks")}
    turns = [
        ASKED,
        {"role": "assistant", "content": first.job["text"], **said},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]
    bench.script(Text("Sunny."))
    second = await bench.answer(messages=turns, **fields)
    assert second.end == ("completed", "stop"), bench.calls[-1].rejected
    assert second.text == "Sunny."
    heard = bench.heard()
    assert heard["calls"] == [("call_1", "get_weather", {"city": "Paris"})]
    assert heard["results"] == [("call_1", "sunny")]
    assert heard["thoughts"] == (["thinking", "redacted_thinking"] if thinking and row.signs else [])
