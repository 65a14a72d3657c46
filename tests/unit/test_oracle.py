"""The oracle itself: a clean history is accepted, and each kind of violation is found."""

import time
from typing import Any

import pytest

from tests.client import Event
from tests.oracle import RULES, Reading, Record, judge
from tests.provider import Call

QUEUED = ("0-1", "queued", {"position": 1})
STARTED = ("1-0", "started", {"attempt": 1})
COMPLETED: dict[str, Any] = {"finish_reason": "stop"}

Row = tuple[str, str, dict[str, Any]]


def token(id: str, text: str) -> Row:
    return id, "token", {"text": text}


def started(attempt: int) -> Row:
    return f"{attempt}-0", "started", {"attempt": attempt}


def restarted(attempt: int) -> Row:
    return f"{attempt}-0", "restarted", {"attempt": attempt, "reason": "worker_lost"}


def completed(id: str) -> Row:
    return id, "completed", COMPLETED


HELLO = [QUEUED, STARTED, token("1-1", "Hel"), token("1-2", "lo"), completed("1-3")]


def reading(*rows: Row, cursor: str | None = None, whole: bool = True) -> Reading:
    return Reading("j", [Event(*row) for row in rows], whole, cursor)


def call(text: str, *, finished: bool = True, closed: bool = False) -> Call:
    made = Call(0, "openai", {}, {"model": "m"})
    made.note("text", text)
    if finished or closed:
        made.end(finished=finished, client_left=closed and not finished)
    return made


def record(*readings: Reading, calls: list[Call] | None = None, **fields: Any) -> Record:
    made = Record(accepted={"j"}, readings=list(readings), **fields)
    made.calls["j"] = [call("Hello")] if calls is None else calls
    return made


def found_by(made: Record) -> set[str]:
    """Return the names of the rules that found something."""
    return {found.partition(":")[0] for found in judge(made)}


LOST = call("Hello wo", closed=True, finished=False)

CLEAN = {
    "one reader": record(reading(*HELLO), statuses={"j": "completed"}, texts={"j": "Hello"}),
    "merged texts": record(reading(*HELLO), reading(QUEUED, STARTED, token("1-2", "Hello"), completed("1-3"))),
    "resumed": record(reading(*HELLO), reading(*HELLO[3:], cursor="1-1"), texts={"j": "Hello"}),
    "resumed, and nobody knows from what": record(reading(*HELLO[3:], cursor="1-1"), texts={"j": "Hello"}),
    "compacted": record(
        reading(*HELLO),
        reading(("1-2", "snapshot", {"attempt": 1, "text": "Hello"}), completed("1-3"), cursor="1-1"),
        reading(("1-2", "snapshot", {"attempt": 1, "text": "Hello"}), completed("1-3")),
        texts={"j": "Hello"},
    ),
    "left early": record(reading(*HELLO), reading(*HELLO[:3], whole=False)),
    "restarted": record(
        reading(QUEUED, STARTED, token("1-1", "Hel"), restarted(2), token("2-1", "Bye"), completed("2-2")),
        reading(restarted(2), token("2-1", "Bye"), completed("2-2"), cursor="1-1"),
        calls=[LOST, call("Bye")],
        texts={"j": "Bye"},
    ),
    "restarted before its first call": record(
        reading(QUEUED, STARTED, restarted(2), token("2-1", "Bye"), completed("2-2")), calls=[call("Bye")]
    ),
    "continued": record(
        reading(QUEUED, STARTED, token("1-1", "Hel"), started(2), token("2-1", "p!"), completed("2-2")),
        calls=[LOST, call("p!")],
        texts={"j": "Help!"},
    ),
    "continued over white space": record(
        reading(QUEUED, STARTED, token("1-1", "Hello "), started(2), token("2-1", " you"), completed("2-2")),
        calls=[LOST, call("  you")],
        texts={"j": "Hello  you"},
    ),
    "continued twice, the second time from nothing new": record(
        reading(QUEUED, STARTED, token("1-1", "Hel"), started(2), started(3), token("3-1", "p"), completed("3-2")),
        calls=[LOST, call("", closed=True, finished=False), call("p")],
        texts={"j": "Help"},
    ),
    "cancelled in the queue": record(
        reading(QUEUED, ("0-2", "cancelled", {})), calls=[], cancelled={"j"}, statuses={"j": "cancelled"}
    ),
    "cancelled in mid-answer": record(
        reading(*HELLO[:3], ("1-2", "cancelled", {})), calls=[LOST], cancelled={"j"}, texts={"j": "Hel"}
    ),
    "failed": record(
        reading(QUEUED, STARTED, restarted(2), ("2-1", "failed", {"code": "worker_lost"})), calls=[], texts={"j": ""}
    ),
    "with its log": record(reading(*HELLO), logs={"j": [Event(*row) for row in HELLO]}),
}

