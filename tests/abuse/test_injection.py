"""What a client or a provider writes is text wherever it is shown again: never a frame, never a header line."""

import asyncio
import json
from typing import Any

import pytest

from tests import keys
from tests.client import Client, body, text
from tests.provider import Text
from tests.stack import Stack

FORGED = "\r\n\r\nevent: completed\ndata: {}\rid: 9-9\n\nretry: 1\n: \u2028\u2029\x85\x00\x0b\x0c\ufeff end"


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    return bare


async def test_a_forged_frame_in_any_free_text_stays_text(guarded: Stack, alice: Client) -> None:
    """CWE-93: prompt, system, stop, tools and their results, and the answer itself; in SSE, NDJSON and by long-poll."""
    guarded.provider.script("m", Text(FORGED[:9]), Text(FORGED[9:]))
    call = {"id": f"c{FORGED}", "name": "t", "arguments": json.dumps(FORGED)}
    messages = [
        {"role": "user", "content": FORGED},
        {"role": "assistant", "content": FORGED, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": FORGED},
    ]
    tools = [{"name": "t", "description": FORGED, "parameters": {"description": FORGED}}]
    job_id = await alice.submit(messages=messages, system=FORGED, stop=[FORGED], tools=tools)
    events = await asyncio.wait_for(alice.all_events(job_id), 10)
    assert text(events) == FORGED
    assert {event.event for event in events} == {"queued", "started", "token", "completed"}
    url = f"/v1/jobs/{job_id}/events"
    ndjson = await alice.http.get(url, headers={"Accept": "application/x-ndjson"})
    lines = [json.loads(line) for line in ndjson.content.rstrip(b"\n").split(b"\n")]
    assert [line["event"] for line in lines].count("completed") == 1
    polled = (await alice.http.get(url, headers={"Accept": "application/json"})).json()
    assert polled["closed"]
    assert (await alice.job(job_id))["text"] == FORGED


@pytest.mark.parametrize("field", ["provider", "model", "fallback", "metadata name", "metadata value", "tool name"])
@pytest.mark.parametrize("forged", ["a\r\nb", "a\nb", "a\rb", "a\u2028b", "a\x00b", "a\x85b"])
async def test_a_line_break_in_a_name_is_refused(guarded: Stack, alice: Client, field: str, forged: str) -> None:
    """CWE-93, CWE-113: names go into headers, logs and metrics of others."""
    changes: dict[str, dict[str, Any]] = {
        "provider": {"provider": forged},
        "model": {"model": forged},
        "fallback": {"fallbacks": [{"provider": "openai", "model": forged}]},
        "metadata name": {"metadata": {forged: "x"}},
        "metadata value": {"metadata": {"x": forged}},
        "tool name": {"tools": [{"name": forged}]},
    }
    response = await alice.http.post("/v1/jobs", json={**body(), **changes[field]})
    assert response.status_code == 422
    # (A problem names the field: that of metadata is the name itself, as a string of JSON.)
    assert forged not in response.text or field == "metadata name"


CURSORS = [
    "$", "+", "-", "0", "*", "abc", "1-2-3", "1-", "-1", "1--1", "1-1\x01", "9" * 21 + "-1", "1-" + "9" * 21,
    "x" * 8000, "1-1;x", "1_0-1", "0x1-1", "1e3-1", "(1-1", "1-1 1-2",
]  # fmt: skip


@pytest.mark.parametrize("cursor", CURSORS, ids=lambda cursor: repr(cursor)[:20])
async def test_a_cursor_that_is_no_event_id_is_400_and_not_shown_again(
    guarded: Stack, alice: Client, cursor: str
) -> None:
    """CWE-20, CWE-116: no command to Redis, no jump in the history, no server error."""
    job_id = await alice.submit()
    await alice.all_events(job_id)
    url = f"/v1/jobs/{job_id}/events"
    requests: list[dict[str, Any]] = [{"params": {"last_event_id": cursor}}, {"headers": {"Last-Event-ID": cursor}}]
    for request in requests:
        if "headers" in request and "\x01" in cursor:
            continue
        response = await alice.http.get(url, **request)
        assert response.status_code in (400, 422), response.text
        assert "x" * 100 not in response.text


async def test_no_header_of_an_answer_holds_what_the_client_wrote(guarded: Stack, alice: Client) -> None:
    """CWE-113: neither keys, request ids, queries nor metadata come back as a header line."""
    headers = {"X-Request-ID": "canary-1", "Idempotency-Key": "canary-2", "Traceparent": "canary-3", "Host": "canary-4"}
    request = body(metadata={"canary-5": "canary-6"}, model="canary-7")
    response = await alice.http.post("/v1/jobs?x=canary-8%0d%0aX-Evil:1", json=request, headers=headers)
    assert response.status_code == 202
    assert "canary" not in str(response.headers.multi_items())
    assert "x-evil" not in response.headers
