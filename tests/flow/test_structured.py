"""Answers in JSON: which formats are taken, and what the check is made on. All providers: see `conformance`."""

from typing import Any

import pytest

from tests.city import ASKED, OBJECT, SCHEMA
from tests.client import Client, text
from tests.provider import Text, Wait
from tests.stack import Stack

PARIS = '{"city": "Paris", "people": 2100000}'


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
