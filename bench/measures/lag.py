"""From the provider's write of a token to a reader's socket; streams of 50 tokens a second, one API, one worker."""

from collections.abc import Callable
from typing import Any, Final

from bench.client import crowd, lags_ms, percentile, read_direct, read_ours
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import DIRECT, OURS, Rig, settle

STREAMS: Final = (10, 50, 100, 150, 200, 300)
JUDGED: Final = 150
DIRECT_UP_TO: Final = 150


async def measure(progress: Callable[[float, str], None]) -> Measured:
    series: dict[str, Any] = {"streams": list(STREAMS), "ours": [], "direct": []}
    with Rig([*OURS, *DIRECT]) as rig:
        for done, streams in enumerate(STREAMS):
            progress(done / len(STREAMS), f"{streams} streams")
            for side, read, name in (("ours", read_ours, "api"), ("direct", read_direct, "direct")):
                if side == "direct" and streams > DIRECT_UP_TO:
                    continue
                await crowd(read, rig.ports[name], model(20, 20), 8, 0.1)
                seen = await crowd(read, rig.ports[name], model(200, 20), streams, 1.0)
                lags = lags_ms(seen)
                series[side].append([percentile(lags, 0.5), percentile(lags, 0.99)])
                await settle()
    p50, p99 = series["ours"][STREAMS.index(JUDGED)]
    direct = series["direct"][STREAMS.index(JUDGED)]
    what = f"provider's token to reader's socket, {JUDGED} streams × 50 tokens/s"
    return Measured(
        [
            Figure(f"{what}, p50", p50, "ms", 8, note=f"direct {direct[0]:.0f}"),
            Figure(f"{what}, p99", p99, "ms", 25, note=f"direct {direct[1]:.0f}"),
        ],
        series,
    )
