"""Judges what clients saw, never what the code believes.

A Record collects, from outside: what was POSTed and accepted, what each reader received, what cancels were
answered, what the provider sent and noticed. `judge` returns every violation in plain words; none is a clean run.
The rules are contract §3 and §6, one function each.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from tests.client import LAST, Event
from tests.provider import Call

OPENINGS = ("started", "restarted")
TEXTS = ("token", "reasoning")

Key = tuple[int, int]


@dataclass
class Reading:
    """One reader's life: the events of all its connections, in the order in which they came."""

    job_id: str
    events: list[Event] = field(default_factory=list)
    whole: bool = True
    """False for a reader that left for good before the end."""
    cursor: str | None = None
    """Where it began; None is the start."""

    @property
    def from_start(self) -> bool:
        """Say whether it saw every single event (texts merged): from the start, and no snapshot stood for any."""
        return self.cursor is None and all(event.event != "snapshot" for event in self.events)

    @property
    def end(self) -> Event | None:
        return self.events[-1] if self.events and self.events[-1].event in LAST else None


@dataclass
class Record:
    """Everything that could be seen from outside in one run."""

    accepted: set[str] = field(default_factory=set)
    readings: list[Reading] = field(default_factory=list)
    cancelled: set[str] = field(default_factory=set)
    """Jobs whose cancel was answered `cancelled` or `cancelled_before_start`."""
    posts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """The jobs that there are for each POST, however often it was sent under its Idempotency-Key."""
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    """What the provider saw, by job, in order of arrival."""
    statuses: dict[str, str] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Status and text of each job, as read after the run."""
    requests: dict[str, int] = field(default_factory=dict)
    """How many calls of each job its owner's usage names, where that is known."""
    logs: dict[str, list[Event]] = field(default_factory=dict)
    """Each job's log as it was kept, nothing merged, read after the run; those that were not compacted."""


def judge(record: Record) -> list[str]:
    """Return every violation; none is a clean run."""
    return [f"{rule.__name__}: {found}" for rule in RULES for found in rule(record)]


def ids_rise(record: Record) -> Iterator[str]:
    """No event twice, none out of order, across all connections of a reader."""
    for reading in record.readings:
        keys = [event.key for event in reading.events]
        if reading.cursor is not None and not (reading.events and reading.events[0].event == "snapshot"):
            attempt, _, seq = reading.cursor.partition("-")
            keys.insert(0, (int(attempt), int(seq)))
        for before, after in pairwise(keys):
            if after <= before:
                yield f"{reading.job_id}: {after} behind {before}"


def attempts_never_mix(record: Record) -> Iterator[str]:
    """An attempt begins with its opening at seq 0, and everything up to the next opening is its own.

    The first one is `started`; a later one `restarted` (what was there is dropped) or `started` (it is kept).
    """
    for reading in record.readings:
        attempt = 0 if reading.from_start else None
        for event in reading.events:
            number, seq = event.key
            if event.event in OPENINGS:
                if seq != 0 or event.data["attempt"] != number or number == 0:
                    yield f"{reading.job_id}: {event.event} says {event.data['attempt']} at {event.id}"
                if attempt is not None and number != attempt + 1:
                    yield f"{reading.job_id}: attempt {number} behind attempt {attempt}"
                if number == 1 and event.event == "restarted":
                    yield f"{reading.job_id}: the first attempt is a restart"
                attempt = number
            elif event.event == "snapshot" or attempt is None:
                attempt = number
            elif number != attempt:
                yield f"{reading.job_id}: {event.id} {event.event} inside attempt {attempt}"
            elif seq == 0 or (number == 0 and event.event in TEXTS):
                yield f"{reading.job_id}: {event.event} at {event.id}"


def every_history_begins_with_queued(record: Record) -> Iterator[str]:
    for reading in record.readings:
        if reading.from_start and reading.events and reading.events[0].event != "queued":
            yield f"{reading.job_id}: begins with {reading.events[0].event}"
        for event in reading.events:
            if event.event == "queued" and event.key[0] != 0:
                yield f"{reading.job_id}: queued at {event.id}"


def exactly_one_end(record: Record) -> Iterator[str]:
    """One last event, and nothing behind it."""
    for reading in record.readings:
        ends = [at for at, event in enumerate(reading.events) if event.event in LAST]
        if reading.whole and len(ends) != 1:
            yield f"{reading.job_id}: {len(ends)} last events"
        if ends and ends[0] != len(reading.events) - 1:
            yield f"{reading.job_id}: {reading.events[ends[0] + 1].event} behind the end"


