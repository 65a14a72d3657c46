"""Every operation of the OpenAPI document, asked in many ways: the document says what may come, and it is no 500.

The requests are made from the document alone: a route that is added is tried as well.
"""

import asyncio
import json
from collections import Counter
from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import pytest
import requests
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, reject, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.errors import InvalidSchema
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi import checks

from api.faces.ai_sdk_request import UIChatRequest
from api.faces.anthropic_messages_request import MessagesRequest, Prompt
from api.faces.openai_chat_request import ChatRequest
from api.faces.openai_responses_request import ResponsesRequest
from api.main import create_app
from shared.settings import Settings
from tests import keys
from tests.client import body
from tests.provider import Silence, Text
from tests.stack import Stack

EXAMPLES = 15
CHECKS = [
    not_a_server_error, checks.status_code_conformance, checks.content_type_conformance,
    checks.response_headers_conformance, checks.response_schema_conformance,
]  # fmt: skip
PUBLIC = ("/livez", "/readyz", "/metrics")
FITTING, MISFIT = GenerationMode.POSITIVE, GenerationMode.NEGATIVE

pytestmark = pytest.mark.filterwarnings("ignore::hypothesis.errors.HypothesisDeprecationWarning")


def document_of(app: FastAPI) -> dict[str, Any]:
    # A copy: schemathesis keeps what it has learned of a document in it.
    return dict(json.loads(json.dumps(app.openapi())))


