"""Many readers of one stream: CPU of the API a delivered event."""

import asyncio
from collections.abc import Callable
from typing import Final

import orjson

from bench.client import Line, Seen, job
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig

READERS: Final = 50
TOKENS: Final = 400


async def measure(progress: Callable[[float, str], None]) -> Measured:
    with Rig(OURS) as rig:
        progress(0.1, "50 readers, one stream")
        port = rig.ports["api"]
        lines = [await Line.open(port) for _ in range(READERS)]
        created = orjson.loads(await lines[0].ask("POST", "/v1/jobs", job(model(TOKENS, 20, ttft_ms=1000))))
        reads = [asyncio.create_task(line.stream("GET", created["events_url"])) for line in lines]
        await asyncio.sleep(0.7)
        before_s = rig.cpu_s(["api"])
        seen: list[Seen] = await asyncio.gather(*reads)
        used_s = rig.cpu_s(["api"]) - before_s
        for line in lines:
            line.close()
    events = sum(one.events for one in seen)
    return Measured(
        [
            Figure(
                "50 readers of one stream: CPU of the API a delivered event",
                used_s / events * 1e6,
                "µs",
                20,
                note=f"{events:,} events",
            )
        ]
    )
