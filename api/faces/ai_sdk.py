"""`POST /api/chat` and its kin: the AI SDK's `useChat({ resume: true })` at its defaults, any provider."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from api.access import Caller
from api.answers import Shown
from api.asking import Asking
from api.body import read_json
from api.deadline import deadline
from api.direct import Direct
from api.document import body_of
from api.faces.ai_sdk_messages import current_jobs
from api.faces.ai_sdk_request import UIChatRequest
from api.faces.ai_sdk_stream import HEADERS, UIChunks
from api.faces.document import STREAM, sentences
from api.idempotency import PARAMETER
from api.routes.jobs import cancel_and_wait, json_response
from api.state import State, state
from api.stream import LogResponse
from api.submission import submit
from shared.errors import JobNotFound
from shared.events import START
from shared.jobs import CancelOutcome, Job, Turn
from shared.quotas import quota_of

router = APIRouter(route_class=Direct)

MOST_THOUGHTS: Final = 16
"""Jobs whose signed thoughts are looked up: the tool calls since the user's last word, the newest ones."""

ChatId = Annotated[str, Path(min_length=1, max_length=256, description="The chat's id, as `useChat` has it.")]


class StoppedChat(Shown):
    id: str
    outcome: CancelOutcome


@router.post(
    "/api/chat",
    openapi_extra=body_of(UIChatRequest, parameters=[PARAMETER]),
    responses={
        200: {"description": "The answer, as a UI message stream.", "content": STREAM},
        **sentences(400, 401, 404, 408, 409, 413, 415, 422, 429, 500, 503),
    },
)
async def chat(request: Request, caller: Asking) -> Response:
    """Answer a chat. The job does not go with the connection; the chat's next question, or `stop`, ends it."""
    here = state(request)
    asked = await read_json(request, UIChatRequest, here.settings.max_body_bytes)
    asks = asked.target(here)
    job = asked.job(asks, await _thoughts(here, caller, current_jobs(asked.messages)))
    policy = asked.chat_policy or here.settings.chat_policy
    turn = Turn(asked.id, here.settings.retention_s if policy == "interrupt" else None)
    continued = asked.continued()
    face: dict[str, Any] = {"chat": asked.id}
    if continued is not None:
        face |= {"message": continued.id, "before": continued.parts}
    submission = await submit(request, here, caller, job, reads=True, face=face, turn=turn)
    assert submission.reader is not None
    told = UIChunks(submission.created.id, _message_id(submission.created.id, face))
    return LogResponse(here.hub, submission.reader, told, {**submission.headers, **HEADERS})


@router.get(
    "/api/chat/{chat_id:path}/stream",
    responses={
        200: {"description": "The answer, from its beginning.", "content": STREAM},
        204: {"description": "The chat has no live answer."},
        # (404: an id with a line break in it is no path.)
        **sentences(401, 404, 422, 429, 503),
    },
)
async def resume(request: Request, caller: Asking, chat_id: ChatId) -> Response:
    """Tell the chat's live answer from its beginning, and go on with it."""
    here = state(request)
    async with deadline():
        job = await here.jobs.answering(caller.owner, chat_id)
        if job is None:
            return Response(status_code=204)
        seat = await here.streams.open(caller.owner, quota_of(here.settings, caller.limits))
    reader = here.hub.attach(job.id, START, job.leave_grace_s, key=caller.key, seat=seat, server=job.server)
    told = UIChunks(job.id, _message_id(job.id, job.face), job.face.get("before", ()))
    return LogResponse(here.hub, reader, told, {"X-Job-ID": job.id, **HEADERS})


@router.post(
    "/api/chat/{chat_id:path}/stop",
    responses={
        200: {"model": StoppedChat},
        202: {"model": StoppedChat, "description": "The worker has not confirmed yet."},
        204: {"description": "The chat has no live answer."},
        **sentences(401, 404, 422, 503),
    },
)
async def stop(request: Request, caller: Asking, chat_id: ChatId) -> Response:
    """Stop the chat's live answer, and the provider's call. `useChat`'s own `stop()` only closes its connection."""
    here = state(request)
    async with deadline():
        job = await here.jobs.answering(caller.owner, chat_id)
    if job is None:
        return Response(status_code=204)
    outcome = await cancel_and_wait(here, job)
    return json_response(
        {"id": job.id, "outcome": outcome}, 202 if outcome == "cancelling" else 200, {"X-Job-ID": job.id}
    )


def _message_id(job_id: str, face: dict[str, Any]) -> str:
    """Return which message the answer is part of: the page's own where it continues one."""
    return str(face.get("message") or job_id.replace("job_", "msg_"))


async def _thoughts(here: State, caller: Caller, job_ids: Sequence[str]) -> dict[str, Sequence[Any]]:
    """Return the signed thoughts of the caller's own jobs among these; what is gone, or foreign, has none."""

    async def of(job_id: str) -> Job | None:
        with suppress(JobNotFound):
            return await here.access.job(caller, job_id)
        return None

    async with deadline():
        jobs = await asyncio.gather(*[of(job_id) for job_id in job_ids[:MOST_THOUGHTS]])
    return {job.id: job.reasoning_blocks for job in jobs if job is not None and job.reasoning_blocks}
