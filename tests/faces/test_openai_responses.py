"""The OpenAI SDK's Responses against both providers: every mode, every end, and what is refused."""

import asyncio
import inspect
import json
from typing import Any

import httpx2
import openai
import pytest
from openai.types.responses import Response

from tests import keys
from tests.faces.conftest import PROVIDERS, openai_client
from tests.faces.responses import PREFIX, TEXT_ITEM, WEATHER, events_of, polled, streamed, types
from tests.faults.proxy import Proxy
from tests.provider import (
    Finish,
    HttpError,
    Reasoning,
    Refusal,
    Silence,
    StreamError,
    Text,
    ToolCall,
    Usage,
    Wait,
)
from tests.stack import Stack, eventually

MODES: list[dict[str, Any]] = [{"stream": True}, {}, {"background": True}, {"background": True, "stream": True}]


async def answers(client: openai.AsyncOpenAI, model: str = "openai/m", **more: Any) -> list[Response]:
    """Return what each mode has in the end."""
    return list(await asyncio.gather(*[answer(client, mode, model, **more) for mode in MODES]))


async def answer(client: openai.AsyncOpenAI, mode: dict[str, Any], model: str = "openai/m", **more: Any) -> Response:
    """Return the response in the end, however it was asked for; the stored one is the same."""
    given = {"model": model, "input": "Hi", **more, **mode}
    if mode.get("stream"):
        found = await events_of(await client.responses.create(**given))
        assert [event.type for event in found[:3]] == PREFIX
        last = found[-1]
        stored = await client.responses.retrieve(found[0].response.id)
        assert not hasattr(last, "response") or last.response == stored
        assert stored.background is bool(mode.get("background"))
        return stored
    made: Response = await client.responses.create(**given)
    if mode.get("background"):
        assert (made.status, made.output, made.background) == ("queued", [], True)
        return await polled(client, made.id)
    assert made == await client.responses.retrieve(made.id)
    return made


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_answer_comes_in_every_mode(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo 🌍\n\ndata: x"), Usage(input=9, output=3, cached=4, reasoning=1))
    for found in await answers(chat, f"{name}/m", instructions="Be brief.", metadata={"a": "b"}, user="u", top_p=0.5):
        assert (found.status, found.output_text) == ("completed", "Hello 🌍\n\ndata: x")
        assert found.model == f"{name}/m"
        assert (found.instructions, found.metadata, found.user, found.top_p) == ("Be brief.", {"a": "b"}, "u", 0.5)
        assert found.usage is not None
        assert found.usage is not None
        assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (9, 3, 12)
        assert found.usage.input_tokens_details.cached_tokens == 4
        assert found.usage.output_tokens_details.reasoning_tokens == 1
        assert found.completed_at is not None
        assert found.completed_at >= found.created_at


async def test_the_events_of_a_text_are_those_of_openai(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo"))
    found = await streamed(chat)
    assert types(found[3:]) == [*TEXT_ITEM, "completed"]
    assert [found[0].response.status, found[1].response.status] == ["queued", "queued"]
    assert {event.response.id for event in found if hasattr(event, "response")} == {found[0].response.id}
    assert (found[0].response.model, found[2].response.status) == ("openai/m", "in_progress")


@pytest.mark.parametrize("name", PROVIDERS)
async def test_tools_are_called(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script(
        "m",
        Text("I look."),
        ToolCall("call_1", "get_weather", ['{"city":', '"Paris"}']),
        ToolCall("call_2", "get_weather", '{"city":"Rome"}'),
    )
    for found in await answers(chat, f"{name}/m", tools=[WEATHER], tool_choice="auto"):
        assert found.output_text == "I look."
        calls = [item for item in found.output if item.type == "function_call"]
        assert [(call.call_id, call.name, json.loads(call.arguments), call.status) for call in calls] == [
            ("call_1", "get_weather", {"city": "Paris"}, "completed"),
            ("call_2", "get_weather", {"city": "Rome"}, "completed"),
        ]
        assert [(tool.type, tool.name) for tool in found.tools] == [("function", "get_weather")]  # type: ignore[union-attr]


async def test_thinking_is_an_item_of_its_own(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Reasoning("Hm. "), Reasoning("Yes."), Text("42"))
    for found in await answers(chat, "anthropic/m", reasoning={"effort": "low", "summary": "auto"}):
        assert [item.type for item in found.output] == ["reasoning", "message"]
        assert [part.text for part in found.output[0].summary] == ["Hm. Yes."]  # type: ignore[union-attr]
        assert found.output_text == "42"
        assert found.reasoning is not None
        assert (found.reasoning.effort, found.reasoning.summary) == ("low", "auto")


async def test_a_refusal_is_a_part_of_its_own(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Refusal("I "), Refusal("will not."))
    for found in await answers(chat):
        (item,) = found.output
        assert item.type == "message"
        assert [(part.type, getattr(part, "refusal", None)) for part in item.content] == [("refusal", "I will not.")]
        assert (found.status, found.output_text) == ("completed", "")


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize(("end", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_what_is_cut_is_incomplete(
    stack: Stack, chat: openai.AsyncOpenAI, name: str, end: str, reason: str
) -> None:
    stack.provider.script("m", Text("half"), Finish(end))
    for found in await answers(chat, f"{name}/m", max_output_tokens=20):
        assert (found.status, found.output_text, found.max_output_tokens) == ("incomplete", "half", 20)
        assert found.incomplete_details is not None
        assert found.incomplete_details.reason == reason
        assert found.output[0].status == "incomplete"  # type: ignore[union-attr]


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_failure_is_told(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", HttpError(400, "invalid_request_error", "sk-secret of a host"))
    for mode in MODES:
        if not mode:
            with pytest.raises(openai.BadRequestError) as refusal:
                await answer(chat, mode, f"{name}/m")
            assert refusal.value.code == "provider_bad_request"
            assert refusal.value.response.headers["x-job-id"].startswith("job_")
            continue
        found = await answer(chat, mode, f"{name}/m")
        assert (found.status, found.output) == ("failed", [])
        assert found.error is not None
        assert found.error.code == "invalid_prompt"
        assert "sk-secret" not in found.error.message


async def test_a_failure_in_mid_answer_keeps_what_was_told(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("half"), StreamError("overloaded_error"))
    found = await streamed(chat, "anthropic/m")
    assert types(found[3:]) == ["output_item.added", "content_part.added", "output_text.delta", "failed"]
    assert (found[-1].response.output_text, found[-1].response.error.code) == ("half", "server_error")
    assert found[-1].response.output[0].status == "incomplete"


async def test_a_cancelled_stream_just_ends(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("half"), Silence())
    stream = await chat.responses.create(model="openai/m", input="Hi", background=True, stream=True)
    seen: list[Any] = []
    cancelled: Any = None
    async for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            async with openai_client(stack, 1) as other:
                cancelled = await other.responses.cancel(seen[0].response.id)
    assert types(seen[3:]) == ["output_item.added", "content_part.added", "output_text.delta"]
    assert (cancelled.status, cancelled.output_text) == ("cancelled", "half")
    assert cancelled.usage is not None
    assert await chat.responses.cancel(cancelled.id) == cancelled
    assert await chat.responses.retrieve(cancelled.id) == cancelled
    (call,) = stack.provider.calls
    await call.closed()


async def test_who_waits_for_what_another_one_cancels_gets_an_error(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("half"), Silence())
    asking = asyncio.create_task(chat.responses.create(model="openai/m", input="Hi"))
    await stack.provider.next_call()
    client = stack.client()
    (job,) = (await client.http.get("/v1/jobs")).json()["data"]
    await client.cancel(job["id"])
    with pytest.raises(openai.ConflictError) as error:
        await asking
    assert error.value.code == "job_cancelled"


async def test_a_response_whose_log_is_gone_has_failed(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"))
    made = await chat.responses.create(model="openai/m", input="Hi")
    await stack.redis.delete(stack.keys.log(made.id.replace("resp_", "job_")))
    found = await chat.responses.retrieve(made.id)
    assert (found.status, found.output, found.error and found.error.code) == ("failed", [], "server_error")


async def test_what_waits_is_cancelled_before_it_starts(bare: Stack) -> None:
    await bare.api()
    async with openai_client(bare) as client:
        made = await client.responses.create(model="openai/m", input="Hi", background=True)
        assert (await client.responses.cancel(made.id)).status == "cancelled"
        found = await events_of(await client.responses.retrieve(made.id, stream=True))
        assert types(found) == ["created", "queued"]


async def test_a_long_response_is_read_whole_however_long_that_takes(bare: Stack) -> None:
    """Longer than a silent Redis is waited for: that is no reason to refuse what can be read."""
    bare.provider.script("m", Text("x"))
    await bare.worker()
    await bare.api()
    async with Proxy(bare.valkey.port) as proxy, openai_client(bare) as client:
        made = await client.responses.create(model="openai/m", input="Hi", background=True)
        await polled(client, made.id)
        await _lengthen(bare, made.id, 30_000)
        await bare.api(redis_url=proxy.url)
        proxy.latency_s = 0.03
        async with openai_client(bare, 1) as far:
            found: Response = await far.responses.retrieve(made.id)
    assert len(found.output_text) == 30_000


async def _lengthen(stack: Stack, id: str, tokens: int) -> None:
    """Make a log as long as that of an answer with so many tokens, which would take minutes."""
    key = stack.keys.log(id.replace("resp_", "job_"))
    queued, started, *_, last = await stack.redis.xrange(key)
    pipe = stack.redis.pipeline()
    pipe.delete(key)
    token = {"token": b'{"text":"x"}'}
    events = [queued, started, *[(f"1-{n + 1}", token) for n in range(tokens)], (f"1-{tokens + 1}", last[1])]
    for number, event in events:
        pipe.xadd(key, event, id=number)
    await pipe.execute()


async def test_only_what_runs_in_the_background_is_cancelled(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"))
    done = (await streamed(chat))[-1].response
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a completed response"):
        await chat.responses.cancel(done.id)
    whole = await chat.responses.create(model="openai/m", input="Hi")
    with pytest.raises(openai.BadRequestError, match="in the background"):
        await chat.responses.cancel(whole.id)


async def test_a_response_is_deleted_live_or_ended(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("x"), Silence())
    live = await chat.responses.create(model="openai/m", input="Hi", background=True)
    (call,) = [await stack.provider.next_call()]
    raw = await chat.responses.with_raw_response.delete(live.id)
    assert json.loads(await raw.http_response.aread()) == {"id": live.id, "object": "response", "deleted": True}
    await call.closed()
    stack.provider.script("m", Text("x"))
    ended = await chat.responses.create(model="openai/m", input="Hi")
    await chat.responses.delete(ended.id)
    for id in (live.id, ended.id):
        with pytest.raises(openai.NotFoundError):
            await chat.responses.retrieve(id)
        with pytest.raises(openai.NotFoundError):
            await chat.responses.delete(id)


async def test_what_is_not_to_be_stored_is_its_own_connection_s_alone(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("x"), Wait(gate), Text("y"))
    stream = await chat.responses.create(model="openai/m", input="Hi", store=False, stream=True)
    last: Any = None
    async for event in stream:
        if last is None:
            for ask in (chat.responses.retrieve, chat.responses.cancel, chat.responses.delete):
                with pytest.raises(openai.NotFoundError):
                    await ask(event.response.id)  # type: ignore[union-attr]
            with pytest.raises(openai.BadRequestError) as refusal:
                await chat.responses.create(model="m", input="x", previous_response_id=event.response.id)  # type: ignore[union-attr]
            assert refusal.value.code == "previous_response_not_found"
            gate.open()
        last = event
    assert last.response.output_text == "xy"
    assert last.response.store is False if hasattr(last.response, "store") else True
    whole = await chat.responses.create(model="openai/m", input="Hi", store=False)
    assert whole.output_text == "xy"
    await eventually(lambda: _gone(stack, last.response.id, whole.id))


async def test_what_is_not_to_be_stored_is_gone_when_it_has_failed_too(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("half"), StreamError("server_error"))
    with pytest.raises(openai.InternalServerError) as refusal:
        await chat.responses.create(model="openai/m", input="Hi", store=False)
    assert await _gone(stack, refusal.value.response.headers["x-job-id"])


async def _gone(stack: Stack, *ids: str) -> bool:
    return not any([await stack.redis.exists(stack.keys.job(id.replace("resp_", "job_"))) for id in ids])


@pytest.mark.parametrize("name", PROVIDERS)
async def test_the_sdk_puts_the_whole_together(stack: Stack, chat: openai.AsyncOpenAI, name: str) -> None:
    stack.provider.script("m", Reasoning("Hm."), Text("Look:"), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    more: Any = {"reasoning": {"effort": "low"}} if name == "anthropic" else {}
    async with chat.responses.stream(model=f"{name}/m", input="Hi", tools=[WEATHER], **more) as stream:
        names = {event.type async for event in stream}
        final = await stream.get_final_response()
    assert "response.function_call_arguments.done" in names
    assert (final.output_text, final.output[-1].type) == ("Look:", "function_call")


async def test_the_sdk_parses_what_has_a_shape(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": False,
    }
    shape: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}}
    stack.provider.script("m", Text('{"a": 1}'))
    found = await chat.responses.create(model="openai/m", input="Hi", text=shape)
    assert json.loads(found.output_text) == {"a": 1}
    assert found.text is not None
    assert found.text.format is not None
    assert (found.text.format.type, stack.provider.calls[-1].body["response_format"]["type"]) == ("json_schema",) * 2


async def test_the_same_key_is_the_same_response(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    stack.provider.script("m", Text("once"))
    headers = {"Idempotency-Key": "one"}
    given: Any = {"model": "openai/m", "input": "Hi", "background": True, "extra_headers": headers}
    first = await streamed(chat, extra_headers=headers)
    again = await chat.responses.create(**given)
    assert again == first[-1].response
    assert len(stack.provider.calls) == 1
    with pytest.raises(openai.BadRequestError) as refusal:
        await chat.responses.create(**{**given, "user": "another"})
    assert refusal.value.code == "idempotency_mismatch"


async def test_jobs_of_other_faces_are_responses_too(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("x"), Wait(gate), Text("y"))
    client = stack.client()
    job_id = await client.submit(system="S", metadata={"a": "b"})
    gate.open()
    found = await polled(chat, job_id.replace("job_", "resp_"))
    assert (found.output_text, found.instructions, found.model) == ("xy", "S", "openai/m")
    assert types(await events_of(await chat.responses.retrieve(found.id, stream=True)))[3:] == [*TEXT_ITEM, "completed"]
    done = await chat.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "Hi"}])
    told = await chat.responses.retrieve(done.headers["x-job-id"].replace("job_", "resp_"))
    assert (told.output_text, told.background) == ("xy", False)


async def test_a_client_that_leaves_cancels_what_is_not_in_the_background(bare: Stack) -> None:
    bare.configure(lease_s=0.3)
    await bare.worker()
    await bare.api()
    for background in (False, True):
        bare.provider.script("m", Text("x"), Silence())
        async with openai_client(bare) as client:
            stream = await client.responses.create(
                model="m", input="Hi", stream=True, background=background, extra_body={"disconnect_grace_s": 0.1}
            )
            first: Any = await anext(aiter(stream))
            call = await bare.provider.next_call()
            await stream.close()
        if background:
            assert (await bare.client().job(first.response.id.replace("resp_", "job_")))["status"] != "cancelled"
        else:
            await call.closed()


REFUSED: list[tuple[dict[str, Any], str, str | None]] = [
    ({"input": []}, "invalid_request", "input"),
    ({"input": [{"role": "nobody", "content": "x"}]}, "invalid_request", "input.0.role"),
    ({"input": [{"type": "web_search_call", "id": "x"}]}, "unsupported_parameter", "input.0"),
    ({"input": [{"role": "user", "content": [{"type": "input_file"}]}]}, "unsupported_parameter", "input.0.content.0"),
    ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "invalid_request", None),
    ({"input": [{"type": "item_reference", "id": f"msg_{'0' * 32}_0"}]}, "invalid_request", "input.0.id"),
    ({"tools": [{"type": "web_search"}]}, "unsupported_parameter", "tools"),
    ({"include": ["reasoning.encrypted_content"]}, "invalid_request", "include.0"),
    ({"parallel_tool_calls": False}, "invalid_request", "parallel_tool_calls"),
    ({"max_tool_calls": 3}, "invalid_request", "max_tool_calls"),
    ({"conversation": "conv_1"}, "invalid_request", "conversation"),
    ({"max_output_tokens": 0}, "invalid_request", "max_output_tokens"),
    ({"background": True, "store": False}, "invalid_request", "background"),
    ({"stream_options": {"include_obfuscation": False}}, "invalid_request", "stream_options"),
    ({"model": "demo/tour", "tools": [WEATHER]}, "unsupported_parameter", "tools"),
    ({"reasoning": {"effort": "max"}}, "invalid_request", "reasoning.effort"),
]


async def test_what_is_none_is_not_set(stack: Stack, chat: openai.AsyncOpenAI) -> None:
    """Whatever the SDK lets be None: callers pass their own defaults on."""
    stack.provider.script("m", Text("x"))
    given = inspect.signature(chat.responses.create).parameters.values()
    unset: Any = {each.name: None for each in given if str(each.annotation).startswith("Optional")}
    found = await chat.responses.create(**{**unset, "model": "openai/m", "input": "Hi"})
    assert found.output_text == "x"


@pytest.mark.parametrize(("fields", "code", "param"), REFUSED)
async def test_what_cannot_be_is_refused_in_openai_s_words(
    chat: openai.AsyncOpenAI, fields: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refusal:
        await chat.responses.create(**{"model": "openai/m", "input": "Hi", **fields})
    assert (refusal.value.code, refusal.value.param) == (code, param)
    assert refusal.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "query",
    [
        {"starting_after": "-1", "stream": "true"},
        {"starting_after": "x", "stream": "true"},
        {"starting_after": "1"},
        {"stream": "perhaps"},
        {"include[]": "reasoning.encrypted_content"},
    ],
)
async def test_a_wrong_query_is_refused(stack: Stack, chat: openai.AsyncOpenAI, query: dict[str, str]) -> None:
    stack.provider.script("m", Text("x"))
    made = await chat.responses.create(model="openai/m", input="Hi")
    refusal = await stack.client().http.get(f"/v1/responses/{made.id}", params=query)
    assert (refusal.status_code, refusal.json()["error"]["type"]) == (400, "invalid_request_error")


async def test_a_response_of_somebody_else_is_none(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    alice, bob = [await keys.new_key(bare, owner) for owner in ("alice", "bob")]
    bare.provider.script("m", Text("x"))
    async with openai_client(bare, key=alice) as hers, openai_client(bare, key=bob) as his:
        done = await hers.responses.create(model="m", input="Hi")
        told: list[httpx2.Response] = []
        for id in (done.id, f"resp_{'0' * 32}"):
            with pytest.raises(openai.BadRequestError) as refusal:
                await his.responses.create(model="m", input="Hi", previous_response_id=id)
            assert refusal.value.code == "previous_response_not_found"
            told.append(refusal.value.response)
            item = id.replace("resp_", "msg_") + "_0"
            with pytest.raises(openai.BadRequestError) as refusal:
                await his.responses.create(model="m", input=[{"type": "item_reference", "id": item}])
            told.append(refusal.value.response)
    assert told[0].content == told[2].content
    assert told[1].content == told[3].content
