"""The one listener of this process: learns what is new in every log that somebody here reads.

One connection for all logs, and per job one look-up a message, however many streams are open elsewhere.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Final

from api.attendance import Attendance
from api.relay import Reader
from shared.clock import mono_s
from shared.events import Entry, EventId
from shared.keys import Keys
from shared.log import Log
from shared.subscriber import Subscriber

TICK_S: Final = 0.25
"""Resolution of heartbeats."""

STALL_S: Final = 30.0
"""How long a client may leave what was sent to it untaken before it is cut off."""

EXIT_SPREAD_S: Final = 2.0
"""Over how long a process that is told to exit ends its streams: its readers do not all come back at once."""


class Watch:
    """One log that is read here, by any number of readers."""

    def __init__(self) -> None:
        self.readers: set[Reader] = set()

    def message(self, payload: bytes) -> None:
        """Hand a new entry to all readers. `payload`: id, event and data, a line each (`lua/_log.lua`)."""
        try:
            raw_id, event, data = payload.split(b"\n", 2)
            attempt, _, seq = raw_id.partition(b"-")
            entry = Entry(EventId(int(attempt), int(seq)), event.decode(), data)
        except ValueError:
            # Whatever that was: the log has what is true.
            self.gap()
            return
        for reader in self.readers:
            reader.offer(entry)

    def gap(self) -> None:
        """Make all readers look into the log again; Redis may have been another one meanwhile."""
        for reader in self.readers:
            reader.doubt()


class Hub:
    def __init__(
        self,
        log: Log,
        subscriber: Subscriber,
        attendance: Attendance,
        keys: Keys,
        heartbeat_s: float,
        exiting: Callable[[], bool],
    ) -> None:
        self._log = log
        self._subscriber = subscriber
        self._attendance = attendance
        self._keys = keys
        self._heartbeat_s = heartbeat_s
        self._exiting = exiting
        self._watches: dict[str, Watch] = {}
        self._ending_since_s: float | None = None
        self._ticker: asyncio.Task[None] | None = None

    @property
    def open_streams(self) -> int:
        return sum(len(watch.readers) for watch in self._watches.values())

    async def start(self) -> None:
        await self._subscriber.start()
        await self._attendance.start()
        self._ticker = asyncio.create_task(self._tick(), name="heartbeats")

    async def stop(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)
        self.end_all()
        await self._attendance.stop()
        await self._subscriber.stop()

    def attach(self, job_id: str, cursor: EventId, leave_grace_s: float | None = None) -> Reader:
        """Return a new reader of a log; everything behind its cursor will reach it. Detach it in the end.

        `leave_grace_s`: the reader counts as one for a job that is cancelled when nobody reads it for so long.
        """
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = Watch()
        listening = self._subscriber.subscribe(self._keys.log(job_id), watch)
        reader = Reader(self._log, job_id, cursor, listening, counts=leave_grace_s is not None)
        self._attendance.enter(job_id, leave_grace_s)
        watch.readers.add(reader)
        if self._ending_since_s is not None:
            reader.end()
        return reader

    def detach(self, reader: Reader) -> None:
        if reader.counts:
            self._attendance.leave(reader.job_id)
        watch = self._watches[reader.job_id]
        watch.readers.discard(reader)
        if not watch.readers:
            del self._watches[reader.job_id]
            self._subscriber.unsubscribe(self._keys.log(reader.job_id))

    def end_all(self, spread_s: float = 0) -> None:
        """End every stream of this process, spread over a while; the clients come back to another process."""
        loop = asyncio.get_running_loop()
        for watch in self._watches.values():
            for reader in watch.readers:
                loop.call_later(random.uniform(0, spread_s), reader.end)

    async def _tick(self) -> None:
        """Nudge quiet readers, cut stalled ones off, see the server's exit coming."""
        while True:
            await asyncio.sleep(min(TICK_S, self._heartbeat_s / 4))
            now_s = mono_s()
            if self._ending_since_s is None and self._exiting():
                self._ending_since_s = now_s
                self.end_all(EXIT_SPREAD_S)
            # At the exit nobody is waited for who does not read.
            exit_is_due = self._ending_since_s is not None and now_s - self._ending_since_s > EXIT_SPREAD_S + 1
            for watch in list(self._watches.values()):
                for reader in list(watch.readers):
                    if reader.sending_since_s is not None:
                        if exit_is_due or now_s - reader.sending_since_s > STALL_S:
                            reader.on_stall()
                    elif now_s - reader.active_s > self._heartbeat_s:
                        reader.nudge()
