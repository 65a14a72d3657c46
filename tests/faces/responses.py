"""What the tests of OpenAI's Responses have in common."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai
from openai.types.responses import Response, ResponseStreamEvent

from tests.faces.conftest import openai_client
from tests.provider import Step, StreamError
from tests.stack import Stack, eventually

PREFIX = ["response.created", "response.queued", "response.in_progress"]

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}


async def events_of(stream: AsyncIterator[ResponseStreamEvent], first: int = 0) -> list[Any]:
    """Return all events of a stream, whose numbers leave nothing out."""
    found: list[Any] = [event async for event in stream]
    assert [event.sequence_number for event in found] == list(range(first, first + len(found)))
    return found


async def streamed(client: openai.AsyncOpenAI, model: str = "openai/m", **more: Any) -> list[Any]:
    given: Any = {"model": model, "input": "Hi", "background": True, **more}
    return await events_of(await client.responses.create(**given, stream=True))


async def resumed(client: openai.AsyncOpenAI, id: str, after: int) -> list[Any]:
    return await events_of(await client.responses.retrieve(id, stream=True, starting_after=after), after + 1)


async def polled(client: openai.AsyncOpenAI, id: str) -> Response:
    """Ask for a response until it has ended, as OpenAI's guide does."""

    async def ended() -> Response | None:
        found = await client.responses.retrieve(id)
        return None if found.status in ("queued", "in_progress") else found

    response: Response = await eventually(ended)
    return response


def types(events: list[Any]) -> list[str]:
    """Return the events' types without their prefix; deltas that follow each other count once."""
    names = [event.type.removeprefix("response.") for event in events]
    return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name or not name.endswith("delta")]


def said(events: list[Any], output_index: int | None = None) -> str:
    """Return the text of all deltas, or of those of one item."""
    return "".join(
        event.delta
        for event in events
        if event.type == "response.output_text.delta" and output_index in (None, event.output_index)
    )


TEXT_ITEM = [
    "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
    "output_item.done",
]  # fmt: skip

FALLBACK: Any = {"fallbacks": [{"provider": "openai", "model": "next"}]}


async def lost(stack: Stack, before: Sequence[Step], after: Sequence[Step], **more: Any) -> tuple[list[Any], Response]:
    """Return the events of an answer whose first attempt is lost in mid-answer, and the response in the end."""
    stack.provider.script("m", *before, StreamError("server_error"))
    stack.provider.script("next", *after)
    async with openai_client(stack) as client, openai_client(stack, 1) as other:
        found = await streamed(client, extra_body=FALLBACK, **more)
        stored = await other.responses.retrieve(found[0].response.id)
        assert found[-1].response == stored
        assert found == await events_of(await other.responses.retrieve(stored.id, stream=True))
        # What the SDK puts together of it is the same.
        async with client.responses.stream(response_id=stored.id) as stream:
            async for _ in stream:
                pass
            if stored.status == "completed":
                assert (await stream.get_final_response()).output_text == stored.output_text
    return found, stored
