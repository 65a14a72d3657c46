"""Bugs planted on purpose: the oracle, or the deadline, finds each. A test never seen failing proves nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from api import dialect, hub, relay
from shared.events import EventId
from shared.log import Append, Log
from shared.queue import Finished, Queue
from shared.requests import JobRequest
from tests.faults.scene import Scene
from tests.provider import Silence, Text, Tokens, Wait
from tests.stack import Stack, eventually
from worker.providers.base import Finish, Sink
from worker.providers.openai import OpenAIProvider
from worker.writer import AttemptLog

WORDS = Tokens([f"word {n} " for n in range(12)], delay_s=0.015)
DEADLINE_S = 2.5


async def an_answer(stack: Stack) -> Scene:
    """One job, one reader of all of it, one that resumes in the middle."""
    await stack.api()
    await stack.worker()
    scene = Scene(stack)
    job_id, reader = await scene.running(WORDS)
    await reader.finish()
    scene.read(job_id, cursor=reader.reading.events[len(reader.reading.events) // 2].id)
    return scene


async def a_takeover(stack: Stack) -> Scene:
    """A worker is held to be lost while it is there, and writes on."""
    stack.configure(lease_s=1.0)
    await stack.api()
    zombie = await stack.worker()
    scene, gate = Scene(stack), stack.provider.gate()
    zombies_words = Tokens(["the zombie ", "writes ", "on "], delay_s=0.02)
    _, reader = await scene.running(
        Text("old "), Wait(gate), zombies_words, Silence(), then=[[Text("new "), Wait(gate), Text("answer"), WORDS]]
    )
    zombie.worker.workshop.slots.most = 0
    lease = zombie.worker.workshop.lease
    lease._renew = _nothing  # type: ignore[method-assign]
    await stack.worker()
    await stack.redis.zadd(stack.keys.leases, {lease.worker: 1})
    await reader.until("token", attempt=2)
    gate.open()
    return scene


async def _nothing() -> None:
    """Stand in for a renewal that never comes."""


async def a_cancel(stack: Stack) -> Scene:
    await stack.api()
    await stack.worker()
    scene = Scene(stack)
    job_id, _ = await scene.running(Text("on and on "), Silence())
    await scene.cancel(job_id)
    return scene


async def a_death(stack: Stack) -> Scene:
    """A worker claims a job and is never heard of again; the deadline is the contract's, lease + 2 s."""
    await stack.api()
    local = await stack.worker()
    scene = Scene(stack)
    lease_s, local.worker.workshop.slots.most = local.worker.workshop.settings.lease_s, 0
    await scene.submit(Text("x"))
    queue = local.worker.workshop.queue
    await queue.register("ghost", lease_s)
    await eventually(lambda: _claimed(queue, lease_s))
    local.worker.workshop.slots.most = 10
    return scene


async def _claimed(queue: Queue, lease_s: float) -> bool:
    return bool((await queue.claim("ghost", 10, lease_s)).claims)


SCENARIOS = [an_answer, a_takeover, a_cancel, a_death]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_without_a_bug_nothing_is_found(quick: Stack, scenario: Callable[[Stack], Awaitable[Scene]]) -> None:
    quick.configure(lease_s=0.5)
    scene = await scenario(quick)
    assert await scene.verdict(DEADLINE_S) == []


def fence_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """An append that is refused comes back under the next id that is free."""
    append = Log.append

    async def unfenced(self: Log, appends: Sequence[Append]) -> list[bool]:
        for given, done in zip(appends, await append(self, appends), strict=True):
            last = await self.last(given.job_id)
            if not done and last is not None:
                free = EventId(last.id.attempt, last.id.seq + 1)
                length = await self._redis.read("XLEN", self._keys.log(given.job_id))
                holder = await self._redis.read("HGET", self._keys.job(given.job_id), "worker") or b""
                await append(self, [given._replace(worker=holder.decode(), first=free, before=length)])
        return [True] * len(appends)

    monkeypatch.setattr(Log, "append", unfenced)


def two_deltas_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    text, held = AttemptLog.text, dict[AttemptLog, str]()

    def swapped(self: AttemptLog, piece: str) -> None:
        if piece == "word 5 ":
            held[self] = piece
            return
        text(self, piece)
        if self in held:
            text(self, held.pop(self))

    monkeypatch.setattr(AttemptLog, "text", swapped)


def a_delta_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    text = AttemptLog.text
    monkeypatch.setattr(AttemptLog, "text", lambda self, piece: None if piece == "word 7 " else text(self, piece))


