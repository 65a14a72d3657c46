"""64 deltas of 16 bytes at 20 ms, by ever more streams, everything (readers and provider too) on the same cores."""

from collections.abc import Callable
from typing import Final

from bench.client import crowd, percentile, read_ours_at_once, read_provider
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig, settle

DELTAS: Final = 64
PACE_MS: Final = 20
GOALS: Final = {1: 20, 128: 60, 256: 200, 512: None}
"""Streams, and what may be added to the provider's own TTFT at p99, in ms."""

BEGIN_OVER_S: Final = DELTAS * PACE_MS / 1000
"""The time of one answer: all of them overlap, and the readers do not come as one."""


async def measure(progress: Callable[[float, str], None]) -> Measured:
    figures = []
    for done, (streams, goal) in enumerate(GOALS.items()):
        progress(done / len(GOALS), f"{streams} streams")
        ttft_ms, delivered = {}, 0
        turns = 20 if streams == 1 else 1
        with Rig(OURS) as rig:
            for side, read, name in (("provider", read_provider, "provider"), ("ours", read_ours_at_once, "api")):
                await crowd(read, rig.ports[name], model(8, 5), 32, 0.2)
                await settle()
                seen = [
                    one
                    for turn in range(turns)
                    for one in await crowd(
                        read, rig.ports[name], model(DELTAS, PACE_MS), streams, BEGIN_OVER_S if streams > 1 else 0, turn
                    )
                ]
                ttft_ms[side] = percentile([one.ttft_s * 1e3 for one in seen], 0.99)
                delivered = sum(one.tokens for one in seen)
            share = delivered / (streams * turns * DELTAS)
        what = f"64 deltas at 20 ms, {streams} stream{'s' if streams > 1 else ''}"
        figures.append(Figure(f"{what}: TTFT added, p99", ttft_ms["ours"] - ttft_ms["provider"], "ms", goal))
        figures.append(Figure(f"{what}: deltas delivered", share * 100, "%", 100, at_least=True))
    return Measured(figures)
