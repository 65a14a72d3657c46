"""Waiting for the end of a job on behalf of a client that takes no stream, for as long as it is there."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

from starlette.requests import ClientDisconnect, Request

from api.deadline import deadline
from api.faces.telling import Ended
from api.relay import LogGone, Reader
from api.state import State
from shared.errors import JobNotFound, Unavailable
from shared.events import Answer, Entry, load
from shared.jobs import Job


class Whole(NamedTuple):
    """A job that has ended, and what it has written."""

    job: Job
    answer: Answer
    end: Ended


async def whole(
    request: Request, here: State, reader: Reader, on_entry: Callable[[Entry], object] | None = None
) -> Whole:
    """Return the job's end. Detaches the reader. Raises ClientDisconnect when the client has left before.

    `on_entry`: takes each of the log's entries as well.
    """
    answer = Answer()
    gone = asyncio.create_task(_until_gone(request, reader))
    try:
        async with aclosing(reader.batches()) as batches:
            async for batch in batches:
                for entry in batch:
                    answer.add(entry)
                    if on_entry is not None:
                        on_entry(entry)
                    if entry.last:
                        end = Ended(entry.event, load(entry.data))
                        async with deadline():
                            return Whole(await here.jobs.get(reader.job_id), answer, end)
    except LogGone:
        raise JobNotFound from None
    finally:
        here.hub.detach(reader)
        gone.cancel()
    if gone.done():
        raise ClientDisconnect
    raise Unavailable


async def _until_gone(request: Request, reader: Reader) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    reader.end()
