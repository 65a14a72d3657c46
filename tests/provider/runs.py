"""Responses as the provider has them: a run, and the connections that read it one after another or at once."""

import asyncio
import time
from collections import deque
from typing import Any, Literal, Protocol

from tests.provider.breaks import Cut, Failure, HttpError, Silence
from tests.provider.calls import Call
from tests.provider.dialect import Dialect, compact, error_answer
from tests.provider.event_log import CutHere, EventLog
from tests.provider.http1 import Connection

LIVE = ("queued", "in_progress")
"""The statuses of a response that is still being written."""

ReadEnd = Literal["finished", "cut", "refused", "closed_by_client"]


class Generation(Protocol):
    """What a run knows of the response that is being written."""

    status: str
    last_sequence: int | None

    def response(self) -> dict[str, Any]:
        """Return the Response object as it is now."""


class Read:
    """One connection's look at a run: its POST's, or a GET's. Times are `time.monotonic()`."""

    def __init__(self, method: str, headers: dict[str, str], stream: bool, starting_after: int | None) -> None:
        self.method = method
        self.headers = headers
        """Names in lower case."""
        self.stream = stream
        self.starting_after = starting_after
        self.started_at = time.monotonic()
        self.ended_at: float | None = None
        self.end: ReadEnd | None = None
        """`finished`: had the end; `cut`: the script dropped it; `refused`: got an HTTP error. None: still reads, or
        the provider was shut down."""
        self.last_sent: int | None = None
        """The sequence number of the last event that it was sent."""
        self._ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Read {self.method} after {self.starting_after} to {self.last_sent} {self.end or 'open'}>"

    async def ended(self, timeout_s: float = 5.0) -> None:
        """Return when the connection has had its answer, or was lost. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self._ended.wait()

    def over(self, end: ReadEnd | None) -> None:
        """Record how it ended; the first end counts (for the provider)."""
        if self.ended_at is None:
            self.ended_at = time.monotonic()
            self.end = end
            self._ended.set()

    def summary(self) -> dict[str, Any]:
        names = ("method", "stream", "starting_after", "started_at", "ended_at", "end", "last_sent")
        return {name: getattr(self, name) for name in names}


class Run:
    """One response: what is paid for, once, whoever reads it how often."""

    def __init__(self, call: Call, dialect: Dialect, generation: Generation, log: EventLog | None) -> None:
        self.id = f"resp_{call.number:08x}"
        self.call = call
        self.background = log is not None
        self.stored = call.body.get("store") is not False
        self.reads: list[Read] = []
        """Every connection that asked for it, in order: the POST, and GETs of the object or of its events."""
        self.cancels = 0
        """How often it was asked to stop."""
        self.cancelled = False
        self.task: asyncio.Task[None] | None = None
        self._dialect = dialect
        self._generation = generation
        self._log = log
        self._answers: deque[HttpError | Failure | Silence | Cut] = deque()
        self._arrivals: asyncio.Queue[Read] = asyncio.Queue()

    def __repr__(self) -> str:
        return f"<Run {self.id} {self.status}, {len(self.reads)} reads>"

    @property
    def status(self) -> str:
        """`queued`, `in_progress`, `completed`, `incomplete`, `failed` or `cancelled`."""
        return self._generation.status

    @property
    def streams(self) -> list[Read]:
        """The reads that asked for its events."""
        return [read for read in self.reads if read.stream]

    def response(self) -> dict[str, Any]:
        return self._generation.response()

    async def ended(self, timeout_s: float = 5.0) -> None:
        """Return when nothing more is generated. Raises TimeoutError."""
        await self.call.ended(timeout_s)

    async def next_read(self, timeout_s: float = 5.0) -> Read:
        """Return the next read in order of arrival, each once. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._arrivals.get()
        except TimeoutError:
            raise TimeoutError(f"no further read within {timeout_s} s; so far {self.reads}") from None

    def summary(self) -> dict[str, Any]:
        names = ("id", "status", "background", "stored", "cancels", "cancelled")
        return {**{name: getattr(self, name) for name in names}, "reads": [read.summary() for read in self.reads]}

    # For the provider itself.

    def arrived(self, read: Read) -> None:
        self.reads.append(read)
        self._arrivals.put_nowait(read)

    def ended_with_call(self) -> None:
        """Record the end of the POST's read, if the run hangs on that connection."""
        if self.background:
            return
        read, call = self.reads[0], self.call
        read.last_sent = self._generation.last_sequence if read.stream else None
        whole: ReadEnd = "cut" if self.status in LIVE else "finished"
        read.over("closed_by_client" if call.closed_by_client else whole if call.finished else None)

    def broke(self) -> None:
        """Drop all readers: the double itself has failed."""
        if self._log is not None:
            self._log.close(broken=True)

    def cancel(self) -> None:
        """Stop generating; readers come to the end of what there is."""
        self.cancelled = True
        self._generation.status = "cancelled"
        if self.task is not None:
            self.task.cancel()
        if self._log is not None:
            self._log.close()

    async def serve(self, read: Read, connection: Connection) -> None:
        """Answer a connection that asks for this run, until it has had the end, is cut, or leaves."""
        connection.on_client_left = lambda: read.over("closed_by_client")
        self.arrived(read)
        try:
            read.over(await self._answer(read, connection))
        except ConnectionResetError:
            read.over("closed_by_client")
        finally:
            read.over(None)
            connection.on_client_left = None

    async def _answer(self, read: Read, connection: Connection) -> ReadEnd:
        if read.method == "GET" and self._answers:
            return await self._answer_instead(self._answers.popleft(), connection)
        if self._log is None or (read.method == "GET" and not read.stream):
            return self._reply(connection, self.response())
        if await self._cut_early(self._log, connection):
            return "cut"
        if read.stream:
            return await self._stream(self._log, read, connection)
        return self._reply(connection, {**self.response(), "status": "queued"})

    async def _cut_early(self, log: EventLog, connection: Connection) -> bool:
        """Return once there is an answer; True if the connection was cut before."""
        while True:
            for place in log.early_cuts:
                if await self._cut(place, connection):
                    return True
            if log.headers is not None or log.over:
                return False
            await log.news()

    async def _stream(self, log: EventLog, read: Read, connection: Connection) -> ReadEnd:
        connection.head(200, log.headers or {"content-type": "text/event-stream; charset=utf-8"})
        sent = 0
        async for entry in log.follow(-1 if read.starting_after is None else read.starting_after):
            if isinstance(entry, CutHere):
                if await self._cut(entry, connection):
                    return "cut"
                continue
            if entry.dribble is None:
                connection.send(entry.data)
            else:
                await connection.dribble(entry.data, *entry.dribble)
            read.last_sent = entry.after if entry.after >= 0 else None
            sent += 1
            if connection.full:
                await connection.writable()
            elif not sent % 32:
                await asyncio.sleep(0)
        if log.broken:
            await connection.drop("rst")
            return "cut"
        connection.end()
        await connection.flushed()
        return "finished"

    async def _cut(self, place: CutHere, connection: Connection) -> bool:
        """Drop the connection if that is still to be done here."""
        if not place.left:
            return False
        place.left -= 1
        self._answers.extend(place.step.then)
        await connection.drop("fin" if place.early and place.step.how == "eof" else place.step.how)
        return True

    async def _answer_instead(self, step: HttpError | Failure | Silence | Cut, connection: Connection) -> ReadEnd:
        match step:
            case Silence():
                await asyncio.get_running_loop().create_future()
            case Cut(fin):
                await connection.drop("fin" if fin else "rst")
                return "cut"
            case HttpError() | Failure():
                error = self._dialect.failure(step) if isinstance(step, Failure) else step
                connection.reply(*error_answer(self._dialect, self.call.number, error))
        return "refused"

    def _reply(self, connection: Connection, value: dict[str, Any]) -> ReadEnd:
        headers = {"content-type": "application/json", **self._dialect.headers(self.call.number)}
        connection.reply(200, headers, compact(value).encode())
        return "finished"
