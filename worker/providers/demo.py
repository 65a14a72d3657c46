"""A provider that needs no key: a fixed text at a set pace, so that `make run` shows something at once."""

import asyncio
import re
from typing import Final

from shared.prices import Usage
from shared.requests import JobRequest
from worker.providers.base import Finish, Sink

TOKENS_PER_S: Final = 25

TEXT: Final = """\
Hello! This answer is made up, but the way it reaches you is real.

Your browser sent one POST. An API process wrote a job and its queue entry to Redis in a single atomic step and \
answered at once. A worker, woken by that very enqueue, claimed the job under a lease, and is now writing each token \
to the job's log, a Redis Stream. The API relays that log to you as Server-Sent Events.

So nothing here hangs on your connection. Reload this page in the middle of the sentence: the answer comes back whole \
and goes on. Open it in a second tab. Pull the plug of your network for a moment. The ids of the events are the ids of \
the log's entries, so your browser knows where it was, and any API process can take over from there.

Press Stop, and the work really stops: the worker closes the connection to the provider, and what was written until \
then stays readable. Kill the worker instead, and another one takes the job over within seconds; you are told that the \
answer starts again, and you never see two attempts mixed.

To talk to a real model, set OPENAI_API_KEY or ANTHROPIC_API_KEY in .env and start again.
"""


def _after(request: JobRequest) -> list[str]:
    """Return the tokens of the text, or of what is left of it behind the beginning of an answer."""
    last = request.messages[-1]
    begun = last.text() if last.role == "assistant" and TEXT.startswith(last.text()) else ""
    return re.findall(r"\s*\S+\s*", TEXT[len(begun) :])


class DemoProvider:
    async def generate(self, request: JobRequest, sink: Sink) -> Finish:
        tokens = _after(request)
        usage = Usage(input_tokens=request.input_estimate(), output_tokens=len(tokens))
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        for sent, token in enumerate(tokens):
            if sent == request.max_tokens:
                return Finish("length", usage.model_copy(update={"output_tokens": sent}))
            if sink.full:
                await sink.room()
            sink.text(token)
            await asyncio.sleep(max(0.0, start_s + (sent + 1) / TOKENS_PER_S - loop.time()))
        return Finish("stop", usage)

    async def close(self) -> None:
        return None
