"""All short commands of a process over one connection: sent as they come, answered in order, none waits for another.

A command whose caller has left still takes its own reply: nobody gets another's (the incident of March 2023, when
cancelled commands left their replies on pooled connections).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.exceptions import BusyLoadingError, ConnectionError, ReadOnlyError, TimeoutError

from shared.clock import mono_s
from shared.link import Link, Way

MOVED: Final = (ReadOnlyError, BusyLoadingError)
"""What a server says that was the primary, or is not ready to be."""


class Multiplexer:
    """Connects with the first command, and again after a loss.

    A server that says nothing for `timeout_s` while it owes an answer is taken for lost. One that talks, slowly, is
    not: who may not wait for it bounds that himself (`api.deadline`).
    """

    def __init__(self, way: Way, *, timeout_s: float) -> None:
        self._way = way
        self._timeout_s = timeout_s
        self._link: Link | None = None
        self._opening: asyncio.Task[Link] | None = None
        self._pending: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self.on_lost: Callable[[], None] = lambda: None
        """Called when the connection is lost."""

    async def call(self, *command: Any) -> Any:
        """Return the reply; raise what Redis says, or ConnectionError when it may or may not have run."""
        link = self._link
        if link is None:
            link = await self._open()
            if not link.open:
                raise ConnectionError("lost as soon as it was there")
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        link.send(command)
        self._pending.append((reply, mono_s()))
        if self._timer is None:
            self._watch(self._timeout_s)
        return await reply

    async def read(self, *command: Any) -> Any:
        """Return the reply to a command that changes nothing: asked once more if the connection broke."""
        try:
            return await self.call(*command)
        except ConnectionError:
            return await self.call(*command)

    def drop(self) -> None:
        """Give up the connection, and every command on it."""
        if self._link is not None:
            self._link.close()

    async def close(self) -> None:
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        self.drop()
        await self._way.close()

    async def _open(self) -> Link:
        """Return the connection; whoever comes while it is opened waits for the same one."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._way.connect(self._reply, self._lost))
            self._opening.add_done_callback(self._opened)
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if opening.cancelled():
                raise ConnectionError("closed here") from None
            raise

    def _opened(self, opening: asyncio.Task[Link]) -> None:
        self._opening = None
        if not opening.cancelled() and opening.exception() is None and opening.result().open:
            self._link = opening.result()

    def _reply(self, reply: Any) -> None:
        waiting, _ = self._pending.popleft()
        if waiting.done():
            return
        if isinstance(reply, Exception):
            waiting.set_exception(reply)
            if isinstance(reply, MOVED):
                # It is no primary any more, or not one yet: the next command finds out who is.
                asyncio.get_running_loop().call_soon(self.drop)
        else:
            waiting.set_result(reply)

    def _lost(self, error: Exception) -> None:
        """Fail everything that waits, each with an error of its own: a traceback belongs to one task."""
        self._link = None
        self.on_lost()
        pending, self._pending = self._pending, deque()
        for waiting, _ in pending:
            if not waiting.done():
                waiting.set_exception(type(error)(*error.args))
                # Whoever it was for may have left.
                waiting.exception()

    def _watch(self, delay_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._look)

    def _look(self) -> None:
        """Take a server for lost that has not answered the oldest command in time; one timer for all of them."""
        self._timer = None
        if not self._pending or self._link is None:
            return
        silent_s = mono_s() - max(self._pending[0][1], self._link.heard_s)
        if silent_s < self._timeout_s:
            self._watch(self._timeout_s - silent_s)
            return
        link = self._link
        self._lost(TimeoutError("Redis does not answer"))
        link.close()
