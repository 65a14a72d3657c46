"""What befalls clients of chat completions and messages: repeats, exits, Redis, damage; each SDK sees its own words."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import anthropic
import httpx2
import openai
import pytest

from shared.events import TOKEN
from tests.faces.conftest import anthropic_client, openai_client
from tests.faults.proxy import Proxy
from tests.provider import Delay, Reasoning, ScriptedProvider, Silence, Text, Tokens, ToolCall, Wait
from tests.stack import Stack, eventually
from tests.valkey import valkey

HI: Any = [{"role": "user", "content": "Hi"}]
SCHEMA: Any = {"type": "object", "properties": {"city": {"type": "string"}}}


class Chat:
    """OpenAI's client, reduced to what both do."""

    path = "/v1/chat/completions"
    tool: ClassVar[Any] = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
    thinking: ClassVar[Any] = {"reasoning_effort": "low"}
    error = openai.APIError
    busy = openai.InternalServerError
    cut = (openai.APIError,)

    def __init__(self, stack: Stack, api: int = 0) -> None:
        self.client = openai_client(stack, api)

    async def whole(self, model: str, **more: Any) -> Any:
        asked: Any = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
        return (await self.client.chat.completions.create(**asked)).choices[0].message.model_dump(exclude_none=True)

    async def streamed(self, model: str, **more: Any) -> Any:
        asked: Any = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
        async with self.client.chat.completions.stream(**asked) as events:
            async for _ in events:
                pass
            completion = await events.get_final_completion()
            found = completion.choices[0].message.model_dump(exclude_none=True)
        # What the helper adds.
        for call in found.get("tool_calls", ()):
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
        return found

    async def pieces(self, model: str, **more: Any) -> AsyncIterator[str]:
        stream = await self.client.chat.completions.create(model=model, messages=HI, stream=True, **more)
        async for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                yield chunk.choices[0].delta.content


class Messages:
    """Anthropic's."""

    path = "/v1/messages"
    tool: ClassVar[Any] = {"name": "get_weather", "input_schema": SCHEMA}
    thinking: ClassVar[Any] = {"thinking": {"type": "enabled", "budget_tokens": 1_024}}
    error = anthropic.APIError
    busy = anthropic.OverloadedError
    cut = (anthropic.APIError, httpx2.HTTPError)

    def __init__(self, stack: Stack, api: int = 0) -> None:
        self.client = anthropic_client(stack, api)

    async def whole(self, model: str, **more: Any) -> Any:
        asked: Any = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
        return [block.model_dump() for block in (await self.client.messages.create(**asked)).content]

    async def streamed(self, model: str, **more: Any) -> Any:
        asked: Any = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
        async with self.client.messages.stream(**asked) as events:
            return [block.model_dump() for block in (await events.get_final_message()).content]

    async def pieces(self, model: str, **more: Any) -> AsyncIterator[str]:
        asked: Any = {"model": model, "messages": HI, "max_tokens": 4_000, **more}
        async for event in await self.client.messages.create(**asked, stream=True):
            if event.type == "content_block_delta" and event.delta.type == "text_delta":
                yield event.delta.text


Face = Chat | Messages


async def read(client: Face, seen: list[str]) -> None:
    async for piece in client.pieces("openai/m"):
        seen.append(piece)  # noqa: PERF401 (the test looks at it meanwhile)


FACES = pytest.mark.parametrize("face", [Chat, Messages])


