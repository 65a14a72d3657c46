"""CPU a token, all processes added up, against direct streaming; streams of 50 tokens a second, jobs of 200 tokens."""

from collections import defaultdict
from collections.abc import Callable
from typing import Final

from bench.client import crowd, read_direct, read_ours
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import DIRECT, OURS, Rig, settle

TOKENS: Final = 200
PACE_MS: Final = 20
ROUNDS: Final = {1: 3, 10: 2, 50: 2, 100: 1, 150: 1}
"""Streams at once, and how often each side has its turn."""

JUDGED: Final = 50
GOALS: Final = {1: 1.5, 10: 0.6, 50: 0.3}
BEGIN_OVER_S: Final = 1.0
AFTERMATH_S: Final = 13.0
"""Longer than the ten seconds after which ended logs are compacted."""


async def measure(progress: Callable[[float, str], None]) -> Measured:
    used: dict[str, dict[int, float]] = defaultdict(lambda: defaultdict(float))
    tokens: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    sides = {
        "ours": (read_ours, "api", OURS),
        "direct": (read_direct, "direct", DIRECT),
    }
    turns = [(streams, turn, side) for streams, rounds in ROUNDS.items() for turn in range(rounds) for side in sides]
    with Rig([*OURS, *DIRECT]) as rig:
        for read, name, _ in sides.values():
            await crowd(read, rig.ports[name], model(20, PACE_MS), 8, 0.1)
        for done, (streams, turn, side) in enumerate(turns):
            progress(done / len(turns), f"{side}, {streams} streams")
            read, name, parts = sides[side]
            await settle()
            before = {part: rig.cpu_s([part]) for part in parts}
            seen = await crowd(read, rig.ports[name], model(TOKENS, PACE_MS), streams, BEGIN_OVER_S, seed=turn)
            await settle()
            for part in parts:
                used[part][streams] += rig.cpu_s([part]) - before[part]
            tokens[side][streams] += sum(one.tokens for one in seen)

        progress(0.95, "what is left to do behind the answers")
        await settle(AFTERMATH_S)
        before_s = rig.cpu_s(OURS)
        await settle(AFTERMATH_S)
        at_rest_s = rig.cpu_s(OURS) - before_s
        seen = await crowd(read_ours, rig.ports["api"], model(TOKENS, PACE_MS), JUDGED, BEGIN_OVER_S)
        await settle()
        before_s = rig.cpu_s(OURS)
        await settle(AFTERMATH_S)
        later_us = (rig.cpu_s(OURS) - before_s - at_rest_s) / sum(one.tokens for one in seen) * 1e6

    def per_token_us(side: str, streams: int) -> float:
        parts = sides[side][2]
        return sum(used[part][streams] for part in parts) / tokens[side][streams] * 1e6

    figures = []
    for streams in ROUNDS:
        ours, direct = per_token_us("ours", streams), per_token_us("direct", streams)
        figures.append(
            Figure(
                f"CPU a token against direct, {streams} stream{'s' if streams > 1 else ''} × 50 tokens/s",
                ours / direct,
                "",
                GOALS.get(streams),
                note=f"{ours:.0f} against {direct:.0f} µs",
            )
        )
    figures.append(Figure("compaction, ten seconds behind the end: CPU a token", max(0.0, later_us), "µs"))
    series = {
        "streams": list(ROUNDS),
        **{side: [per_token_us(side, streams) for streams in ROUNDS] for side in sides},
        "parts": {part: [used[part][streams] / tokens["ours"][streams] * 1e6 for streams in ROUNDS] for part in OURS},
    }
    return Measured(figures, series)
