"""`/v1/responses`: the OpenAI SDK's Responses, in the background and not, for every provider."""

from contextlib import suppress
from functools import partial
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from api.access import Caller
from api.asking import Asking
from api.body import read_json
from api.deadline import deadline
from api.dialect import Translation
from api.document import body_of
from api.faces.document import HAPPENS, STREAM, OpenAIErrorBody, refusals
from api.faces.openai_responses_input import conversation
from api.faces.openai_responses_object import (
    FACE,
    beginning_of,
    head,
    is_background,
    is_kept,
    job_id_of,
    story_of,
)
from api.faces.openai_responses_request import Include, ResponsesRequest
from api.faces.openai_responses_story import Story
from api.faces.target import target
from api.faces.waiting import whole
from api.idempotency import PARAMETER
from api.problems import Problem, refused
from api.routes.jobs import cancel_and_wait, forget, json_response
from api.state import State, state
from api.stream import LogResponse
from api.submission import submit
from shared.errors import JobLive, JobNotFound, Unavailable
from shared.events import START, Entry, dump
from shared.jobs import Job
from shared.quotas import quota_of
from shared.redis import REDIS_FAULTS

router = APIRouter()

ResponseId = Annotated[
    str, Path(description="As in the answer to `POST /v1/responses`, or a job's with `resp_` for `job_`.")
]

ANSWER: Final[dict[int | str, dict[str, Any]]] = {200: {"description": "The response.", "content": STREAM}}


class Events(Translation):
    """A log as a response's events, those behind `starting_after`."""

    def __init__(self, story: Story, starting_after: int = -1) -> None:
        self._story = story
        self._after = starting_after
        self._number = 0

    def tell(self, entry: Entry) -> bytes:
        frames = []
        for event in self._story.read(entry):
            if self._number > self._after:
                data = dump({"type": event.type, "sequence_number": self._number, **event.fields})
                frames.append(b"event: %b\ndata: %b\n\n" % (event.type.encode(), data))
            self._number += 1
        self.over = self._story.ended
        return b"".join(frames)


@router.post(
    "/v1/responses",
    openapi_extra=body_of(ResponsesRequest, parameters=[PARAMETER]),
    responses={**ANSWER, **refusals(OpenAIErrorBody, *HAPPENS)},
)
async def create(request: Request, caller: Asking) -> Response:
    """Answer, at once or in the background, as a stream or whole."""
    here = state(request)
    asked = await read_json(request, ResponsesRequest, here.settings.max_body_bytes)
    asked.check()
    asks = target(here, asked.model, "openai")
    messages = await conversation(here, caller, asked.previous_response_id, asked.input)
    job, face = asked.job(asks, messages), asked.face(asks)
    waits = bool(asked.stream or not asked.background)
    submission = await submit(request, here, caller, job, reads=waits, face={FACE: face}, numbered=True)
    created, reader, headers = submission.created, submission.reader, submission.headers
    story = Story(head(created.id, created.created_ms, job, face), created.created_ms)
    forget = None if face["store"] else partial(_forget, here, created.id, caller.owner)
    if asked.stream:
        assert reader is not None
        return LogResponse(here.hub, reader, Events(story), headers, forget)
    if reader is not None:
        try:
            await whole(request, here, reader, headers, story.read)
        finally:
            if forget is not None and story.ended:
                await forget()
    elif created.replayed:
        async with deadline():
            job_now = await here.access.job(caller, created.id)
        story = await story_of(here, job_now)
    return json_response(story.response(), 200, headers)


@router.get(
    "/v1/responses/{response_id}", responses={**ANSWER, **refusals(OpenAIErrorBody, 400, 401, 404, 429, 500, 503)}
)
async def retrieve(
    request: Request,
    caller: Asking,
    response_id: ResponseId,
    stream: bool = False,
    starting_after: Annotated[
        int | None, Query(ge=0, le=2**53, description="The `sequence_number` of the last event that the reader has.")
    ] = None,
    include_obfuscation: bool = False,
    include: Annotated[list[Include], Query(alias="include[]")] = [],  # noqa: B006
) -> Response:
    """Return the response as it stands, or its events from the first or behind `starting_after`."""
    here = state(request)
    async with deadline():
        job = await _job(here, caller, response_id)
    headers = {"X-Job-ID": job.id}
    if not stream:
        if starting_after is not None:
            raise refused("invalid_request", "starting_after", "only with stream")
        return json_response((await story_of(here, job)).response(), 200, headers)
    async with deadline():
        story = await beginning_of(here, job)
        seat = await here.streams.open(job.owner, quota_of(here.settings, caller.limits))
    grace_s = job.leave_grace_s if job.live else None
    reader = here.hub.attach(
        job.id, START, grace_s, key=caller.key, seat=seat, merges=False, server=job.server, ended=not job.live
    )
    return LogResponse(here.hub, reader, Events(story, -1 if starting_after is None else starting_after), headers)


@router.post("/v1/responses/{response_id}/cancel", responses=refusals(OpenAIErrorBody, 400, 401, 404, 500, 503))
async def cancel(request: Request, caller: Asking, response_id: ResponseId) -> Response:
    """Stop a response in the background. Idempotent."""
    here = state(request)
    async with deadline():
        job = await _job(here, caller, response_id)
    if not is_background(job):
        raise Problem(400, "not_in_background", "Only responses in the background can be cancelled.")
    if job.live:
        await cancel_and_wait(here, job)
        async with deadline():
            job = await _job(here, caller, response_id)
    if not job.live and job.status != "cancelled":
        raise Problem(400, "response_ended", "Cannot cancel a completed response.")
    return json_response((await story_of(here, job)).response(), 200, {"X-Job-ID": job.id})


@router.delete("/v1/responses/{response_id}", responses=refusals(OpenAIErrorBody, 400, 401, 404, 409, 500, 503))
async def delete(request: Request, caller: Asking, response_id: ResponseId) -> Response:
    """Forget a response at once; one that has not ended is cancelled first."""
    here = state(request)
    async with deadline():
        job = await _job(here, caller, response_id)
    if job.live:
        await cancel_and_wait(here, job)
    try:
        async with deadline():
            await forget(here, job.id, job.owner)
    except JobLive:
        raise Problem(409, "response_live", "The response has not ended yet; try again.") from None
    except JobNotFound:
        raise _missing() from None
    return json_response({"id": response_id, "object": "response", "deleted": True}, 200, {"X-Job-ID": job.id})


def _missing() -> Problem:
    """Unknown, foreign and unkept responses look the same, byte for byte."""
    return Problem(404, "response_not_found", "There is no response with this id.")


async def _job(here: State, caller: Caller, id: str) -> Job:
    """Return the job that a response is, or raise the problem that there is none."""
    try:
        job = await here.access.job(caller, job_id_of(id))
    except JobNotFound:
        raise _missing() from None
    if not is_kept(job):
        raise _missing()
    return job


async def _forget(here: State, job_id: str, owner: str) -> None:
    """Delete what was not to be stored; should Redis be away, it goes with its retention."""
    with suppress(JobNotFound, JobLive, Unavailable, *REDIS_FAULTS):
        async with deadline():
            await forget(here, job_id, owner)
