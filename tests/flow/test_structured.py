"""Answers in JSON: asked for in every provider's words, readable while they come, checked in the end."""

from typing import Any

import pytest

from tests.client import Client, text
from tests.provider import Finish, Text, Tokens, ToolCall, Wait
from tests.stack import Stack

BOTH = pytest.mark.parametrize("name", ["openai", "anthropic"])

CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY, "strict": True}}
OBJECT: dict[str, Any] = {"type": "json_object"}
PARIS = '{"city": "Paris", "people": 2100000}'
ASKED: list[dict[str, Any]] = [{"role": "user", "content": "A city as JSON"}]


def said(format: dict[str, Any], name: str, *pieces: str) -> list[Any]:
    """Script an answer: as text, or as the call by which Anthropic is made to answer in JSON."""
    if name == "anthropic" and format["type"] == "json_object":
        return [ToolCall("toolu_1", "answer", list(pieces)), Finish("tool_calls")]
    return [Tokens(list(pieces))]


@BOTH
@pytest.mark.parametrize("format", [SCHEMA, OBJECT], ids=["schema", "object"])
async def test_the_answer_streams_as_text_and_is_parsed_in_the_end(
    stack: Stack, client: Client, name: str, format: dict[str, Any]
) -> None:
    stack.provider.script("m", *said(format, name, '{"city": "Pa', 'ris", "peo', 'ple": 2100000}'))
    job_id = await client.submit(provider=name, messages=ASKED, response_format=format)
    events = await client.all_events(job_id)
    (call,) = stack.provider.calls
    assert call.rejected is None
    assert text(events) == PARIS
    assert (events[-1].event, events[-1].data["finish_reason"]) == ("completed", "stop")
    job = await client.job(job_id)
    assert job["parsed"] == events[-1].data["parsed"] == {"city": "Paris", "people": 2_100_000}
    assert job["tool_calls"] == []
    if name == "openai":
        assert call.body["response_format"] == format
    elif format is SCHEMA:
        assert call.body["output_config"]["format"] == {"type": "json_schema", "schema": CITY}
    else:
        assert call.body["tool_choice"] == {"type": "tool", "name": "answer"}


async def test_what_is_there_can_be_read_while_the_rest_comes(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text('{"city": "Par'), Wait(gate), Text('is", "people": 3}'))
    job_id = await client.submit(messages=ASKED, response_format=SCHEMA)
    await client.until(job_id, "token")
    assert (await client.job(job_id))["parsed"] == {"city": "Par"}
    gate.open()
    await client.all_events(job_id)
    assert (await client.job(job_id))["parsed"] == {"city": "Paris", "people": 3}


@BOTH
@pytest.mark.parametrize(
    "answer",
    ['{"city": "Paris"}', '{"city": "Paris", "people": "many"}', '{"city": "Pa', "Paris.", "[1]", ""],
    ids=["a field missing", "a wrong type", "cut", "no JSON", "no object", "nothing"],
)
async def test_an_answer_that_does_not_fit_fails_and_keeps_its_text(
    stack: Stack, client: Client, name: str, answer: str
) -> None:
    stack.provider.script("m", *([Text(answer)] if answer else []), Finish("stop"))
    job_id = await client.submit(provider=name, messages=ASKED, response_format=SCHEMA)
    events = await client.all_events(job_id)
    assert (events[-1].event, events[-1].data["code"]) == ("failed", "invalid_output")
    job = await client.job(job_id)
    assert (job["status"], job["text"]) == ("failed", answer)
    assert job["usage"]["estimated"] is False, "the provider has said what it took"
    assert len(stack.provider.calls) == 1


async def test_a_filtered_answer_is_not_judged(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text('{"ci'), Finish("content_filter"))
    events = await client.all_events(await client.submit(messages=ASKED, response_format=SCHEMA))
    assert (events[-1].event, events[-1].data["finish_reason"]) == ("completed", "content_filter")
    assert events[-1].data["parsed"] is None


async def test_text_is_never_parsed(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text(PARIS))
    job_id = await client.submit(messages=ASKED, response_format={"type": "text"})
    events = await client.all_events(job_id)
    assert events[-1].data["parsed"] is None
    assert (await client.job(job_id))["parsed"] is None
    assert "response_format" not in stack.provider.calls[0].body


def schema(value: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": value}}


@pytest.mark.parametrize(
    "change",
    [
        {"response_format": {"type": "yaml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
        {"response_format": schema({"type": "nonsense"})},
        {"response_format": schema({"$ref": "http://169.254.169.254/latest"})},
        {"response_format": schema({"$ref": "file:///etc/passwd"})},
        {"response_format": schema({"type": "string", "pattern": "(?=x)y"})},
        {"response_format": schema({"type": "object"}) | {"extra": 1}},
        {"response_format": OBJECT, "provider": "demo"},
        {"response_format": OBJECT, "provider": "anthropic", "reasoning": {"effort": "low"}},
    ],
)
async def test_a_format_that_cannot_be_honoured_is_422_and_named(
    stack: Stack, client: Client, change: dict[str, Any]
) -> None:
    response = await client.http.post(
        "/v1/jobs", json={"provider": "openai", "model": "m", "messages": ASKED, **change}
    )
    assert response.status_code == 422, response.text
    assert "response_format" in response.json()["detail"]
    assert stack.provider.calls == []


async def test_a_pattern_that_would_backtrack_for_ever_is_checked_at_once(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text('{"a": "' + "a" * 50 + 'b"}'))
    evil = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
    events = await client.all_events(await client.submit(messages=ASKED, response_format=schema(evil)))
    assert events[-1].data["code"] == "invalid_output"


async def test_a_half_read_answer_of_another_worker_is_checked_whole(stack: Stack, client: Client) -> None:
    """The check is made on the attempt's own text, not on what an earlier attempt has left."""
    gate = stack.provider.gate()
    stack.provider.script("m", Text('{"city": "Lost'), Wait(gate))
    stack.provider.then("m", Text(PARIS))
    job_id = await client.submit(messages=ASKED, response_format=SCHEMA)
    await client.until(job_id, "token")
    leaving = stack.workers[0]
    await stack.worker()
    await leaving.stop()
    events = await client.all_events(job_id)
    assert (events[-1].event, text(events)) == ("completed", PARIS)
    assert (await client.job(job_id))["parsed"] == {"city": "Paris", "people": 2_100_000}