@FACES
async def test_a_repeat_gets_the_same_answer_while_it_comes_when_it_has_and_when_its_log_is_compact(
    stack: Stack, face: Callable[[Stack], Face]
) -> None:
    gate = stack.provider.gate()
    calls = [ToolCall(f"call_{i}", "get_weather", '{"city":"%s"}' % ("x" * 1_000)) for i in range(3)]
    stack.provider.script("m", Reasoning("Hm."), Text("one "), Wait(gate), Text("two"), *calls)
    client = face(stack)
    asked: Any = {"tools": [client.tool], "extra_headers": {"Idempotency-Key": "k"}, **client.thinking}
    live = [asyncio.create_task(client.streamed("anthropic/m", **asked)) for _ in range(2)]
    live += [asyncio.create_task(client.whole("anthropic/m", **asked)) for _ in range(2)]
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 4)
    gate.open()
    first, *others = await asyncio.gather(*live)
    others += [await client.whole("anthropic/m", **asked), await client.streamed("anthropic/m", **asked)]
    compactor = stack.workers[0].worker.workshop.compactor
    compactor._age_s = -1
    assert await compactor.run_once() == 1
    others += [await client.whole("anthropic/m", **asked), await client.streamed("anthropic/m", **asked)]
    assert all(other == first for other in others)
    assert len(stack.provider.calls) == 1


@FACES
async def test_methods_that_are_none_are_refused_in_the_dialect_s_words(stack: Stack, face: type[Face]) -> None:
    http = stack.client().http
    for method in ("GET", "HEAD", "PUT", "OPTIONS", "DELETE"):
        response = await http.request(method, face.path)
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        if method != "HEAD":
            assert response.json()["error"]["type"] == "invalid_request_error"


@FACES
async def test_a_job_whose_client_leaves_while_it_waits_is_cancelled(
    bare: Stack, face: Callable[[Stack], Face]
) -> None:
    bare.configure(lease_s=0.3)
    bare.provider.script("m", Silence())
    await bare.api()
    client = face(bare)
    more = {"extra_body": {"disconnect_grace_s": 0.1}}
    waiting = [asyncio.create_task(answer("m", **more)) for answer in (client.whole, client.streamed)]
    hub = bare.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 2)
    for task in waiting:
        task.cancel()
    await eventually(lambda: hub.open_streams == 0)
    await bare.worker()
    ours = bare.client()

    async def all_cancelled() -> bool:
        jobs = (await ours.http.get("/v1/jobs")).json()["data"]
        return {job["status"] for job in jobs} == {"cancelled"}

    await eventually(all_cancelled)


@FACES
async def test_at_the_server_s_exit_nobody_takes_a_part_for_the_whole(
    stack: Stack, face: Callable[[Stack], Face]
) -> None:
    stack.provider.script("m", Text("half"), Silence())
    client = face(stack)
    seen: list[str] = []

    streaming = asyncio.create_task(read(client, seen))
    waiting = asyncio.create_task(client.whole("openai/m"))
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: seen and hub.open_streams == 2)
    await stack.apis[0].stop()
    with pytest.raises(client.cut):
        await streaming
    with pytest.raises(client.busy) as refusal:
        await waiting
    refused: Any = refusal.value
    assert refused.response.headers["x-job-id"].startswith("job_")
    assert seen == ["half"]


