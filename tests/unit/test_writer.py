"""The worker's writer: coalescing, order, and Redis' absence."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Answer, Entry, EventId
from shared.log import Append
from worker.text import Surrogates
from worker.writer import MAX_PENDING, Writer


class Recorder:
    """Stands where the log is: keeps what is appended, refuses or fails when told to."""

    def __init__(self) -> None:
        self.batches: list[list[Append]] = []
        self.refuse: set[str] = set()
        self.away = asyncio.Event()
        self.appended = asyncio.Event()
        self._asked = asyncio.Event()

    async def append(self, appends: Sequence[Append]) -> list[bool]:
        self._asked.set()
        if self.away.is_set():
            raise ConnectionError("away")
        self.batches.append(list(appends))
        self.appended.set()
        return [append.job_id not in self.refuse for append in appends]

    async def asked(self) -> None:
        """Return when an append has been tried."""
        async with asyncio.timeout(3):
            await self._asked.wait()

    def text(self, job_id: str) -> str:
        appends = [append for batch in self.batches for append in batch if append.job_id == job_id]
        return Answer.of([entry for append in appends for entry in entries(append)]).text


def entries(append: Append) -> list[Entry]:
    """Return what the log holds of these events afterwards."""
    attempt, seq = append.first
    return [Entry(EventId(attempt, seq + n), event, data) for n, (event, data) in enumerate(append.events)]


def ids(append: Append | None) -> list[tuple[str, str]]:
    assert append is not None
    return [(str(entry.id), entry.event) for entry in entries(append)]


@pytest.fixture
async def log() -> Recorder:
    return Recorder()


@pytest.fixture
async def writer(log: Recorder) -> AsyncIterator[Writer]:
    place: Any = SimpleNamespace(log=log, fell_away=lambda: None, title="the event server events-1")
    writer = Writer(place, 10_000_000)
    task = asyncio.create_task(writer.run())
    yield writer
    task.cancel()


async def drained(log: Recorder, job_id: str, text: str) -> None:
    async with asyncio.timeout(3):
        while log.text(job_id) != text:
            log.appended.clear()
            await log.appended.wait()


async def test_the_first_token_goes_out_at_once_and_the_next_ones_together(writer: Writer, log: Recorder) -> None:
    attempt = writer.open("a", "w", 1, 2, lambda: None)
    attempt.text("first")
    await drained(log, "a", "first")
    for piece in (" second", " third", " fourth"):
        attempt.text(piece)
    await drained(log, "a", "first second third fourth")
    assert [[(str(append.first), append.before, len(append.events)) for append in batch] for batch in log.batches] == [
        [("1-1", 2, 1)], [("1-2", 3, 1)],
    ]  # fmt: skip


@pytest.mark.alone
async def test_another_attempts_first_token_does_not_wait_for_the_tick(writer: Writer, log: Recorder) -> None:
    one, other = writer.open("a", "w", 1, 2, lambda: None), writer.open("b", "w", 1, 2, lambda: None)
    one.text("x")
    await drained(log, "a", "x")
    loop = asyncio.get_running_loop()
    one.text("y")
    asked = loop.time()
    other.text("first")
    await drained(log, "b", "first")
    assert loop.time() - asked < 0.005


async def test_events_keep_their_order_and_kinds(writer: Writer, log: Recorder) -> None:
    attempt = writer.open("a", "w", 3, 9, lambda: None)
    attempt.reasoning("hm")
    attempt.text("a")
    attempt.text("b")
    attempt.refusal("n")
    attempt.refusal("o")
    attempt.tool_call(0, "{", "call_1", "look")
    attempt.tool_call(0, "}")
    await writer.settle(attempt)
    last = attempt.close("completed", b"{}")
    assert last.before == 9, "the entries in the log, the attempt's opening the last of them"
    assert ids(last) == [
        ("3-1", "reasoning"), ("3-2", "token"), ("3-3", "token"), ("3-4", "tool_call"), ("3-5", "tool_call"),
        ("3-6", "completed"),
    ]  # fmt: skip
    assert [data for _, data in last.events[1:3]] == [b'{"text":"ab"}', b'{"refusal":true,"text":"no"}']
    assert log.batches == []


async def test_a_refused_attempt_is_told_once_and_writes_no_more(writer: Writer, log: Recorder) -> None:
    told: list[bool] = []
    refused = asyncio.Event()
    attempt = writer.open("a", "w", 1, 2, lambda: (told.append(True), refused.set()))  # type: ignore[arg-type, func-returns-value]
    log.refuse.add("a")
    attempt.text("x")
    async with asyncio.timeout(3):
        await refused.wait()
    attempt.text("y")
    await asyncio.sleep(0)
    assert told == [True]
    assert len(log.batches) == 1


async def test_what_comes_while_redis_is_away_is_kept_and_bounded(writer: Writer, log: Recorder) -> None:
    attempt = writer.open("a", "w", 1, 2, lambda: None)
    log.away.set()
    attempt.text("x")
    await log.asked()
    attempt.text("y" * (MAX_PENDING + 1))
    assert writer.full, "the providers are not read any more"
    log.away.clear()
    async with asyncio.timeout(3):
        await writer.room()
    await drained(log, "a", "x" + "y" * (MAX_PENDING + 1))


async def test_settling_waits_for_what_is_on_its_way(writer: Writer, log: Recorder) -> None:
    attempt = writer.open("a", "w", 1, 2, lambda: None)
    log.away.set()
    attempt.text("x")
    await log.asked()
    settling = asyncio.create_task(writer.settle(attempt))
    attempt.text("y")
    await asyncio.sleep(0)
    assert not settling.done()
    log.away.clear()
    async with asyncio.timeout(3):
        await settling
    last = attempt.close("completed", b"{}")
    assert ids(last) == [("1-2", "token"), ("1-3", "completed")]
    assert last.before == 3
    assert log.text("a") == "x"


@given(st.lists(st.text(st.characters(codec=None), max_size=4), max_size=12))
def test_pairs_of_surrogates_are_joined_wherever_they_were_cut(pieces: list[str]) -> None:
    joiner = Surrogates()
    whole = [*[joiner.feed(piece) for piece in pieces], joiner.rest()]
    as_utf16 = "".join(pieces).encode("utf-16-le", "surrogatepass")
    assert "".join(whole).encode("utf-16-le", "surrogatepass") == as_utf16
    for left, right in pairwise(whole):
        assert not ("\ud800" <= left[-1:] <= "\udbff" and right and "\udc00" <= right[0] <= "\udfff")


async def test_an_operator_is_told_which_server_is_waited_for(
    writer: Writer, log: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    log.away.set()
    writer.open("a", "w", 1, 2, lambda: None).text("x")
    await log.asked()
    log.away.clear()
    await drained(log, "a", "x")
    assert "the events of 1 jobs wait for the event server events-1 (ConnectionError)" in caplog.text
