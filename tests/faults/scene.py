"""A scene: jobs with scripts of their own, readers, cancels, and the record of it all for the oracle."""

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio import Redis

from tests.client import Client, Event, body
from tests.faults.reader import Reader
from tests.oracle import Reading, Record, judge
from tests.provider import Step
from tests.stack import Stack, eventually

CLOSED_S = 2.0
"""How long after the last reader has left a call may be open, before the oracle sees it: a zombie's, above all."""


class Scene:
    """Each job is asked for under a model name of its own, so that the provider's calls are known by job."""

    def __init__(self, stack: Stack, *, seed: int = 0, urls: Sequence[str] = ()) -> None:
        self.stack = stack
        self.record = Record()
        self.choose = random.Random(seed)
        self.urls = [*urls, *(api.url for api in stack.apis)]
        self.client: Client = stack.client(also=urls[0] if urls else None)
        self.models: dict[str, str] = {}
        self.readers: list[Reader] = []
        self._count = 0

    async def submit(self, *steps: Step, then: Sequence[Sequence[Step]] = (), **fields: Any) -> str:
        """POST a job whose first call is answered with these steps, the ones after it as in `then`."""
        model = self.script(*steps, then=then)
        return self.accept(await self.client.submit(model, **fields), model)

    def script(self, *steps: Step, then: Sequence[Sequence[Step]] = ()) -> str:
        """Return a new model that answers so."""
        self._count += 1
        model = f"model-{self._count}"
        if steps:
            self.stack.provider.script(model, *steps)
        for later in then:
            self.stack.provider.then(model, *later)
        return model

    def accept(self, job_id: str, model: str) -> str:
        """Note a job that was accepted."""
        self.models[job_id] = model
        self.record.accepted.add(job_id)
        return job_id

    def read(
        self,
        job_id: str,
        *,
        cursor: str | None = None,
        urls: Sequence[str] = (),
        cut_after: Callable[[], float | None] = lambda: None,
        kind: type[Reader] = Reader,
    ) -> Reader:
        """Let one more reader, of this kind, read a job, to its end."""
        reading = Reading(job_id, cursor=cursor)
        self.record.readings.append(reading)
        reader = kind(reading, list(urls) or self.urls, self.choose, cut_after=cut_after)
        self.readers.append(reader)
        return reader

    async def running(self, *steps: Step, then: Sequence[Sequence[Step]] = (), **fields: Any) -> tuple[str, Reader]:
        """POST a job and return it with a reader that has seen its first token."""
        job_id = await self.submit(*steps, then=then, **fields)
        reader = self.read(job_id)
        await reader.until("token")
        return job_id, reader

    async def cancel(self, job_id: str, api: int = 0) -> dict[str, Any]:
        result = await self.client.cancel(job_id, api)
        if result["outcome"] in ("cancelled", "cancelled_before_start"):
            self.record.cancelled.add(job_id)
        return result

    async def post_status(self, model: str) -> int:
        """POST, and return only what was answered; a job that was accepted is noted."""
        response = await self.client.http.post("/v1/jobs", json=body(model))
        if response.status_code == 202:
            self.accept(response.json()["id"], model)
        return response.status_code

    async def verdict(self, timeout_s: float = 20.0) -> list[str]:
        """Wait for every reader's end and every call's, look at what is stored, and judge."""
        for job_id in self.record.accepted - {reader.reading.job_id for reader in self.readers}:
            self.read(job_id)
        # Who has not seen the end by then is found by the oracle; so is, below, what is still open.
        await asyncio.gather(*[reader.finish(timeout_s) for reader in self.readers], return_exceptions=True)
        await asyncio.gather(*[reader.stop() for reader in self.readers])
        jobs = {model: job_id for job_id, model in self.models.items()}
        self.record.calls.clear()
        for call in self.stack.provider.calls:
            if call.model in jobs:
                self.record.calls[jobs[call.model]].append(call)
        with contextlib.suppress(TimeoutError):
            await eventually(lambda: all(call.ended_at for call in self.stack.provider.calls), CLOSED_S)
        for job_id in self.record.accepted:
            job = await self.client.job(job_id)
            self.record.statuses[job_id], self.record.texts[job_id] = job["status"], job["text"]
            url, key = await self.stack.log_at(job_id)
            async with Redis.from_url(url) as redis:
                if log := await raw_log(redis, key):
                    self.record.logs[job_id] = log
        used = (await self.client.http.get("/v1/usage", params={"group_by": "model"})).json()["data"]
        for row in used:
            # Beyond that several jobs, of other scenes perhaps, have asked this model.
            if row["jobs"] == 1 and (asked := jobs.get(row["model"].partition("/")[2])) is not None:
                self.record.requests[asked] = row["requests"]
        return judge(self.record)

    async def assert_clean(self, timeout_s: float = 20.0) -> None:
        assert await self.verdict(timeout_s) == []

    def names(self, job_id: str) -> list[str]:
        """Return the names of the events that the job's first reader saw, texts left out."""
        reading = next(reading for reading in self.record.readings if reading.job_id == job_id)
        return [event.event for event in reading.events if event.event != "token"]


async def raw_log(redis: Redis, key: str) -> list[Event] | None:
    """Return a log as it is kept; None for one that was compacted."""
    entries = []
    for raw_id, fields in await redis.xrange(key):
        ((name, data),) = fields.items()
        entries.append(Event(raw_id.decode(), name.decode(), json.loads(data)))
    return None if any(entry.event == "snapshot" for entry in entries) else entries