@pytest.fixture
async def own(prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """A stack on a Valkey of its own."""
    with valkey("--appendonly", "yes", "--appendfsync", "always") as server:
        stack = Stack(server, prefix, provider)
        try:
            await stack.worker()
            await stack.api()
            yield stack
        finally:
            await stack.close()


@FACES
async def test_redis_may_be_killed_in_mid_answer(own: Stack, face: Callable[[Stack], Face]) -> None:
    gate = own.provider.gate()
    own.provider.script("m", Text("one "), Wait(gate), Tokens("two three four ", delay_s=0.02), Text("five"))
    client = face(own)
    seen: list[str] = []

    tasks = [asyncio.create_task(read(client, seen)), asyncio.create_task(client.whole("openai/m"))]
    hub = own.apis[0].app.state.rejoin.hub
    await eventually(lambda: seen and hub.open_streams == 2 and len(own.provider.calls) == 2)
    own.valkey.kill()
    gate.open()
    for call in own.provider.calls:
        await call.ended()
    own.valkey.start()
    _, whole = await asyncio.wait_for(asyncio.gather(*tasks), 15)
    assert "".join(seen) == "one two three four five"
    assert "one two three four five" in str(whole)


@FACES
async def test_an_answer_that_has_come_needs_no_redis_any_more(bare: Stack, face: Callable[[Stack], Face]) -> None:
    """A refusal then would make the SDKs ask once more, at their defaults, and somebody pay twice."""
    gate = bare.provider.gate()
    bare.provider.script("m", Text("one "), Wait(gate), Text("two"))
    await bare.worker()
    async with Proxy(bare.valkey.port) as proxy:
        await bare.api(redis_url=proxy.url)
        waiting = asyncio.create_task(face(bare).whole("openai/m"))
        await gate.reached()
        proxy.hold(b"HMGET")
        gate.open()
        assert "one two" in str(await waiting)


@FACES
@pytest.mark.parametrize("data", [b"{", b"[]", b'{"text":1}', b'{"x":"y"}', b"\xff"])
async def test_a_damaged_log_ends_the_answer_and_nothing_else(
    stack: Stack, face: Callable[[Stack], Face], data: bytes
) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("half"), Wait(gate), Text("rest"))
    client = face(stack)
    seen: list[str] = []

    tasks = [asyncio.create_task(read(client, seen))]
    await eventually(lambda: seen)
    tasks.append(asyncio.create_task(client.whole("openai/m")))
    hub = stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub.open_streams == 2 and len(stack.provider.calls) == 2)
    jobs = (await stack.client().http.get("/v1/jobs")).json()["data"]
    for job in jobs:
        await stack.redis.xadd(stack.keys.log(job["id"]), {TOKEN: data}, id="1-50")
    gate.open()
    with pytest.raises(client.cut):
        await asyncio.wait_for(tasks[0], 10)
    whole = (await asyncio.gather(tasks[1], return_exceptions=True))[0]
    # Some of it can be read; the job is begun again then, and this is its answer.
    assert isinstance(whole, client.error) or "halfrest" in str(whole)
    stack.provider.script("m2", Text("fine"))
    assert "fine" in str(await client.streamed("openai/m2"))


@FACES
async def test_a_slow_reader_gets_each_piece_once(stack: Stack, face: Callable[[Stack], Face]) -> None:
    size, count = 20_000, 200
    stack.provider.script("m", *[Text(f"{number:04d}" + "x" * size) for number in range(count)])
    client = face(stack)
    seen = ""
    async for piece in client.pieces("openai/m"):
        if not seen:
            await asyncio.sleep(0.5)
        seen += piece
    assert seen.replace("x", "") == "".join(f"{number:04d}" for number in range(count))


@FACES
async def test_a_slow_reader_gets_what_is_left_of_a_log_that_has_become_compact(
    stack: Stack, face: Callable[[Stack], Face]
) -> None:
    """Nothing of its answer was lost, so nothing is begun anew: the snapshot only tells it the rest."""
    size, count = 40_000, 80
    pieces = [f"{number:04d}" + "x" * size for number in range(count)]
    stack.provider.script("m", *[step for piece in pieces for step in (Text(piece), Delay(0.02))])
    client = face(stack)
    few = httpx2.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)])
    client.client = client.client.with_options(http_client=httpx2.AsyncClient(transport=few))
    compactor = stack.workers[0].worker.workshop.compactor
    compactor._age_s = -1
    seen = ""
    async for piece in client.pieces("openai/m"):
        if not seen:
            await stack.provider.calls[0].ended()
            assert await eventually(compactor.run_once) == 1
        seen += piece
    assert seen == "".join(pieces)


@FACES
async def test_a_full_queue_is_said_in_the_dialect_s_words(bare: Stack, face: Callable[[Stack], Face]) -> None:
    bare.configure(max_queue=1)
    await bare.api()
    await bare.client().submit("m")
    client = face(bare)
    for answer in (client.whole, client.streamed):
        with pytest.raises(client.busy):
            await answer("openai/m")
