"""Redis alone at full speed: CPU of one server for a log's append, by how many logs a call is for and who listens.

The script and its arguments are the workers' own (`shared/log.py`); the append-only file is on.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis

from bench.report import Figure, Measured
from bench.rig import Rig
from shared.events import EventId, text_data
from shared.keys import Keys
from shared.log import Append, Log
from shared.redis import Scripts, connect

LOGS: Final = 256
CALLS_LOGS: Final = (1, 4, 16, 64)
EVENTS: Final = 64_000
IN_FLIGHT: Final = 8
"""Calls on their way at once: the server never waits for the client."""

TEXT: Final = text_data("word ")


async def measure(progress: Callable[[float, str], None]) -> Measured:
    keys = Keys("rejoin")
    series: dict[str, Any] = {"logs": list(CALLS_LOGS), "alone": [], "heard": []}
    for done, per_call in enumerate(CALLS_LOGS):
        progress(done / len(CALLS_LOGS), f"{per_call} logs a call")
        with Rig(["valkey"]) as rig:
            port = rig.ports["valkey"]
            async with Redis(port=port) as redis:
                multiplexer = connect(f"redis://127.0.0.1:{port}/0", timeout_s=30)
                for number in range(LOGS):
                    await multiplexer.call("HSET", keys.job(f"job{number}"), "worker", "w")
                    for id, event in (("0-1", "queued"), ("1-0", "started")):
                        await multiplexer.call("XADD", keys.log(f"job{number}"), id, event, "{}")
                scripts = Scripts(multiplexer)
                await scripts.load()
                driver = _Driver(Log(multiplexer, scripts, keys), per_call)
                await driver.append(EVENTS // 4)
                series["alone"].append(await driver.cost_us(rig, EVENTS))
                async with redis.pubsub() as ears:
                    await ears.subscribe(*[keys.log(f"job{number}") for number in range(LOGS)])
                    hearing = asyncio.create_task(_hear(ears))
                    series["heard"].append(await driver.cost_us(rig, EVENTS))
                    hearing.cancel()
                await multiplexer.close()
    figures = [
        Figure(
            f"Redis at full speed, {logs} log{'s' if logs > 1 else ''} a call: CPU of an event's append",
            heard,
            "µs",
            note=f"{alone:.1f} when no API process listens",
        )
        for logs, alone, heard in zip(CALLS_LOGS, series["alone"], series["heard"], strict=True)
    ]
    return Measured(figures, series)


class _Driver:
    """Appends to one log after another, in calls of so many logs."""

    def __init__(self, log: Log, per_call: int) -> None:
        self._log = log
        self._per_call = per_call
        self._seq = [0] * LOGS
        self._next = 0

    async def cost_us(self, rig: Rig, events: int) -> float:
        before_s = rig.cpu_s(["valkey"])
        await self.append(events)
        return (rig.cpu_s(["valkey"]) - before_s) / events * 1e6

    async def append(self, events: int) -> None:
        calls = iter(range(events // self._per_call))

        async def go() -> None:
            for _ in calls:
                results = await self._log.append([self._one() for _ in range(self._per_call)])
                assert all(results)

        await asyncio.gather(*[go() for _ in range(IN_FLIGHT)])

    def _one(self) -> Append:
        number = self._next
        self._next = (number + 1) % LOGS
        self._seq[number] += 1
        seq = self._seq[number]
        return Append(f"job{number}", "w", EventId(1, seq), seq + 1, [("token", TEXT)])


async def _hear(ears: Any) -> None:
    while True:
        await ears.get_message(timeout=1)
