"""Ever more streams, the same 2,500 tokens a second in all: CPU a token, with no job beginning or ending meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import orjson

from bench.client import Line, Seen, job
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig

STREAMS: Final = (50, 100, 200, 400, 800)
TOKENS_PER_S: Final = 2_500
WATCH_S: Final = 5.0
BEGIN_S: Final = 3.0


async def measure(progress: Callable[[float, str], None]) -> Measured:
    series: dict[str, Any] = {"streams": list(STREAMS), "us": [], "parts": {part: [] for part in OURS}}
    for done, streams in enumerate(STREAMS):
        progress(done / len(STREAMS), f"{streams} streams")
        pace_ms = streams / TOKENS_PER_S * 1000
        tokens = int((WATCH_S + 2 * BEGIN_S + 4) * 1000 / pace_ms)
        with Rig(OURS) as rig:
            port = rig.ports["api"]
            lines: list[Line] = []
            reads: list[asyncio.Task[Seen]] = []
            for _ in range(streams):
                line = await Line.open(port)
                created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(tokens, pace_ms))))
                lines.append(line)
                reads.append(asyncio.create_task(line.stream("GET", created["events_url"])))
                await asyncio.sleep(BEGIN_S / streams)
            await asyncio.sleep(1)
            before_s = {part: rig.cpu_s([part]) for part in OURS}
            before = sum(line.seen.tokens for line in lines if line.seen)
            await asyncio.sleep(WATCH_S)
            used_s = {part: rig.cpu_s([part]) - before_s[part] for part in OURS}
            seen = sum(line.seen.tokens for line in lines if line.seen) - before
            for read in reads:
                read.cancel()
            for line in lines:
                line.close()
        series["us"].append(sum(used_s.values()) / seen * 1e6)
        for part in OURS:
            series["parts"][part].append(used_s[part] / seen * 1e6)
    first, last = series["us"][0], series["us"][-1]
    return Measured(
        [
            Figure(
                "growth: CPU a token at 800 streams against 50, the same 2,500 tokens/s in all",
                last / first,
                "",
                1.3,
                note=f"{last:.0f} against {first:.0f} µs",
            )
        ],
        series,
    )