def all_readers_saw_one_history(record: Record) -> Iterator[str]:
    """All saw prefixes of one history.

    Texts may arrive merged under the last id, so two readers need not have seen the same ids; but what has one id has
    one meaning, the state at an id is the same for all, and between two openings a later state goes on from an earlier.
    """
    for job_id, readings in _by_job(record).items():
        seen: dict[str, Event] = {}
        for event in (event for reading in readings for event in reading.events):
            if event.event in TEXTS or event.event == "snapshot":
                continue
            if (other := seen.setdefault(event.id, event)) != event:
                yield f"{job_id}: {event.id} is {event.event} to one reader, {other.event} to another"
        if len({event.id for event in seen.values() if event.event in LAST}) > 1:
            yield f"{job_id}: two readers saw two ends"

        opened = {event.key[0]: event.event for event in seen.values() if event.event in OPENINGS}
        states: dict[Key, str] = {}
        for reading in sorted(readings, key=lambda reading: reading.cursor is not None):
            for key, state in _states(reading, states):
                if states.setdefault(key, state) != state:
                    yield f"{job_id}: two readers disagree at {key}"
        for (before, shorter), (after, longer) in pairwise(sorted(states.items())):
            kept = all(opened.get(attempt) == "started" for attempt in range(before[0] + 1, after[0] + 1))
            if kept and not longer.startswith(shorter):
                yield f"{job_id}: what is there at {after} does not go on from {before}"


def the_text_is_the_providers(record: Record) -> Iterator[str]:
    """Every attempt's text is the beginning of what one provider call sent; a completed one's is all of it.

    Calls come in the order of attempts; an attempt that was lost early may have none, and one that is `started` may
    go on with the run of the one before it.
    """
    for reading in record.readings:
        if not reading.from_start:
            continue
        calls = iter(record.calls[reading.job_id])
        kept, whole = "", ""
        run: Call | None = None
        segments = list(_segments(reading.events))
        for event, text in segments:
            kept = whole if event.event == "started" else ""
            whole = kept + text
            last = event is segments[-1][0] and reading.end is not None and reading.end.event == "completed"
            if not text and not last:
                continue
            if event.event == "started" and run is not None and _is_of(run, whole, last=last):
                continue
            for call in calls:
                sent = _behind_seam(kept, call.sent_text)
                if (sent == text and call.finished) if last else sent.startswith(text):
                    run = call if call.run is not None and call.run.background else None
                    break
            else:
                lengths = [len(call.sent_text) for call in record.calls[reading.job_id]]
                yield (
                    f"{reading.job_id}: {len(text)} characters of attempt {event.key[0]} are no call's; sent {lengths}"
                )


def what_is_stored_is_what_was_seen(record: Record) -> Iterator[str]:
    """The job, read afterwards, has the status and the text that its readers were told."""
    for job_id, readings in _by_job(record).items():
        states: dict[Key, str] = {}
        for reading in sorted(readings, key=lambda reading: reading.cursor is not None):
            for key, state in _states(reading, states):
                states.setdefault(key, state)
                if reading.end is None or key != reading.end.key:
                    continue
                if (stored := record.texts.get(job_id, state)) != state:
                    yield f"{job_id}: stored text ({len(stored)}) differs from what was seen ({len(state)})"
            status = record.statuses.get(job_id)
            if reading.end is not None and status is not None and status != reading.end.event:
                yield f"{job_id}: stored as {status}, seen as {reading.end.event}"


def every_accepted_job_ends(record: Record) -> Iterator[str]:
    ended = {reading.job_id for reading in record.readings if reading.end is not None}
    for job_id in sorted(record.accepted - ended):
        yield f"{job_id}: no reader saw its end"
    for job_id in sorted({reading.job_id for reading in record.readings} - record.accepted):
        yield f"{job_id}: read, but never accepted"


def one_post_makes_one_job(record: Record) -> Iterator[str]:
    """Whoever repeats a POST that was not answered gets the job that it made."""
    for post, jobs in record.posts.items():
        if len(jobs) > 1:
            yield f"{post}: {sorted(jobs)}"


def a_cancelled_call_was_closed(record: Record) -> Iterator[str]:
    """A confirmed cancel ends the job as cancelled, and no call of it is still open at the provider."""
    for reading in record.readings:
        if reading.job_id in record.cancelled and reading.end is not None and reading.end.event != "cancelled":
            yield f"{reading.job_id}: the cancel was confirmed, the end was {reading.end.event}"
    for job_id in sorted(record.cancelled):
        if job_id in record.statuses and record.statuses[job_id] != "cancelled":
            yield f"{job_id}: the cancel was confirmed, the job is {record.statuses[job_id]}"


