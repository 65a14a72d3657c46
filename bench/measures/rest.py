"""What a process holds and uses while nobody asks it anything."""

import asyncio
from collections.abc import Callable
from typing import Final

from bench.report import Figure, Measured
from bench.rig import OURS, Rig

WATCH_S: Final = 5.0


async def measure(progress: Callable[[float, str], None]) -> Measured:
    with Rig(OURS) as rig:
        progress(0.2, "at rest")
        await asyncio.sleep(2)
        before_s = {part: rig.cpu_s([part]) for part in OURS}
        await asyncio.sleep(WATCH_S)
        used = {part: (rig.cpu_s([part]) - before_s[part]) / WATCH_S * 100 for part in OURS}
        held = {part: rig.resident_bytes(part) / 2**20 for part in OURS}
    return Measured(
        [
            Figure("API process at rest: memory", held["api"], "MiB", 90),
            Figure("worker at rest: memory", held["worker"], "MiB"),
            Figure("API, worker and Valkey at rest: share of a core", sum(used.values()), "%"),
        ]
    )
