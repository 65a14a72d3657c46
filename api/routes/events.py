"""`/v1/jobs/{id}/events`: a job's log as SSE, as NDJSON, or by long-poll, all from the same cursor."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.access import Caller
from api.answers import Polled
from api.asking import BY_KEY_TOO, Reading
from api.deadline import deadline
from api.dialect import Plain, ndjson_line
from api.direct import Direct
from api.document import LAST_EVENT_ID, STREAMED, problems
from api.negotiation import JSON, NDJSON, SSE, accepted
from api.relay import LogGone, Reader
from api.routes.jobs import JobId
from api.state import State, state
from api.stream import LogResponse
from api.streams import Seat
from shared.errors import JobNotFound
from shared.events import START, Entry, EventId
from shared.jobs import Job
from shared.plane import HOME
from shared.quotas import quota_of

router = APIRouter(route_class=Direct)

LONGEST_WAIT_S: Final = 30
DEFAULT_WAIT_S: Final = 10.0


@router.get(
    "/v1/jobs/{job_id}/events",
    responses={
        200: {"model": Polled, "content": STREAMED},
        204: {"description": "There is nothing behind this id."},
        **problems(400, 401, 404, 406, 422, 429, 503),
    },
    openapi_extra={"parameters": [LAST_EVENT_ID], **BY_KEY_TOO},
)
async def events(
    request: Request,
    caller: Reading,
    job_id: JobId,
    last_event_id: Annotated[str | None, Query(description="For who can send no header.")] = None,
    wait_s: Annotated[float, Query(ge=0, le=LONGEST_WAIT_S)] = DEFAULT_WAIT_S,
) -> Response:
    """Relay the job's events, all of them or those behind `Last-Event-ID`."""
    here = state(request)
    async with deadline():
        job = await here.access.job(caller, job_id)
    media_type = accepted(request, SSE, NDJSON, JSON)
    cursor = _cursor(request.headers.get("last-event-id"), last_event_id)
    if media_type == JSON:
        return await _long_poll(here, caller, job, cursor, wait_s)
    if not job.live and cursor != START:
        async with deadline():
            if await _is_last(here, job, cursor):
                return Response(status_code=204)
    async with deadline():
        seat = await here.streams.open(job.owner, quota_of(here.settings, caller.limits))
    reader = _attach(here, caller, job, cursor, seat)
    return LogResponse(here.hub, reader, Plain.of(media_type))


def _cursor(header: str | None, query: str | None) -> EventId:
    """Return where the reader is: the header's word counts, then the query's; none, or an empty one, is the start."""
    text = header or query
    return EventId.parse(text) if text else START


def _attach(here: State, caller: Caller, job: Job, cursor: EventId, seat: Seat | None) -> Reader:
    grace_s = job.leave_grace_s if job.live else None
    return here.hub.attach(job.id, cursor, grace_s, key=caller.key, seat=seat, server=job.server, ended=not job.live)


async def _is_last(here: State, job: Job, cursor: EventId) -> bool:
    log = here.plane.at(job.server).log
    last = await log.last(job.id)
    if not (job.live or job.server == HOME or (last is not None and last.last)):
        # Its event server has lost it.
        await here.courier.refresh(job.id, job.server)
        last = await log.last(job.id)
    return last is not None and last.last and last.id == cursor


async def _long_poll(here: State, caller: Caller, job: Job, cursor: EventId, wait_s: float) -> Response:
    """Answer as soon as there is an event behind the cursor, or when the wait is over."""
    if cursor != START:
        async with deadline():
            if await _is_last(here, job, cursor):
                return _polled([], cursor, closed=True)
    found: list[Entry] = []
    seat = None
    if wait_s:
        async with deadline():
            seat = await here.streams.open(job.owner, quota_of(here.settings, caller.limits))
    reader = _attach(here, caller, job, cursor, seat)
    try:
        # Who does not wait gets what is there: one look at the log.
        wait = asyncio.timeout(wait_s) if wait_s else deadline()
        async with wait, aclosing(reader.batches(once=not wait_s)) as batches:
            async for batch in batches:
                if batch:
                    found = batch
                    break
    except TimeoutError:
        pass
    except LogGone:
        raise JobNotFound from None
    finally:
        here.hub.detach(reader)
    return _polled(found, found[-1].id if found else cursor, closed=bool(found) and found[-1].last)


def _polled(entries: list[Entry], cursor: EventId, *, closed: bool) -> Response:
    listed = b",".join([ndjson_line(entry).rstrip(b"\n") for entry in entries])
    last = b"null" if cursor == START else b'"%d-%d"' % cursor
    body = b'{"events":[%b],"last_event_id":%b,"closed":%b}' % (listed, last, b"true" if closed else b"false")
    return Response(body, 200, {"Cache-Control": "no-store"}, JSON)