DOCUMENT = document_of(create_app(Settings(_env_file=None, auth="off")))
OPERATIONS = [(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods]
ACCEPTS = st.sampled_from(
    [None, "*/*", "application/json", "text/event-stream", "application/x-ndjson", "image/png", "", ";q=nan,*/*;q=0.1"]
)
# Most of what fits the schema alone is refused: nobody draws the name of a provider.
SENSIBLE: list[dict[str, Any]] = [
    {},
    {"provider": "openai", "model": "m"},
    {**body(), "tool_choice": None, "fallbacks": []},
    {**body(provider="anthropic"), "tools": [], "tool_choice": None, "response_format": None, "fallbacks": []},
    {**body(), "tools": [], "tool_choice": None, "response_format": None, "fallbacks": []},
]

ANSWERED = {"model": "openai/m", "input": "Hi"}
CHAT = {"model": "openai/m", "messages": body()["messages"]}
MESSAGES = {**CHAT, "max_tokens": 9}
ASKED = {"id": "c", "model": "openai/m", "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}]}
NEEDED = {"message_id", "trigger"}
SENSIBLE_ELSEWHERE: dict[str, list[dict[str, Any]]] = {
    "/v1/responses": [
        {},
        ANSWERED,
        {**ANSWERED, **dict.fromkeys(ResponsesRequest.model_fields.keys() - ANSWERED.keys())},
        {**ANSWERED, **dict.fromkeys(ResponsesRequest.model_fields.keys() - ANSWERED.keys()), "background": True},
    ],
    "/v1/messages": [
        {},
        MESSAGES,
        {**MESSAGES, **dict.fromkeys(MessagesRequest.model_fields.keys() - MESSAGES.keys())},
    ],
    "/v1/messages/count_tokens": [{}, CHAT, {**CHAT, **dict.fromkeys(Prompt.model_fields.keys() - CHAT.keys())}],
    "/api/chat": [{}, ASKED, {**ASKED, **dict.fromkeys(UIChatRequest.model_fields.keys() - ASKED.keys() - NEEDED)}],
    "/v1/chat/completions": [{}, CHAT, {**CHAT, **dict.fromkeys(ChatRequest.model_fields.keys() - CHAT.keys())}],
}


@dataclass
class House:
    stack: Stack
    key: str
    ended: str
    live: str
    foreign: str


@pytest.fixture
async def house(bare: Stack) -> House:
    many = dict.fromkeys(("rate_limit", "max_active_jobs", "max_streams"), 100_000)
    bare.configure(auth="required", secret=keys.SECRET, docs="on", **many)
    await bare.worker()
    await bare.api()
    key = await keys.new_key(bare, "alice", "--ops")
    alice, bob = bare.client(key), bare.client(await keys.new_key(bare, "bob"))
    bare.provider.script("silent", Text("a"), Silence())
    ended, live, foreign = await alice.submit(), await alice.submit("silent"), await bob.submit()
    await alice.all_events(ended)
    await alice.until(live, "token")
    return House(bare, key, ended, live, foreign)


def cases_of(operation: Any, mode: GenerationMode) -> st.SearchStrategy[Case]:
    """Return what draws requests; what it cannot make a misfit of is passed over."""
    drawn = operation.as_strategy(generation_mode=mode)

    @st.composite
    def cases(draw: st.DrawFn) -> Case:
        try:
            return cast(Case, draw(drawn))
        except InvalidSchema:
            reject()

    return cases()


def fuzz(
    house: House, method: str, path: str, mode: GenerationMode, key: str | None, examples: int = EXAMPLES
) -> Counter[int]:
    """Ask for one operation in many ways, hold the answers against the document, and return their statuses."""
    operation = schemathesis.openapi.from_dict(document_of(house.stack.apis[0].app))[path][method]
    streams = "events" in path or path == "/v1/responses/{response_id}"
    # The stream of a job that runs has no end to wait for.
    # In turn, not at random: each has its share of a few requests.
    jobs = cycle([house.ended, house.ended if streams else house.live, house.foreign, f"job_{'0' * 32}", None])
    held = [*CHECKS, checks.negative_data_rejection] if operation.body else CHECKS
    statuses: Counter[int] = Counter()
    session = requests.Session()
    session.trust_env = False

    @settings(
        max_examples=examples, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        case=cases_of(operation, mode),
        accept=ACCEPTS,
        sensible=st.sampled_from(SENSIBLE_ELSEWHERE.get(path, SENSIBLE)),
    )
    def ask(case: Case, accept: str | None, sensible: dict[str, Any]) -> None:
        job = next(jobs)
        if job is not None and "job_id" in (case.path_parameters or {}):
            case.path_parameters["job_id"] = job
        if job is not None and "response_id" in (case.path_parameters or {}):
            case.path_parameters["response_id"] = job.replace("job_", "resp_")
        if job is not None and "name" in (case.path_parameters or {}):
            case.path_parameters["name"] = "demo/tour"
        if mode is FITTING and isinstance(case.body, dict):
            case.body |= sensible
        headers = {name: value for name, value in (("Accept", accept), ("Authorization", key)) if value is not None}
        response = case.call(house.stack.url, session=session, headers=headers, timeout=20)
        statuses[response.status_code] += 1
        case.validate_response(response, checks=held)
        if response.status_code >= 400:
            if path.startswith("/api/chat"):
                assert response.headers["content-type"][0].startswith("text/plain")
                return
            refusal = json.loads(response.content)
            elsewhere = path.startswith(tuple(SENSIBLE_ELSEWHERE))
            assert "error" in refusal if elsewhere else refusal["status"] == response.status_code

    try:
        ask()
    finally:
        session.close()
    return statuses


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_an_operation_answers_as_documented_whatever_it_is_asked(house: House, method: str, path: str) -> None:
    """CWE-20, CWE-755: with what fits the schema and with what does not, for one's own jobs, foreign ones and none."""
    statuses = await asyncio.to_thread(fuzz, house, method, path, FITTING, f"Bearer {house.key}")
    assert statuses.total() >= EXAMPLES // 2
    assert any(status < 400 for status in statuses), statuses
    # What takes nothing cannot be asked for wrongly.
    if {"parameters", "requestBody", "security"} & DOCUMENT["paths"][path][method.lower()].keys():
        statuses = await asyncio.to_thread(fuzz, house, method, path, MISFIT, f"Bearer {house.key}")
        assert statuses.total() >= EXAMPLES // 2


async def test_without_a_key_an_operation_says_so_and_nothing_else(house: House) -> None:
    """CWE-306, CWE-209"""
    for method, path in OPERATIONS:
        if path not in PUBLIC:
            for key in (None, "Bearer x"):
                assert set(await asyncio.to_thread(fuzz, house, method, path, FITTING, key, 2)) == {401}


async def test_a_new_route_is_tried_and_its_failure_found(house: House) -> None:
    """What fails on a value that nobody thought of, answers what it does not tell of, or leaks an exception."""
    app = house.stack.apis[0].app

    async def fails(number: int) -> dict[str, float]:
        return {"inverse": 1 / number}

    async def lies() -> list[str]:
        raise KeyError

    app.add_api_route("/v1/fails", fails)
    app.add_api_route("/v1/lies", lies)
    app.openapi_schema = None
    for path in ("/v1/fails", "/v1/lies"):
        with pytest.raises((FailureGroup, AssertionError)):
            await asyncio.to_thread(fuzz, house, "GET", path, FITTING, None)


REFUSALS = {
    ("application/problem+json", "ProblemBody"),
    ("application/json", "OpenAIErrorBody"),
    ("application/json", "AnthropicErrorBody"),
    ("text/plain", "a sentence"),
}


def test_the_document_says_who_may_ask_and_how_each_refusal_looks() -> None:
    """Security for all but the probes; each refusal a problem, with the headers that its clients count on."""
    assert DOCUMENT["components"]["securitySchemes"].keys() == {"key", "ticket"}
    for method, path in OPERATIONS:
        operation = DOCUMENT["paths"][path][method.lower()]
        public = path in PUBLIC
        schemes = operation.get("security", [])
        assert ({"key": []} in schemes) is not public, path
        assert ({"ticket": []} in schemes) is path.endswith("/events")
        assert ("401" in operation["responses"]) is not public
        for status, answer in operation["responses"].items():
            if status >= "400":
                (media_type,) = answer["content"]
                words = answer["content"][media_type]["schema"].get("$ref", "a sentence").rpartition("/")[2]
                assert (media_type, words) in REFUSALS, (path, status)
            needed = {"401": {"WWW-Authenticate"}, "429": {"Retry-After", "RateLimit"}, "503": {"Retry-After"}}
            assert answer.get("headers", {}).keys() >= needed.get(status, set())
