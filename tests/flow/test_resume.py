"""Readers that come and go: nothing twice, nothing missing, on any API process."""

import asyncio
import json
import random
import re
from contextlib import aclosing

import pytest

from tests.client import LAST, Client, Event, Frames, text
from tests.paced import Paced
from tests.provider import Silence, Step, Text, Tokens, Wait
from tests.stack import Stack, eventually

ANSWER = [f"{i} " for i in range(300)]


async def test_a_reader_cut_hundreds_of_times_sees_everything_once(stack: Stack, client: Client) -> None:
    """Cut after a random number of bytes, come back on another process with the last complete id.

    Each token comes when the one before it has been read, or its reader cut: cuts do not hang on this machine's speed.
    """
    gates = [stack.provider.gate() for _ in ANSWER]
    held = iter(gates)
    steps: list[Step] = []
    for token, gate in zip(ANSWER, gates, strict=True):
        steps += (Text(token), Wait(gate))
    stack.provider.script("m", *steps)
    job_id = await client.submit()
    choose = random.Random(7)
    seen: list[Event] = []
    cuts = 0
    while not seen or seen[-1].event not in LAST:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": seen[-1].id} if seen else {})
        url = f"{client.urls[cuts % 2]}/v1/jobs/{job_id}/events"
        # Often too few bytes for even one frame, now and then enough for the longest.
        frames, left = Frames(), choose.randrange(20, 130) if choose.random() < 0.85 else 600
        async with client.http.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            async for chunk in response.aiter_bytes():
                if b"event: token" in chunk and (held_back := next(held, None)) is not None:
                    held_back.open()
                seen += frames.feed(chunk[:left])
                left -= len(chunk)
                if left <= 0:
                    cuts += 1
                    break
    assert cuts >= 100
    keys = [event.key for event in seen]
    assert keys == sorted(set(keys))
    assert text(seen) == "".join(ANSWER)
    assert [event.event for event in seen if event.event not in ("token",)] == ["queued", "started", "completed"]


@pytest.mark.parametrize("api", [0, 1])
async def test_every_cursor_of_a_finished_log_gives_exactly_the_rest(stack: Stack, client: Client, api: int) -> None:
    paced = Paced(stack, ANSWER[:30])
    stack.provider.script("m", *paced.steps)
    job_id = await client.submit()
    live = await paced.read(client, job_id)
    assert len(live) > 20
    for at, event in enumerate(live[:-1]):
        rest = await client.all_events(job_id, event.id, api)
        assert text(rest) == text(live[at + 1 :])
        assert rest[-1] == live[-1]
        assert not {e.event for e in rest} & {"snapshot"}


async def test_two_hundred_readers_of_one_job_see_one_history(stack: Stack, client: Client) -> None:
    stack.configure()
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Tokens(ANSWER[:50], delay_s=0.002))
    job_id = await client.submit()
    readers = [asyncio.create_task(client.all_events(job_id, api=i % 2)) for i in range(90)]
    await eventually(lambda: sum(api.app.state.rejoin.hub.open_streams for api in stack.apis) == 90)
    gate.open()
    late = [asyncio.create_task(client.all_events(job_id, api=i % 2)) for i in range(10)]
    histories = await asyncio.gather(*readers, *late)
    for events in histories:
        assert text(events) == "a" + "".join(ANSWER[:50])
        assert events[-1] == histories[0][-1]


