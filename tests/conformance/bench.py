"""One provider on the bench: scripts for it, jobs to it, and what came of them."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests import oracle
from tests.client import Client, Event, text
from tests.conformance.ears import Heard, heard
from tests.conformance.rows import Feature, Row
from tests.provider import Call, Failure, HttpError, Step
from tests.stack import Stack

RULES = (
    oracle.ids_rise,
    oracle.attempts_never_mix,
    oracle.every_history_begins_with_queued,
    oracle.exactly_one_end,
    oracle.what_is_stored_is_what_was_seen,
)
"""What holds whatever was scripted; the texts are the tests' own business: a tool's arguments can be one."""

HI: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]


@dataclass(frozen=True)
class Answer:
    """A job that has ended: what its reader saw, and the job."""

    events: list[Event]
    job: dict[str, Any]

    @property
    def text(self) -> str:
        return text(self.events)

    @property
    def names(self) -> list[str]:
        """The events' names; neighbouring ones of a kind count once, as they may arrive merged."""
        names = [event.event for event in self.events]
        return [name for i, name in enumerate(names) if i == 0 or names[i - 1] != name]

    @property
    def last(self) -> Event:
        return self.events[-1]

    @property
    def end(self) -> tuple[str, str | None]:
        """How it ended: event, and finish reason or code."""
        return self.last.event, self.last.data.get("finish_reason") or self.last.data.get("code")


class Bench:
    """Each test has a model of its own, so that all share one stack."""

    def __init__(self, stack: Stack, client: Client, row: Row) -> None:
        self.stack, self.client, self.row = stack, client, row
        self.provider = stack.provider
        self.model = row.model.format(uuid.uuid4().hex[:12])

    def script(self, *steps: Step) -> None:
        self.provider.script(self.model, *self._accented(steps))

    def then(self, *steps: Step) -> None:
        self.provider.then(self.model, *self._accented(steps))

    def _accented(self, steps: Sequence[Step]) -> Sequence[Step]:
        """Return the script as this server speaks it: the last word on usage is the row's."""
        refuses = any(isinstance(step, HttpError | Failure) for step in steps)
        return (*(() if refuses else self.row.opening), *steps, *self.row.accent)

    @property
    def calls(self) -> list[Call]:
        return [call for call in self.provider.calls if call.model == self.model]

    async def given_up(self, call: Call) -> float:
        """Return when the provider noticed that nobody wants this call any more; it has to."""
        if not self.row.background:
            return await call.closed()
        await call.ended()
        assert call.cancelled
        assert call.ended_at is not None
        return call.ended_at

    def sent(self, call: Call) -> int:
        """Return how much has left the provider: events of a run, or tokens."""
        return (call.run.reads[0].last_sent or 0) if call.run is not None else call.sent_tokens

    def heard(self) -> Heard:
        """Return what the provider was asked last. It took it as its real counterpart would."""
        assert self.calls[-1].rejected is None
        return heard(self.calls[-1])

    def hearing(self, call: Call) -> Heard:
        return heard(call)

    async def submit(self, **fields: Any) -> str:
        return await self.client.submit(self.model, self.row.name, **fields)

    async def ended(self, job_id: str) -> Answer:
        """Return the job when it has ended; what its reader saw has to be a history that may happen."""
        events = await self.client.all_events(job_id)
        job = await self.client.job(job_id)
        record = oracle.Record({job_id}, [oracle.Reading(job_id, events)])
        record.statuses[job_id], record.texts[job_id] = job["status"], job["text"]
        assert [found for rule in RULES for found in rule(record)] == []
        assert "canary" not in str([events[-1].data, job])
        return Answer(events, job)

    async def answer(self, **fields: Any) -> Answer:
        return await self.ended(await self.submit(**fields))

    async def ask(self, feature: Feature, **fields: Any) -> Answer | None:
        """Return the answer to a request that needs this; None where the row says it cannot, and it is refused."""
        if (field := self.row.cannot.get(feature)) is None:
            return await self.answer(**fields)
        await self.refuse(field, **fields)
        return None

    async def refuse(self, field: str, **fields: Any) -> None:
        """See the request refused with the field's name, and nothing queued."""
        before = (await self.client.http.get("/v1/jobs", params={"limit": 1})).json()["data"]
        request = {"provider": self.row.name, "model": self.model, "messages": HI, **fields}
        response = await self.client.http.post("/v1/jobs", json=request)
        problem = response.json()
        assert (response.status_code, problem["code"]) == (422, "unsupported_parameter"), problem
        assert field in problem["detail"]
        after = (await self.client.http.get("/v1/jobs", params={"limit": 1})).json()["data"]
        assert [job["id"] for job in after] == [job["id"] for job in before]
        assert not self.calls
