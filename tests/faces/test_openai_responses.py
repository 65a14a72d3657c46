"""The OpenAI SDK's Responses against both providers: in the background and not, dropped and resumed."""

from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from tests.faces.conftest import PROVIDERS
from tests.provider import (
    Text,
    Usage,
)
from tests.stack import Stack, eventually

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
PREFIX = ["response.created", "response.queued", "response.in_progress"]

MODES: Any = [
    pytest.param({"stream": True}, id="stream"),
    pytest.param({}, id="whole"),
    pytest.param({"background": True}, id="background"),
    pytest.param({"background": True, "stream": True}, id="background-stream"),
]


async def events_of(stream: AsyncIterator[ResponseStreamEvent]) -> list[ResponseStreamEvent]:
    found = [event async for event in stream]
    assert [event.sequence_number for event in found] == list(range(len(found)))
    return found


async def polled(client: openai.AsyncOpenAI, id: str) -> Response:
    """Ask for a response until it has ended, as OpenAI's guide does."""

    async def ended() -> Response | None:
        found = await client.responses.retrieve(id)
        return None if found.status in ("queued", "in_progress") else found

    response: Response = await eventually(ended)
    return response


async def answer(client: openai.AsyncOpenAI, mode: dict[str, Any], model: str = "openai/m", **more: Any) -> Response:
    """Return the response in the end, however it was asked for; the stored one is the same."""
    given = {"model": model, "input": "Hi", **more, **mode}
    if mode.get("stream"):
        found = await events_of(await client.responses.create(**given))
        last: Any = found[-1]
        told = last.response if hasattr(last, "response") else None
        first: Any = found[0]
        stored = await client.responses.retrieve(first.response.id)
        assert told is None or told == stored
        return stored
    made: Response = await client.responses.create(**given)
    if mode.get("background"):
        assert (made.status, made.output, made.background) == ("queued", [], True)
        return await polled(client, made.id)
    assert made == await client.responses.retrieve(made.id)
    return made


@pytest.mark.parametrize("name", PROVIDERS)
@pytest.mark.parametrize("mode", MODES)
async def test_an_answer_comes_in_every_mode(
    stack: Stack, chat: openai.AsyncOpenAI, name: str, mode: dict[str, Any]
) -> None:
    stack.provider.script("m", Text("Hel"), Text("lo 🌍\n\ndata: x"), Usage(input=9, output=3, cached=4, reasoning=1))
    found = await answer(chat, mode, f"{name}/m", instructions="Be brief.", metadata={"a": "b"}, user="u")
    assert (found.status, found.output_text) == ("completed", "Hello 🌍\n\ndata: x")
    assert found.model == f"{name}/m"
    assert (found.instructions, found.metadata, found.user) == ("Be brief.", {"a": "b"}, "u")
    assert found.background is bool(mode.get("background"))
    assert found.usage is not None
    assert (found.usage.input_tokens, found.usage.output_tokens, found.usage.total_tokens) == (9, 3, 12)
    assert found.usage.input_tokens_details.cached_tokens == 4
    assert found.completed_at is not None
    assert found.completed_at >= found.created_at