def last_event_doubled_by_the_relay(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = dialect.sse_frame
    monkeypatch.setattr(dialect, "sse_frame", lambda entry: frame(entry) * (2 if entry.last else 1))


def last_event_doubled_in_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Queue.finish

    async def doubled(self: Queue, claim: object, status: str, last: Append, *rest: object) -> Finished | None:
        twice = last._replace(events=[*last.events, last.events[-1]])
        return await finish(self, claim, status, twice, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Queue, "finish", doubled)


def cursor_one_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay skips the event behind the cursor."""
    begin = relay.Reader.__init__

    def begin_later(self: relay.Reader, log: Log, job_id: str, cursor: EventId, *rest: object, **named: object) -> None:
        later = cursor._replace(seq=cursor.seq + 1) if cursor.attempt else cursor
        begin(self, log, job_id, later, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(relay.Reader, "__init__", begin_later)


def cursor_one_too_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay sends the cursor's own event again."""
    begin = relay.Reader.__init__

    def begin_earlier(
        self: relay.Reader, log: Log, job_id: str, cursor: EventId, *rest: object, **named: object
    ) -> None:
        earlier = cursor._replace(seq=cursor.seq - 1) if cursor.attempt else cursor
        begin(self, log, job_id, earlier, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(relay.Reader, "__init__", begin_earlier)


def live_events_taken_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message gets lost, and whatever comes behind it is relayed without a look into the log."""
    message = hub.Watch.message

    def lossy(self: hub.Watch, payload: bytes) -> None:
        if b"word 6 " not in payload:
            message(self, payload)

    monkeypatch.setattr(hub.Watch, "message", lossy)
    monkeypatch.setattr(EventId, "precedes", lambda self, later: self < later)


def live_batches_delivered_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay writes to a parked reader and wakes its task with the same events too."""
    hand_out = relay.Reader._hand_out

    def forgetful(self: relay.Reader, batch: relay.Batch) -> bool:
        cursor = self.cursor
        hand_out(self, batch)
        self.cursor = cursor
        return False

    monkeypatch.setattr(relay.Reader, "_hand_out", forgetful)


def restarts_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = dialect.sse_frame
    monkeypatch.setattr(dialect, "sse_frame", lambda entry: b"" if entry.event == "restarted" else frame(entry))


def calls_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancel ends the job, and the provider's connection goes on."""
    generate, abandoned = OpenAIProvider.generate, set[asyncio.Future[Finish]]()

    async def shielded(self: OpenAIProvider, request: JobRequest, sink: Sink) -> Finish:
        call = asyncio.ensure_future(generate(self, request, sink))
        abandoned.add(call)
        # What becomes of it is nobody's business any more, and not the log's either.
        call.add_done_callback(lambda call: call.cancelled() or call.exception())
        return await asyncio.shield(call)

    monkeypatch.setattr(OpenAIProvider, "generate", shielded)


def a_lease_of_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As stock arq's: its in-progress key of a killed worker lives for 310 s."""
    register, claim = Queue.register, Queue.claim

    async def register_for_long(self: Queue, worker: str, lease_s: float, *rest: object):
        return await register(self, worker, 310, *rest)  # type: ignore[arg-type]

    async def claim_for_long(self: Queue, worker: str, at_most: int, lease_s: float, *rest: object, **named: object):
        return await claim(self, worker, at_most, 310, *rest, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Queue, "register", register_for_long)
    monkeypatch.setattr(Queue, "claim", claim_for_long)


PLANTED = [
    (fence_off, a_takeover, "the_text_is_the_providers"),
    (two_deltas_swapped, an_answer, "the_text_is_the_providers"),
    (a_delta_lost, an_answer, "the_text_is_the_providers"),
    (last_event_doubled_by_the_relay, an_answer, "exactly_one_end"),
    (last_event_doubled_in_the_log, an_answer, "logs_have_no_holes"),
    (cursor_one_too_far, an_answer, "all_readers_saw_one_history"),
    (cursor_one_too_short, an_answer, "all_readers_saw_one_history"),
    (live_events_taken_unchecked, an_answer, "the_text_is_the_providers"),
    (live_batches_delivered_twice, an_answer, "ids_rise"),
    (restarts_untold, a_takeover, "attempts_never_mix"),
    (calls_left_open, a_cancel, "no_call_outlives_its_job"),
    (a_lease_of_minutes, a_death, "every_accepted_job_ends"),
]


@pytest.mark.parametrize(("bug", "scenario", "rule"), PLANTED, ids=[bug.__name__ for bug, *_ in PLANTED])
async def test_a_planted_bug_is_found(
    quick: Stack,
    monkeypatch: pytest.MonkeyPatch,
    bug: Callable[[pytest.MonkeyPatch], None],
    scenario: Callable[[Stack], Awaitable[Scene]],
    rule: str,
) -> None:
    quick.configure(lease_s=0.5)
    bug(monkeypatch)
    scene = await scenario(quick)
    found = await scene.verdict(DEADLINE_S)
    assert rule in {violation.partition(":")[0] for violation in found}, found
