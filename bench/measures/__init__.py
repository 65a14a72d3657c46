"""One file a measure; `ALL` is their order in the table."""

from collections.abc import Awaitable, Callable

from bench.measures import (
    appends,
    capacity,
    cost,
    deltas,
    fanout,
    fixed,
    flood,
    footprint,
    growth,
    idle,
    lag,
    late,
    openings,
    proxy,
    rest,
    spread,
    steady,
    steps,
    ttft,
)
from bench.report import Measured

Progress = Callable[[float, str], None]
"""Tells how much of a measure is done (0 to 1), and what comes now."""

Measure = Callable[[Progress], Awaitable[Measured]]

ALL: dict[str, Measure] = {
    "cost": cost.measure,
    "lag": lag.measure,
    "ttft": ttft.measure,
    "deltas": deltas.measure,
    "capacity": capacity.measure,
    "fanout": fanout.measure,
    "idle": idle.measure,
    "late": late.measure,
    "fixed": fixed.measure,
    "flood": flood.measure,
    "growth": growth.measure,
    "rest": rest.measure,
    "steady": steady.measure,
    "steps": steps.measure,
    "footprint": footprint.measure,
    "appends": appends.measure,
    "openings": openings.measure,
    "spread": spread.measure,
    "proxy": proxy.measure,
}
