"""`/v1/ops`: what everybody's jobs do, and their cancel. For keys with that right; to others there is nothing here."""

import logging

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.answers import OpsCancelled, OpsView
from api.asking import Operating
from api.deadline import deadline
from api.direct import Direct
from api.document import problems
from api.routes.jobs import JobId, cancel_and_wait, json_response
from api.state import state

router = APIRouter(route_class=Direct)
logger = logging.getLogger("uvicorn.error")


@router.get("/v1/ops", responses={200: {"model": OpsView}, **problems(401, 404, 503)})
async def ops(request: Request, caller: Operating) -> Response:
    """Tell what waits, who works at what, and how the last hour went: ids, owners, models, figures; no texts."""
    return json_response(await state(request).operations.view())


@router.post(
    "/v1/ops/jobs/{job_id}/cancel",
    responses={
        200: {"model": OpsCancelled},
        202: {"model": OpsCancelled, "description": "The worker has not confirmed yet."},
        **problems(401, 404, 503),
    },
)
async def cancel(request: Request, caller: Operating, job_id: JobId) -> Response:
    """Stop anybody's job, as its owner would."""
    here = state(request)
    async with deadline():
        job = await here.jobs.get(job_id)
    logger.info("job %s of %s: cancelled by operator %s (%s)", job.id, job.owner, caller.owner, caller.key)
    outcome = await cancel_and_wait(here, job)
    async with deadline():
        status = (await here.jobs.get(job.id)).status
    answer = {"id": job.id, "status": status, "outcome": outcome}
    return json_response(answer, 202 if outcome == "cancelling" else 200)
