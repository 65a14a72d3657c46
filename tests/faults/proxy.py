"""A TCP proxy that fails on demand, between our processes and Redis or a provider.

One Proxy is one listener: give one worker a proxy of its own, and it alone can be cut off.

    async with Proxy(valkey.port) as proxy:
        worker = await stack.worker_process(REDIS_URL=proxy.url)
        lost = proxy.lose_reply(await sha(stack.commands, "finish"))
        ...
        await lost.happened()               # the script ran, its reply never came
"""

import asyncio
import random
from typing import Self

from shared.redis import Multiplexer, Scripts

CHUNK = 65_536


async def sha(redis: Multiplexer, script: str) -> bytes:
    """Return what one of our scripts is called on the wire."""
    scripts = Scripts(redis)
    await scripts.load()
    return scripts.sha(script).encode()


class Trap:
    """Waits for a request with these bytes, then loses the reply, or holds the request until it is let go."""

    def __init__(self, match: bytes, *, hold: bool) -> None:
        self.match = match
        self.hold = hold
        self.dropped = False
        self.sprung = asyncio.Event()
        self.released = asyncio.Event()

    async def happened(self, timeout_s: float = 5.0) -> None:
        """Return when the reply has been lost, or the request has come. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            await self.sprung.wait()

    def release(self) -> None:
        """Let go what is held."""
        self.released.set()

    def drop(self) -> None:
        """Reset the connection in place of forwarding what is held: it was never sent."""
        self.dropped = True
        self.released.set()


class Proxy:
    """Forwards to a port on loopback, as long as nothing else is asked for."""

    def __init__(self, target_port: int, *, seed: int = 0) -> None:
        self.port = 0
        self.latency_s = 0.0
        self.jitter_s = 0.0
        """Each chunk waits `latency_s` ± `jitter_s`, in both directions; order is kept."""
        self.opened = 0
        """How many connections were accepted so far."""
        self._target_port = target_port
        self._random = random.Random(seed)
        self._passing = asyncio.Event()
        self._passing.set()
        self._traps: list[Trap] = []
        self._open: dict[asyncio.Task[None] | None, list[asyncio.StreamWriter]] = {}
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.accept()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        tasks = [task for task in self._open if task is not None]
        for trap in self._traps:
            trap.drop()
        self.heal()
        if tasks:
            await asyncio.wait(tasks, timeout=2)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def accept(self) -> None:
        """Take connections (again), on the same port."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=CHUNK)
            self.port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse connections from now on, and cut those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    def cut(self) -> None:
        """Abort all connections; new ones are welcome."""
        for writers in list(self._open.values()):
            for writer in writers:
                writer.transport.abort()

    def black_hole(self) -> None:
        """Accept everything and forward nothing, on open connections too."""
        self._passing.clear()

    def heal(self) -> None:
        """Forward again, what waited first."""
        self._passing.set()

    def lose_reply(self, match: bytes) -> Trap:
        """Abort the next connection on which a request with these bytes has been answered, in place of the answer."""
        self._traps.append(Trap(match, hold=False))
        return self._traps[-1]

    def hold(self, match: bytes) -> Trap:
        """Hold the next request with these bytes, and whatever comes behind it on its connection, until released."""
        self._traps.append(Trap(match, hold=True))
        return self._traps[-1]

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened += 1
        writers = self._open[asyncio.current_task()] = [writer]
        pumps: list[asyncio.Task[None]] = []
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port, limit=CHUNK)
            writers.append(back)
            caught: list[Trap] = []
            pumps.append(asyncio.create_task(self._pump(reader, back, caught, request=True)))
            pumps.append(asyncio.create_task(self._pump(there, writer, caught, request=False)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in writers:
                end.transport.abort()
            del self._open[asyncio.current_task()]

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, caught: list[Trap], *, request: bool
    ) -> None:
        seen = b""
        while chunk := await source.read(CHUNK):
            if self.latency_s:
                await asyncio.sleep(max(0.0, self.latency_s + self._random.uniform(-1, 1) * self.jitter_s))
            if request:
                seen = seen[-100:] + chunk
                for trap in [trap for trap in self._traps if trap.match in seen]:
                    self._traps.remove(trap)
                    seen = b""
                    if not trap.hold:
                        caught.append(trap)
                        continue
                    trap.sprung.set()
                    await trap.released.wait()
                    if trap.dropped:
                        return
            elif caught:
                caught.pop().sprung.set()
                return
            await self._passing.wait()
            sink.write(chunk)
            await sink.drain()
