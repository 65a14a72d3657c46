"""What a job costs beside its tokens: POST, subscribe, run, end, of one token, against one direct request."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from bench.client import Read, read_direct, read_ours
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import DIRECT, OURS, Rig, settle

JOBS: Final = {1: 300, 16: 1_200}
"""At once, and how many in all a turn."""

TURNS: Final = 2


async def measure(progress: Callable[[float, str], None]) -> Measured:
    sides: dict[str, tuple[Read, str, tuple[str, ...]]] = {
        "ours": (read_ours, "api", OURS),
        "direct": (read_direct, "direct", DIRECT),
    }
    figures, took_s = [], 0.0
    with Rig([*OURS, *DIRECT]) as rig:
        for read, name, _ in sides.values():
            await _run(read, rig.ports[name], 100, 16)
        for step, (at_once, jobs) in enumerate(JOBS.items()):
            used_s = dict.fromkeys(sides, 0.0)
            for turn in range(TURNS):
                for side, (read, name, parts) in sides.items():
                    progress((step + turn / TURNS) / len(JOBS), f"{side}, {at_once} at once")
                    await settle()
                    before_s, began_s = rig.cpu_s(parts), time.monotonic()
                    await _run(read, rig.ports[name], jobs, at_once)
                    if side == "ours" and at_once > 1:
                        took_s += time.monotonic() - began_s
                    await settle()
                    used_s[side] += rig.cpu_s(parts) - before_s
            each_ms = {side: used_s[side] / TURNS / jobs * 1e3 for side in sides}
            figures.append(
                Figure(
                    f"fixed cost of a job against a direct request, {at_once} at once",
                    each_ms["ours"] / each_ms["direct"],
                    "",
                    1.2,
                    note=f"{each_ms['ours']:.2f} against {each_ms['direct']:.2f} ms of CPU",
                )
            )
    figures.append(Figure("jobs of one token through one worker", TURNS * JOBS[16] / took_s, "/s", 400, at_least=True))
    return Measured(figures)


async def _run(read: Read, port: int, jobs: int, at_once: int) -> None:
    left = iter(range(jobs))

    async def go() -> None:
        for _ in left:
            await read(port, model(1))

    await asyncio.gather(*[go() for _ in range(at_once)])
