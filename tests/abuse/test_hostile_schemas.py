"""Schemas and answers that are meant to be hard to check: refused, or checked in bounded time."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from shared.events import load
from shared.weight import weight
from tests.abuse.test_hostile_providers import beat
from tests.client import Client, body
from tests.provider import Stamps, Text
from tests.stack import Stack, eventually


def formatted(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def deep(levels: int) -> str:
    return '{"not":' * levels + "{}" + "}" * levels


def multiplied(levels: int) -> dict[str, Any]:
    """Return a schema of a few lines that is looked at 2**levels times."""
    steps = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(levels)}
    return {"$defs": {**steps, f"a{levels}": {"type": "object"}}, "$ref": "#/$defs/a0"}


REFUSED: dict[str, Any] = {
    "no schema": {"type": "nonsense"},
    "a reference to a file": {"$ref": "file:///etc/passwd"},
    "a reference to nothing": {"$ref": "#/$defs/none"},
    "a draft of its own": {"$schema": "http://127.0.0.1:1/draft", "type": "object"},
    "depth 1,000": deep(1_000),
    "30,000 properties": {"properties": {f"k{n}": {"type": "string"} for n in range(30_000)}},
    "an enum of 50,000": {"enum": [f"v{n}" for n in range(50_000)]},
    "2,000 patterns": {"patternProperties": {rf"^(\w{{40}}){{10}}{n}$": {} for n in range(2_000)}},
    "a pattern that grows when it is compiled": {"pattern": r"((\w{100}){100}){100}"},
    "a pattern of 100,000 characters": {"pattern": "a" * 100_000},
    "a pattern that looks ahead": {"pattern": "(?=a)b"},
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_schema_that_is_too_much_is_refused_at_once(stack: Stack, client: Client, name: str) -> None:
    """CWE-400, CWE-674, CWE-1333, CWE-918: before anything is queued, and with nobody else held up meanwhile."""
    async with beat() as longest:
        schema = REFUSED[name]
        written = schema if isinstance(schema, str) else json.dumps(schema)
        request = json.dumps(body(response_format=formatted("HERE"))).replace('"HERE"', written)
        response = await client.http.post("/v1/jobs", content=request, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422), response.text
    assert len(response.content) < 1_000
    assert longest() < 0.3
    assert stack.provider.calls == []


@pytest.mark.parametrize("keyword", ["$ref", "$dynamicRef", "$recursiveRef", "$schema"])
async def test_nothing_that_a_schema_refers_to_is_fetched(stack: Stack, client: Client, keyword: str) -> None:
    """CWE-918: neither by the API nor by a worker."""
    stack.provider.script("m", Text("{}"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/schema"
        for schema in ({keyword: address}, {"$id": address, "properties": {"a": {keyword: "other"}}}):
            response = await client.http.post("/v1/jobs", json=body(response_format=formatted(schema)))
            if response.status_code == 202:
                await client.all_events(response.json()["id"])
            else:
                assert response.status_code == 422
        with pytest.raises(BlockingIOError):
            listener.accept()


TREE = {"$defs": {"t": {"properties": {"l": {"$ref": "#/$defs/t"}, "r": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}
EVIL = {"properties": {"a": {"type": "string", "pattern": "^(a+)+$"}}}
MANY = {"properties": {f"k{n}": {"type": "integer"} for n in range(6_000)}}
CHOICE = {"properties": {"a": {"enum": [f"v{n}" for n in range(10_000)]}}}
DYNAMIC = {"$dynamicAnchor": "n", "properties": {"a": {"$dynamicRef": "#n"}}}
UNIQUE = {"properties": {"a": {"uniqueItems": True}}}

# The schema, the answer, and how its job ends.
CHECKED: dict[str, tuple[Any, str, str]] = {
    "references that multiply": (multiplied(45), "{}", "output_unchecked"),
    "references that multiply a little": (multiplied(8), "{}", "completed"),
    "a reference to itself": ({"$ref": "#"}, "{}", "completed"),
    "a tree": (TREE, '{"l":{"l":{},"r":{}}}', "completed"),
    "a pattern that backtracks elsewhere": (EVIL, json.dumps({"a": "a" * 500_000 + "b"}), "invalid_output"),
    "6,000 properties": (MANY, json.dumps({f"k{n}": n for n in range(6_000)}), "completed"),
    "a choice of 10,000": (CHOICE, '{"a":"none"}', "invalid_output"),
    "a dynamic reference": (DYNAMIC, '{"a":{"a":{}}}', "completed"),
    "items that are not unique": (UNIQUE, json.dumps({"a": [*range(50_000), 1]}), "invalid_output"),
    "an answer 100,000 deep": ({}, '{"a":' + "[" * 100_000 + "]" * 100_000 + "}", "invalid_output"),
    "an answer 1,015 deep": ({}, '{"a":' + "[" * 1_015 + "]" * 1_015 + "}", "invalid_output"),
    "an answer 300 deep": ({}, '{"a":' + "[" * 300 + "]" * 300 + "}", "invalid_output"),
    "an answer 300 deep with half a character": (
        {}, '{"b":"\\ud83d","a":' + "[" * 300 + "]" * 300 + "}", "invalid_output",
    ),
    "an answer of 70,000 keys": ({}, json.dumps({f"{n}": 1 for n in range(70_000)}), "completed"),
    "an answer of 2 MiB": ({}, '"' + "x" * 2_097_152 + '"', "answer_too_large"),
    "a number of 5,000 digits": ({}, '{"a":' + "9" * 5_000 + "}", "invalid_output"),
    "a number of 300 digits": ({}, '{"a":' + "9" * 300 + "}", "completed"),
    "1e999": ({}, '{"a":1e999}', "invalid_output"),
    "NaN": ({}, '{"a":NaN,"b":"\\ud83d"}', "invalid_output"),
    "one key twice": ({"properties": {"a": {"type": "integer"}}}, '{"a":"x","a":1}', "completed"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKED)
async def test_no_check_holds_up_another_job(bare: Stack, name: str) -> None:
    """CWE-400, CWE-407, CWE-674, CWE-1333: each ends in its way, soon, while another answer on its worker goes on."""
    schema, answer, ending = CHECKED[name]
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("stamps", Stamps(10_000, delay_s=0.01))
    # (In pieces: the scripted provider shares the loop.)
    bare.provider.script("m", *[Text(answer[at : at + 50_000]) for at in range(0, len(answer), 50_000)])
    other = await client.submit("stamps")
    job_id = await client.submit(response_format=formatted(schema))
    async with beat() as longest:
        events = await asyncio.wait_for(client.all_events(job_id), 10)
        assert (await client.job(other))["status"] == "running"
    last = events[-1]
    assert last.data.get("code", last.event) == ending
    assert longest() < 0.5
    job = await client.http.get(f"/v1/jobs/{job_id}")
    assert job.status_code == 200
    if ending == "completed" and len(answer) < 1_000:
        # What readers are shown is JSON that anybody reads.
        assert last.data["parsed"] == load(answer.encode())
    await client.cancel(other)


async def test_who_checks_is_replaced_when_it_dies_and_leaves_with_its_worker(bare: Stack) -> None:
    """CWE-400, CWE-772: one that was killed costs nobody an answer."""
    worker = await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text('{"l":{}}'))
    checker = worker.worker.workshop._checker
    for _ in range(3):
        assert (await client.all_events(await client.submit(response_format=formatted(TREE))))[-1].event == "completed"
        (process,) = checker._idle
        process.send_signal(signal.SIGKILL)
        await process.wait()
    assert (await client.all_events(await client.submit(response_format=formatted(TREE))))[-1].event == "completed"
    (process,) = checker._idle
    await worker.stop()
    await eventually(lambda: process.returncode is not None)


async def test_who_checks_knows_no_keys(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """CWE-526: it reads what strangers have written."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    worker = await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text('{"l":{}}'))
    await client.all_events(await client.submit(response_format=formatted(TREE)))
    (process,) = worker.worker.workshop._checker._idle
    assert b"canary" not in environment(process.pid)


def environment(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


@pytest.mark.parametrize(
    ("schema", "parts"),
    [
        ({}, 1),
        ({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}}, 5),
        ({"$defs": {"a": {"type": "string"}}, "items": {"$ref": "#/$defs/a"}}, 5),
        (multiplied(10), 4_096),
        ({"$ref": "#"}, None),
        (TREE, None),
        (EVIL, None),
        (DYNAMIC, None),
        ({"$ref": "#/$defs/none"}, None),
        ({"format": []}, None),
        ({"properties": 5}, None),
        ({"unheard-of": 1}, None),
        (load(deep(200).encode()), None),
    ],
)
def test_a_schema_has_a_weight_where_its_check_has_a_bound(schema: dict[str, Any], parts: int | None) -> None:
    """CWE-407: what is unknown has none."""
    found = weight(schema)
    assert (found is None) == (parts is None)
    assert found is None or parts is None or parts <= found <= 2 * parts
