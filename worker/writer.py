"""The one writer of a worker to a server: what all attempts produce goes to Redis in one command a tick.

An awaited XADD a token costs Redis 53 µs and the worker a round trip; one script for all streams of the
worker costs a tenth. Nothing waits that need not: the first token of an attempt goes out at once, and so
does everything on an idle worker; only what comes within a tick of the last write is coalesced.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Final

from shared.clock import mono_s
from shared.events import REASONING, TOKEN, TOOL_CALL, EventId, dump, refusal_data, text_data
from shared.log import Append
from shared.plane import Place
from shared.redis import REDIS_FAULTS, DataError, is_damage, is_full
from worker.providers.base import AnswerTooLarge
from worker.providers.run import Half
from worker.text import Surrogates

logger = logging.getLogger(__name__)

REFUSAL: Final = "refusal"
"""What the answer's text is called here while the provider calls it a refusal; in the log it is a `token`."""

TICK_S: Final = 0.008
"""Longest wait of a token behind another one. 8 ms: at 50 tokens/s a stream has at most one token in it."""

CALM_TICK_S: Final = 0.016
"""The same with few streams, where an append costs more than what is in it: at 10 streams a fifth of all CPU."""

CALM: Final = 8
"""Streams in an append up to which the worker counts as calm."""

BUSY: Final = 80
"""Streams in an append from which on ticks grow with their number: what takes longer is to be done less often."""

LONGEST_TICK_S: Final = 0.04


def tick_s(streams: int) -> float:
    """Return how long to let tokens gather behind an append to so many streams."""
    if streams <= CALM:
        return CALM_TICK_S
    return min(LONGEST_TICK_S, TICK_S * max(1, streams / BUSY))


LINGER_S: Final = 0.002
"""How long a busy writer that has nothing to do waits behind the first token for the others."""

MAX_PENDING: Final = 8 * 1024 * 1024
"""Characters that a worker keeps while Redis is away; beyond it the providers are not read any more."""

EVENT_BYTES: Final = 16
"""What an event counts for beside its data in the size of an answer, so that empty ones are not for nothing."""

MAX_TOOL_CALLS: Final = 1_000
"""Calls of tools in one answer."""

LONGEST_NAME: Final = 256
"""Of a tool that is called, and of the call's id."""

FULL_S: Final = 2.0
"""How long a server without memory is waited for before the attempts that it has no room for are failed."""

RETRY_FIRST_S: Final = 0.05
RETRY_LONGEST_S: Final = 1.0


class StorageFull(Exception):
    """Redis has had no memory left for a while."""


