"""The `response` object: what of it no event changes, read off the job."""

import re
from collections.abc import Mapping
from typing import Any, Final

from api.deadline import deadline, in_time
from api.faces.openai_responses_story import Story
from api.state import State
from shared.errors import JobNotFound
from shared.jobs import Job
from shared.requests import JobRequest
from shared.tools import Named

_ID: Final = re.compile(r"resp_[0-9a-f]{32}")

FACE: Final = "response"
"""Under this name the job's record keeps what was asked of this API beside the job."""


LOG_LOST: Final = {"code": "log_lost", "message": "The log of this response is gone."}
"""What is told where the record says that the job has ended, and nothing says what it wrote."""


def response_id(job_id: str) -> str:
    return job_id.replace("job_", "resp_")


def job_id_of(id: str) -> str:
    """Return the job that a response is; raise JobNotFound for what is none's id."""
    if not _ID.fullmatch(id):
        raise JobNotFound
    return id.replace("resp_", "job_")


def is_background(job: Job) -> bool:
    """Say whether the job goes on without its client; jobs of other faces do, unless they mind being left."""
    return bool(job.face.get(FACE, {}).get("background", job.leave_grace_s is None))


def is_kept(job: Job) -> bool:
    """Say whether the job is there for anybody but the one who waits for its answer."""
    return bool(job.face.get(FACE, {}).get("store", True))


async def beginning_of(here: State, job: Job) -> Story:
    """Return a job as a response before anything is told of it."""
    face = {"background": is_background(job), **job.face.get(FACE, {})}
    return Story(head(job.id, job.created_ms, await here.jobs.request(job.id), face), job.created_ms)


async def story_of(here: State, job: Job) -> Story:
    """Return a job as a response, as far as its log goes. Not in a deadline: the log may be long, and has its own."""
    async with deadline():
        story = await beginning_of(here, job)
    async for page in in_time(here.plane.at(job.server).log.pages(job.id)):
        for entry in page:
            story.read(entry)
    if not story.ended and not job.live:
        story.lost(job.error or LOG_LOST)
    return story


def head(job_id: str, created_ms: int, request: JobRequest, face: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object's fields that are known from the start. `face`: what was kept of a request to this API."""
    return {
        "id": response_id(job_id),
        "object": "response",
        "created_at": created_ms // 1000,
        "status": "queued",
        "model": f"{request.provider}/{request.model}",
        "background": True,
        "instructions": request.system,
        "max_output_tokens": request.max_tokens,
        "max_tool_calls": None,
        "metadata": request.metadata,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": request.reasoning.effort if request.reasoning else None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": request.temperature,
        "text": {"format": _format(request), "verbosity": "medium"},
        "tool_choice": _choice(request),
        "tools": [_tool(tool.model_dump()) for tool in request.tools],
        "top_logprobs": 0,
        "top_p": request.top_p,
        "truncation": "disabled",
        "user": None,
        **face,
    }


def _format(request: JobRequest) -> dict[str, Any]:
    format = request.response_format
    if format is None or format.json_schema is None:
        return {"type": "text" if format is None else format.type}
    return {"type": format.type, **format.json_schema.model_dump(by_alias=True)}


def _choice(request: JobRequest) -> Any:
    if isinstance(request.tool_choice, Named):
        return {"type": "function", "name": request.tool_choice.name}
    return request.tool_choice or "auto"


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", **function}
