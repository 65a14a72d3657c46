"""One connection that listens to any number of channels and comes back by itself."""

import asyncio
import logging
import random
from contextlib import suppress
from typing import Any, Final, Protocol

from shared.clock import mono_s
from shared.link import Link
from shared.redis import REDIS_FAULTS, ConnectionError, way_to

logger = logging.getLogger(__name__)

RECONNECT_FIRST_S: Final = 0.05
RECONNECT_LONGEST_S: Final = 1.0
PING_S: Final = 5.0
LEAVE_S: Final = 0.02
"""How long a channel that nobody wants any more is still listened to: who leaves goes with whoever comes meanwhile."""

SILENCE_S: Final = 12.0
"""A connection on which not even a PING is answered for so long is dead, whatever TCP says."""


class Listener(Protocol):
    def message(self, payload: bytes) -> None:
        """Take one message."""

    def gap(self) -> None:
        """Messages may have been missed up to now; those that come from here on will not be."""


class Subscriber:
    """Hands each message of a channel to its listener, and owns up to gaps.

    Messages are wake-ups: a listener reads what it missed from where it is kept.
    """

    def __init__(self, url: str) -> None:
        self._way = way_to(url)
        self._listeners: dict[bytes, Listener] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._heard: set[bytes] = set()
        """What Redis has confirmed on this connection, and we have not left since."""
        self._on_wire: set[bytes] = set()
        """What has been sent as SUBSCRIBE on this connection, and not as UNSUBSCRIBE since."""
        self._link: Link | None = None
        self._changed = False
        self._leaving: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="subscriber")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._way.close()

    def subscribe(self, channel: str, listener: Listener) -> asyncio.Future[None]:
        """Listen to a channel; the future is done when Redis has confirmed that nothing is missed any more."""
        name = channel.encode()
        self._listeners[name] = listener
        confirmed = self._confirmed.setdefault(name, asyncio.get_running_loop().create_future())
        if name in self._heard and not confirmed.done():
            # Unsubscribed a moment ago, and the connection has not been told yet: it listens still.
            confirmed.set_result(None)
        self._change()
        return confirmed

    def unsubscribe(self, channel: str) -> None:
        """Stop listening; what still comes is dropped."""
        name = channel.encode()
        self._listeners.pop(name, None)
        if (confirmed := self._confirmed.pop(name, None)) is not None:
            confirmed.cancel()
        if self._link is not None and self._leaving is None:
            self._leaving = asyncio.get_running_loop().call_later(LEAVE_S, self._sync)

    async def _run(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            try:
                await self._listen()
            except REDIS_FAULTS as fault:
                logger.warning("subscriptions cut (%s), reconnecting", type(fault).__name__)
                if self._link is not None:
                    delay_s = RECONNECT_FIRST_S
            finally:
                if self._link is not None:
                    self._link.close()
                self._link = None
                self._on_wire.clear()
                self._heard.clear()
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RECONNECT_LONGEST_S)

    async def _listen(self) -> None:
        """Connect and listen until the connection is lost, asking now and then whether the other side is there."""
        lost = asyncio.Event()
        self._link = link = await self._way.connect(self._take, lambda _: lost.set())
        self._sync()
        while True:
            with suppress(asyncio.TimeoutError):
                async with asyncio.timeout(PING_S):
                    await lost.wait()
            if not link.open:
                raise ConnectionError("connection lost")
            if mono_s() - link.heard_s > SILENCE_S:
                raise ConnectionError("not even a PING is answered")
            link.send(("PING",))

    def _change(self) -> None:
        """Tell Redis what is wanted, in one command for all that changes in this turn of the loop."""
        if self._link is not None and not self._changed:
            self._changed = True
            asyncio.get_running_loop().call_soon(self._sync)

    def _sync(self) -> None:
        """Keep what is subscribed at Redis the same as what is wanted here."""
        self._changed = False
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if (link := self._link) is None:
            return
        wanted = self._listeners.keys()
        dropped, added = self._on_wire - wanted, wanted - self._on_wire
        self._on_wire = set(wanted)
        self._heard -= dropped
        for command, names in (("UNSUBSCRIBE", dropped), ("SUBSCRIBE", added)):
            if names:
                link.send((command, *names))

    def _take(self, reply: Any) -> None:
        """Take one reply: a PING's has two parts, an UNSUBSCRIBE's is nobody's business."""
        if isinstance(reply, Exception):
            # An ACL without this channel, say: readers then look into the log once a second.
            logger.error("Redis refuses a subscription: %s", reply)
            return
        if not isinstance(reply, list) or len(reply) != 3:
            return
        kind, name, payload = reply
        if kind == b"message":
            if (listener := self._listeners.get(name)) is not None:
                listener.message(payload)
        elif kind == b"subscribe" and name in self._on_wire:
            self._heard.add(name)
            if (confirmed := self._confirmed.get(name)) is None:
                # It was left meanwhile, of which the connection has not been told yet.
                return
            if confirmed.done():
                self._listeners[name].gap()
            else:
                confirmed.set_result(None)
