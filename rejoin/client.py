"""`Client`: the API as methods, and streams that survive what happens to their connections."""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from typing import Self, TypeVar, Unpack

import httpx2

from rejoin import calls, target
from rejoin.answer import Answer
from rejoin.asked import Asked, Messages, body
from rejoin.calls import Call
from rejoin.errors import ClientError, Problem
from rejoin.events import Event
from rejoin.following import Following, unreachable
from rejoin.patience import Patience
from rejoin.records import Job, UsageTable

T = TypeVar("T")

LEAVE_S = 5.0
"""How long a cancel at leaving may try: who leaves does not want to wait."""


class Client:
    """One server, or several API processes of one deployment, with one key.

    `url` and `key` default to `REJOIN_URL` and `REJOIN_API_KEY`, and these to what `make run` starts. Calls are
    repeated while the server is away, as long as `patience` lasts; each POST has an `Idempotency-Key`, so it stays one.
    """

    def __init__(
        self,
        url: str | Sequence[str] | None = None,
        key: str | None = None,
        *,
        model: str | None = None,
        patience: Patience | None = None,
        silence_s: float = target.SILENCE_S,
        http: httpx2.Client | None = None,
    ) -> None:
        """`model`: asked where a call names none. `http`: a client of your own (mTLS, proxies), which you close."""
        self._urls = target.urls_of(url)
        self._at = 0
        self._headers = target.headers_of(key)
        self._model = model
        self._patience = patience or Patience()
        self._stream_timeout = httpx2.Timeout(silence_s, connect=target.CONNECT_S)
        self._http = http or httpx2.Client(**target.http_options(self._urls))
        self._owned = http is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._owned:
            self._http.close()

    def submit(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        provider: str | None = None,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> Job:
        """Make a job and return it, queued. It runs whether or not anybody reads it."""
        request = body(messages, model or self._model, provider, asked)
        return self._ask(calls.submit(request, idempotency_key or calls.new_key()))

    def stream(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        provider: str | None = None,
        idempotency_key: str | None = None,
        cancel_on_leave: bool = False,
        **asked: Unpack[Asked],
    ) -> "Stream":
        """Make a job and yield its events until the last one, over any number of connections.

        It is made when the first event is wanted. `cancel_on_leave`: who stops reading before the end cancels it.
        """
        request = body(messages, model or self._model, provider, asked)
        following = Following(self._patience, body=request, idempotency_key=idempotency_key)
        return Stream(self, following, cancel_on_leave)

    def subscribe(self, job_id: str, last_event_id: str | None = None, *, cancel_on_leave: bool = False) -> "Stream":
        """Yield a job's events, from the start or behind an event that was seen before."""
        calls.path_of(job_id)
        return Stream(self, Following(self._patience, job_id=job_id, last_event_id=last_event_id), cancel_on_leave)

    def text(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        provider: str | None = None,
        idempotency_key: str | None = None,
        **asked: Unpack[Asked],
    ) -> str:
        """Ask, wait, and return the whole answer. Raises JobFailed and JobCancelled."""
        stream = self.stream(messages, model=model, provider=provider, idempotency_key=idempotency_key, **asked)
        return stream.text()

    def job(self, job_id: str) -> Job:
        """Return the job with what has been written so far."""
        return self._ask(calls.job(job_id))

    def jobs(self, *, status: str | None = None, limit: int | None = None) -> Iterator[Job]:
        """Yield the owner's jobs, newest first, without their texts; at most `limit` of them."""
        left, cursor = limit, None
        while left is None or left > 0:
            found, cursor = self._ask(calls.page(status, min(100, left or 100), cursor))
            yield from found[:left]
            left = None if left is None else left - len(found)
            if cursor is None:
                return

    def cancel(self, job_id: str) -> Job:
        """Stop the job and its provider's call; the job's `outcome` says what came of it."""
        return self._ask(calls.cancel(job_id))

    def delete(self, job_id: str) -> None:
        """Forget a finished job and its log at once. Raises JobLive for one that runs."""
        self._ask(calls.delete(job_id))

    def usage(self, since: str | None = None, to: str | None = None, *, group_by: str = "day") -> UsageTable:
        """Return what the owner's jobs have taken and cost, from day to day (`2026-11-21`, UTC), both included."""
        return self._ask(calls.usage(since, to, group_by))

    def models(self) -> list[str]:
        """Return what may be asked, as `provider/model`."""
        return self._ask(calls.models())

    def _ask(self, call: Call[T], patience: Patience | None = None) -> T:
        tries = (patience or self._patience).tries()
        timeout = httpx2.USE_CLIENT_DEFAULT if patience is None else httpx2.Timeout(patience.give_up_s)
        while True:
            try:
                response = self._http.request(
                    call.method,
                    self._urls[self._at] + call.path,
                    params=call.params,
                    headers={**self._headers, **call.headers},
                    json=call.json,
                    timeout=timeout,
                    follow_redirects=False,
                )
                return call.answer(response, repeated=tries.failed > 0)
            except httpx2.TransportError as fault:
                wait_s = tries.wait_s(unreachable(fault))
            except Problem as problem:
                if not problem.passing:
                    raise
                wait_s = tries.wait_s(problem, problem.retry_after_s)
            self._next()
            time.sleep(wait_s)

    def _next(self) -> None:
        self._at = (self._at + 1) % len(self._urls)

    def _follow(self, following: Following) -> Iterator[Event]:
        """Yield events over one connection after the other, until the last one."""
        while not following.over:
            why: Exception | None = None
            try:
                method, path, headers, json = following.request()
                with self._http.stream(
                    method,
                    self._urls[self._at] + path,
                    headers={**self._headers, **headers},
                    json=json,
                    timeout=self._stream_timeout,
                    follow_redirects=False,
                ) as response:
                    if not response.is_success:
                        response.read()
                    following.opened(response)
                    for chunk in response.iter_bytes():
                        for event in following.feed(chunk):
                            yield event
                            if following.over:
                                return
            except (httpx2.TransportError, httpx2.DecodingError, ClientError) as fault:
                why = fault
            if not following.over:
                wait_s = following.wait_s(why)
                self._next()
                time.sleep(wait_s)


class Stream(Iterator[Event]):
    """Iterate it. `close()`, or leaving its `with`, ends the reading, and the job if `cancel_on_leave`."""

    def __init__(self, client: Client, following: Following, cancel_on_leave: bool) -> None:
        self._client = client
        self._following = following
        self._events = _events(client, following, cancel_on_leave)

    @property
    def job_id(self) -> str | None:
        """The job's id, from the first event on."""
        return self._following.job_id

    @property
    def last_event_id(self) -> str | None:
        """The cursor: what `subscribe` goes on behind."""
        return self._following.last_event_id

    @property
    def answer(self) -> Answer:
        """What the events so far add up to."""
        return self._following.answer

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        return next(self._events)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no further."""
        self._events.close()

    def text(self) -> str:
        """Read to the end and return the answer. Raises JobFailed and JobCancelled."""
        for _ in self:
            pass
        return self._following.text()

    def cancel(self) -> Job | None:
        """Cancel the job, also one whose id has not come back yet; None when nothing was asked."""
        return _cancel(self._client, self._following)


def _events(client: Client, following: Following, cancel_on_leave: bool) -> Generator[Event, None, None]:
    try:
        yield from client._follow(following)
    finally:
        if cancel_on_leave and not following.over:
            with suppress(ClientError):
                _cancel(client, following)


def _cancel(client: Client, following: Following) -> Job | None:
    patience = Patience(give_up_s=LEAVE_S)
    if following.job_id is None:
        if not following.asked or following.body is None:
            return None
        # The POST is out and its answer is not in: the same key finds what it has made.
        following.job_id = client._ask(calls.submit(following.body, following.key), patience).id
    return client._ask(calls.cancel(following.job_id), patience)
