"""What the first token of a lone stream waits longer than with direct streaming, and how soon a provider is called."""

import asyncio
from collections.abc import Callable
from typing import Final

from bench.client import Read, Seen, percentile, read_direct, read_ours, read_ours_at_once
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import DIRECT, OURS, Rig

ROUNDS: Final = 100
PAUSE_S: Final = 0.05


async def measure(progress: Callable[[float, str], None]) -> Measured:
    sides: dict[str, tuple[Read, str]] = {
        "direct": (read_direct, "direct"),
        "one request": (read_ours_at_once, "api"),
        "two requests": (read_ours, "api"),
    }
    seen: dict[str, list[Seen]] = {side: [] for side in sides}
    with Rig([*OURS, *DIRECT]) as rig:
        for turn in range(ROUNDS + 5):
            progress(turn / ROUNDS, "one after the other")
            for side, (read, name) in sides.items():
                await asyncio.sleep(PAUSE_S)
                one = await read(rig.ports[name], model(3, 5))
                if turn >= 5:
                    seen[side].append(one)
    ttft_ms = {side: [one.ttft_s * 1e3 for one in seen[side]] for side in sides}
    base = percentile(ttft_ms["direct"], 0.5)
    # What the provider stamps its first token with is when it has seen the request, give or take its own turn.
    called_ms = [one.ttft_s * 1e3 - one.lags_ns[0] / 1e6 for one in seen["one request"]]
    return Measured(
        [
            Figure(
                "TTFT added to direct's, 1 stream, POST that streams, p50",
                percentile(ttft_ms["one request"], 0.5) - base,
                "ms",
                3,
                note=f"direct {base:.1f}",
            ),
            Figure("the same by POST and subscription, p50", percentile(ttft_ms["two requests"], 0.5) - base, "ms", 3),
            Figure("idle system: POST to the provider's first word, p50", percentile(called_ms, 0.5), "ms", 5),
        ]
    )
