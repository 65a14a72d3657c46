"""OpenAI's Responses API, its HTTP side: what answers and errors look like."""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.provider.breaks import Failure, HttpError
from tests.provider.calls import Call, DialectName
from tests.provider.checks import responses_complaint
from tests.provider.complaints import Complaint
from tests.provider.failures import RESPONSES, failed
from tests.provider.openai_chat import OpenAIChat
from tests.provider.responses_events import ResponseEvents, WholeResponse
from tests.provider.runs import Run
from tests.provider.steps import Begin, Step, Usage


class OpenAIResponses(OpenAIChat):
    """`POST /v1/responses`."""

    name: DialectName = "responses"

    def __init__(self, runs: Mapping[str, Run]) -> None:
        self._runs = runs

    def complaint(self, headers: Mapping[str, str], body: Any) -> Complaint | None:
        return responses_complaint(body, self._runs)

    def wire(self, call: Call, usage: Usage | None, steps: Sequence[Step]) -> ResponseEvents:
        streamed = call.stream or call.body.get("background") is True
        kind = ResponseEvents if streamed else WholeResponse
        return kind(call, usage, held=any(isinstance(step, Begin) for step in steps))

    def failure(self, step: Failure) -> HttpError:
        return failed(RESPONSES, step)
