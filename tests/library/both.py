"""`Client` and `AsyncClient` behind one face, so that each test holds both to the same."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

import rejoin
from rejoin import Event, Patience
from tests import client, oracle

QUICK = Patience(give_up_s=5, first_s=0.002, longest_s=0.02)
Kind = Literal["sync", "async"]


class Both:
    """Calls and reads as one of the two; a sync one in a thread of its own, as the servers run in this loop."""

    def __init__(self, kind: Kind, *urls: str, key: str | None = None, patience: Patience = QUICK) -> None:
        self.kind = kind
        self._sync = rejoin.Client(urls, key, model="openai/m", patience=patience)
        self._async = rejoin.AsyncClient(urls, key, model="openai/m", patience=patience)

    async def aclose(self) -> None:
        self._sync.close()
        await self._async.aclose()

    async def call(self, name: str, *args: Any, **given: Any) -> Any:
        """Return what a method returns."""
        if self.kind == "async":
            return await getattr(self._async, name)(*args, **given)
        return await asyncio.to_thread(getattr(self._sync, name), *args, **given)

    async def listed(self, **given: Any) -> list[rejoin.Job]:
        if self.kind == "async":
            return [job async for job in self._async.jobs(**given)]
        return await asyncio.to_thread(lambda: list(self._sync.jobs(**given)))

    async def read(
        self, name: str, *args: Any, until: Callable[[Event], bool] = lambda _: False, **given: Any
    ) -> list[Event]:
        """Return what a stream yields, left behind the first event that is `until`."""
        events: list[Event] = []
        if self.kind == "async":
            async with getattr(self._async, name)(*args, **given) as stream:
                async for event in stream:
                    events.append(event)
                    if until(event):
                        break
            return events

        def sync() -> None:
            with getattr(self._sync, name)(*args, **given) as stream:
                for event in stream:
                    events.append(event)
                    if until(event):
                        break

        await asyncio.to_thread(sync)
        return events


def reading(job_id: str, events: list[Event], cursor: str | None = None, *, whole: bool = True) -> oracle.Reading:
    """Return what the oracle judges: the events as they were on the wire."""
    seen = [client.Event(event.id, event.event, dict(event.data)) for event in events]
    return oracle.Reading(job_id, seen, whole, cursor)
