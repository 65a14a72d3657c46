"""Waiting for the end of a job on behalf of a client that takes no stream, for as long as it is there."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request

from api.faces.failures import unfinished
from api.problems import Problem, not_found, unavailable
from api.relay import LogGone, Reader
from api.state import State
from shared.events import COMPLETED, Answer, Entry, load


class Whole(NamedTuple):
    """What a job that is completed has written."""

    answer: Answer
    end: dict[str, Any]
    """The last event's data."""

    @property
    def model(self) -> str:
        """Who answered."""
        return f"{self.end['provider']}/{self.end['model']}"


async def whole(
    request: Request,
    here: State,
    reader: Reader,
    headers: Mapping[str, str],
    on_entry: Callable[[Entry], object] | None = None,
) -> Whole:
    """Return the job's answer, or raise the problem that it has ended with. Detaches the reader.

    Raises ClientDisconnect when the client has left before. `headers`: say of a refusal, too, which job it is about.
    `on_entry`: takes each of the log's entries as well.
    """
    answer = Answer()
    gone = asyncio.create_task(_until_gone(request, reader))
    problem = unavailable()
    try:
        async with aclosing(reader.batches()) as batches:
            async for batch in batches:
                for entry in batch:
                    answer.add(entry)
                    if on_entry is not None:
                        on_entry(entry)
                    if entry.last:
                        # Nothing more is asked of Redis: who is refused now asks again, and pays for another answer.
                        end = load(entry.data)
                        if entry.event == COMPLETED:
                            return Whole(answer, end)
                        raise _about(unfinished(entry.event, end), headers)
    except LogGone:
        problem = not_found()
    finally:
        here.hub.detach(reader)
        gone.cancel()
    if gone.done():
        raise ClientDisconnect
    raise _about(problem, headers)


def _about(problem: Problem, headers: Mapping[str, str]) -> Problem:
    problem.headers |= headers
    return problem


async def _until_gone(request: Request, reader: Reader) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    reader.end()