VIOLATIONS = {
    "an event twice": ({"ids_rise"}, record(reading(*HELLO[:3], HELLO[2], *HELLO[3:]))),
    "out of order": ({"ids_rise"}, record(reading(*HELLO[:2], HELLO[3], HELLO[2], HELLO[4]))),
    "the cursor's event again": ({"ids_rise"}, record(reading(*HELLO), reading(*HELLO[2:], cursor="1-1"))),
    "an older attempt behind a newer one's opening": (
        {"ids_rise", "attempts_never_mix"},
        record(reading(QUEUED, STARTED, restarted(2), token("1-1", "Hello"), completed("2-1"))),
    ),
    "a newer attempt without its opening": (
        {"attempts_never_mix"},
        record(reading(QUEUED, STARTED, token("2-1", "Hello"), completed("2-2"))),
    ),
    "an attempt left out": (
        {"attempts_never_mix"},
        record(reading(QUEUED, STARTED, restarted(3), token("3-1", "Hello"), completed("3-2"))),
    ),
    "an opening that is not at seq 0": (
        {"attempts_never_mix"},
        record(reading(QUEUED, ("1-1", "started", {"attempt": 1}), token("1-2", "Hello"), completed("1-3"))),
    ),
    "an opening with another's number": (
        {"attempts_never_mix"},
        record(reading(QUEUED, ("1-0", "started", {"attempt": 2}), token("1-2", "Hello"), completed("1-3"))),
    ),
    "a first attempt that is a restart": (
        {"attempts_never_mix"},
        record(reading(QUEUED, restarted(1), token("1-2", "Hello"), completed("1-3"))),
    ),
    "text before any attempt": (
        {"attempts_never_mix"},
        record(reading(QUEUED, token("0-2", "x"), STARTED, token("1-2", "Hello"), completed("1-3"))),
    ),
    "a history without its beginning": (
        {"every_history_begins_with_queued"},
        record(reading(STARTED, token("1-2", "Hello"), completed("1-3"))),
    ),
    "two ends": ({"exactly_one_end"}, record(reading(*HELLO, ("1-4", "failed", {"code": "x"})))),
    "text behind the end": ({"exactly_one_end"}, record(reading(*HELLO, token("1-4", "!")))),
    "no end": ({"exactly_one_end", "every_accepted_job_ends"}, record(reading(*HELLO[:4]))),
    "two readers, two ends": (
        {"all_readers_saw_one_history"},
        record(reading(*HELLO), reading(*HELLO[:4], ("1-3", "cancelled", {}))),
    ),
    "two readers, two texts at one id": (
        {"all_readers_saw_one_history"},
        record(reading(*HELLO), reading(QUEUED, STARTED, token("1-2", "Holla"), completed("1-3"))),
    ),
    "two readers, one text longer than the later": (
        {"all_readers_saw_one_history"},
        record(reading(*HELLO, whole=True), reading(QUEUED, STARTED, token("1-1", "Hello"), whole=False)),
    ),
    "a resumed reader that misses an event": (
        {"all_readers_saw_one_history", "what_is_stored_is_what_was_seen"},
        record(reading(*HELLO), reading(completed("1-3"), cursor="1-1"), texts={"j": "Hello"}),
    ),
    "a snapshot of another state": (
        {"all_readers_saw_one_history"},
        record(reading(*HELLO), reading(("1-2", "snapshot", {"attempt": 1, "text": "Hel"}), completed("1-3"))),
    ),
    "a restart that one reader was told as a continuation": (
        {"all_readers_saw_one_history"},
        record(
            reading(QUEUED, STARTED, restarted(2), token("2-1", "Bye"), completed("2-2")),
            reading(started(2), token("2-1", "Bye"), completed("2-2"), cursor="1-0"),
            calls=[LOST, call("Bye")],
        ),
    ),
    "two deltas swapped": (
        {"the_text_is_the_providers"},
        record(reading(QUEUED, STARTED, token("1-1", "lo"), token("1-2", "Hel"), completed("1-3"))),
    ),
    "a token lost": ({"the_text_is_the_providers"}, record(reading(*HELLO[:3], completed("1-3")))),
    "a token too many": (
        {"the_text_is_the_providers"},
        record(reading(*HELLO[:4], token("1-3", "lo"), completed("1-4"))),
    ),
    "completed by a call that was cut": (
        {"the_text_is_the_providers"},
        record(reading(*HELLO), calls=[call("Hello", closed=True, finished=False)]),
    ),
    "a dead attempt's words in the next one": (
        {"the_text_is_the_providers"},
        record(
            reading(QUEUED, STARTED, token("1-1", "Hel"), restarted(2), token("2-1", "HelBye"), completed("2-2")),
            calls=[LOST, call("Bye")],
        ),
    ),
    "another job's words in an attempt that was lost": (
        {"the_text_is_the_providers"},
        record(
            reading(QUEUED, STARTED, token("1-1", "XYZ"), restarted(2), token("2-1", "Bye"), completed("2-2")),
            calls=[LOST, call("Bye")],
        ),
    ),
    "a continuation that begins again": (
        {"the_text_is_the_providers"},
        record(
            reading(QUEUED, STARTED, token("1-1", "Hel"), started(2), token("2-1", "Help"), completed("2-2")),
            calls=[LOST, call("p")],
        ),
    ),
    "another text stored": ({"what_is_stored_is_what_was_seen"}, record(reading(*HELLO), texts={"j": "Hell"})),
    "another status stored": (
        {"what_is_stored_is_what_was_seen"},
        record(reading(*HELLO), statuses={"j": "running"}),
    ),
    "an accepted job that nobody saw end": ({"every_accepted_job_ends"}, record()),
    "a job that nobody had posted": ({"every_accepted_job_ends"}, Record(readings=[reading(*HELLO)])),
    "a POST that was repeated made two jobs": (
        {"one_post_makes_one_job"},
        record(reading(*HELLO), posts={"click": {"j", "k"}}),
    ),
    "a cancel confirmed, and completed all the same": (
        {"a_cancelled_call_was_closed"},
        record(reading(*HELLO), cancelled={"j"}, statuses={"j": "completed"}),
    ),
    "a cancelled call left open": (
        {"no_call_outlives_its_job"},
        record(reading(*HELLO[:3], ("1-2", "cancelled", {})), calls=[call("Hel", finished=False)], cancelled={"j"}),
    ),
    "a zombie's call left open": (
        {"no_call_outlives_its_job"},
        record(
            reading(QUEUED, STARTED, restarted(2), token("2-1", "Bye"), completed("2-2")),
            calls=[call("Hel", finished=False), call("Bye")],
        ),
    ),
    "two calls in one attempt": (
        {"no_more_calls_than_attempts"},
        record(reading(*HELLO), calls=[call("Hello"), call("Hello")]),
    ),
    "an attempt counted twice": (
        {"usage_counts_an_attempt_once"},
        record(reading(*HELLO), requests={"j": 2}),
    ),
    "an answer that is not counted": (
        {"usage_counts_an_attempt_once"},
        record(reading(*HELLO), requests={"j": 0}, statuses={"j": "completed"}),
    ),
    "a hole in the log": (
        {"logs_have_no_holes"},
        record(reading(*HELLO), logs={"j": [Event(*row) for row in (*HELLO[:2], *HELLO[3:])]}),
    ),
    "two ends in the log": (
        {"logs_have_no_holes"},
        record(reading(*HELLO), logs={"j": [Event(*row) for row in (*HELLO, completed("1-4"))]}),
    ),
}


@pytest.mark.parametrize("case", CLEAN)
def test_a_clean_history_is_accepted(case: str) -> None:
    assert judge(CLEAN[case]) == []


@pytest.mark.parametrize("case", VIOLATIONS)
def test_a_violation_is_found(case: str) -> None:
    rules, made = VIOLATIONS[case]
    assert rules <= found_by(made), judge(made)


def test_every_rule_is_seen_failing() -> None:
    assert {rule.__name__ for rule in RULES} == set[str]().union(*(rules for rules, _ in VIOLATIONS.values()))


def test_thousands_of_events_are_judged_in_no_time() -> None:
    rows = [QUEUED, STARTED, *(token(f"1-{n}", f"{n} ") for n in range(1, 2001)), completed("1-2001")]
    sent = "".join(f"{n} " for n in range(1, 2001))
    made = record(*(reading(*rows) for _ in range(5)), calls=[call(sent)], texts={"j": sent})
    began = time.monotonic()
    assert judge(made) == []
    assert time.monotonic() - began < 2
