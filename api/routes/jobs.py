"""`/v1/jobs`: submit, read, list, cancel, delete."""

import asyncio
from contextlib import aclosing
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.access import Caller
from api.answers import CancelledJob, JobPage, JobShown, Submitted
from api.asking import Asking
from api.body import read_json
from api.deadline import deadline
from api.dialect import Plain
from api.direct import Direct
from api.document import JOB_HEADERS, STREAMED, body_of, problems
from api.idempotency import PARAMETER
from api.negotiation import JSON, NDJSON, SSE, accepted
from api.relay import LogGone
from api.state import State, state
from api.stream import LogResponse
from api.submission import submit
from shared.clock import iso
from shared.errors import Unavailable
from shared.events import CANCELLED, Answer, EventId, dump
from shared.jobs import CancelOutcome, Job, Status
from shared.plane import HOME
from shared.redis import REDIS_FAULTS
from shared.requests import JobRequest

router = APIRouter(route_class=Direct)

JobId = Annotated[str, Path(description="As in the answer to `POST /v1/jobs`: `job_` and 32 hexadecimal digits.")]

CONFIRM_S: Final = 2.0
"""How long a cancel waits for the worker's word."""

TEXT_S: Final = 0.5
"""How long its answer waits for the text."""


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    # An answer may carry a ticket; and what a model wrote is not to be taken for a page.
    fixed = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    return Response(dump(value), status, {**fixed, **(headers or {})}, JSON)


@router.post(
    "/v1/jobs",
    status_code=202,
    response_description="The job and its queue entry exist.",
    openapi_extra=body_of(JobRequest, parameters=[PARAMETER]),
    responses={
        200: {"description": "The job's events, at once.", "content": STREAMED, "headers": JOB_HEADERS},
        202: {"model": Submitted, "headers": JOB_HEADERS},
        **problems(400, 401, 404, 406, 408, 413, 415, 422, 429, 503),
    },
)
async def post(request: Request, caller: Asking) -> Response:
    """Accept a generation. The job and its queue entry exist when this answers."""
    here = state(request)
    media_type = accepted(request, JSON, SSE, NDJSON)
    asked = await read_json(request, JobRequest, here.settings.max_body_bytes)
    submission = await submit(request, here, caller, asked, reads=media_type != JSON)
    created, reader = submission.created, submission.reader
    url = f"/v1/jobs/{created.id}"
    headers = {"Location": url, **submission.headers}
    if reader is not None:
        return LogResponse(here.hub, reader, Plain.of(media_type), headers)
    body = {
        "id": created.id,
        "status": "queued",
        "url": url,
        "events_url": here.access.events_url(caller, created.id),
        "cancel_url": f"{url}/cancel",
        "created_at": iso(created.created_ms),
    }
    return json_response(body, 202, headers)


@router.get("/v1/jobs", responses={200: {"model": JobPage}, **problems(401, 406, 422, 503)})
async def list_jobs(
    request: Request,
    caller: Asking,
    status: Status | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(pattern=r"^[0-9]{1,15}$")] = None,
) -> Response:
    """List the caller's jobs, newest first, without their texts."""
    here = state(request)
    accepted(request, JSON)
    async with deadline():
        page = await here.jobs.page(caller.owner, status, limit, None if cursor is None else int(cursor))
    return json_response(
        {
            "object": "list",
            "data": [job.view(None, here.access.events_url(caller, job.id)) for job in page.jobs],
            "has_more": page.next_cursor is not None,
            "next_cursor": None if page.next_cursor is None else str(page.next_cursor),
        }
    )


@router.get("/v1/jobs/{job_id}", responses={200: {"model": JobShown}, **problems(401, 404, 406, 503)})
async def read(request: Request, caller: Asking, job_id: JobId) -> Response:
    """Return the job, with what has been written so far."""
    here = state(request)
    accepted(request, JSON)
    async with deadline():
        job = await here.access.job(caller, job_id)
        return json_response(await _whole(here, caller, job))


@router.delete("/v1/jobs/{job_id}", status_code=204, responses=problems(401, 404, 409, 503))
async def delete(request: Request, caller: Asking, job_id: JobId) -> Response:
    """Forget a finished job and its log at once."""
    here = state(request)
    async with deadline():
        job = await here.access.job(caller, job_id)
        await forget(here, job.id, job.owner)
    return Response(status_code=204)


async def forget(here: State, job_id: str, owner: str) -> None:
    """Delete a finished job, wherever its log is. Raises JobLive and JobNotFound."""
    server = await here.jobs.delete(job_id, owner)
    await here.courier.try_to(job_id, server)


@router.post(
    "/v1/jobs/{job_id}/cancel",
    responses={
        200: {"model": CancelledJob},
        202: {"model": CancelledJob, "description": "The worker has not confirmed yet."},
        **problems(401, 404, 503),
    },
)
async def cancel(request: Request, caller: Asking, job_id: JobId) -> Response:
    """Stop the job and the provider's call. Idempotent; 202 when the worker has not confirmed in time."""
    here = state(request)
    async with deadline():
        job = await here.access.job(caller, job_id)
    outcome = await cancel_and_wait(here, job)
    async with deadline():
        job = await here.jobs.get(job.id)
        try:
            async with asyncio.timeout(TEXT_S):
                whole = await _whole(here, caller, job)
        except (*REDIS_FAULTS, TimeoutError, Unavailable):
            if job.server == HOME:
                raise
            # It is stopped all the same.
            whole = job.view(Answer(), here.access.events_url(caller, job.id))
        body = {**whole, "outcome": outcome}
    return json_response(body, 202 if outcome == "cancelling" else 200)


async def cancel_and_wait(here: State, job: Job) -> CancelOutcome:
    """Cancel a job and wait, not for ever, until its end is written."""
    if not here.plane.knows(job.server):
        # Its end cannot be waited for here, but it is stopped.
        return await _cancel(here, job)
    reader = here.hub.attach(job.id, EventId(0, 1), server=job.server)
    try:
        outcome = await _cancel(here, job)
        if outcome != "cancelling":
            return outcome
        async with asyncio.timeout(CONFIRM_S), aclosing(reader.batches()) as batches:
            async for batch in batches:
                if batch and batch[-1].last:
                    return "cancelled" if batch[-1].event == "cancelled" else "already_finished"
    except (TimeoutError, LogGone):
        pass
    finally:
        here.hub.detach(reader)
    return "cancelling"


async def _cancel(here: State, job: Job) -> CancelOutcome:
    async with deadline():
        outcome = await here.jobs.cancel(job.id, here.settings.retention_s)
    if outcome in ("cancelled_before_start", "cancelled"):
        # By this script: what runs is ended, and counted, by its worker.
        here.metrics.ended(CANCELLED)
        await here.courier.try_to(job.id, job.server)
    return outcome


async def _whole(here: State, caller: Caller, job: Job) -> dict[str, Any]:
    log = here.plane.at(job.server).log
    answer = await log.answer(job.id, job.base)
    if job.live and job.first_token_ms is None and job.server != HOME:
        # The record is told of it a moment later.
        job.first_token_ms = await log.first_token_ms(job.id)
    return job.view(answer, here.access.events_url(caller, job.id))
