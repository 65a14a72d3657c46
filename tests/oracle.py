"""Judges what clients saw, never what the code believes.

A Record collects, from outside: what was POSTed and accepted, what each reader received, what cancels were
answered, what the provider sent and noticed. `judge` returns every violation in plain words; none is a clean run.
The rules are contract §3 and §6, one function each.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.client import LAST, Event
from tests.provider import Call

OPENINGS = ("started", "restarted")
TEXTS = ("token", "reasoning")


@dataclass
class Reading:
    """One reader's life: the events of all its connections, in the order in which they came."""

    job_id: str
    events: list[Event] = field(default_factory=list)
    whole: bool = True
    """False for a reader that left for good before the end."""
    cursor: str | None = None
    """Where it began; None is the start."""


@dataclass
class Record:
    """Everything that could be seen from outside in one run."""

    accepted: set[str] = field(default_factory=set)
    readings: list[Reading] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Jobs whose cancel was answered `cancelled` or `cancelled_before_start`."""
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    """What the provider saw, by job."""
    statuses: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Status and text of each job, as read after the run."""


def judge(record: Record) -> list[str]:
    """Return every violation; none is a clean run."""
    return [f"{rule.__name__}: {found}" for rule in RULES for found in rule(record)]


def ids_rise(record: Record) -> Iterator[str]:
    """No event twice, none out of order, across all connections of a reader."""
    for reading in record.readings:
        keys = [event.key for event in reading.events]
        for before, after in pairwise(keys):
            if after <= before:
                yield f"{reading.job_id}: {after} behind {before}"


def attempts_never_mix(record: Record) -> Iterator[str]:
    """An attempt begins with its opening at seq 0, and only one attempt is open at a time."""
    for reading in record.readings:
        attempt = None
        for event in reading.events:
            number, seq = event.key
            if event.event in OPENINGS:
                if seq != 0 or event.data["attempt"] != number:
                    yield f"{reading.job_id}: {event.event} says {event.data['attempt']} at {event.id}"
                attempt = number
            elif event.event == "snapshot":
                attempt = number
            elif event.event in TEXTS and attempt is not None and number != attempt:
                yield f"{reading.job_id}: {event.id} inside attempt {attempt}"


def exactly_one_end(record: Record) -> Iterator[str]:
    """One last event, and nothing behind it."""
    for reading in record.readings:
        ends = [at for at, event in enumerate(reading.events) if event.event in LAST]
        if reading.whole and len(ends) != 1:
            yield f"{reading.job_id}: {len(ends)} last events"
        if ends and ends[0] != len(reading.events) - 1:
            yield f"{reading.job_id}: {reading.events[ends[0] + 1].event} behind the end"


def all_readers_saw_one_history(record: Record) -> Iterator[str]:
    """Texts may arrive merged, but at an id that two readers share they have the same state, and one end for all."""
    states: dict[tuple[str, tuple[int, int]], str] = {}
    ends: dict[str, tuple[str, str]] = {}
    for reading in record.readings:
        if reading.cursor is None:
            for key, state in _states(reading.events):
                if states.setdefault((reading.job_id, key), state) != state:
                    yield f"{reading.job_id}: two readers disagree at {key}"
        for event in reading.events:
            if event.event in LAST:
                seen = (event.id, json.dumps(event.data, sort_keys=True))
                if ends.setdefault(reading.job_id, seen) != seen:
                    yield f"{reading.job_id}: two readers saw two ends"


def the_text_is_the_providers(record: Record) -> Iterator[str]:
    """What a completed job's readers put together is what one of its provider calls sent, to its end."""
    for reading in record.readings:
        if reading.cursor is not None or not reading.events or reading.events[-1].event != "completed":
            continue
        sent = [call.sent_text for call in record.calls[reading.job_id] if call.finished]
        seen = _text(reading.events)
        if seen not in sent:
            yield f"{reading.job_id}: the reader has {len(seen)} characters, the provider sent {[len(t) for t in sent]}"


def what_is_stored_is_what_was_seen(record: Record) -> Iterator[str]:
    """The job, read afterwards, has the status and the text that its readers were told."""
    for reading in record.readings:
        if not reading.events or reading.events[-1].event not in LAST:
            continue
        status = record.statuses.get(reading.job_id)
        if status is not None and status != reading.events[-1].event:
            yield f"{reading.job_id}: stored as {status}, seen as {reading.events[-1].event}"
        text = record.texts.get(reading.job_id)
        if text is not None and reading.cursor is None and text != _text(reading.events):
            yield f"{reading.job_id}: stored text differs from the text that was seen"


def every_accepted_job_ends(record: Record) -> Iterator[str]:
    ended = {reading.job_id for reading in record.readings if reading.events and reading.events[-1].event in LAST}
    for job_id in record.accepted - ended:
        yield f"{job_id}: no reader saw its end"
    for job_id in {reading.job_id for reading in record.readings} - record.accepted:
        yield f"{job_id}: read, but never accepted"


def a_cancelled_call_was_closed(record: Record) -> Iterator[str]:
    """A confirmed cancel ends the job as cancelled, and no call of it is still open at the provider."""
    for reading in record.readings:
        cancelled = bool(reading.events) and reading.events[-1].event == "cancelled"
        if reading.job_id in record.cancelled and reading.whole and not cancelled:
            yield f"{reading.job_id}: the cancel was confirmed, the end was another"
    for job_id in record.cancelled:
        for call in record.calls[job_id]:
            if call.ended_at is None:
                yield f"{job_id}: {call!r} is still open"


def no_more_calls_than_attempts(record: Record) -> Iterator[str]:
    for reading in record.readings:
        attempts = max((event.key[0] for event in reading.events), default=0)
        calls = len(record.calls[reading.job_id])
        if reading.whole and calls > attempts:
            yield f"{reading.job_id}: {calls} calls in {attempts} attempts"


RULES: Sequence[Callable[[Record], Iterator[str]]] = (
    ids_rise,
    attempts_never_mix,
    exactly_one_end,
    all_readers_saw_one_history,
    the_text_is_the_providers,
    what_is_stored_is_what_was_seen,
    every_accepted_job_ends,
    a_cancelled_call_was_closed,
    no_more_calls_than_attempts,
)


def _states(events: Sequence[Event]) -> Iterator[tuple[tuple[int, int], str]]:
    """Yield, for each id, the text that a reader has after it."""
    text = ""
    for event in events:
        text = _after(text, event)
        yield event.key, text


def _text(events: Sequence[Event]) -> str:
    text = ""
    for event in events:
        text = _after(text, event)
    return text


def _after(text: str, event: Event) -> str:
    if event.event == "token":
        return text + str(event.data["text"])
    if event.event == "restarted":
        return ""
    if event.event == "snapshot":
        return str(event.data["text"])
    return text
