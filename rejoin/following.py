"""One reader's way through one job's log, whatever becomes of its connections. Does no I/O of its own."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import httpx2

from rejoin import calls
from rejoin.answer import Answer
from rejoin.errors import ClientError, JobCancelled, JobFailed, Problem, Unexpected, Unreachable
from rejoin.events import Cancelled, Event, Failed, event_of
from rejoin.patience import Patience
from rejoin.sse import Frames

SSE: Final = "text/event-stream"


class Following:
    """Knows what to ask next, from which cursor, and when it is over.

    Before it knows the job it POSTs, always under one Idempotency-Key: repeats join the one job. Then it reads on from
    the last event that was whole.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        body: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
        job_id: str | None = None,
        last_event_id: str | None = None,
    ) -> None:
        self.body = body
        self.key = idempotency_key or calls.new_key()
        self.job_id = job_id
        self.last_event_id = last_event_id
        self.answer = Answer()
        self.over = False
        self.asked = False
        """Whether a request has gone out: before, there can be no job."""
        self._tries = patience.tries()
        self._frames = Frames()

    def request(self) -> tuple[str, str, dict[str, str], Mapping[str, Any] | None]:
        """Return method, path, headers and JSON of the next connection."""
        # Not packed: an event is to leave each proxy on the way as it comes.
        headers = {"Accept": SSE, "Accept-Encoding": "identity"}
        self.asked = True
        if self.job_id is None:
            return "POST", "/v1/jobs", {**headers, "Idempotency-Key": self.key}, self.body
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return "GET", f"{calls.path_of(self.job_id)}/events", headers, None

    def opened(self, response: httpx2.Response) -> None:
        """Begin with a new connection; a refusal, whose body has been read, is raised."""
        if response.status_code == 204:
            # The cursor was the last event's.
            self.over = True
            return
        if not response.is_success:
            raise calls.refusal(response)
        self.job_id = self.job_id or response.headers.get("x-job-id")
        if self.job_id is None or not response.headers.get("content-type", "").startswith(SSE):
            raise Unexpected("the answer is no stream of events")
        self._frames = Frames()

    def feed(self, chunk: bytes) -> Iterator[Event]:
        """Yield the events that are whole with these bytes."""
        self._tries.sign_of_life()
        for frame in self._frames.feed(chunk):
            if not frame.id:
                raise Unexpected("an event without an id")
            try:
                event = event_of(frame.id, frame.event, json.loads(frame.data))
            except (ValueError, KeyError, TypeError) as error:
                raise Unexpected(f"event {frame.id} cannot be read") from error
            self._tries.success()
            self.last_event_id = event.id
            self.answer.add(event)
            self.over = event.last
            yield event
            if self.over:
                return

    def text(self) -> str:
        """Return the answer of a job that has completed; raise what became of any other."""
        text, job_id = self.answer.text, self.job_id or ""
        match self.answer.end:
            case Failed() as end:
                raise JobFailed(job_id, end.code, end.message, end.retryable, text)
            case Cancelled():
                raise JobCancelled(job_id, text)
        return text

    def wait_s(self, why: Exception | None) -> float:
        """Return how long to wait before the next connection: this one was cut, or refused.

        Raises what does not pass by itself, and anything beyond all patience.
        """
        if isinstance(why, Problem):
            if not why.passing:
                raise why
            return self._tries.wait_s(why, why.retry_after_s)
        if isinstance(why, ClientError):
            raise why
        return self._tries.wait_s(unreachable(why))


def unreachable(why: Exception | None) -> Unreachable:
    """Return the error of a server that is away: what went wrong last, without hosts and addresses."""
    lost = Unreachable("the server cannot be reached" + (f" ({type(why).__name__})" if why is not None else ""))
    lost.__cause__ = why
    return lost
