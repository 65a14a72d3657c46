"""Any log as a response: nothing is told twice, whatever its attempts have said, and however its entries are cut."""

import tracemalloc
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from api.faces.openai_responses import Events
from api.faces.openai_responses_items import Event
from api.faces.openai_responses_story import Story
from shared.events import Answer, Entry, EventId, dump, merge, refusal_data, text_data

HEAD = {"id": "resp_0", "model": "asked"}
WHO: dict[str, Any] = {"provider": "p", "model": "m"}
USAGE = {"input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 1, "estimated": False}

# So few letters that attempts often say the same.
piece = st.tuples(st.sampled_from(["text", "text", "text", "refusal", "thought", "call"]), st.text("ab", max_size=3))
attempt = st.tuples(st.booleans(), st.lists(piece, max_size=6))
attempts = st.lists(attempt, min_size=1, max_size=4)
ends = st.sampled_from(["stop", "length", "failed", "cancelled"])


def entries(attempts: list[tuple[bool, list[tuple[str, str]]]], end: str) -> list[Entry]:
    """Return the log of these attempts, each of which goes on with the one before or begins again."""
    log = [Entry(EventId(0, 1), "queued", b'{"position":1}')]
    calls = 0
    for number, (goes_on, pieces) in enumerate(attempts, 1):
        name = "started" if number == 1 or goes_on else "restarted"
        calls = calls if goes_on else 0
        log.append(Entry(EventId(number, 0), name, dump({"attempt": number, **WHO})))
        for seq, (kind, text) in enumerate(pieces, 1):
            if kind == "call":
                data = dump({"index": calls, "id": f"call_{calls}", "name": "f", "arguments": text})
                calls += 1
            else:
                data = refusal_data(text) if kind == "refusal" else text_data(text)
            event = {"thought": "reasoning", "call": "tool_call"}.get(kind, "token")
            log.append(Entry(EventId(number, seq), event, data))
    last = EventId(len(attempts), 1_000)
    if end in ("failed", "cancelled"):
        log.append(Entry(last, end, dump({"code": "provider_error", "message": "x", "usage": USAGE})))
    else:
        data = dump({"finish_reason": end, **WHO, "usage": USAGE, "duration_ms": 1})
        log.append(Entry(last, "completed", data))
    return log


def told(log: list[Entry]) -> tuple[list[Event], dict[str, Any]]:
    story = Story(HEAD, 0)
    events = [event for entry in log for event in story.read(entry)]
    return events, story.response()


def texts(output: list[dict[str, Any]]) -> str:
    parts = [part for item in output if item["type"] == "message" for part in item["content"]]
    return "".join(part.get("text", "") + part.get("refusal", "") for part in parts)


def answer_begins(log: list[Entry]) -> int:
    """Return the attempt that nothing was dropped behind."""
    return max([entry.id.attempt for entry in log if entry.event == "restarted"], default=0)


def nameless(output: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in item.items() if name not in ("id", "call_id")} for item in output]


@given(attempts, ends)
@example([(False, [("thought", "a"), ("text", "b")]), (False, [("thought", "aa"), ("text", "b")])], "stop")
def test_what_is_told_is_the_last_attempt_s_and_no_item_is_told_twice(
    given_attempts: list[tuple[bool, list[tuple[str, str]]]], end: str
) -> None:
    log = entries(given_attempts, end)
    events, response = told(log)
    items: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}
    for kind, fields in events:
        if kind == "response.output_item.added":
            assert fields["output_index"] == len(items)
            items[fields["output_index"]] = ""
        elif kind.endswith(".delta"):
            assert fields["output_index"] not in done, "nothing goes on behind its end"
            items[fields["output_index"]] += fields["delta"]
        elif kind == "response.output_item.done":
            done[fields["output_index"]] = fields["item"]
    for index, item in done.items():
        parts = [*item.get("content", ()), *item.get("summary", ())]
        whole = "".join(part.get("text", "") + part.get("refusal", "") for part in parts) + item.get("arguments", "")
        assert whole == items[index], "an item is the sum of its deltas"
    if end in ("stop", "length"):
        answer = Answer.of(log)
        assert texts(response["output"]) == answer.text
        counts = [entry for entry in log if entry.id >= (answer_begins(log), 0)]
        assert nameless(response["output"]) == nameless(told(counts)[1]["output"]), "as if none had been lost"
        assert [item["arguments"] for item in response["output"] if item["type"] == "function_call"] == [
            call["arguments"] for call in answer.tool_calls
        ]
        assert done.keys() == items.keys()
        kept = [item["id"] for item in response["output"]]
        assert kept == [done[index]["id"] for index in sorted(done) if done[index]["id"] in kept]
    ids = [item["call_id"] for item in done.values() if item["type"] == "function_call"]
    assert len(set(ids)) == len(ids)


@given(attempts, ends)
def test_the_response_is_the_same_however_its_log_is_cut(
    given_attempts: list[tuple[bool, list[tuple[str, str]]]], end: str
) -> None:
    log = entries(given_attempts, end)
    assert told(log)[1] == told(list(merge(log)))[1]


@given(attempts, ends, st.integers(min_value=0, max_value=60))
def test_a_stream_that_is_resumed_is_the_rest_of_the_whole(
    given_attempts: list[tuple[bool, list[tuple[str, str]]]], end: str, after: int
) -> None:
    log = entries(given_attempts, end)
    whole = Events(Story(HEAD, 0)).body(log).split(b"\n\n")
    assert Events(Story(HEAD, 0), after).body(log).split(b"\n\n") == (whole[after + 1 :] or [b""])


def test_what_a_reader_has_of_a_long_answer_is_about_its_text() -> None:
    """Each reader of a response has a story of its own."""
    tokens = 20_000
    story = Story(HEAD, 0)
    tracemalloc.start()
    try:
        for number in range(tokens):
            text = f"{number:05d}"
            call = dump({"index": 0, "id": "call_0", "name": "f", "arguments": text})
            kind, data = ("token", text_data(text)) if number < tokens // 2 else ("tool_call", call)
            story.read(Entry(EventId(1, number), kind, data))
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(story.response()["output"]) == 2
    assert kept < 3 * 5 * tokens