class AttemptLog:
    """What one attempt has produced and not yet appended. Sync to write: the reader of a provider never waits."""

    def __init__(
        self,
        writer: "Writer",
        job_id: str,
        worker: str,
        attempt: int,
        length: int,
        on_refused: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.worker = worker
        self.attempt = attempt
        self.characters = 0
        """Text and reasoning so far: the estimate of a usage that the provider never sent."""
        self._around = 0
        """Bytes that the answer takes in the log beside these characters."""
        self.refused = False
        self.fenced = False
        """Whether the log has refused something: nothing may follow it there."""
        self._writer = writer
        self._on_refused = on_refused
        self._on_full = on_full
        self._opening = length - 1
        self._seq = 1
        self._event = ""
        self._parts: list[str] = []
        self._closed: list[tuple[str, bytes]] = []
        self._surrogates = Surrogates()
        self._waiting = False
        """Whether the writer knows of what is pending here."""
        self._noted = 0
        self._bookmark: Callable[[Half | None], bytes] | None = None
        self._unmarked = False

    def opened(self, length: int) -> None:
        """Learn where the attempt's opening stands in the log, before anything is written behind it."""
        self._opening = length - 1

    @property
    def started(self) -> bool:
        """Say whether the provider has sent anything."""
        return self._seq > 1 or bool(self._event) or bool(self._closed)

    def go_on(self, characters: int) -> None:
        """Count what earlier attempts have left of this answer."""
        self._around += characters

    def follow(self, bookmark: Callable[[Half | None], bytes], *, new: bool) -> None:
        """Put a bookmark of the provider's own run behind every append; at once, when the run is `new`."""
        self._bookmark = bookmark
        if new:
            self._unmarked = True
            self._writer.wake(self, urgent=True)

    def text(self, text: str) -> None:
        """Add a piece of the answer. Raises AnswerTooLarge behind the last one for which there is room."""
        if text.__class__ is not str or not text or (self._event is not TOKEN and self._event):
            self._add(TOKEN, text)
            return
        # What nearly every token is: `_add` and what that calls, in one go.
        if self.characters + self._around > self._writer.max_answer_bytes:
            raise AnswerTooLarge
        self._event = TOKEN
        self._parts.append(text)
        characters = len(text)
        self.characters += characters
        if not self.refused:
            self._noted += characters
            writer = self._writer
            writer.pending += characters
            if not self._waiting:
                self._waiting = True
                writer.wake(self, urgent=self._seq == 1)

    def refusal(self, text: str) -> None:
        self._add(REFUSAL, text)

    def reasoning(self, text: str) -> None:
        self._add(REASONING, text)

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None:
        """Add a piece of a tool call; id and name come with its first piece."""
        _check_call(index, arguments, id, name)
        self._bound()
        self._close_text()
        piece: dict[str, object] = {"index": index, "arguments": arguments}
        if id is not None:
            piece |= {"id": id, "name": name}
        data = dump(piece)
        self._close(TOOL_CALL, data, len(arguments))
        self.characters += len(arguments)
        self._written(len(data))

    def _add(self, event: str, text: str) -> None:
        if not text:
            return
        _check_text(text)
        self._bound()
        if self._event != event:
            self._close_text()
            self._event = event
        self._parts.append(text)
        self.characters += len(text)
        self._written(len(text))

    def _bound(self) -> None:
        if self.characters + self._around > self._writer.max_answer_bytes:
            raise AnswerTooLarge

    def _close(self, event: str, data: bytes, characters: int) -> None:
        self._closed.append((event, data))
        self._around += len(data) - characters + EVENT_BYTES

    def _written(self, characters: int) -> None:
        self._waiting = True
        self._note(characters)
        self._writer.wake(self, urgent=self._seq == 1)

    def _note(self, characters: int) -> None:
        if not self.refused:
            self._noted += characters
            self._writer.pending += characters

    def _forget(self) -> None:
        """Give back what was noted with the writer."""
        self._writer.give_back(self._noted)
        self._noted = 0

    def _close_text(self, *, whole: bool = True) -> None:
        """Turn the pieces into one event; half a surrogate pair waits for the next one unless it is `whole`."""
        if not self._event:
            return
        text = self._surrogates.feed("".join(self._parts))
        if whole:
            text += self._surrogates.rest()
        if text:
            refused = self._event == REFUSAL
            event, data = (TOKEN, refusal_data(text)) if refused else (self._event, text_data(text))
            self._close(event, data, len(text))
        self._parts.clear()
        if whole:
            self._event = ""

    def take(self, *, whole: bool) -> Append | None:
        """Return what is pending, and forget it; None when it is nothing. It may be a new run's bookmark alone."""
        self._waiting = False
        self._forget()
        if self._event:
            self._close_text(whole=whole)
        return self._append(self._closed) if self._closed or self._unmarked else None

    def milestone(self, event: str, data: bytes, length: int) -> Append:
        """Return the last event alone, for the milestones, of which there are so many. Nothing else is pending."""
        return Append(self.job_id, self.worker, EventId(self.attempt, self._seq), length, [(event, data)])

    def close(self, event: str, data: bytes) -> Append:
        """Return what is pending and, behind it, the last event."""
        self._forget()
        self._close_text()
        return self._append([*self._closed, (event, data)])

    def _append(self, events: list[tuple[str, bytes]]) -> Append:
        bookmark = b""
        if self._bookmark is not None:
            half = self._surrogates.half
            bookmark = self._bookmark(Half(self._event, half) if half else None)
            self._unmarked = False
        first = EventId(self.attempt, self._seq)
        append = Append(self.job_id, self.worker, first, self._opening + self._seq, events, bookmark)
        self._seq += len(events)
        self._closed = []
        return append

    def give_up(self, taken: Append) -> None:
        """Forget what is pending, and what was taken and could not be stored."""
        self._seq = taken.first.seq
        self._forget()
        self._event = ""
        self._surrogates.rest()
        self._parts.clear()
        self._closed.clear()
        self.refused = True
        self._on_full()

    def refuse(self) -> None:
        """Learn that the log belongs to a newer attempt or has ended."""
        if not self.refused:
            self.refused = self.fenced = True
            self._forget()
            self._on_refused()


def _check_text(text: object) -> None:
    """Raise TypeError, in the attempt that sent it, for what is no text: in here it would stop all attempts."""
    if not isinstance(text, str):
        raise TypeError("not a text")


def _check_call(index: object, arguments: object, id: object, name: object) -> None:
    """Raise for what is no piece of a tool call: readers are to get numbers and names as they are documented."""
    _check_text(arguments)
    for value in (id, name):
        if value is not None:
            _check_text(value)
    if type(index) is not int or index < 0:
        raise TypeError("not a number of a tool call")
    if index >= MAX_TOOL_CALLS or len(str(id or "")) > LONGEST_NAME or len(str(name or "")) > LONGEST_NAME:
        raise AnswerTooLarge


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Writer:
    """Appends for all attempts of the worker whose logs are in one place, and waits out that server's absence."""

    def __init__(self, place: Place, max_answer_bytes: int) -> None:
        self._place = place
        self.max_answer_bytes = max_answer_bytes
        self._dirty: dict[AttemptLog, None] = {}
        self.pending = 0
        """Characters that the logs have noted and that have not been taken."""
        self._appending: asyncio.Future[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._urgent = False
        self._gathering = False
        self._appended = 0
        """To how many logs, the last time."""
        self._room = asyncio.Event()
        self._room.set()

    def open(
        self,
        job_id: str,
        worker: str,
        attempt: int,
        length: int,
        on_refused: Callable[[], None],
        on_full: Callable[[], None] = lambda: None,
    ) -> AttemptLog:
        """Return the log of a new attempt, whose opening event is there already, the last of `length` entries.

        `on_refused`: it belongs to somebody else. `on_full`: the server has had no memory for it for a while.
        """
        return AttemptLog(self, job_id, worker, attempt, length, on_refused, on_full)

    @property
    def full(self) -> bool:
        """Say whether a provider should not be read for now."""
        return self.pending > MAX_PENDING

    async def room(self) -> None:
        """Wait until there is room again."""
        if self.full:
            self._room.clear()
        await self._room.wait()

    def wake(self, log: AttemptLog, *, urgent: bool) -> None:
        """Learn that a log has something to append; at once, if it is `urgent`."""
        if log.refused:
            return
        self._dirty[log] = None
        if urgent:
            self._urgent = True
        if self._wake is not None and (urgent or not self._gathering):
            _finish(self._wake)

    async def settle(self, log: AttemptLog) -> None:
        """Take a log out of the writer's hands: nothing of it is on its way any more."""
        self._dirty.pop(log, None)
        while self._appending is not None:
            await asyncio.wait([self._appending])
        self._dirty.pop(log, None)

    def give_back(self, characters: int) -> None:
        """Learn that so much is no longer pending."""
        self.pending -= characters
        if self.pending <= MAX_PENDING:
            self._room.set()

    async def run(self) -> None:
        """Append what is pending, at most once a tick, until cancelled."""
        loop = asyncio.get_running_loop()
        next_s = 0.0
        while True:
            if not self._dirty:
                self._wake = loop.create_future()
                await self._wake
                # Streams that have come together will do so again: one append for all, a moment later.
                if self._appended > 1:
                    next_s = max(next_s, loop.time() + LINGER_S)
            if loop.time() < next_s and not self._urgent:
                await self._gather(loop, next_s)
            next_s = loop.time() + tick_s(self._appended)
            self._urgent = False
            await self._append_pending()

    async def _gather(self, loop: asyncio.AbstractEventLoop, until_s: float) -> None:
        """Let tokens gather, but leave at once for a first one."""
        self._wake = wake = loop.create_future()
        timer = loop.call_at(until_s, _finish, wake)
        self._gathering = True
        try:
            await wake
        finally:
            self._gathering = False
            timer.cancel()

    async def _append_pending(self) -> None:
        dirty, self._dirty = self._dirty, {}
        logs, appends = [], []
        for log in dirty:
            if (append := log.take(whole=False)) is not None:
                logs.append(log)
                appends.append(append)
        self._appended = len(appends)
        if not appends:
            return
        self._appending = asyncio.get_running_loop().create_future()
        try:
            results = await self._append(appends)
        except StorageFull:
            for log, append in zip(logs, appends, strict=True):
                log.give_up(append)
            return
        finally:
            self._appending.set_result(None)
            self._appending = None
        for log, done in zip(logs, results, strict=True):
            if not done:
                log.refuse()

    async def _append(self, appends: list[Append]) -> list[bool]:
        """Append until Redis has answered. A repeat is safe: what is there already counts as appended."""
        delay_s = RETRY_FIRST_S
        patience_s = mono_s() + FULL_S
        while True:
            try:
                return await self._place.log.append(appends)
            except DataError:
                if len(appends) == 1:
                    return [False]
                return await self._append_each(appends)
            except REDIS_FAULTS as error:
                if is_damage(error):
                    if len(appends) == 1:
                        job_id = appends[0].job_id
                        logger.error("job %s: its log or record is damaged", job_id, extra={"job_id": job_id})
                        return [False]
                    return await self._append_each(appends)
                self._place.fell_away()
                where, why = self._place.title, type(error).__name__
                logger.warning("the events of %d jobs wait for %s (%s)", len(appends), where, why)
                if is_full(error) and mono_s() > patience_s:
                    raise StorageFull from None
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)

    async def _append_each(self, appends: list[Append]) -> list[bool]:
        """Append one by one: one of them will never go through, and the others must not wait for it."""
        return [done for append in appends for done in await self._append([append])]
