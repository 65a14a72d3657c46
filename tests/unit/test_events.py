"""Ids, merging, and what events add up to."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadCursor
from shared.events import MAX_MERGED_BYTES, START, Answer, Entry, EventId, dump, load, merge, refusal_data, text_data

# Everything that a JSON string can hold, halves of surrogate pairs included.
anything = st.text(st.characters(codec=None), max_size=20)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_an_id_survives_its_text(attempt: int, seq: int) -> None:
    assert EventId.parse(str(EventId(attempt, seq))) == EventId(attempt, seq)


@given(st.text(st.sampled_from("0123456789-$+*( \n\0٣"), max_size=24))
def test_only_two_numbers_are_an_id(raw: str) -> None:
    attempt, hyphen, seq = raw.partition("-")
    if hyphen and all(
        part.isascii() and part.isdigit() and int(part) < 2**64 and str(int(part)) == part for part in (attempt, seq)
    ):
        assert EventId.parse(raw) == (int(attempt), int(seq))
    else:
        with pytest.raises(BadCursor):
            EventId.parse(raw)


def test_nothing_stands_between_neighbours_of_one_attempt_only() -> None:
    assert EventId(1, 4).precedes(EventId(1, 5))
    assert not EventId(1, 4).precedes(EventId(1, 6))
    assert not EventId(1, 4).precedes(EventId(2, 0)), "attempt 1 may have gone on behind 1-4"


@given(anything)
def test_any_text_is_one_line_of_json(text: str) -> None:
    data = text_data(text)
    assert b"\n" not in data
    assert b"\r" not in data
    assert json.loads(data) == load(data)


@given(
    st.lists(
        st.tuples(st.sampled_from(["token", "refusal", "reasoning", "tool_call", "restarted"]), anything), max_size=30
    )
)
def test_merged_events_say_the_same_as_the_events(pieces: list[tuple[str, str]]) -> None:
    entries = []
    for seq, (event, text) in enumerate(pieces):
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        data: Any = {"text": whole} if event in ("token", "reasoning") else {"index": 0, "arguments": whole}
        refused = event == "refusal"
        entries.append(
            Entry(EventId(1, seq), "token" if refused else event, refusal_data(whole) if refused else dump(data))
        )
    merged = list(merge(entries))
    one, other = Answer(), Answer()
    for entry in entries:
        one.add(entry)
    for entry in merged:
        other.add(entry)
    assert one.snapshot(EventId(2, 0)).data == other.snapshot(EventId(2, 0)).data
    assert [entry.id for entry in merged] == sorted(entry.id for entry in merged)
    assert (merged[-1].id if merged else None) == (entries[-1].id if entries else None)
    for left, right in pairwise(merged):
        both_texts = left.data.startswith(b'{"text"') and right.data.startswith(b'{"text"')
        assert left.event != right.event or left.event not in ("token", "reasoning") or not both_texts


def test_a_merged_event_has_a_bound() -> None:
    entries = [Entry(EventId(1, seq), "token", text_data("x" * 1000)) for seq in range(1000)]
    merged = list(merge(entries))
    assert len(merged) == 4
    assert all(len(entry.data) <= MAX_MERGED_BYTES for entry in merged)


def test_a_new_attempt_drops_what_the_one_before_sent() -> None:
    entries = [
        Entry(EventId(0, 1), "queued", b'{"position":1}'),
        Entry(EventId(1, 0), "started", b"{}"),
        Entry(EventId(1, 1), "token", text_data("old")),
        Entry(EventId(2, 0), "restarted", b"{}"),
        Entry(EventId(2, 1), "token", text_data("new")),
    ]
    answer = Answer.of(entries)
    assert (answer.attempt, answer.text) == (2, "new")


def test_a_snapshot_replaces_everything_before_it() -> None:
    answer = Answer.of([Entry(EventId(1, 1), "token", text_data("Hello"))])
    snapshot = answer.snapshot(EventId(1, 9))
    again = Answer.of([Entry(EventId(1, 1), "token", text_data("other")), snapshot])
    assert again.text == "Hello"
    assert snapshot.id == (1, 9)


def test_a_refusal_is_text_that_a_snapshot_still_marks() -> None:
    said = [Entry(EventId(1, 1), "token", text_data("Well. ")), Entry(EventId(1, 2), "token", refusal_data("No."))]
    answer = Answer.of([Answer.of(said).snapshot(EventId(1, 2))])
    assert (answer.text, answer.refusal) == ("Well. No.", "No.")
    again = Answer.of([*said, Entry(EventId(2, 0), "restarted", b"{}")])
    assert (again.text, again.refusal) == ("", "")


def test_no_entry_can_have_the_cursor_of_the_start() -> None:
    assert START == (0, 0)
