"""Where a service's primary is: asked of its sentinels for each connection, and watched while the connection lasts.

Sentinels that are down, slow or behind are passed over. None of them is believed alone: the server itself has to say
that it is a primary, and what one sentinel tells is not undone by another that has not heard of it yet.
"""

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final, NamedTuple

from redis.asyncio import BlockingConnectionPool
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelManagedConnection, SentinelManagedSSLConnection
from redis.exceptions import ConnectionError

from shared.address import Address
from shared.link import CONNECT_TIMEOUT_S, REDIS_FAULTS, Direct, Link, OnLost, OnReply
from shared.multiplexer import Multiplexer

logger = logging.getLogger(__name__)

PATIENCE_S: Final = 0.1
"""How long one sentinel may take before the next one is asked beside it."""

WATCH_S: Final = 0.5
"""Between two looks at whether the primary is still the one that we are connected to.

A primary that dies cuts its connections, and sentinels cut those of one that they demote. This is for the others: one
that is cut off from us, say, and would be waited for.
"""


class Primary(NamedTuple):
    """Where a sentinel says that the primary is."""

    epoch: int
    """Of which fail-over it has heard last: what is told with a lower number is out of date. 0: it did not say."""
    host: str
    port: int

    @property
    def at(self) -> tuple[str, int]:
        return self.host, self.port


class Sentinels:
    """The way to a service's primary."""

    def __init__(self, address: Address) -> None:
        self._server = address.server
        self._service = address.service
        self._sentinels = [Multiplexer(Direct(where), timeout_s=CONNECT_TIMEOUT_S) for where in address.sentinels]
        """The one that answered last comes first."""
        self._epoch = 0
        self._useless: Exception | None = None
        """Why a sentinel did not help, lately."""
        self._watching: asyncio.Task[None] | None = None

    async def connect(self, on_reply: OnReply, on_lost: OnLost) -> Link:
        """Return a connection to the primary, and cut it once the sentinels name another one."""
        fault: Exception | None = None
        tried = set()
        async with aclosing(self._primaries()) as primaries:
            async for primary in primaries:
                if primary.at in tried:
                    continue
                tried.add(primary.at)
                where = {**self._server, "host": primary.host, "port": primary.port}
                try:
                    link = await Link.at(where, on_reply, on_lost, primary=True)
                except REDIS_FAULTS as error:
                    # Not yet, or no more: another sentinel may know better.
                    fault = error
                    continue
                self._follow(link, primary)
                return link
        raise fault or self._nobody()

    async def find(self) -> tuple[str, int]:
        """Return where the primary is, by what one sentinel says. Raises ConnectionError."""
        try:
            async with aclosing(self._primaries()) as primaries:
                async for primary in primaries:
                    return primary.at
        finally:
            await self.close()
        raise self._nobody()

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        for sentinel in self._sentinels:
            await sentinel.close()

    def _nobody(self) -> ConnectionError:
        return ConnectionError(f"no sentinel says where the primary is ({self._useless})")

    def _follow(self, link: Link, primary: Primary) -> None:
        if self._watching is not None:
            self._watching.cancel()
        self._epoch = primary.epoch
        self._watching = asyncio.create_task(self._watch(link, primary), name="watches who is the primary")

    async def _watch(self, link: Link, primary: Primary) -> None:
        while link.open:
            await asyncio.sleep(WATCH_S)
            try:
                async with aclosing(self._answers()) as answers:
                    now = await anext(answers, primary)
            except REDIS_FAULTS as error:
                logger.warning("sentinels not asked (%s)", type(error).__name__)
                continue
            newer = now.epoch > self._epoch or now.epoch == self._epoch == 0
            self._epoch = max(self._epoch, now.epoch)
            if now.at != primary.at and newer and link.open:
                logger.warning("another server is the primary now: this one is left")
                link.close("the sentinels name another primary")

    async def _primaries(self) -> AsyncGenerator[Primary]:
        """Yield where the primary may be; last what is out of date, as sentinels may have been set up anew."""
        old = []
        async with aclosing(self._answers()) as answers:
            async for primary in answers:
                if primary.epoch < self._epoch:
                    old.append(primary)
                else:
                    yield primary
        for primary in sorted(old, reverse=True):
            yield primary

    async def _answers(self) -> AsyncGenerator[Primary]:
        """Yield what each sentinel says, as it comes. One that is slow does not hold up the next."""
        waiting = list(self._sentinels)
        asked: dict[asyncio.Task[Primary], Multiplexer] = {}
        try:
            while waiting or asked:
                if waiting:
                    sentinel = waiting.pop(0)
                    asked[asyncio.create_task(self._ask(sentinel))] = sentinel
                patience_s = PATIENCE_S if waiting else None
                done, _ = await asyncio.wait(asked, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    sentinel = asked.pop(task)
                    try:
                        primary = task.result()
                    except REDIS_FAULTS as error:
                        self._useless = error
                        continue
                    self._sentinels.remove(sentinel)
                    self._sentinels.insert(0, sentinel)
                    yield primary
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, sentinel: Multiplexer) -> Primary:
        """Ask one sentinel. Raises one of REDIS_FAULTS, also when it does not know the service."""
        found: Any
        told: Any
        found, told = await asyncio.gather(
            sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service),
            sentinel.call("SENTINEL", "MASTER", self._service),
            return_exceptions=True,
        )
        if isinstance(found, BaseException):
            raise found
        try:
            host, port = found
            return Primary(_epoch(told), host.decode(), int(port))
        except (TypeError, ValueError):
            raise ConnectionError("knows no such service") from None


def _epoch(told: Any) -> int:
    try:
        return int(dict(zip(told[::2], told[1::2], strict=True))[b"config-epoch"])
    except (KeyError, TypeError, ValueError):
        return 0


class PoolOfPrimary(BlockingConnectionPool):
    """A pool of redis-py's connections to the primary: they ask it where that is, and leave one that is read-only."""

    is_master = True
    check_connection = False

    def __init__(self, sentinels: Sentinels, options: dict[str, Any]) -> None:
        secure = options.get("connection_class") is SSLConnection
        kind = SentinelManagedSSLConnection if secure else SentinelManagedConnection
        super().__init__(**{**options, "connection_class": kind, "connection_pool": weakref.proxy(self)})
        self._sentinels = sentinels

    async def get_master_address(self) -> tuple[str, int]:
        return await self._sentinels.find()
