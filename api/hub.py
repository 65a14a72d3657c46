"""The one listener of this process: learns what is new in every log that somebody here reads.

One connection a server for all logs, and per job one look-up a message, however many streams are open elsewhere.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from typing import Final, NamedTuple

from api.attendance import Attendance
from api.relay import Batch, Reader
from api.streams import Seat, Streams
from shared.clock import mono_s
from shared.courier import Courier
from shared.errors import Unavailable
from shared.events import Entry, EventId
from shared.metrics import ApiMetrics
from shared.plane import HOME, Place
from shared.redis import REDIS_FAULTS
from shared.redis_clock import RedisClock
from shared.subscriber import Subscriber

logger = logging.getLogger(__name__)

TICK_S: Final = 0.5
"""How late a stalled client or the server's exit may be noticed."""

BEATS: Final = 20
"""Into so many parts a heartbeat's time is cut. Readers whose time falls into the same one are written to in one go:
alone, each costs eight times as much, as everything it needs has left the caches."""

STALL_S: Final = 30.0
"""How long a client may leave what was sent to it untaken before it is cut off."""

EXIT_SPREAD_S: Final = 2.0
"""Over how long a process that is told to exit ends its streams: its readers do not all come back at once."""

RECORDS_S: Final = 1.0
"""How long after the records' server has come back it is asked for the jobs that are read on event servers."""

CLOCK_S: Final = 10.0
"""Between two looks at each server's clock, while anybody reads."""


def _entries(lines: list[bytes]) -> list[Entry]:
    """Read a message: id, event and data of each entry, a line each (`lua/_log.lua`). Raises ValueError, TypeError."""
    if len(lines) == 3:
        return [_entry(*lines)]
    return [_entry(*lines[at : at + 3]) for at in range(0, len(lines), 3)]


def _entry(raw_id: bytes, event: bytes, data: bytes) -> Entry:
    attempt, _, seq = raw_id.partition(b"-")
    return Entry(EventId(int(attempt), int(seq)), event.decode(), data)


def _tell_of_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.critical("%s have ended", task.get_name(), exc_info=error)


class Ear(NamedTuple):
    """How this process hears of the logs on one server."""

    place: Place
    subscriber: Subscriber
    clock: RedisClock


class Watch:
    """One log that is read here, by any number of readers."""

    def __init__(self, ear: Ear, on_news: "Callable[[Watch], None]") -> None:
        self.ear = ear
        self.readers: set[Reader] = set()
        self._on_news = on_news
        self._news: list[Entry] = []
        self.appended: bytes | None = None
        """When the first of what is new was appended, on Redis' clock, if that was said."""

    def message(self, payload: bytes) -> None:
        """Note new entries."""
        lines = payload.split(b"\n")
        appended = lines.pop() if len(lines) > 3 and len(lines) % 3 == 1 else None
        try:
            news = _entries(lines)
        except (TypeError, ValueError):
            # Whatever that was: the log has what is true.
            self.gap()
            return
        if not self._news:
            self.appended = appended
            self._on_news(self)
        self._news += news

    def hand_out(self) -> bool:
        """Hand to all readers what has come since the last time: one write a reader for what came together.

        Says whether a provider's first words were among it.
        """
        news, self._news = self._news, []
        # (After a `gap` there is none.)
        began = bool(news) and news[0].id.seq == 1 and not news[0].last
        while news:
            length = 1
            while length < len(news) and news[length - 1].id.precedes(news[length].id):
                length += 1
            batch, news = Batch(news[:length]), news[length:]
            for reader in self.readers:
                try:
                    reader.offer(batch)
                except Exception:
                    # One reader's trouble is nobody else's.
                    logger.exception("a reader of %s failed", reader.job_id, extra={"job_id": reader.job_id})
                    reader.on_stall()
        return began

    def gap(self) -> None:
        """Make all readers look into the log again; Redis may have been another one meanwhile."""
        self._news, self.appended = [], None
        for reader in self.readers:
            reader.doubt()


