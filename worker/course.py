"""The way of one job through a worker: from the attempt that it was claimed for to its end, or into other hands."""

import asyncio
import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from shared import logs
from shared.errors import Damaged
from shared.events import FAILED, EventId, dump, load
from shared.metrics import CANCELLED, LISTEN
from shared.plane import HOME
from shared.prices import Usage
from shared.queue import Full
from shared.redis import REDIS_FAULTS, is_damage
from shared.spent import OPEN, UNASKED
from worker.attempt import Attempt, Completed, Failed, HandedOver, Lost, Outcome, Stop
from worker.failures import failure
from worker.insist import insist
from worker.retries import LOOK_AGAIN_S, RUN_LOST, Step, listen_again, next_step, no_room, refusal
from worker.slots import KEPT_S

if TYPE_CHECKING:
    from worker.workshop import Workshop

logger = logging.getLogger(__name__)


OPEN_S: Final = 1.0
"""How long an event server may take to let an attempt begin; then its job waits for that, and not in a slot."""


class Course:
    """One claimed job in the workshop's hands; each further attempt stands in the place of the one before."""

    def __init__(self, shop: "Workshop", first: Attempt) -> None:
        self._shop = shop
        self._ours = [first]
        """The job's attempts here, the last one at work."""

    async def run(self) -> None:
        """Bring a job to its end, from this attempt on, or to where somebody else goes on with it."""
        first = self._ours[0]
        claim = first.claim
        if first.trace is not None:
            first.trace.note()
        logger.info("attempt at %s", claim.provider)
        try:
            if await self._open(first):
                await self._pick_up(first)
                await self._generate()
        except Exception as error:
            logger.exception("job %s attempt %d could not be settled", claim.job_id, claim.attempt)
            if is_damage(error) or isinstance(error, Damaged):
                bury = partial(self._shop.queue.bury, claim.worker, [claim.job_id])
                self._shop.metrics.booked(await insist(lambda: bury(self._shop.settings.retention_s)))
            else:
                await insist(lambda: self._shop.queue.abandon(claim.worker, [claim.job_id]))
        finally:
            # Who stands there may be a later run of the same job already, claimed by this very worker.
            if self._shop.attempts.get(claim.job_id) in self._ours:
                del self._shop.attempts[claim.job_id]
            for each in self._ours:
                if each.trace is not None:
                    each.trace.end(None)

    async def _open(self, attempt: Attempt) -> bool:
        """Have an attempt's opening in its log, where that is on an event server; False when nothing may follow it."""
        claim, shop = attempt.claim, self._shop
        if claim.server == HOME:
            return True
        try:
            async with asyncio.timeout(OPEN_S):
                there = await shop.courier.deliver(
                    claim.job_id, claim.server, claim.worker, claim.attempt, claim.milestones
                )
        except (*REDIS_FAULTS, TimeoutError) as error:
            if is_damage(error):
                raise
            logger.warning("job %s waits for its event server (%s)", claim.job_id, type(error).__name__)
            if isinstance(error, TimeoutError):
                shop.plane.at(claim.server).fell_away()
            # (It has written nothing: there is no need to wait for a writer that may be held up there.)
            await self._hand_back(attempt)
            return False
        if there is None:
            await self._settle(attempt, Lost())
        elif there.ended:
            await self._take_over_the_end(attempt)
        elif there.top != EventId(claim.attempt, 0):
            # The records' server has lost its last writes: the log knows of an attempt that nobody else does.
            await self._hand_back(attempt, highest=there.top.attempt)
        else:
            attempt.log.opened(there.length)
            return True
        return False

    async def _take_over_the_end(self, attempt: Attempt) -> None:
        """End a job as its log has told its readers: the records' server has lost that it had ended."""
        claim = attempt.claim
        log = self._shop.plane.at(claim.server).log
        last = await insist(partial(log.last, claim.job_id))
        if last is None or not last.last:
            return
        told = load(last.data)
        base = await insist(partial(log.base, claim.job_id))
        record: dict[str, Any] = {"attempt": last.id.attempt, "base": base}
        if "finish_reason" in told:
            record["finish_reason"] = told["finish_reason"]
        if last.event == FAILED:
            record["error"] = dump({name: told[name] for name in ("code", "message", "retryable")})
        end = attempt.log.milestone(last.event, last.data, claim.log_length)
        retention_s = self._shop.settings.retention_s
        await insist(lambda: self._shop.ends.finish(claim, last.event, end, record, retention_s, UNASKED))

    async def _pick_up(self, attempt: Attempt) -> None:
        """Let an attempt go on from what earlier ones have left in the log, if it is to."""
        claim = attempt.claim
        if claim.base < claim.attempt:
            written = await insist(lambda: self._shop.plane.at(claim.server).log.answer(claim.job_id, claim.base))
            if claim.run:
                attempt.listen_on(claim.run, written)
            else:
                attempt.go_on_from(written.text)

    async def _generate(self) -> None:
        """Generate until there is an answer, or nobody is left to ask."""
        attempt, tries, deaf = self._ours[0], 0, 0
        while True:
            outcome = await attempt.generate()
            if attempt.trace is not None:
                attempt.trace.end_call(outcome)
                if isinstance(outcome, Failed):
                    attempt.trace.end(outcome)
            # A call that is listened to again is the same call.
            tries, deaf = tries + 1, 0 if attempt.spoke else deaf + 1
            following: Attempt | Outcome | None = outcome
            if isinstance(outcome, Failed):
                self._shop.metrics.failed(attempt.claim.provider, outcome.failure.code)
                following = await self._after(attempt, outcome, tries, deaf)
            if isinstance(following, Attempt):
                if following.claim.base == attempt.claim.base:
                    tries -= 1
                elif following.claim.fallback != attempt.claim.fallback:
                    tries = 0
                attempt = following
                continue
            if following is not None:
                await self._settle(attempt, following)
            if attempt.trace is not None:
                attempt.trace.end(following or outcome)
            return

    async def _after(self, attempt: Attempt, failed: Failed, tries: int, deaf: int) -> Attempt | Outcome | None:
        """Listen or ask again, or ask the next fallback, when it is time and there is room; or return how the job ends.

        None when the job is not ours any more.
        """
        request, claim, step = attempt.request, attempt.claim, None
        if failed.listening:
            step = listen_again(request, failed.failure, claim.fallback, deaf, attempt.left_s)
        if step is None:
            failed = await self._hang_up(attempt, failed)
            why, begun = failed.failure, attempt.begun and failed.failure.code != RUN_LOST
            step = next_step(request, why, claim.fallback, tries, attempt.left_s, begun=begun)
        kept_s = KEPT_S
        while step is not None:
            kept_s -= step.wait_s
            pause = attempt.pause(step.wait_s) if kept_s >= 0 else self._rest(attempt, step.wait_s)
            if (ended := await pause) is not None:
                return ended
            following = await self._again(attempt, failed, step)
            if not isinstance(following, Full):
                return following
            step = no_room(request, step, following, attempt.left_s)
        return failed

    async def _rest(self, attempt: Attempt, wait_s: float) -> Outcome | None:
        """Wait without a slot, then for one; return how the job ends if somebody ends it meanwhile."""
        with self._shop.slots.rest():
            ended = await attempt.pause(wait_s)
            with self._shop.slots.claim():
                while ended is None and not self._shop.slots.has_one(len(self._shop.attempts)):
                    ended = await attempt.pause(LOOK_AGAIN_S)
        return ended

    async def _hang_up(self, attempt: Attempt, failed: Failed) -> Failed:
        """Free the room of a failed call; after a 429 nobody asks that model for a while, this worker included."""
        why, claim = failed.failure, attempt.claim
        refused, settlement, left = refusal(why), attempt.settlement(failed), attempt.left_run
        if refused is None and not self._shop.settings.limits:
            return failed
        pause_s, began = await insist(lambda: self._shop.queue.hang_up(claim, settlement, refused, left))
        self._book(attempt)
        if began:
            self._shop.metrics.paused(claim.provider)
        if pause_s <= (why.retry_after_s or 0):
            return failed
        return replace(failed, failure=why._replace(retry_after_s=pause_s))

    async def _again(self, attempt: Attempt, outcome: Outcome, step: Step) -> Attempt | Full | None:
        """Open the next attempt in place of one that failed; None when the job is not ours any more."""
        goes_on, target = not step.reason, (step.provider, step.model)
        if goes_on:
            await self._append_rest(attempt)
        else:
            # With nothing left on its way: the log would refuse it, as it does to those who have lost their job.
            await self._shop.settle_log(attempt)
            attempt.log.take(whole=True)
        settlement, left = (OPEN, b"") if goes_on else (attempt.settlement(outcome), attempt.left_run)
        rates = attempt.claim.rates if step.fallback == attempt.claim.fallback else self._shop.prices.rates(*target)
        claim = await insist(
            lambda: self._shop.queue.again(attempt.claim, step.reason, *target, step.fallback, rates, settlement, left)
        )
        if claim is None:
            await self._disown(attempt)
            return None
        if not goes_on:
            self._book(attempt)
        if left:
            attempt.leave_run()
            self._shop.orphans.cancel(left)
        if isinstance(claim, Full):
            return claim
        logs.note(attempt=claim.attempt)
        logger.info("attempt at %s, %s", claim.provider, step.reason or "which goes on")
        self._shop.metrics.attempt(step.reason or LISTEN)
        following = self._shop.attempts[claim.job_id] = self._shop.attempt(claim)
        self._ours.append(following)
        if attempt.stopped is not None:
            following.stop(attempt.stopped)
        if not await self._open(following):
            return None
        await self._pick_up(following)
        return following

    async def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write the end, or pass the job on, until Redis has taken it."""
        log, claim, retention_s = attempt.log, attempt.claim, self._shop.settings.retention_s
        if isinstance(outcome, HandedOver):
            if not self._shop.plane.at(claim.server).away:
                # (Else it goes without: what is on its way there still is fenced by the next opening.)
                await self._append_rest(attempt)
            # A run is settled with the attempt that hears its end.
            if await self._hand_back(attempt) and not attempt.left_run:
                self._book(attempt)
            return
        if isinstance(outcome, Lost):
            await self._shop.settle_log(attempt)
            await self._disown(attempt)
            return
        if claim.server == HOME:
            await self._shop.settle_log(attempt)
            written = True
        else:
            # Its event server may be away for long, and jobs of others are to run meanwhile.
            with self._shop.slots.rest_after(KEPT_S):
                written = await self._append_rest(attempt)
        if attempt.stopped is Stop.STORAGE_FULL and isinstance(outcome, Completed):
            # Its last words were given up when the provider had said them.
            outcome = Failed(failure(Stop.STORAGE_FULL.value), outcome.finish.usage)
        ending, left = attempt.ending(outcome), attempt.left_run
        if claim.server == HOME:
            last = log.close(ending.event, ending.data)
        elif written:
            last = log.milestone(ending.event, ending.data, claim.log_length)
            if claim.base == claim.attempt and attempt.first_token_ms is not None:
                ending.record["first_token_ms"] = attempt.first_token_ms
        else:
            await self._end_elsewhere(attempt, ending.status)
            return
        end = partial(self._shop.ends.finish, claim, ending.status, last, ending.record)
        finished = await insist(lambda: end(retention_s, ending.settlement, left))
        if finished is None:
            await self._end_elsewhere(attempt, ending.status)
            return
        await self._shop.courier.try_to(claim.job_id, claim.server, finished.milestones)
        code = outcome.failure.code if isinstance(outcome, Failed) else None
        logger.info("job ended", extra={"outcome": ending.status, "code": code})
        self._book(attempt)
        self._shop.metrics.ended(ending.status, code or "")
        if ending.status == CANCELLED and finished.cancel_ms is not None:
            self._shop.metrics.cancel.observe(finished.cancel_ms / 1000)
        if left:
            self._shop.orphans.cancel(left)

    async def _hand_back(self, attempt: Attempt, highest: int | None = None) -> bool:
        """Put the job back in front of the queue; False when it is not ours any more."""
        claim, settlement = attempt.claim, attempt.settlement(HandedOver())
        job = (claim.job_id, claim.worker, "worker_stopped", claim.attempt)
        release = partial(self._shop.queue.release, *job, self._shop.settings.retention_s, settlement, highest)
        if (released := await insist(release)) is None:
            self._shop.metrics.fenced.inc()
            return False
        self._shop.metrics.booked(released)
        return True

    async def _end_elsewhere(self, attempt: Attempt, status: str) -> None:
        """Learn that somebody else has the job: what was to be its end is none."""
        self._shop.metrics.fenced.inc()
        logger.warning("job %s attempt %d ended %s elsewhere", attempt.claim.job_id, attempt.claim.attempt, status)
        if attempt.trace is not None:
            attempt.trace.lost()
        await self._disown(attempt)

    def _book(self, attempt: Attempt) -> None:
        """Count what a call took, once, when a script has settled it."""
        claim, settlement = attempt.claim, attempt.settled
        if isinstance(settlement, Usage) and not attempt.booked:
            attempt.booked = True
            self._shop.metrics.settled_at(claim.provider, claim.model, settlement, claim.rates)

    async def _append_rest(self, attempt: Attempt) -> bool:
        """Append what an attempt has not appended yet; say whether the log has taken it."""
        await self._shop.settle_log(attempt)
        if attempt.log.fenced:
            # Perhaps after the provider's last word: the end would stand behind a hole.
            return False
        # (Half a character is kept for the next attempt where that hears the other half.)
        rest = attempt.log.take(whole=attempt.run is None)
        if rest is None:
            return True
        log = self._shop.plane.at(attempt.claim.server).log
        return all(await insist(lambda: log.append([rest])))

    async def _disown(self, attempt: Attempt) -> None:
        """Leave the run of a job that is not ours any more to its new holder, or to nobody."""
        run, left, job_id = attempt.run, attempt.left_run, attempt.claim.job_id
        if run is not None and left and await insist(lambda: self._shop.runs.disown(job_id, left, run.id)):
            self._shop.orphans.cancel(left)
