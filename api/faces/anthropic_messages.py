"""`POST /v1/messages`: any Anthropic client, any provider."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.access import Caller
from api.asking import Asking
from api.body import read_json
from api.direct import Direct
from api.document import body_of
from api.faces.anthropic_messages_answer import Content, Events, message_id, request_id, stop, usage
from api.faces.anthropic_messages_request import MessagesRequest, Prompt
from api.faces.anthropic_messages_turns import AssistantTurn, thoughts_of, unfinished_from
from api.faces.anthropic_thoughts import NONE, Thoughts, recalled
from api.faces.document import HAPPENS, STREAM, AnthropicErrorBody, refusals
from api.faces.target import Target, target
from api.faces.waiting import Whole, whole
from api.idempotency import PARAMETER
from api.problems import Problem, refused
from api.routes.jobs import json_response
from api.state import State, state
from api.stream import LogResponse
from api.submission import submit
from shared.capabilities import prefills

router = APIRouter(route_class=Direct)

BUSY = 529
"""Anthropic's status for: come back later."""


@router.post(
    "/v1/messages",
    openapi_extra=body_of(MessagesRequest, parameters=[PARAMETER]),
    responses={
        200: {"description": "The answer.", "content": STREAM},
        **refusals(AnthropicErrorBody, *HAPPENS, BUSY),
    },
)
async def messages(request: Request, caller: Asking) -> Response:
    """Answer, as a stream or whole. The job goes with the connection, unless `on_disconnect` says otherwise."""
    here = state(request)
    asked = await read_json(request, MessagesRequest, here.settings.max_body_bytes)
    asks = target(here, asked.model, "anthropic")
    _check_prefill(here, asked, asks)
    job = asked.answer(asks, await _thoughts(here, caller, asked, asks))
    submission = await submit(request, here, caller, job, reads=True)
    reader, job_id = submission.reader, submission.created.id
    headers = {**submission.headers, "request-id": request_id(job_id)}
    assert reader is not None
    how = {"thinks": job.thinks, "shows_thinking": asked.shows_thinking}
    if asked.stream:
        return LogResponse(here.hub, reader, Events(job_id, asks, job.input_estimate(), **how), headers)
    content = Content(job_id, **how)
    answered = await whole(request, here, reader, headers, content.add)
    try:
        return json_response(_message(job_id, answered, content), 200, headers)
    except Problem as refusal:
        refusal.headers |= headers
        raise


@router.post(
    "/v1/messages/count_tokens",
    openapi_extra=body_of(Prompt),
    responses={200: {"description": "An estimate."}, **refusals(AnthropicErrorBody, 400, 401, 408, 413, 415, 500)},
)
async def count_tokens(request: Request, caller: Asking) -> Response:
    """Guess the tokens of a prompt, four characters each: providers count by rules of their own."""
    here = state(request)
    asked = await read_json(request, Prompt, here.settings.max_body_bytes)
    job = asked.job(target(here, asked.model, "anthropic"), NONE)
    return json_response({"input_tokens": job.input_estimate()})


def _check_prefill(here: State, asked: MessagesRequest, asks: Target) -> None:
    """Refuse the beginning of an answer where the provider would answer it in place of going on with it."""
    config = here.providers.get(asks.provider)
    last = asked.messages[-1] if asked.messages else None
    if isinstance(last, AssistantTurn) and last.content and config is not None and not prefills(config, asks.model):
        raise refused("unsupported_parameter", "messages", "this model does not go on from a last assistant message")


async def _thoughts(here: State, caller: Caller, asked: MessagesRequest, asks: Target) -> Thoughts:
    needed_from = unfinished_from(asked.messages) if asked.thinks else None
    return await recalled(here, caller, asks, list(thoughts_of(asked.messages)), needed_from)


def _message(job_id: str, answered: Whole, content: Content) -> dict[str, Any]:
    data = answered.end
    return {
        "id": message_id(job_id),
        "type": "message",
        "role": "assistant",
        "model": answered.model,
        "content": content.blocks(cut=data["finish_reason"] == "length"),
        **stop(data, called=content.called, refused=bool(answered.answer.refusal)),
        "usage": {**usage(data["usage"]), "service_tier": "standard"},
    }
