"""One attempt at a job, as a pipe: open → generate → finish."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from shared import events
from shared.clock import mono_s
from shared.events import REASONING, Answer, dump
from shared.prices import Usage
from shared.queue import Claim
from shared.requests import JobRequest
from shared.spent import UNASKED, Settlement
from shared.structured import MAX_CHARACTERS, Misfit
from worker.checker import Checker, Unchecked
from worker.continuation import Continuation
from worker.failures import UNKNOWN, Failure, explain, failure, is_stale_connection
from worker.pace import Paces
from worker.providers.base import AnswerTooLarge, Finish, Provider, StreamError
from worker.providers.run import Half, Run
from worker.writer import REFUSAL, AttemptLog, Writer

if TYPE_CHECKING:
    from worker.tracing import AttemptTrace

logger = logging.getLogger(__name__)

CLOSE_S: Final = 2.0
"""How long a provider may take to close its connection before the attempt goes on without it."""


NO_ANSWER: Final = ("tool_calls", "content_filter")
"""How an answer ends that is not to be checked: it is a call, or was cut by the provider's filter."""

BILLED_SILENCE: Final = (
    "first_token_timeout", "idle_timeout", "job_timeout", "provider_truncated", "provider_protocol", "storage_full",
    "invalid_output", "output_unchecked", "answer_too_large",
)  # fmt: skip
"""Failures of a call that a provider may have worked on all the same."""


class Stop(StrEnum):
    """Why somebody ends an attempt before its provider does. arq has one CancelledError for all of these."""

    CANCEL = "cancel"
    HAND_OVER = "hand_over"
    LOST = "lost"
    FIRST_TOKEN_TIMEOUT = "first_token_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    JOB_TIMEOUT = "job_timeout"
    STORAGE_FULL = "storage_full"


CALL_ONLY: Final = (Stop.FIRST_TOKEN_TIMEOUT, Stop.IDLE_TIMEOUT)
"""What ends a call and not the job: others may be asked after it."""


@dataclass(frozen=True, slots=True)
class Completed:
    finish: Finish
    parsed: Any = None
    """What an answer in JSON says."""


@dataclass(frozen=True, slots=True)
class Failed:
    failure: Failure
    usage: Usage | None = None
    """What the provider says that it took all the same."""
    listening: bool = False
    """Whether only the listening has failed: the provider's run goes on."""


@dataclass(frozen=True, slots=True)
class Cancelled:
    pass


@dataclass(frozen=True, slots=True)
class HandedOver:
    """The worker stops: the job goes back in front of the queue."""


@dataclass(frozen=True, slots=True)
class Lost:
    """The job belongs to somebody else: nothing more may be written."""


Outcome = Completed | Failed | Cancelled | HandedOver | Lost


@dataclass(frozen=True, slots=True)
class Ending:
    """What ends a job: its status, its last event, the fields of its record, what its last call took."""

    status: str
    event: str
    data: bytes
    record: dict[str, Any]
    settlement: Settlement


@dataclass(frozen=True, slots=True)
class Timeouts:
    first_token_s: float
    idle_s: float
    job_s: float


