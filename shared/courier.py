"""Takes what is decided about a job, on `REDIS_URL`, to its log on an event server.

Whatever opens or ends an attempt is a script on `REDIS_URL`, as nowhere else is known who holds the job. It writes the
event into the job's log there, its milestones, and returns them; whoever ran it brings them to the job's own log at
once. That an end is unsent is noted in the same step: should whoever brings it die, or the event server be away, any
worker does. The beginnings are not: a reader that finds no log has them brought, and a worker writes nothing before its
opening is there. Bringing them twice, late or by two at once changes nothing (`lua/deliver.lua`).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily

from shared.errors import Unavailable
from shared.events import EventId
from shared.milestones import Milestones, milestones
from shared.plane import HOME, Place, Plane
from shared.redis import REDIS_FAULTS, DataError, is_damage

logger = logging.getLogger(__name__)

AT_ONCE: Final = 100
SWEEP_S: Final = 0.5
"""Between two looks for what nobody has brought."""

GRACE_S: Final = 0.3
"""How long it is left to whoever decided it."""

TAKEN_S: Final = 1.0
"""How long it is left to a worker that brings it."""

BRING_S: Final = 1.0
"""How long an event server may take for one that a worker brings: the others are not to wait for it."""

GATHER_S: Final = 0.02
"""How long is waited, with the note that milestones have been brought, for others."""

PATIENCE_S: Final = 0.3
"""How long an API process waits for an event server with what a worker may bring as well."""


class Delivered(NamedTuple):
    """How a log stands with all its milestones in it."""

    length: int
    top: EventId
    ended: bool


class Courier:
    def __init__(self, plane: Plane) -> None:
        self._plane = plane
        self._home = plane.home
        self._keys = plane.home.keys
        self._sent: dict[str, tuple[str, int]] = {}
        """What has been brought where, and is still taken for unsent: how many milestones."""
        self._noting: asyncio.Task[None] | None = None

    async def close(self) -> None:
        if self._noting is not None:
            await asyncio.wait([self._noting], timeout=PATIENCE_S)

    async def deliver(
        self, job_id: str, server: str, worker: str = "", attempt: int = 0, known: Milestones | None = None
    ) -> Delivered | None:
        """Bring a job's milestones to its log on an event server; None when there is no such job any more.

        `worker`: for whom `attempt` was opened; the log takes its appends from then on. `known`: what the script has
        said that has just written one of them; else they are read. Raises REDIS_FAULTS, Damaged, and Unavailable for a
        server that this process has not been told of.
        """
        place = self._plane.at(server)
        if known is None:
            keys = [self._keys.job(job_id), self._keys.log(job_id)]
            known = milestones(await self._home.scripts.run("milestones", keys, [], again=True), noted=True)
        there = [place.keys.log(job_id), place.keys.job(job_id)]
        if known is None:
            await _noting(place, place.redis.call("DEL", *there))
            delivered = None
        else:
            args: list[Any] = [known.lives_ms, worker, attempt]
            for event in known.events:
                args += event
            length, top_attempt, seq, ended = await _noting(
                place, place.scripts.run("deliver", there, args, again=True)
            )
            delivered = Delivered(length, EventId(top_attempt, seq), ended == 1)
        if known is not None and not known.noted:
            return delivered
        self._sent[job_id] = (server, 0 if known is None else len(known.events))
        if self._noting is None:
            self._noting = asyncio.create_task(self._note_sent(), name="sent milestones")
        return delivered

    async def refresh(self, job_id: str, server: str) -> bool:
        """Bring what there is; say whether there is such a job."""
        return await self.deliver(job_id, server) is not None

    async def unknown(self, job_ids: Sequence[str]) -> list[str]:
        """Return those of which there is no record any more."""
        exists = [self._home.redis.read("EXISTS", self._keys.job(job_id)) for job_id in job_ids]
        return [job_id for job_id, there in zip(job_ids, await asyncio.gather(*exists), strict=True) if not there]

    async def try_to(self, job_id: str, server: str, known: Milestones | None = None) -> None:
        """Bring what there is if that can be done at once; else it is left to a worker, or to a reader."""
        if server == HOME:
            return
        with suppress(*REDIS_FAULTS, TimeoutError, Unavailable):
            async with asyncio.timeout(PATIENCE_S):
                await self.deliver(job_id, server, known=known)

    async def _note_sent(self) -> None:
        """Note, for all jobs of a moment at once, what has been brought. Should that fail, it is brought once more."""
        await asyncio.sleep(GATHER_S)
        sent, self._sent, self._noting = self._sent, {}, None
        keys, args = [], []
        for job_id, (server, count) in sent.items():
            keys += [self._keys.unsent(server), self._keys.log(job_id)]
            args += [job_id, count]
        with suppress(*REDIS_FAULTS):
            await self._home.scripts.run("sent", keys, args)

    async def metrics(self) -> list[Metric]:
        """Return how the event servers stand, for a scrape: those that answer this process, what is unsent to each."""
        if not self._plane.servers:
            return []
        up = GaugeMetricFamily("rejoin_event_server_up", "Whether it answers this process.", labels=["server"])
        unsent = GaugeMetricFamily("rejoin_unsent_jobs", "Jobs of which it lacks the end.", labels=["server"])
        counts = dict[str, int]()
        with suppress(*REDIS_FAULTS, TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                counts = await self.unsent()
        for name, place in self._plane.servers.items():
            up.add_metric([name], float(not place.away))
        for name, count in counts.items():
            unsent.add_metric([name], count)
        return [up, unsent]

    async def unsent(self) -> dict[str, int]:
        """Return of how many jobs each event server lacks the end. Raises one of REDIS_FAULTS when home is away."""
        servers = self._plane.servers
        read = self._home.redis.read
        counts = await asyncio.gather(*[read("ZCARD", self._keys.unsent(name)) for name in servers])
        return dict(zip(servers, counts, strict=True))

    async def show(self) -> list[dict[str, Any]]:
        """Return how the event servers stand, for operators; raises as `unsent` does."""
        unsent = await self.unsent()
        return [
            {
                "name": name,
                "state": "away" if place.away else "there",
                "closed": self._plane.is_closed(name),
                "unsent": unsent[name],
            }
            for name, place in self._plane.servers.items()
        ]

    async def sweep(self) -> None:
        """Bring what others have left, for every server that answers, until cancelled."""
        while self._plane.servers:
            await asyncio.sleep(SWEEP_S * random.uniform(0.5, 1))
            try:
                while await self._sweep():
                    pass
            except REDIS_FAULTS as error:
                logger.warning("unsent milestones not looked for (%s)", type(error).__name__)

    async def _sweep(self) -> bool:
        """Take what is due to all servers, bring it; say whether there may be more."""
        if not (servers := self._plane.reachable):
            return False
        args = [int(GRACE_S * 1000), int(TAKEN_S * 1000), AT_ONCE]
        found = await self._home.scripts.run("unsent", [self._keys.unsent(server) for server in servers], args)
        bringing = [self._bring(raw_id, server) for server, ids in zip(servers, found, strict=True) for raw_id in ids]
        await asyncio.gather(*bringing)
        return any(len(ids) == AT_ONCE for ids in found)

    async def _bring(self, raw_id: bytes, server: str) -> None:
        """Bring what was taken; if that does not go well, somebody takes it again; never what is damaged."""
        try:
            async with asyncio.timeout(BRING_S):
                await self.deliver(raw_id.decode(), server)
        except TimeoutError:
            self._plane.at(server).fell_away()
        except Exception as error:
            if isinstance(error, REDIS_FAULTS) and not (is_damage(error) or isinstance(error, DataError)):
                return
            # Nobody's log but this one is to be left as it is.
            logger.error("the milestones of %.64r are damaged (%s)", raw_id, type(error).__name__)
            with suppress(*REDIS_FAULTS):
                await self._home.redis.call("ZREM", self._keys.unsent(server), raw_id)


async def _noting(place: Place, command: Awaitable[Any]) -> Any:
    """Await a command's reply; should the server be away, let it be known."""
    try:
        return await command
    except REDIS_FAULTS as error:
        if not is_damage(error):
            place.fell_away()
        raise