def no_call_outlives_its_job(record: Record) -> Iterator[str]:
    """Where a reader saw the end, no call of the job is open: it would be paid for, and nobody would read it."""
    for job_id in sorted({reading.job_id for reading in record.readings if reading.end is not None}):
        for call in record.calls[job_id]:
            if not call.finished and not call.closed_by_client and not call.cancelled:
                yield f"{job_id}: {call!r} is still open"


def no_more_calls_than_attempts(record: Record) -> Iterator[str]:
    for job_id, readings in _by_job(record).items():
        if any(reading.end is not None for reading in readings):
            attempts = max(event.key[0] for reading in readings for event in reading.events)
            if (calls := len(record.calls[job_id])) > attempts:
                yield f"{job_id}: {calls} calls in {attempts} attempts"


def usage_counts_an_attempt_once(record: Record) -> Iterator[str]:
    """Repeats, replays and takeovers add nothing; an answer that came is counted."""
    for job_id, readings in _by_job(record).items():
        if job_id in record.requests and any(reading.end is not None for reading in readings):
            attempts = max(event.key[0] for reading in readings for event in reading.events)
            requests = record.requests[job_id]
            if requests > attempts:
                yield f"{job_id}: {requests} requests are counted in {attempts} attempts"
            if requests == 0 and record.statuses.get(job_id) == "completed":
                yield f"{job_id}: completed, and no request is counted"


def logs_have_no_holes(record: Record) -> Iterator[str]:
    """In the log itself an attempt's seqs are 0, 1, 2, …, and the last event stands at the end."""
    for job_id, log in record.logs.items():
        for before, after in pairwise(log):
            follows = (before.key[0], before.key[1] + 1)
            if after.key != follows and not (after.event in OPENINGS and after.key == (before.key[0] + 1, 0)):
                yield f"{job_id}: {after.id} directly behind {before.id}"
        if [event.event in LAST for event in log[:-1]].count(True) or (log and log[-1].event not in LAST):
            yield f"{job_id}: the log ends with {log[-1].event}"


RULES: Sequence[Callable[[Record], Iterator[str]]] = (
    ids_rise,
    attempts_never_mix,
    every_history_begins_with_queued,
    exactly_one_end,
    all_readers_saw_one_history,
    the_text_is_the_providers,
    what_is_stored_is_what_was_seen,
    every_accepted_job_ends,
    one_post_makes_one_job,
    a_cancelled_call_was_closed,
    no_call_outlives_its_job,
    no_more_calls_than_attempts,
    usage_counts_an_attempt_once,
    logs_have_no_holes,
)


def _by_job(record: Record) -> dict[str, list[Reading]]:
    jobs: dict[str, list[Reading]] = defaultdict(list)
    for reading in record.readings:
        jobs[reading.job_id].append(reading)
    return jobs


def _states(reading: Reading, known: dict[Key, str]) -> Iterator[tuple[Key, str]]:
    """Yield, for each id, the text that the reader has after it, from where that can be told."""
    text: str | None = ""
    if reading.cursor is not None:
        attempt, _, seq = reading.cursor.partition("-")
        text = known.get((int(attempt), int(seq)))
    for event in reading.events:
        text = _after(text, event)
        if text is not None:
            yield event.key, text


def _after(text: str | None, event: Event) -> str | None:
    if event.event == "token":
        return None if text is None else text + str(event.data["text"])
    if event.event == "restarted":
        return ""
    if event.event == "snapshot":
        return str(event.data["text"])
    return text


def _segments(events: Sequence[Event]) -> Iterator[tuple[Event, str]]:
    """Yield each opening with the text of its attempt."""
    opening, text = None, ""
    for event in events:
        if event.event in OPENINGS:
            if opening is not None:
                yield opening, text
            opening, text = event, ""
        elif event.event == "token":
            text += event.data["text"]
    if opening is not None:
        yield opening, text


def _is_of(run: Call, text: str, *, last: bool) -> bool:
    """Say whether a run wrote this text, all of it at its end."""
    return run.sent_text == text and run.finished if last else run.sent_text.startswith(text)


def _behind_seam(kept: str, sent: str) -> str:
    """Return what of a continuing call's text is new: white space at the seam that is there already is not."""
    held = kept[len(kept.rstrip()) :]
    while held and sent and sent[0] == held[0]:
        held, sent = held[1:], sent[1:]
    return sent
