"""Streams of 50 tokens a second that one core holds before p99 lag passes 100 ms; readers and provider on the other."""

import os
from collections.abc import Callable
from typing import Any, Final

from bench.client import Read, crowd, lags_ms, percentile, read_direct, read_ours
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import DIRECT, OURS, Rig, settle

LIMIT_MS: Final = 100
TOKENS: Final = 350
PACE_S: Final = 0.02
BEGIN_OVER_S: Final = 4.0
"""Behind this, and half a second, lags are judged, until the first stream ends: while all run."""
FIRST: Final = {"direct": 20, "ours": 80}
STEP: Final = 1.25
"""Each try has a quarter more streams than the one before, on both sides: the ratio is that coarse."""

MOST: Final = 700


async def measure(progress: Callable[[float, str], None]) -> Measured:
    held: dict[str, int] = {}
    series: dict[str, Any] = {"limit_ms": LIMIT_MS}
    everywhere = os.sched_getaffinity(0)
    cores = sorted(everywhere)[:2]
    sides: dict[str, tuple[Read, str, tuple[str, ...]]] = {
        "direct": (read_direct, "direct", DIRECT),
        "ours": (read_ours, "api", OURS),
    }
    os.sched_setaffinity(0, {cores[-1]})
    try:
        for side, (read, name, parts) in sides.items():
            held[side] = 0
            points: list[tuple[int, float]] = []
            streams = FIRST[side]
            misses = 0
            while streams <= MOST and misses < 2:
                progress(min(0.99, len(points) / 8 / 2 + (side == "ours") / 2), f"{side}, {streams} streams")
                with Rig(parts, pins={**dict.fromkeys(parts, cores[0]), "provider": cores[-1]}) as rig:
                    await crowd(read, rig.ports[name], model(20, 20), 16, 0.2)
                    await settle()
                    seen = await crowd(
                        read,
                        rig.ports[name],
                        model(TOKENS, 20),
                        streams,
                        BEGIN_OVER_S,
                        judged_s=(BEGIN_OVER_S + 0.5, TOKENS * PACE_S),
                    )
                p99 = percentile(lags_ms(seen), 0.99)
                points.append((streams, p99))
                misses = misses + 1 if p99 > LIMIT_MS else 0
                if p99 <= LIMIT_MS:
                    held[side] = streams
                streams = round(streams * STEP)
            series[side] = points
    finally:
        os.sched_setaffinity(0, everywhere)
    return Measured(
        [
            Figure(
                "streams held before p99 lag passes 100 ms, one core, against direct",
                held["ours"] / max(1, held["direct"]),
                "×",
                4,
                at_least=True,
                note=f"{held['ours']} against {held['direct']}",
            )
        ],
        series,
    )
