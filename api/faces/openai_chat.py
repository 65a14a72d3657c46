"""`POST /v1/chat/completions`: any OpenAI client, any provider."""

from typing import Any, Final

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.asking import Asking
from api.body import read_json
from api.dialect import Translation
from api.direct import Direct
from api.document import body_of
from api.faces.document import HAPPENS, STREAM, OpenAIErrorBody, refusals
from api.faces.errors import openai_error
from api.faces.failures import attempt_lost, unfinished
from api.faces.openai_chat_request import ChatRequest
from api.faces.target import Target, target
from api.faces.telling import Arguments, Call, Ended, Queued, Restarted, Started, Step, Telling, Text, Thought
from api.faces.waiting import Whole, whole
from api.idempotency import PARAMETER
from api.problems import Problem
from api.routes.jobs import json_response
from api.state import state
from api.stream import LogResponse
from api.submission import submit
from shared.events import COMPLETED, TOKEN, Entry, dump, quoted_text
from shared.jobs import Created

router = APIRouter(route_class=Direct)

DONE: Final = b"data: [DONE]\n\n"

_MARK: Final = "\0"
"""Stands for a text; nothing else in a chunk can be it."""

REASONS: Final = frozenset(("stop", "length", "tool_calls", "content_filter"))


@router.post(
    "/v1/chat/completions",
    openapi_extra=body_of(ChatRequest, parameters=[PARAMETER]),
    responses={200: {"description": "The answer.", "content": STREAM}, **refusals(OpenAIErrorBody, *HAPPENS)},
)
async def chat_completions(request: Request, caller: Asking) -> Response:
    """Answer a chat, as a stream or whole. The job goes with the connection, unless `on_disconnect` says otherwise."""
    here = state(request)
    asked = await read_json(request, ChatRequest, here.settings.max_body_bytes)
    asks = target(here, asked.model, "openai")
    submission = await submit(request, here, caller, asked.job(asks), reads=True)
    reader, created, headers = submission.reader, submission.created, submission.headers
    assert reader is not None
    if asked.stream:
        shows_usage = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        return LogResponse(here.hub, reader, Chunks(created.id, created.created_ms, asks, shows_usage), headers)
    answered = await whole(request, here, reader, headers)
    return json_response(completion(created, answered), 200, headers)


def _id(job_id: str) -> str:
    return job_id.replace("job_", "chatcmpl-")


def _reason(data: dict[str, Any]) -> str:
    reason: str = data["finish_reason"]
    return reason if reason in REASONS else "stop"


def _usage(usage: dict[str, Any]) -> dict[str, Any]:
    taken, given = usage["input_tokens"], usage["output_tokens"]
    return {
        "prompt_tokens": taken,
        "completion_tokens": given,
        "total_tokens": taken + given,
        "prompt_tokens_details": {"cached_tokens": usage["cached_input_tokens"], "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.get("reasoning_tokens", 0),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def completion(created: Created, answered: Whole) -> dict[str, Any]:
    """Return a whole answer as a `chat.completion`."""
    answer = answered.answer
    said = answer.text.removesuffix(answer.refusal)
    message: dict[str, Any] = {"role": "assistant", "content": said or None, "refusal": answer.refusal or None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in answer.tool_calls
        ]
    elif not answer.refusal:
        message["content"] = said
    return {
        "id": _id(created.id),
        "object": "chat.completion",
        "created": created.created_ms // 1000,
        "model": answered.model,
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(answered.end)}],
        "usage": _usage(answered.end["usage"]),
    }


class Chunks(Translation):
    """A log as `chat.completion.chunk`s. An answer that begins again ends here, with an error: never doubled text."""

    def __init__(self, job_id: str, created_ms: int, asked: Target, shows_usage: bool) -> None:
        self._head = {"id": _id(job_id), "object": "chat.completion.chunk", "created": created_ms // 1000}
        self._model = str(asked)
        self._shows_usage = shows_usage
        self._telling = Telling()
        self._role = False
        self._telling_text = False
        self._before = self._behind = b""

    def tell(self, entry: Entry) -> bytes:
        if self._telling_text and entry.event == TOKEN and (text := quoted_text(entry)) is not None:
            self._telling.more(entry, text)
            return self._before + text + self._behind
        told = b"".join([self._step(step) for step in self._telling.steps(entry) if not self.over])
        if not self._telling_text and self._role:
            # What stands around a text is the same from here on.
            self._telling_text = True
            self._before, _, self._behind = self._delta({"content": _MARK}).partition(dump(_MARK))
        return told

    def _step(self, step: Step) -> bytes:
        match step:
            case Text(text, refusal):
                return self._delta({"refusal" if refusal else "content": text})
            case Thought(text):
                return self._delta({"reasoning_content": text})
            case Call(number, id, name):
                function = {"name": name, "arguments": ""}
                return self._delta(
                    {"tool_calls": [{"index": number, "id": id, "type": "function", "function": function}]}
                )
            case Arguments(number, piece):
                return self._delta({"tool_calls": [{"index": number, "function": {"arguments": piece}}]})
            case Started(provider, model):
                self._model = f"{provider}/{model}"
                return b""
            case Restarted():
                self.gave_up = True
                return self._error(attempt_lost())
            case Ended(event, data):
                return self._end(data) if event == COMPLETED else self._error(unfinished(event, data))
            case Queued():
                return b""

    def _delta(self, delta: dict[str, Any], reason: str | None = None) -> bytes:
        opening = b""
        if not self._role:
            self._role = True
            opening = self._delta({"role": "assistant", "content": "", "refusal": None})
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return opening + self._chunk([choice], None)

    def _chunk(self, choices: list[dict[str, Any]], usage: dict[str, Any] | None) -> bytes:
        chunk = {**self._head, "model": self._model, "choices": choices}
        if self._shows_usage:
            chunk["usage"] = usage
        return b"data: %b\n\n" % dump(chunk)

    def _end(self, data: dict[str, Any]) -> bytes:
        self.over = True
        usage = self._chunk([], _usage(data["usage"])) if self._shows_usage else b""
        return self._delta({}, _reason(data)) + usage + DONE

    def _error(self, problem: Problem) -> bytes:
        self.over = True
        return b"data: %b\n\n" % dump({"error": openai_error(problem)})
