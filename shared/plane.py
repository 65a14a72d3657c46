"""Where the logs of jobs are kept: beside the records, or spread over event servers (`REJOIN_STREAM_URLS`).

A job's record names its server, so each job stays where it began, whatever servers come or go for new ones.
"""

import asyncio
import hashlib
import logging
import random
from collections.abc import Callable, Mapping
from typing import Final

from shared.errors import Unavailable
from shared.keys import Keys
from shared.log import Log
from shared.redis import Multiplexer, ResponseError, Scripts, is_full, problem, reason
from shared.settings import Settings

logger = logging.getLogger(__name__)

HOME: Final = ""
"""The name of the server that has the records, as the place of a log."""

LOOK_S: Final = 0.5
"""Between two looks at a server that is away."""

CHECK_S: Final = 5.0
"""Between two looks at one that is there."""

ANSWER_S: Final = 0.8

FULL: Final = "it has no memory left"

WRITTEN_MS: Final = 1_000
"""How long what is written for a look stays there."""


class Place:
    """One server that keeps logs."""

    def __init__(self, name: str, redis: Multiplexer, keys: Keys) -> None:
        self.name = name
        self.redis = redis
        self.keys = keys
        self.scripts = Scripts(redis)
        self.log = Log(redis, self.scripts, keys)
        self.away = name != HOME
        """Whether nothing should be begun there: it has not answered, or not well. An event server is, until it has."""
        self.full = False
        """Whether that is for want of memory: what ends, or frees some, is not to wait."""
        self._loaded = False
        self._looked = asyncio.Event()
        redis.on_lost = self.fell_away

    @property
    def title(self) -> str:
        """Return what it is called in our logs."""
        return "Redis" if self.name == HOME else f"the event server {self.name}"

    def fell_away(self) -> None:
        """Learn that a command has failed: it is looked at soon. (Home is waited for, by whoever needs it.)"""
        if self.name == HOME:
            return
        if not self.away:
            logger.warning("the event server %s is lost", self.name)
            # (One that is away is looked at soon in any case.)
            self._looked.set()
        self.away, self.full, self._loaded = True, False, False

    async def look(self) -> None:
        """See whether it may be used."""
        was_away = self.away
        try:
            async with asyncio.timeout(ANSWER_S):
                why = await self._problem()
                if why in (None, FULL) and not self._loaded:
                    await self.scripts.load()
                    self._loaded = True
        except Exception as error:
            # (Whatever it says, or is: nobody else keeps looking.)
            why = f"it does not answer well ({reason(error)})"
            self._loaded = False
        self.away, self.full = why is not None, why == FULL
        if self.away != was_away:
            if why is None:
                logger.info("the event server %s is there", self.name)
            else:
                logger.warning("the event server %s is not to be used: %s", self.name, why)

    async def _problem(self) -> str | None:
        """Say why it must not be used, or None when it may: a write tells more than what it says of itself."""
        why = await problem(self.redis)
        if why is None:
            try:
                await self.redis.call("SET", self.keys.written, 1, "PX", WRITTEN_MS)
            except ResponseError as error:
                # No memory, a full disk, a replica, too few replicas, no right: it could only refuse, job by job.
                why = FULL if is_full(error) else f"it takes no writes ({str(error).partition(' ')[0]})"
        return why

    async def watch(self) -> None:
        """Keep `away` true, until cancelled."""
        while True:
            self._looked.clear()
            await self.look()
            wait_s = (LOOK_S if self.away else CHECK_S) * random.uniform(0.5, 1)
            try:
                async with asyncio.timeout(wait_s):
                    await self._looked.wait()
            except TimeoutError:
                continue
            # It has just failed somebody: not at once.
            await asyncio.sleep(LOOK_S * random.uniform(0.1, 0.5))


class Plane:
    """All places of one process."""

    def __init__(self, settings: Settings, home: Place, connect: Callable[[str], Multiplexer]) -> None:
        self.home = home
        keys = home.keys.on_event_servers()
        self.servers: Mapping[str, Place] = {
            name: Place(name, connect(url), keys) for name, url in settings.stream_urls.items()
        }
        self._open = [place for name, place in self.servers.items() if name not in settings.stream_closed]
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def places(self) -> list[Place]:
        return [self.home, *self.servers.values()]

    def at(self, name: str) -> Place:
        """Return the place of this name, or raise Unavailable: this process has not been told of it."""
        if name == HOME:
            return self.home
        place = self.servers.get(name)
        if place is None:
            raise Unavailable(f"REJOIN_STREAM_URLS has no {name!r}.")
        return place

    def knows(self, name: str) -> bool:
        """Say whether this process has been told of a server."""
        return name == HOME or name in self.servers

    def is_closed(self, name: str) -> bool:
        """Say whether an event server takes no new jobs any more."""
        return self.servers[name] not in self._open

    def choose(self, job_id: str) -> str:
        """Return where a new job's log is to be kept: spread by its id over the servers that are there."""
        candidates = [place for place in self._open if not place.away] or self._open
        if not candidates:
            return HOME
        return max(candidates, key=lambda place: _weight(place.name, job_id)).name

    @property
    def usable(self) -> list[str]:
        """Return the event servers on which something may be begun."""
        return [name for name, place in self.servers.items() if not place.away]

    @property
    def reachable(self) -> list[str]:
        """Return those on which something may be ended: one without memory, too."""
        return [name for name, place in self.servers.items() if place.full or not place.away]

    async def start(self) -> None:
        """Look at all event servers once, then keep looking."""
        await asyncio.gather(*[place.look() for place in self.servers.values()])
        self._tasks = [
            asyncio.create_task(place.watch(), name=f"event server {place.name}") for place in self.servers.values()
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for place in self.servers.values():
            # It is not the server that leaves.
            place.redis.on_lost = lambda: None
            await place.redis.close()


def _weight(server: str, job_id: str) -> bytes:
    """Return how much a server is a job's: the heaviest one has it (rendezvous hashing)."""
    return hashlib.blake2b(f"{server} {job_id}".encode(), digest_size=8).digest()
