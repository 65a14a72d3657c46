"""The keys that open this process' door: those of the settings, and of the others those that it has met."""

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Final, Protocol

from api.deadline import deadline
from shared.clock import mono_s, wall_ms
from shared.errors import Unavailable
from shared.keyring import ApiKey, Keyring, Terms, looks_like_key
from shared.redis import REDIS_FAULTS
from shared.settings import hash_key, key_id
from shared.subscriber import Subscriber

logger = logging.getLogger(__name__)

CONFIRM_S: Final = 1.0
"""How late a revocation is noticed whose message got lost, and an expiry. One GET, however many keys."""

TRUST_S: Final = 300.0
"""How long known keys go on working while Redis is away, and nobody can say whether they are revoked."""

MOST: Final = 10_000
"""Keys that are kept in mind; only live ones are."""


class Streams(Protocol):
    """Who reads here, by key (`api.hub`)."""

    def keys(self) -> AbstractSet[str]: ...

    def cut(self, key: str) -> None: ...


class KnownKeys:
    """Asks Redis once for a key. Each message names one to forget; a mark proves, each second, that none was missed."""

    def __init__(
        self,
        settled: Mapping[bytes, str],
        keyring: Keyring,
        subscriber: Subscriber,
        streams: Streams,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        """`settled`: the owners of the keys that end with this process only, by hash."""
        keys = [ApiKey(key_id(hashed), hashed, Terms(owner=owner), 0) for hashed, owner in settled.items()]
        self._settled = {key.id: key for key in keys}
        self._keyring = keyring
        self._subscriber = subscriber
        self._streams = streams
        self._now_ms = now_ms
        self._known: dict[str, ApiKey] = {}
        self._mark: bytes | None = None
        self._confirmed_s = mono_s()
        self._changes = 0
        """Counts what was forgotten: an answer of Redis that was on its way meanwhile is not kept."""
        self._look = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._subscriber.subscribe(self._keyring.channel, self)
        self._task = asyncio.create_task(self._run(), name="known keys")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def holder(self, key: str) -> ApiKey | None:
        """Return what is known of a live key that somebody shows, or None; Unavailable as `find`."""
        hashed = hash_key(key)
        id = key_id(hashed)
        if id not in self._settled and not looks_like_key(key):
            return None
        found = await self.find(id)
        return found if found is not None and hmac.compare_digest(found.hashed, hashed) else None

    async def find(self, id: str) -> ApiKey | None:
        """Return the live key of this id, or None; Unavailable when that cannot be known just now."""
        if (settled := self._settled.get(id)) is not None:
            return settled
        key = self._known.get(id)
        if key is None or mono_s() - self._confirmed_s > TRUST_S:
            key = await self._learn(id)
        return key if key is not None and key.live(self._now_ms()) else None

    async def _learn(self, id: str) -> ApiKey | None:
        changes = self._changes
        try:
            async with deadline():
                key = await self._keyring.get(id)
        except REDIS_FAULTS:
            raise Unavailable from None
        if changes == self._changes:
            if key is not None and key.live(self._now_ms()):
                self._known[id] = key
                if len(self._known) > MOST:
                    del self._known[next(iter(self._known))]
            else:
                self._known.pop(id, None)
        return key

    # From the subscriber.

    def message(self, payload: bytes) -> None:
        """Forget a key that was revoked, and cut off whoever reads by it."""
        id = payload.decode("utf-8", "replace")
        self._changes += 1
        self._known.pop(id, None)
        self._streams.cut(id)

    def gap(self) -> None:
        """Look at once whether a key was revoked meanwhile."""
        self._look.set()

    async def _run(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONFIRM_S):
                    await self._look.wait()
            self._look.clear()
            try:
                with suppress(*REDIS_FAULTS, Unavailable):
                    await self._confirm()
                await self._cut_dead()
            except Exception:
                logger.exception("known keys were not looked at")

    async def _confirm(self) -> None:
        """Forget everything if a key was revoked since the last time; what is still used is asked for again."""
        asked_s = mono_s()
        async with deadline():
            mark = await self._keyring.last_change()
        if mark != self._mark:
            self._mark = mark
            self._changes += 1
            self._known.clear()
        self._confirmed_s = asked_s

    async def _cut_dead(self) -> None:
        """Cut off whoever reads by a key that has ended; while Redis is away, only by one known to have expired."""
        away = False
        for id in self._streams.keys() - self._settled.keys():
            key = self._known.get(id)
            if key is None and not away:
                try:
                    key = await self._learn(id)
                except Unavailable:
                    away = True
                else:
                    if key is None:
                        self._streams.cut(id)
            if key is not None and not key.live(self._now_ms()):
                self._streams.cut(id)