class Attempt:
    """Runs one provider call into one log. It is the provider's sink itself: one hop a token.

    Anybody may `stop` it at any time. The first reason counts, but LOST always does, CANCEL before HAND_OVER, and both
    before what only ends the call: the wish must not be lost while that is being closed.
    """

    def __init__(
        self,
        claim: Claim,
        request: JobRequest,
        provider: Callable[[], Provider],
        writer: Writer,
        checker: Checker,
        timeouts: Timeouts,
        paces: Paces,
    ) -> None:
        self.claim = claim
        self.request = request
        self.log: AttemptLog = writer.open(
            claim.job_id,
            claim.worker,
            claim.attempt,
            claim.log_length,
            on_refused=self._fenced,
            on_full=lambda: self.stop(Stop.STORAGE_FULL),
        )
        self._provider = provider
        self._writer = writer
        self._checker = checker
        self._timeouts = timeouts
        self._paces = paces
        self._pace = paces.of(claim)
        self.booked = False
        """Whether its settlement has been counted."""
        self.trace: AttemptTrace | None = None
        """Tells of it, where there are traces."""
        self.run: Run | None = None
        self._continuation: Continuation | None = None
        self._kept = 0
        """Characters that earlier attempts have left of this answer."""
        self._text: list[str] | None = [] if request.json_format is not None else None
        """The whole answer, where it has to be checked in the end."""
        self._refused = False
        """Whether the provider calls a part of it a refusal: that is not to be checked."""
        self._text_size = 0
        self._usage: Usage | None = None
        """What the provider says that the call has taken so far."""
        self._call: asyncio.Task[Finish] | None = None
        self._settlement: Settlement | None = None
        self._stop: Stop | None = None
        self._stopped = asyncio.Event()
        self._pausing = False
        self._opened_s = mono_s()
        self._first_token_s: float | None = None
        self._heard_s = self._opened_s
        self._heard = False
        run_before_s = (claim.claimed_ms - claim.started_ms) / 1000
        self._job_deadline_s = self._opened_s + timeouts.job_s - run_before_s

    # What the provider writes to.

    @property
    def full(self) -> bool:
        return self._writer.full

    async def room(self) -> None:
        """Wait until the worker can hold more; Redis' absence is not the provider's silence."""
        await self._writer.room()
        self._heard_s = mono_s()

    def text(self, text: str) -> None:
        # (An empty piece is no sign of life.)
        if not self._heard and text:
            self._hear()
        if self._continuation is not None:
            text = self._continuation.feed(text)
        self.log.text(text)
        if self._text is not None:
            self._text.append(text)
            self._text_size += len(text)
            if self._text_size > MAX_CHARACTERS:
                raise AnswerTooLarge

    def refusal(self, text: str) -> None:
        if not self._heard and text:
            self._hear()
        self._refused = True
        self.log.refusal(text)

    def reasoning(self, text: str) -> None:
        if not self._heard and text:
            self._hear(thinks=True)
        self.log.reasoning(text)

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None:
        if not self._heard:
            self._hear()
        self.log.tool_call(index, arguments, id, name)

    def usage(self, usage: Usage) -> None:
        self._usage = usage

    def running(self, run: Run) -> None:
        self.run = run
        self.log.follow(self._bookmark, new=True)

    def _bookmark(self, half: Half | None = None) -> bytes:
        assert self.run is not None
        return self.run.bookmark(self.request.provider, half)

    def _hear(self, *, thinks: bool = False) -> None:
        """Note that the provider has spoken since the last look at the clock (`watch`)."""
        self._heard = True
        if self._first_token_s is None:
            self._first_token_s = mono_s()
            self._pace.first(self._first_token_s, thinks=thinks)

    def _timed_text(self, text: str) -> None:
        """Stands before `text` where the pieces' pace is measured."""
        self._pace.piece()
        Attempt.text(self, text)

    def _fenced(self) -> None:
        self._paces.metrics.fenced.inc()
        self.stop(Stop.LOST)

    # What the worker does with it.

    def go_on_from(self, text: str) -> None:
        """Let the provider go on from a text that is in the log already."""
        self._continuation = Continuation(text)
        if self._text is not None:
            self._text.append(text)
            self._text_size = len(text)
        self._kept = len(text)
        self.log.go_on(self._kept)
        if self._continuation.prefix:
            self.request = self.request.continued_from(self._continuation.prefix)

    def listen_on(self, bookmark: bytes, written: Answer) -> None:
        """Let the provider's own run go on, of which so much is in the log already."""
        self.run, half = Run.at_bookmark(bookmark, written)
        self._kept = len(written.text) + len(written.reasoning)
        self._kept += sum(len(call["arguments"]) for call in written.tool_calls)
        self.log.go_on(self._kept)
        if self._text is not None:
            self._text.append(written.text)
            self._refused = bool(written.refusal)
            self._text_size = len(written.text)
        self.log.follow(self._bookmark, new=False)
        if half is not None:
            takers = {REASONING: self.log.reasoning, REFUSAL: self.log.refusal}
            takers.get(half.event, self.log.text)(half.text)

    @property
    def left_run(self) -> bytes:
        """The bookmark of a run that goes on at the provider; empty when there is none."""
        return b"" if self.run is None or self.run.over else self._bookmark()

    def leave_run(self) -> None:
        """Have no more to do with the run: it is to be cancelled."""
        if self.run is not None:
            self.run.over = True

    @property
    def first_token_s(self) -> float | None:
        """When the provider began to answer in this attempt, by the clock that measures."""
        return self._first_token_s

    @property
    def first_token_ms(self) -> int | None:
        """The same on Redis' clock: counted from the claim."""
        since_s = None if self._first_token_s is None else self._first_token_s - self._opened_s
        return None if since_s is None else self.claim.claimed_ms + round(since_s * 1000)

    @property
    def spoke(self) -> bool:
        """Say whether the provider has sent anything of the answer in this attempt."""
        return self._first_token_s is not None

    @property
    def begun(self) -> bool:
        """Say whether there is anything of the answer, of this attempt or of one that it goes on from."""
        return self.log.started or self._kept > 0

    def stop(self, why: Stop) -> None:
        """End the provider call for this reason and close its connection."""
        outranks = (
            why is Stop.LOST
            or (why is Stop.CANCEL and self._stop is Stop.HAND_OVER)
            or (why in (Stop.CANCEL, Stop.HAND_OVER) and self._stop in CALL_ONLY)
        )
        if self._stop is None or outranks:
            self._stop = why
            self._stopped.set()
            if self._call is not None:
                self._call.cancel()

    def watch(self, now_s: float) -> None:
        """Stop the attempt when one of its three clocks has run out."""
        if self._heard:
            self._heard, self._heard_s = False, now_s
        if now_s > self._job_deadline_s:
            self.stop(Stop.JOB_TIMEOUT)
        elif self._pausing:
            return
        elif self._first_token_s is None:
            if now_s > self._opened_s + self._timeouts.first_token_s:
                self.stop(Stop.FIRST_TOKEN_TIMEOUT)
        elif now_s > self._heard_s + self._timeouts.idle_s and not self._writer.full:
            self.stop(Stop.IDLE_TIMEOUT)

    async def generate(self) -> Outcome:
        """Call the provider until it ends or somebody stops the attempt; never raises but when cancelled itself."""
        if self._pace.begin():
            self.text = self._timed_text  # type: ignore[method-assign]
        try:
            return await self._generate()
        finally:
            self._pace.end()

    async def _generate(self) -> Outcome:
        try:
            finish = await self._call_provider()
        except asyncio.CancelledError as error:
            if self._stop is None:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Nobody asked for it: something inside the call cancelled itself.
                return self._failed(error)
        except Exception as error:
            if self._stop is None:
                return self._failed(error)
        else:
            self._pace.whole(finish.usage)
            return await self._checked(finish)
        return self._ended_by(self._stop)

    def _ended_by(self, why: Stop) -> Outcome:
        match why:
            case Stop.CANCEL:
                return Cancelled()
            case Stop.HAND_OVER:
                return HandedOver()
            case Stop.LOST:
                return Lost()
            case _:
                return Failed(failure(why.value))

    @property
    def stopped(self) -> Stop | None:
        """Why somebody has ended it, if somebody has."""
        return self._stop

    @property
    def left_s(self) -> float:
        """What is left of the job's time."""
        return self._job_deadline_s - mono_s()

    async def pause(self, wait_s: float) -> Outcome | None:
        """Wait before the provider is asked again; return how the job ends if somebody ends it meanwhile."""
        self._pausing = True
        if self._stop in CALL_ONLY:
            self._stop = None
            self._stopped.clear()
        if wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._stopped.wait()
        return None if self._stop is None else self._ended_by(self._stop)

    async def _checked(self, finish: Finish) -> Completed | Failed:
        """Say whether an answer that is whole is also what was asked for."""
        if self._text is None or self.request.json_format is None or self._refused or finish.reason in NO_ANSWER:
            return Completed(finish)
        try:
            return Completed(finish, await self._checker.check("".join(self._text), self.request.json_format))
        except Misfit:
            return Failed(failure("invalid_output"), finish.usage)
        except Unchecked:
            return Failed(failure("output_unchecked"), finish.usage)

    async def _call_provider(self) -> Finish:
        """Make the call; once more, at once, when the connection was stale before the provider saw anything."""
        for last_try in (False, True):
            if self._stop is not None:
                raise asyncio.CancelledError
            self._pace.ask()
            if self.trace is not None:
                self.trace.ask()
            self._call = asyncio.create_task(self._provider().generate(self.request, self))
            try:
                await asyncio.shield(self._call)
                return self._call.result()
            except asyncio.CancelledError:
                await self._close_call()
                raise
            except Exception as error:
                if last_try or self.log.started or not is_stale_connection(error):
                    raise
            finally:
                if self.trace is not None:
                    self.trace.over()
        raise AssertionError("unreachable")

    async def _close_call(self) -> None:
        """Wait for the provider's connection to be closed, not for ever."""
        assert self._call is not None
        self._call.cancel()
        done, _ = await asyncio.wait([self._call], timeout=CLOSE_S)
        if done and not self._call.cancelled():
            self._call.exception()

    def _failed(self, error: BaseException) -> Failed:
        why = explain(error)
        if why.code in UNKNOWN:
            # The place, not the words: a provider's message may hold what nobody should read in a log.
            where = traceback.extract_tb(error.__traceback__)[-1]
            logger.error(
                "job %s attempt %d: %s at %s:%s",
                self.claim.job_id, self.claim.attempt, type(error).__name__, where.name, where.lineno,
            )  # fmt: skip
        return Failed(why, listening=bool(self.left_run) and not isinstance(error, StreamError))

    def settlement(self, outcome: Outcome) -> Settlement:
        """Return what the call took, as its first end says: that of a failed call does not change while we wait."""
        if self._settlement is None:
            self._settlement = self._settle_by(outcome)
        return self._settlement

    @property
    def settled(self) -> Settlement | None:
        """What it took, as has been told once; None before that."""
        return self._settlement

    def _settle_by(self, outcome: Outcome) -> Settlement:
        """By the provider's word, or else by an estimate; nothing where it refused."""
        if self._call is None and self.run is None:
            return UNASKED
        match outcome:
            case Completed(Finish(usage=usage)) | Failed(usage=usage) if usage is not None:
                return usage
            case Failed(why, listening=False) if not self.begun and why.code not in BILLED_SILENCE:
                return Usage()
        return self.estimate()

    def ending(self, outcome: Completed | Failed | Cancelled) -> Ending:
        """Return how the job ends with this outcome; usage and cost are those of all its attempts."""
        settlement = self.settlement(outcome)
        spent = self.claim.spent.plus(settlement, self.claim.rates)
        usage, cost_usd = spent.usage().shown(), spent.cost_usd
        record: dict[str, Any] = {}
        match outcome:
            case Completed(finish, value):
                record["finish_reason"] = finish.reason
                if finish.reasoning_blocks:
                    record["reasoning_blocks"] = dump(list(finish.reasoning_blocks))
                data = {
                    "finish_reason": finish.reason,
                    "provider": self.request.provider,
                    "model": self.request.model,
                    "usage": usage,
                    "cost_usd": None if cost_usd is None else float(cost_usd),
                    "ttft_ms": self._since_created_ms(self._first_token_s),
                    "duration_ms": self._since_created_ms(mono_s()),
                    "parsed": value,
                }
                if finish.stop_sequence in self.request.stop:
                    data["stop_sequence"] = finish.stop_sequence
                return Ending("completed", events.COMPLETED, dump(data), record, settlement)
            case Failed(why):
                error = {"code": why.code, "message": why.message, "retryable": why.retryable}
                record["error"] = dump(error)
                return Ending("failed", events.FAILED, dump({**error, "usage": usage}), record, settlement)
            case Cancelled():
                return Ending("cancelled", events.CANCELLED, dump({"usage": usage}), record, settlement)

    def _since_created_ms(self, moment_s: float | None) -> int | None:
        """Count from the POST: Redis' clock up to the claim, ours from there. No clock is compared with another."""
        if moment_s is None:
            return None
        waited_ms = self.claim.claimed_ms - self.claim.created_ms
        return waited_ms + round((moment_s - self._opened_s) * 1000)

    def estimate(self) -> Usage:
        """Guess what the provider did not tell: four characters a token."""
        said = self._usage or Usage(input_tokens=self.request.input_estimate())
        # A run wrote what earlier attempts have heard of it as well.
        characters = self.log.characters + (self._kept if self.run is not None else 0)
        written = -(-characters // 4)
        return said.model_copy(update={"output_tokens": max(said.output_tokens, written), "estimated": True})
