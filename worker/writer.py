"""The one writer of a worker: what all its attempts produce goes to Redis in one command a tick.

An awaited XADD a token costs Redis 53 µs and the worker a round trip; one script for all streams of the
worker costs a tenth. Nothing waits that need not: the first token of an attempt goes out at once, and so
does everything on an idle worker; only what comes within a tick of the last write is coalesced.
"""

import asyncio
import logging
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from shared.clock import mono_s
from shared.events import REASONING, TOKEN, TOOL_CALL, EventId, dump, text_data
from shared.log import Append, Log
from shared.redis import REDIS_FAULTS, is_full
from worker.text import Surrogates

logger = logging.getLogger(__name__)

TICK_S: Final = 0.008
"""Longest wait of a token behind another one. 8 ms: at 50 tokens/s a stream has at most one token in it."""

MAX_PENDING: Final = 8 * 1024 * 1024
"""Characters that a worker keeps while Redis is away; beyond it the providers are not read any more."""

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
        attempt: int,
        on_refused: Callable[[], None],
        on_full: Callable[[], None],
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.characters = 0
        """Text and reasoning so far: the estimate of a usage that the provider never sent."""
        self.refused = False
        self._writer = writer
        self._on_refused = on_refused
        self._on_full = on_full
        self._seq = 1
        self._event = ""
        self._parts: list[str] = []
        self._closed: list[tuple[str, bytes]] = []
        self._surrogates = Surrogates()

    @property
    def started(self) -> bool:
        """Say whether the provider has sent anything."""
        return self._seq > 1 or bool(self._event) or bool(self._closed)

    def text(self, text: str) -> None:
        self._add(TOKEN, text)

    def reasoning(self, text: str) -> None:
        self._add(REASONING, text)

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None:
        """Add a piece of a tool call; id and name come with its first piece."""
        _check_text(arguments)
        self._close_text()
        piece: dict[str, object] = {"index": index, "arguments": arguments}
        if id is not None:
            piece |= {"id": id, "name": name}
        self._closed.append((TOOL_CALL, dump(piece)))
        self._written(len(arguments))

    def _add(self, event: str, text: str) -> None:
        _check_text(text)
        if not text:
            return
        if self._event != event:
            self._close_text()
            self._event = event
        self._parts.append(text)
        self._written(len(text))

    def _written(self, characters: int) -> None:
        self.characters += characters
        self._writer.note(self, characters, urgent=self._seq == 1)

    def _close_text(self, *, whole: bool = True) -> None:
        """Turn the pieces into one event; half a surrogate pair waits for the next one unless it is `whole`."""
        if not self._event:
            return
        text = self._surrogates.feed("".join(self._parts))
        if whole:
            text += self._surrogates.rest()
        if text:
            self._closed.append((self._event, text_data(text)))
        self._parts.clear()
        if whole:
            self._event = ""

    def take(self, *, whole: bool) -> list[Append]:
        """Return what is pending as events with their ids, and forget it."""
        self._close_text(whole=whole)
        appends = [
            Append(self.job_id, EventId(self.attempt, self._seq + i), event, data)
            for i, (event, data) in enumerate(self._closed)
        ]
        self._seq += len(appends)
        self._closed.clear()
        return appends

    def close(self, event: str, data: bytes) -> list[Append]:
        """Return what is pending and, behind it, the last event."""
        self._close_text()
        self._closed.append((event, data))
        return self.take(whole=True)

    def give_up(self, appends: int) -> None:
        """Forget what is pending, and so many events that were taken and could not be stored."""
        self._seq -= appends
        self._parts.clear()
        self._closed.clear()
        self.refused = True
        self._on_full()

    def refuse(self) -> None:
        """Learn that the log belongs to a newer attempt or has ended."""
        if not self.refused:
            self.refused = True
            self._on_refused()


def _check_text(text: object) -> None:
    """Raise TypeError, in the attempt that sent it, for what is no text: in here it would stop all attempts."""
    if not isinstance(text, str):
        raise TypeError("not a text")


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class Writer:
    """Appends for all attempts of the worker, and waits out Redis' absence."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._dirty: dict[AttemptLog, None] = {}
        self._pending = 0
        self._appending: asyncio.Future[None] | None = None
        self._wake: asyncio.Future[None] | None = None
        self._urgent = False
        self._gathering = False
        self._room = asyncio.Event()
        self._room.set()

    def open(
        self, job_id: str, attempt: int, on_refused: Callable[[], None], on_full: Callable[[], None] = lambda: None
    ) -> AttemptLog:
        """Return the log of a new attempt, whose opening event is there already.

        `on_refused`: it belongs to somebody else. `on_full`: the server has had no memory for it for a while.
        """
        return AttemptLog(self, job_id, attempt, on_refused, on_full)

    @property
    def full(self) -> bool:
        """Say whether a provider should not be read for now."""
        return self._pending > MAX_PENDING

    async def room(self) -> None:
        """Wait until there is room again."""
        await self._room.wait()

    def note(self, log: AttemptLog, characters: int, *, urgent: bool) -> None:
        if log.refused:
            return
        self._dirty[log] = None
        self._pending += characters
        if self.full:
            self._room.clear()
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

    async def run(self) -> None:
        """Append what is pending, at most once a tick, until cancelled."""
        loop = asyncio.get_running_loop()
        next_s = 0.0
        while True:
            if not self._dirty:
                self._wake = loop.create_future()
                await self._wake
            if loop.time() < next_s and not self._urgent:
                await self._gather(loop, next_s)
            next_s = loop.time() + TICK_S
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
        logs, self._dirty = list(self._dirty), {}
        self._pending = 0
        appends = [append for log in logs for append in log.take(whole=False)]
        if not appends:
            self._room.set()
            return
        self._appending = asyncio.get_running_loop().create_future()
        try:
            results = await self._append(appends)
        except StorageFull:
            taken = Counter(append.job_id for append in appends)
            for log in logs:
                log.give_up(taken[log.job_id])
            return
        finally:
            self._appending.set_result(None)
            self._appending = None
            self._room.set()
        if not all(results):
            refused = {
                (append.job_id, append.id.attempt) for append, done in zip(appends, results, strict=True) if not done
            }
            for log in logs:
                if (log.job_id, log.attempt) in refused:
                    log.refuse()

    async def _append(self, appends: list[Append]) -> list[bool]:
        """Append until Redis has answered. A repeat is safe: what is there already counts as appended."""
        delay_s = RETRY_FIRST_S
        patience_s = mono_s() + FULL_S
        while True:
            try:
                return await self._log.append(appends)
            except REDIS_FAULTS as error:
                logger.warning("%d events wait for Redis (%s)", len(appends), type(error).__name__)
                if is_full(error) and mono_s() > patience_s:
                    raise StorageFull from None
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)
