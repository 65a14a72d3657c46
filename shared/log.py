"""A job's log: a Redis Stream whose entry ids are the events' ids and the readers' cursors."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

from shared.errors import Damaged
from shared.events import MAX_MERGED_BYTES, RESTARTED, SNAPSHOT, START, Answer, Entry, EventId, merge
from shared.keys import Keys
from shared.redis import Multiplexer, Scripts

SMALL: Final = 4
"""Entries: a log of so many is as small as a compacted one."""

FIRST_READ: Final = 256
MOST_READ: Final = 2_048
PAGE_BYTES: Final = MAX_MERGED_BYTES
"""A page is about as large as one merged event: the first read tells how many entries that is."""


class Append(NamedTuple):
    """Events on their way into one log, behind each other."""

    job_id: str
    worker: str
    first: EventId
    before: int
    """Entries that the log holds when all before the first of these are there."""
    events: Sequence[tuple[str, bytes]]
    """Name and data of each."""
    bookmark: bytes = b""
    """How far behind the last of these events a provider's own run has been read, where there is one."""


class Log:
    """Reads and appends; the scripts that start and end attempts write the rest."""

    def __init__(self, redis: Multiplexer, scripts: Scripts, keys: Keys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys

    async def append(self, appends: Sequence[Append]) -> list[bool]:
        """Append to any number of logs, each named once, in one step; False for each that refused.

        A log refuses an attempt as soon as a newer one or an end is in it. May be repeated.
        """
        args: list[str | bytes | int] = [self._keys.prefix]
        for job_id, worker, first, before, events, _ in appends:
            args += (job_id, worker, first.attempt, first.seq, before, len(events))
            for event in events:
                args += event
        for number, append in enumerate(appends, 1):
            if append.bookmark:
                args += (number, append.bookmark)
        keys = [self._keys.log(append.job_id) for append in appends]
        return [result == 1 for result in await self._scripts.run("append", keys, args)]

    async def read(self, job_id: str, after: EventId, limit: int) -> list[Entry]:
        """Return up to `limit` entries behind the cursor, oldest first."""
        start = "-" if after == START else f"({after}"
        return _entries(await self._redis.read("XRANGE", self._keys.log(job_id), start, "+", "COUNT", limit))

    async def pages(self, job_id: str, after: EventId = START, *, merged: bool = True) -> AsyncIterator[list[Entry]]:
        """Yield all that is behind the cursor now, a page at a time, its neighbouring texts merged."""
        page: list[Entry] = []
        count, size = FIRST_READ, 0
        while True:
            entries = await self.read(job_id, after, count)
            read = sum([len(entry.data) for entry in entries])
            page += entries
            size += read
            whole = len(entries) < count
            if page and (whole or size >= PAGE_BYTES or len(page) >= MOST_READ):
                yield list(merge(page)) if merged else page
                page, size = [], 0
            if whole:
                return
            after = entries[-1].id
            count = max(8, min(MOST_READ, PAGE_BYTES * len(entries) // max(1, read)))

    async def get(self, job_id: str, id: EventId) -> Entry | None:
        """Return the entry with exactly this id."""
        entries = _entries(await self._redis.read("XRANGE", self._keys.log(job_id), str(id), str(id)))
        return entries[0] if entries else None

    async def base(self, job_id: str) -> int:
        """Return the attempt with which the text begins that a log ends with."""
        base = 1
        async for page in self.pages(job_id):
            for entry in page:
                if entry.event in (RESTARTED, SNAPSHOT):
                    base = entry.id.attempt
        return base

    async def first_token_ms(self, job_id: str) -> int | None:
        """Return when the first of a running job's text was appended here (Redis' clock); None before that."""
        raw = await self._redis.read("HGET", self._keys.job(job_id), "first_token_ms")
        return None if raw is None else int(raw)

    async def last(self, job_id: str) -> Entry | None:
        """Return the newest entry; None when there is no log."""
        entries = _entries(await self._redis.read("XREVRANGE", self._keys.log(job_id), "+", "-", "COUNT", 1))
        return entries[0] if entries else None

    async def compact(self, job_id: str) -> bool:
        """Turn an ended log into one snapshot and its last event; False when there was nothing to do.

        May be repeated, and done by two at once: the script puts in place what it still finds.
        """
        if await self._redis.read("XLEN", self._keys.log(job_id)) <= SMALL:
            return False
        answer, before = Answer(), None
        last: Entry | None = None
        async for page in self.pages(job_id):
            for entry in page:
                if last is not None:
                    answer.add(last)
                    before = last.id
                last = entry
        done = False
        if last is not None and last.last and before is not None:
            args: list[str | bytes] = [str(last.id), str(before), answer.snapshot(before).data]
            done = await self._scripts.run("compact", [self._keys.log(job_id)], args) == 1
        return done

    async def answer(self, job_id: str, attempt: int) -> Answer:
        """Return what the events from this attempt on add up to."""
        answer = Answer(attempt)
        cursor = START if attempt == 0 else EventId(attempt, 0)
        async for page in self.pages(job_id, cursor):
            for entry in page:
                answer.add(entry)
        return answer


def _entries(raw: Iterable[tuple[bytes, tuple[bytes, bytes]]]) -> list[Entry]:
    entries = []
    try:
        for raw_id, fields in raw:
            attempt, _, seq = raw_id.partition(b"-")
            event, data = fields
            entries.append(Entry(EventId(int(attempt), int(seq)), event.decode(), data))
    except ValueError as error:
        raise Damaged("a log holds what is no event") from error
    return entries