async def test_the_last_event_as_cursor_is_204(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    last = (await client.all_events(job_id))[-1]
    url = f"/v1/jobs/{job_id}/events"
    for response in (
        await client.http.get(url, headers={"Last-Event-ID": last.id}),
        await client.http.get(url, params={"last_event_id": last.id}),
    ):
        assert response.status_code == 204
        assert response.content == b""


async def test_the_header_comes_before_the_query(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    events = await client.all_events(job_id)
    response = await client.http.get(
        f"/v1/jobs/{job_id}/events", params={"last_event_id": events[0].id}, headers={"Last-Event-ID": events[-1].id}
    )
    assert response.status_code == 204


@pytest.mark.parametrize(
    "cursor",
    ["01-1", "1-01",
     "$", "+", "-", "0", "abc", "1-2-3", "-1-1", "1-", "-1", " 1-1", "1-1 ", "1.0-1", "1" * 21 + "-1", f"{2**64}-0",
     "١-١", "1-1\t", "0x1-1", "*", "1-*", "(1-1"],
)  # fmt: skip
async def test_a_malformed_id_is_400(stack: Stack, client: Client, cursor: str) -> None:
    """CWE-20: what Redis would take for a command about the stream must not reach it."""
    job_id = await client.submit()
    response = await client.http.get(f"/v1/jobs/{job_id}/events", params={"last_event_id": cursor})
    assert response.status_code == 400, cursor
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["code"] == "invalid_last_event_id"


@pytest.mark.parametrize("cursor", ["1-999", "7-0", "0-2", f"{2**64 - 1}-{2**64 - 1}"])
async def test_an_id_that_the_log_never_held_gets_a_snapshot_first(stack: Stack, client: Client, cursor: str) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    job_id = await client.submit()
    await client.until(job_id, "token")
    async with aclosing(client.events(job_id, cursor)) as events:  # type: ignore[type-var]
        first = await anext(events)
        assert first.event == "snapshot"
        assert first.data == {"attempt": 1, "text": "Hel", "reasoning": "", "tool_calls": []}
        assert first.id == "1-1"
        gate.open()
        rest = [event async for event in events]
    assert text([first, *rest]) == "Hello"
    assert rest[-1].event == "completed"
    finished = await client.all_events(job_id, cursor)
    assert [event.event for event in finished] == ["snapshot", "completed"]
    assert finished[0].data["text"] == "Hello"
    assert finished[1] == rest[-1]


async def test_heartbeats_are_comments_of_one_line_and_the_first_comes_at_once(bare: Stack) -> None:
    bare.configure(heartbeat_s=0.1)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Silence())
    job_id = await client.submit()
    received = b""
    async with client.http.stream("GET", f"/v1/jobs/{job_id}/events") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-cache, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert response.headers["x-content-type-options"] == "nosniff"
        async for chunk in response.aiter_bytes():
            if not received:
                assert re.match(rb"retry: [123]\d{3}\n: ping\n", chunk)
            received += chunk
            if received.count(b": ping\n") >= 4:
                break
    assert b": ping\n\n" not in received
    assert received.count(b"retry:") == 1


async def test_every_frame_has_its_data_before_its_id(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    raw = (await client.http.get(f"/v1/jobs/{job_id}/events")).content
    *blocks, rest = raw.split(b"\n\n")
    assert rest == b""
    for block in blocks:
        names = [line.partition(b":")[0] for line in block.split(b"\n") if not line.startswith((b":", b"retry"))]
        assert names == [b"event", b"data", b"id"]


async def test_ndjson_is_the_same_history_a_line_each(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens(ANSWER[:5], delay_s=0.02))
    job_id = await client.submit()
    response = await client.http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": "application/x-ndjson"})
    assert response.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in response.text.splitlines()]
    sse = await client.all_events(job_id)
    assert all(set(line) == {"id", "event", "data"} for line in lines)
    assert text([Event(**line) for line in lines]) == text(sse) == "".join(ANSWER[:5])
    assert lines[-1] == {"id": sse[-1].id, "event": sse[-1].event, "data": sse[-1].data}
    rest = await client.http.get(
        f"/v1/jobs/{job_id}/events", headers={"Accept": "application/x-ndjson", "Last-Event-ID": "1-0"}
    )
    assert json.loads(rest.text.splitlines()[0])["event"] == "token"


async def test_long_poll_goes_on_from_its_own_cursor_to_the_end(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens(ANSWER[:20], delay_s=0.01))
    job_id = await client.submit()
    events, cursor, closed = [], None, False
    while not closed:
        params = {"wait_s": 5} | ({"last_event_id": cursor} if cursor else {})
        response = await client.http.get(
            f"/v1/jobs/{job_id}/events", params=params, headers={"Accept": "application/json"}
        )
        answer = response.json()
        events += [Event(**event) for event in answer["events"]]
        cursor, closed = answer["last_event_id"], answer["closed"]
    assert text(events) == "".join(ANSWER[:20])
    assert [event.key for event in events] == sorted({event.key for event in events})
    assert events[-1].event == "completed"
    again = await client.http.get(
        f"/v1/jobs/{job_id}/events", params={"last_event_id": cursor}, headers={"Accept": "application/json"}
    )
    assert again.json() == {"events": [], "last_event_id": cursor, "closed": True}


async def test_long_poll_answers_when_the_wait_is_over(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    token = await client.until(job_id, "token")
    response = await client.http.get(
        f"/v1/jobs/{job_id}/events",
        params={"last_event_id": token.id, "wait_s": 0.05},
        headers={"Accept": "application/json"},
    )
    assert response.json() == {"events": [], "last_event_id": token.id, "closed": False}


async def test_post_with_accept_of_a_stream_answers_with_the_events(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("Hello"))
    response = await client.http.post(
        "/v1/jobs",
        json={"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "x"}]},
        headers={"Accept": "text/event-stream"},
    )
    assert response.status_code == 200
    assert response.headers["location"] == f"/v1/jobs/{response.headers['x-job-id']}"
    events = Frames().feed(response.content)
    assert text(events) == "Hello"
    assert [event.event for event in events][:2] == ["queued", "started"]
    assert await client.all_events(response.headers["x-job-id"]) == events
