"""The design of the tutorials, kept for comparison: one request, the SDK's stream, each delta an event.

No queue, no log, no resume, no cancel: what is lost with the connection is lost. `uvicorn bench.direct:app`.
"""

from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from openai import AsyncOpenAI
from pydantic import BaseModel
from sse_starlette import EventSourceResponse

app = FastAPI()
client = AsyncOpenAI(max_retries=0)


class Chat(BaseModel):
    model: str
    messages: list[dict[str, str]]


@app.post("/chat")
async def chat(request: Chat) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        messages: Any = request.messages
        stream = await client.chat.completions.create(model=request.model, messages=messages, stream=True)
        async for chunk in stream:
            if chunk.choices and (text := chunk.choices[0].delta.content):
                yield {"event": "token", "data": text}
        yield {"event": "completed", "data": "{}"}

    return EventSourceResponse(events())