class Records:
    """Hears of no news, but of gaps: the server with the records may have come back as another one."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()
        """Whether it was gone, and nobody has looked yet what that means for who reads on event servers."""

    def message(self, payload: bytes) -> None:
        pass

    def gap(self) -> None:
        self.lost.set()


class Hub:
    def __init__(
        self,
        ears: Sequence[Ear],
        courier: Courier,
        attendance: Attendance,
        streams: Streams,
        heartbeat_s: float,
        exiting: Callable[[], bool],
        metrics: ApiMetrics,
    ) -> None:
        self.metrics = metrics
        self._ears = {ear.place.name: ear for ear in ears}
        self._courier = courier
        self._reading = asyncio.Event()
        """Whether there are readers, or were a moment ago."""
        self._attendance = attendance
        self._streams = streams
        self._heartbeat_s = heartbeat_s
        self._exiting = exiting
        self._watches: dict[str, Watch] = {}
        self._by_key: dict[str, set[Reader]] = {}
        """Whose access ends with their key's."""
        self._fresh: list[Watch] = []
        self._sending: dict[Reader, float] = {}
        """Who waits for its client to take what was sent, and since when."""
        self._beat_s = heartbeat_s / BEATS
        self._due: dict[int, list[Reader]] = {}
        """Who is to be looked at in which beat."""
        self._beats: asyncio.Task[None] | None = None
        self._clocks: asyncio.Task[None] | None = None
        self._ending_since_s: float | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._records = Records()
        self._records_watch: asyncio.Task[None] | None = None

    @property
    def open_streams(self) -> int:
        return sum(len(watch.readers) for watch in self._watches.values())

    async def start(self) -> None:
        for ear in self._ears.values():
            await ear.subscriber.start()
        if len(self._ears) > 1:
            home = self._ears[HOME]
            home.subscriber.subscribe(home.place.keys.records, self._records)
        await self._attendance.start()
        await self._streams.start()
        self._ticker = asyncio.create_task(self._tick(), name="stalls and exit")
        self._beats = asyncio.create_task(self._beat(), name="heartbeats")
        self._clocks = asyncio.create_task(self._keep_clock(), name="looks at Redis' clock")
        self._records_watch = asyncio.create_task(self._watch_records(), name="looks at records")
        for task in (self._ticker, self._beats, self._clocks, self._records_watch):
            task.add_done_callback(_tell_of_end)

    async def stop(self) -> None:
        for task in (self._ticker, self._beats, self._clocks, self._records_watch):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self.end_all()
        await self._attendance.stop()
        await self._streams.stop()
        for ear in self._ears.values():
            await ear.subscriber.stop()

    def attach(
        self,
        job_id: str,
        cursor: EventId,
        leave_grace_s: float | None = None,
        *,
        key: str | None = None,
        seat: Seat | None = None,
        merges: bool = True,
        server: str = HOME,
        ended: bool = False,
    ) -> Reader:
        """Return a new reader of a log; everything behind its cursor will reach it. Detach it in the end.

        `server`: where the log is. `ended`: the job is over, so its last event has to be there.
        Raises Unavailable for a server that this process has not been told of.

        `leave_grace_s`: the reader counts as one for a job that is cancelled when nobody reads it for so long.
        `key`: the API key by which it reads, and with which it ends.
        `seat`: the stream that it is among its owner's; left when the reader is detached.
        `merges`: whether neighbouring texts may come as one, when they are read from the log.
        """
        ear = self._ears.get(server)
        if ear is None:
            if seat is not None:
                seat.leave()
            raise Unavailable(f"REJOIN_STREAM_URLS has no {server!r}.")
        watch = self._watches.get(job_id)
        if watch is None:
            watch = self._watches[job_id] = Watch(ear, self._note)
        listening = ear.subscriber.subscribe(ear.place.keys.log(job_id), watch)
        counts = leave_grace_s is not None
        refresh = None if server == HOME else partial(self._courier.refresh, job_id, server)
        reader = Reader(
            ear.place.log, job_id, cursor, listening, counts=counts, key=key, seat=seat, merges=merges, refresh=refresh,
            stale=ended and refresh is not None,
        )  # fmt: skip
        if key is not None:
            self._by_key.setdefault(key, set()).add(reader)
        self._attendance.enter(job_id, leave_grace_s)
        watch.readers.add(reader)
        if seat is not None:
            self.metrics.streams_open.inc()
        self._reading.set()
        self._look_at([reader], mono_s() + self._heartbeat_s)
        if self._ending_since_s is not None:
            reader.end()
        return reader

    def detach(self, reader: Reader, *, for_good: bool = False) -> None:
        """Let go of a reader. `for_good`: its client does not come back, and the job need not wait for it."""
        if reader.counts:
            self._attendance.leave(reader.job_id, for_good=for_good)
        if reader.key is not None and (others := self._by_key.get(reader.key)) is not None:
            others.discard(reader)
            if not others:
                del self._by_key[reader.key]
        if reader.seat is not None:
            reader.seat.leave()
            self.metrics.streams_open.dec()
            self.metrics.snapshots.inc(reader.snapshots)
        reader.leave()
        watch = self._watches[reader.job_id]
        watch.readers.discard(reader)
        if not watch.readers:
            del self._watches[reader.job_id]
            ear = watch.ear
            ear.subscriber.unsubscribe(ear.place.keys.log(reader.job_id))

    def keys(self) -> AbstractSet[str]:
        """Return the API keys by which somebody reads here."""
        return self._by_key.keys()

    def cut(self, key: str) -> None:
        """Cut off all who read by a key, in mid-body; also those that do not take what was sent to them."""
        for reader in self._by_key.get(key, ()):
            reader.end()
            if reader in self._sending:
                reader.on_stall()

    def end_all(self, spread_s: float = 0) -> None:
        """End every stream of this process, spread over a while; the clients come back to another process."""
        loop = asyncio.get_running_loop()
        for watch in self._watches.values():
            for reader in watch.readers:
                loop.call_later(random.uniform(0, spread_s), reader.end)

    @contextmanager
    def sending(self, reader: Reader) -> Iterator[None]:
        """Mark a reader as waiting for its client, which is cut off if that takes too long."""
        self._sending[reader] = mono_s()
        try:
            yield
        finally:
            del self._sending[reader]

    def _note(self, watch: Watch) -> None:
        """Have a log's news handed out when all that Redis has sent is read."""
        if not self._fresh:
            asyncio.get_running_loop().call_soon(self._hand_out)
        self._fresh.append(watch)

    def _hand_out(self) -> None:
        """Hand out what has come together. Its lag is that of the oldest, until the last of its readers has it."""
        fresh, self._fresh = self._fresh, []
        appended, clock, began = fresh[0].appended, fresh[0].ear.clock, False
        for watch in fresh:
            if watch.hand_out():
                began = True
        if appended is not None and (lag_s := clock.since_s(appended, mono_s())) is not None:
            self.metrics.relay_lag.observe(lag_s)
            if began:
                self.metrics.first_relay.observe(lag_s)

    async def _keep_clock(self) -> None:
        """Know the servers' clocks while there are readers."""
        while True:
            await self._reading.wait()
            ears = [ear for ear in self._ears.values() if not ear.place.away]
            looks = await asyncio.gather(*[ear.clock.look() for ear in ears], return_exceptions=True)
            if any(isinstance(look, BaseException) for look in looks):
                await asyncio.sleep(TICK_S)
                continue
            await asyncio.sleep(CLOCK_S)
            if not self._watches:
                self._reading.clear()

    async def _watch_records(self) -> None:
        """Let go of readers on event servers whose jobs the records have lost: no end will come there, nor a gap.

        All others read on meanwhile, however long the records' server takes to answer.
        """
        while True:
            await self._records.lost.wait()
            self._records.lost.clear()
            await asyncio.sleep(RECORDS_S * random.uniform(0.5, 1))
            elsewhere = [id for id, watch in self._watches.items() if watch.ear.place.name != HOME]
            try:
                unknown = await self._courier.unknown(elsewhere)
            except REDIS_FAULTS:
                self._records.lost.set()
                continue
            for job_id in unknown:
                if (watch := self._watches.get(job_id)) is not None:
                    watch.gap()

    def _look_at(self, readers: list[Reader], when_s: float) -> None:
        self._due.setdefault(int(when_s / self._beat_s) + 1, []).extend(readers)

    async def _beat(self) -> None:
        """Send a sign of life to every reader that has been quiet for a heartbeat."""
        beat = int(mono_s() / self._beat_s)
        while True:
            await asyncio.sleep((beat + 1) * self._beat_s - mono_s())
            now_s = mono_s()
            last, beat = beat, int(now_s / self._beat_s)
            quiet_since_s = now_s - self._heartbeat_s + self._beat_s
            for due in range(last + 1, beat + 1):
                nudged = []
                for reader in self._due.pop(due, ()):
                    if reader.detached:
                        continue
                    if reader.active_s <= quiet_since_s and reader not in self._sending:
                        try:
                            reader.nudge(now_s)
                        except Exception:
                            logger.exception("a reader of %s failed", reader.job_id, extra={"job_id": reader.job_id})
                            reader.on_stall()
                        nudged.append(reader)
                    else:
                        self._look_at([reader], max(reader.active_s + self._heartbeat_s, now_s + self._beat_s))
                self._look_at(nudged, now_s + self._heartbeat_s - self._beat_s)

    async def _tick(self) -> None:
        """Cut stalled readers off, see the server's exit coming."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = mono_s()
            if self._ending_since_s is None and self._exiting():
                self._ending_since_s = now_s
                self.end_all(EXIT_SPREAD_S)
            # At the exit nobody is waited for who does not read.
            exit_is_due = self._ending_since_s is not None and now_s - self._ending_since_s > EXIT_SPREAD_S + 1
            for reader, since_s in list(self._sending.items()):
                if exit_is_due or now_s - since_s > STALL_S:
                    if not exit_is_due and not reader.stalled:
                        reader.stalled = True
                        self.metrics.slow_readers.inc()
                    reader.on_stall()
