"""Redis alone: CPU of a stream's opening, by how many API processes there are: each one's word is asked for."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

from bench.report import Figure, Measured
from bench.rig import Rig
from shared.keys import Keys
from shared.redis import Scripts, connect
from shared.streams import Bid, OpenStreams

PROCESSES: Final = (1, 16, 64, 256)
OPENINGS: Final = 5_000
IN_FLIGHT: Final = 8
OWNERS: Final = 200
LONG_MS: Final = 600_000


async def measure(progress: Callable[[float, str], None]) -> Measured:
    series: dict[str, Any] = {"processes": list(PROCESSES), "us": []}
    for done, processes in enumerate(PROCESSES):
        progress(done / len(PROCESSES), f"{processes} API processes")
        with Rig(["valkey"]) as rig:
            redis = connect(f"redis://127.0.0.1:{rig.ports['valkey']}/0", timeout_s=30)
            scripts = Scripts(redis)
            await scripts.load()
            streams = OpenStreams(scripts, Keys("rejoin"))
            await _open(streams, processes, processes * 10)
            before_s = rig.cpu_s(["valkey"])
            await _open(streams, processes, OPENINGS)
            series["us"].append((rig.cpu_s(["valkey"]) - before_s) / OPENINGS * 1e6)
            await redis.close()
    return Measured(
        [
            Figure(f"CPU of Redis for a stream's opening, API processes: {processes}", cost, "µs")
            for processes, cost in zip(PROCESSES, series["us"], strict=True)
        ],
        series,
    )


async def _open(streams: OpenStreams, processes: int, openings: int) -> None:
    left = iter(range(openings))

    async def go() -> None:
        for number in left:
            bid = Bid(f"{number % processes:016x}", 1, 1_000_000, LONG_MS)
            assert await streams.open(f"owner{number % OWNERS}", bid)

    await asyncio.gather(*[go() for _ in range(IN_FLIGHT)])
