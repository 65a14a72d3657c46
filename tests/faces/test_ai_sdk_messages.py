"""What pages say, as models are told it: every kind of part, in every state."""

import json
from typing import Any

import pytest

from tests import keys
from tests.client import Client
from tests.provider import Reasoning, Silence, StreamError, Text, ToolCall, Wait
from tests.stack import Stack

USER: Any = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
PNG = "data:image/png;base64,iVBORw0KGgo="
STEP = {"type": "step-start"}


def call(state: str, type: str = "tool-f", **more: Any) -> dict[str, Any]:
    return {"type": type, "toolCallId": "c1", "state": state, "input": {"a": 1}, **more}


def assistant(*parts: Any) -> dict[str, Any]:
    return {"id": "2", "role": "assistant", "metadata": {"mine": 1}, "parts": list(parts)}


def calls(arguments: str = '{"a":1}', name: str = "f") -> list[Any]:
    return [{"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}]


async def told(stack: Stack, *messages: Any, **more: Any) -> list[dict[str, Any]]:
    """Return what the provider was told, without what is not there."""
    stack.provider.script("m", Text("x"))
    asked = {"id": "chat", "model": "openai/m", "messages": messages, **more}
    response = await stack.client().http.post("/api/chat", json=asked)
    assert response.status_code == 200, response.text
    assert '"type":"finish"' in response.text
    return [
        {name: value for name, value in message.items() if value is not None}
        for message in stack.provider.calls[-1].body["messages"]
    ]


RESULTS: Any = {
    "a text": (call("output-available", output="sunny"), "sunny"),
    "a value": (call("output-available", output={"b": [1, None]}), '{"b":[1,null]}'),
    "nothing": (call("output-available"), "null"),
    "a failure": (call("output-error", errorText="no"), "Error: no"),
    "none yet": (call("input-available"), "The tool was not executed."),
    "approval is wanted": (call("approval-requested", approval={"id": "x"}), "The tool was not executed."),
    "approved, not run": (
        call("approval-responded", approval={"id": "x", "approved": True}),
        "The tool was not executed.",
    ),
    "denied": (
        call("approval-responded", approval={"id": "x", "approved": False}),
        "The user denied the execution of the tool.",
    ),
    "denied, and why": (
        call("output-denied", approval={"approved": False, "reason": "Not now."}),
        "Not now.",
    ),
}


@pytest.mark.parametrize(("part", "content"), RESULTS.values(), ids=RESULTS.keys())
async def test_a_call_has_a_result_whatever_became_of_it(stack: Stack, part: Any, content: str) -> None:
    found = await told(stack, USER, assistant(STEP, {"type": "text", "text": "Look"}, part), USER)
    assert found[1:3] == [
        {"role": "assistant", "content": "Look", "tool_calls": calls()},
        {"role": "tool", "tool_call_id": "c1", "content": content},
    ]


async def test_steps_of_one_message_are_messages_of_their_own(stack: Stack) -> None:
    other = {**call("output-available", type="dynamic-tool", toolName="g", output="2"), "toolCallId": "c2"}
    answer = assistant(
        STEP,
        {"type": "reasoning", "text": "Hm."},
        call("output-available", output="1"),
        STEP,
        {"type": "source-url", "sourceId": "s", "url": "https://example.com"},
        {"type": "data-note", "data": 1},
        other,
        STEP,
        {"type": "text", "text": "So "},
        {"type": "text", "text": "be it."},
    )
    found = await told(stack, USER, answer, USER)
    assert [message["role"] for message in found] == ["user", *["assistant", "tool"] * 2, "assistant", "user"]
    assert found[3]["tool_calls"][0]["function"]["name"] == "g"
    assert found[5]["content"] == "So be it."


async def test_calls_that_were_never_finished_and_answers_without_a_word_are_none(stack: Stack) -> None:
    unfinished = assistant(STEP, call("input-streaming", input=None))
    assert await told(stack, USER, unfinished, assistant(), USER) == [{"role": "user", "content": "Hi"}] * 2


@pytest.mark.parametrize(
    ("given", "arguments"),
    [(None, "{}"), ("x", '{"invalid":"x"}'), ([1], '{"invalid":[1]}'), ({"ä": 1}, '{"ä":1}')],
)
async def test_input_goes_back_as_an_object(stack: Stack, given: Any, arguments: str) -> None:
    found = await told(stack, USER, assistant(call("output-available", input=given, output="1")), USER)
    assert found[1]["tool_calls"] == calls(arguments)


async def test_words_images_and_the_system_s(stack: Stack) -> None:
    system = {"role": "system", "parts": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]}
    image = {"type": "file", "mediaType": "image/png", "filename": "a.png", "url": PNG}
    steered = {"type": "steering-message", "id": "s", "parts": [{"type": "text", "text": "Faster!"}]}
    parts = [{"type": "text", "text": "See"}, {"type": "data-x", "data": 1}, image]
    found = await told(
        stack, system, {"role": "user", "parts": parts}, assistant({"type": "text", "text": "A"}, steered), system=None
    )
    assert found == [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": PNG}}],
        },
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "Faster!"},
    ]


