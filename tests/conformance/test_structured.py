"""Answers in JSON: asked for in the provider's words, streamed as text, checked in the end."""

from typing import Any

import pytest

from tests.city import ASKED, CITY, OBJECT, SCHEMA
from tests.conformance.bench import Answer, Bench
from tests.provider import Finish, Refusal, Text, Tokens, ToolCall, Wait

pytestmark = pytest.mark.asyncio(loop_scope="module")

PIECES = ('{"city": "Pa', 'ris", "peo', 'ple": 2100000}')


async def ask(bench: Bench, format: dict[str, Any]) -> Answer | None:
    feature: Any = format["type"]
    return await bench.ask(feature, messages=ASKED, response_format=format)


@pytest.mark.parametrize("format", [SCHEMA, OBJECT], ids=["schema", "object"])
async def test_it_streams_as_text_and_is_parsed_in_the_end(bench: Bench, format: dict[str, Any]) -> None:
    if bench.row.json_by_tool and format is OBJECT:
        bench.script(ToolCall("toolu_1", "answer", list(PIECES)), Finish("tool_calls"))
    else:
        bench.script(Tokens(list(PIECES)))
    if (answer := await ask(bench, format)) is None:
        return
    assert answer.text == "".join(PIECES)
    assert answer.end == ("completed", "stop")
    assert answer.job["parsed"] == answer.last.data["parsed"] == {"city": "Paris", "people": 2_100_000}
    assert answer.job["tool_calls"] == []
    if format is SCHEMA:
        assert bench.heard()["schema"] == CITY


async def test_what_is_there_can_be_read_while_the_rest_comes(bench: Bench) -> None:
    if "json_schema" in bench.row.cannot:
        return
    gate = bench.provider.gate()
    bench.script(Text('{"city": "Par'), Wait(gate), Text('is", "people": 3}'))
    job_id = await bench.submit(messages=ASKED, response_format=SCHEMA)
    await bench.client.until(job_id, "token")
    assert (await bench.client.job(job_id))["parsed"] == {"city": "Par"}
    gate.open()
    assert (await bench.ended(job_id)).job["parsed"] == {"city": "Paris", "people": 3}


@pytest.mark.parametrize(
    "said",
    ['{"city": "Paris"}', '{"city": "Paris", "people": "many"}', '{"city": "Pa', "Paris.", "[1]", ""],
    ids=["a field missing", "a wrong type", "cut", "no JSON", "no object", "nothing"],
)
async def test_an_answer_that_does_not_fit_fails_and_keeps_its_text(bench: Bench, said: str) -> None:
    bench.script(*([Text(said)] if said else []), Finish("stop"))
    if (answer := await ask(bench, SCHEMA)) is not None:
        assert answer.end == ("failed", "invalid_output")
        assert answer.job["text"] == said
        assert answer.job["usage"]["estimated"] is not bench.row.tells_usage
        assert len(bench.calls) == 1


async def test_an_answer_that_is_cut_short_does_not_fit(bench: Bench) -> None:
    bench.script(Text('{"city": "Pa'), Finish("length"))
    if (answer := await ask(bench, SCHEMA)) is not None:
        assert answer.end == ("failed", "invalid_output")


async def test_a_refusal_in_words_is_not_judged(bench: Bench) -> None:
    bench.script(Refusal("I will not."))
    if (answer := await ask(bench, SCHEMA)) is not None and bench.row.marks_refusal:
        assert answer.last.event == "completed"
        assert answer.last.data["parsed"] is None


async def test_a_refusal_is_not_judged(bench: Bench) -> None:
    bench.script(Text('{"ci'), Finish("content_filter"))
    if (answer := await ask(bench, SCHEMA)) is not None:
        assert answer.end == ("completed", "content_filter")
        assert answer.last.data["parsed"] is None
