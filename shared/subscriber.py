"""One connection that listens to any number of channels and comes back by itself."""

import asyncio
import logging
import random
from typing import Final, Protocol

from shared.clock import mono_s
from shared.redis import REDIS_FAULTS, ConnectionError, new_connection

logger = logging.getLogger(__name__)

RECONNECT_FIRST_S: Final = 0.05
RECONNECT_LONGEST_S: Final = 1.0
CONNECT_S: Final = 2.0
PING_S: Final = 5.0
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
        self._connection = new_connection(url)
        self._listeners: dict[bytes, Listener] = {}
        self._confirmed: dict[bytes, asyncio.Future[None]] = {}
        self._on_wire: set[bytes] = set()
        """What has been sent as SUBSCRIBE on this connection, and not as UNSUBSCRIBE since."""
        self._heard: set[bytes] = set()
        """What of it Redis has confirmed."""
        self._changed = asyncio.Event()
        self._heard_s = mono_s()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="subscriber")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def subscribe(self, channel: str, listener: Listener) -> asyncio.Future[None]:
        """Listen to a channel; the future is done when Redis has confirmed that nothing is missed any more."""
        name = channel.encode()
        self._listeners[name] = listener
        confirmed = self._confirmed.setdefault(name, asyncio.get_running_loop().create_future())
        if name in self._heard and not confirmed.done():
            # Unsubscribed a moment ago, and the connection has not been told yet: it listens still.
            confirmed.set_result(None)
        self._changed.set()
        return confirmed

    def unsubscribe(self, channel: str) -> None:
        """Stop listening; what still comes is dropped."""
        name = channel.encode()
        self._listeners.pop(name, None)
        if (confirmed := self._confirmed.pop(name, None)) is not None:
            confirmed.cancel()
        self._changed.set()

    async def _run(self) -> None:
        delay_s = RECONNECT_FIRST_S
        while True:
            try:
                async with asyncio.timeout(CONNECT_S):
                    await self._connection.connect()  # type: ignore[no-untyped-call]
                self._heard_s, delay_s = mono_s(), RECONNECT_FIRST_S
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(self._write())
                    tasks.create_task(self._read())
                    tasks.create_task(self._ping())
            except* REDIS_FAULTS as faults:
                logger.warning("subscriptions cut (%s), reconnecting", type(faults.exceptions[0]).__name__)
            finally:
                self._on_wire.clear()
                self._heard.clear()
                await self._connection.disconnect(nowait=True)
            await asyncio.sleep(delay_s * random.uniform(0.5, 1))
            delay_s = min(delay_s * 2, RECONNECT_LONGEST_S)

    async def _write(self) -> None:
        """Keep what is subscribed at Redis the same as what is wanted here."""
        while True:
            self._changed.clear()
            wanted = set(self._listeners)
            dropped, added = self._on_wire - wanted, wanted - self._on_wire
            self._on_wire = wanted
            self._heard -= dropped
            for command, names in (("UNSUBSCRIBE", dropped), ("SUBSCRIBE", added)):
                if names:
                    await self._connection.send_command(command, *names)
            await self._changed.wait()

    async def _ping(self) -> None:
        """Keep asking whether the other side is there, however busy or quiet the line is."""
        while True:
            await asyncio.sleep(PING_S)
            if mono_s() - self._heard_s > SILENCE_S:
                raise ConnectionError("not even a PING is answered")
            await self._connection.send_command("PING")

    async def _read(self) -> None:
        while True:
            kind, name, payload = await self._next()
            if kind == b"message":
                if (listener := self._listeners.get(name)) is not None:
                    listener.message(payload)
            elif kind == b"subscribe" and (confirmed := self._confirmed.get(name)) is not None:
                self._heard.add(name)
                if confirmed.done():
                    self._listeners[name].gap()
                else:
                    confirmed.set_result(None)

    async def _next(self) -> tuple[bytes, bytes, bytes]:
        while True:
            reply = await self._connection.read_response(disable_decoding=True)
            self._heard_s = mono_s()
            if isinstance(reply, list) and len(reply) == 3:
                return reply[0], reply[1], reply[2]
