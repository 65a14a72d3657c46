"""Thousands of readers who wait: what each of them holds, and what they cost while nothing happens."""

import asyncio
from collections.abc import Callable
from typing import Final

import orjson
from redis.asyncio import Redis

from bench.client import Line, Seen, job
from bench.report import Figure, Measured
from bench.rig import Rig, settle

READERS: Final = 5_000
AT_ONCE: Final = 50
WATCH_S: Final = 21.0
"""Two heartbeats of 10 s, and a little."""


async def measure(progress: Callable[[float, str], None]) -> Measured:
    # Without a worker every job waits, and every reader reads a log of its own.
    with Rig(["api", "valkey"]) as rig:
        port = rig.ports["api"]
        first = await Line.open(port)
        for _ in range(200):
            await first.ask("POST", "/v1/jobs", job("m"))
        await settle()
        empty = rig.resident_bytes("api")
        lines: list[Line] = []
        reads: list[asyncio.Task[Seen]] = []

        async def open_some(count: int) -> None:
            for _ in range(count):
                line = await Line.open(port)
                lines.append(line)
                created = orjson.loads(await line.ask("POST", "/v1/jobs", job("m")))
                reads.append(asyncio.create_task(line.stream("GET", created["events_url"])))
                progress(len(lines) / READERS * 0.5, f"{len(lines)} readers")

        await asyncio.gather(*[open_some(READERS // AT_ONCE) for _ in range(AT_ONCE)])
        await asyncio.sleep(3)
        full = rig.resident_bytes("api")
        async with Redis(port=rig.ports["valkey"]) as redis:
            # All but this one.
            connections = len(await redis.client_list()) - 1
        for line in lines:
            line.bytes_seen = 0
        before_s = rig.cpu_s(["api"])
        for second in range(int(WATCH_S)):
            progress(0.5 + second / WATCH_S / 2, "watching them wait")
            await asyncio.sleep(1)
        share = (rig.cpu_s(["api"]) - before_s) / WATCH_S
        # A comment of seven bytes, in a chunk of its own.
        heard = sum(line.bytes_seen >= 2 * len(b": ping\n") for line in lines)
        for read in reads:
            read.cancel()
        for line in lines:
            line.close()
    what = f"{READERS:,} idle readers on one API process"
    return Measured(
        [
            Figure(
                f"{what}: memory each",
                (full - empty) / READERS / 1024,
                "KiB",
                40,
                note=f"{heard:,} of them got both heartbeats of the time",
            ),
            Figure(f"{what}: connections to Redis", connections, "", 4),
            Figure(f"{what}: share of a core", share * 100, "%", 1, note="heartbeats of 10 s included"),
        ]
    )