WRONG: Any = [
    ({"messages": []}, "messages: "),
    ({"id": ""}, "id: "),
    ({"trigger": "resume-stream"}, "trigger: "),
    ({"messages": [{"role": "tool", "parts": []}]}, "messages.0.role: "),
    ({"messages": [{"role": "user", "content": "Hi"}]}, "messages.0.parts: "),
    ({"messages": [{"role": "user", "parts": []}]}, "messages.0.parts: nothing in it"),
    ({"messages": [{"role": "user", "parts": [{"type": "reasoning", "text": "x"}]}]}, "messages.0.parts.0.type: "),
    ({"messages": [{"role": "user", "parts": [{"type": "text"}]}]}, "messages.0.parts.0.text: "),
    ({"messages": [{"role": "user", "parts": [{}]}]}, "messages.0.parts.0.type: "),
    ({"messages": [{"role": "user", "parts": [{"type": ["text"]}]}]}, "messages.0.parts.0.type: "),
    (
        {"messages": [{"role": "user", "parts": [{"type": "file", "mediaType": "application/pdf", "url": "x"}]}]},
        "messages.0.parts.0.mediaType: only images",
    ),
    (
        {"messages": [{"role": "user", "parts": [{"type": "file", "mediaType": "image/png", "url": "blob:x"}]}]},
        "messages.0.parts.0.url: ",
    ),
    (
        {"messages": [USER, assistant({"type": "file", "mediaType": "image/png", "url": PNG})]},
        "messages.1.parts.0.type",
    ),
    ({"messages": [USER, assistant({"type": "custom", "kind": "a.b"})]}, "messages.1.parts.0.type"),
    ({"messages": [USER, assistant({"type": ["x"]})]}, "messages.1.parts.0.type"),
    ({"messages": [USER, assistant(call("done"))]}, "messages.1.parts.0.state"),
    ({"messages": [USER, assistant({"type": "tool-f", "state": "output-available"})]}, "messages.1.parts.0.toolCallId"),
    ({"messages": [USER, assistant(call("output-error"))]}, "messages.1.parts.0.errorText"),
    ({"messages": [USER, assistant({"type": "steering-message", "parts": "x"})]}, "messages.1.parts.0.parts"),
    ({"model": None, "provider": "openai"}, "model: "),
    ({"provider": "none"}, "provider: "),
    ({"chat_policy": "queue"}, "chat_policy: "),
    ({"tool_choice": "required"}, "tool_choice: "),
]


@pytest.mark.parametrize(("fields", "says"), WRONG)
async def test_what_no_model_can_be_told_is_refused_by_name(bare: Stack, fields: Any, says: str) -> None:
    await bare.api()
    response = await bare.client().http.post("/api/chat", json={"id": "c", "model": "m", "messages": [USER], **fields})
    assert (response.status_code, response.headers["content-type"]) == (422, "text/plain; charset=utf-8")
    assert says in response.text


async def test_the_stream_is_framed_as_the_sdk_frames_it(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("a\nb"))
    asked = {"id": "c", "model": "openai/m", "messages": [USER]}
    response = await client.http.post("/api/chat", json=asked)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert response.headers["x-accel-buffering"] == "no"
    lines = response.text.split("\n")
    assert {line.partition(":")[0] for line in lines} == {"", "data"}
    assert lines[0] == ": ping"
    assert lines[1].startswith('data: {"type":"start","messageId":"msg_')
    assert response.text.endswith("data: [DONE]\n\n")
    assert response.text.count('"type":"start-step"') == response.text.count('"type":"finish-step"') == 1


async def test_a_cancelled_answer_says_so_in_the_sdk_s_words(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("half"), Silence())
    asked = {"id": "c", "model": "openai/m", "messages": [USER]}
    async with client.http.stream("POST", "/api/chat", json=asked) as response:
        await client.until(response.headers["x-job-id"], "token")
        await client.http.post("/api/chat/c/stop")
        told = (await response.aread()).decode()
    assert '{"type":"abort","reason":"cancelled"}' in told
    assert '"finishReason":"interrupted"' in told
    assert told.endswith("data: [DONE]\n\n")


async def test_a_replay_tells_the_attempt_that_counts_alone(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), StreamError("overloaded_error"))
    stack.provider.script("n", Text("whole"), Wait(gate), Text("."))
    fallbacks = [{"provider": "openai", "model": "n"}]
    asked = {"id": "c", "model": "anthropic/m", "messages": [USER], "fallbacks": fallbacks}
    async with client.http.stream("POST", "/api/chat", json=asked) as first:
        await gate.reached()
        async with client.http.stream("GET", "/api/chat/c/stream") as second:
            gate.open()
            replayed = (await second.aread()).decode()
        told = (await first.aread()).decode()
    assert "half" not in replayed
    assert "reset-step" not in replayed
    assert told.index("half") < told.index('{"type":"reset-step"}') < told.index("whole")
    for each in (replayed, told):
        assert '"delta":"whole"' in each
        assert '"provider":"openai","model":"n"' in each


async def test_the_thoughts_of_a_foreign_job_are_none(bare: Stack) -> None:
    """CWE-639: a page's word for which job made a call brings nothing of another owner's into the prompt."""
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    alice, bob = [bare.client(await keys.new_key(bare, owner)) for owner in ("alice", "bob")]
    bare.provider.script("m", Reasoning("Hm."), ToolCall("c1", "f", '{"a":1}'))
    asked = {"id": "c", "model": "anthropic/m", "reasoning": {"effort": "low"}, "tools": [{"name": "f"}]}
    answer = await alice.http.post("/api/chat", json={**asked, "messages": [USER]})
    job_id = answer.headers["x-job-id"]
    assert (await alice.job(job_id))["reasoning_blocks"]
    made: Any = {"callProviderMetadata": {"rejoin": {"jobId": job_id}}}
    messages = [USER, assistant(call("output-available", output="1", **made))]
    for client, thinks in ((alice, True), (bob, False)):
        bare.provider.script("m", Text("x"))
        await client.http.post("/api/chat", json={**asked, "messages": messages})
        assert ('"signature"' in json.dumps(bare.provider.calls[-1].body)) is thinks
    made["callProviderMetadata"]["rejoin"]["jobId"] = "job_x"
    messages = [USER, assistant(call("output-available", output="1", **made))]
    assert (await alice.http.post("/api/chat", json={**asked, "messages": messages})).status_code == 200
