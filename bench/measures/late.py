"""A reader who comes when the answer is there: 2,000 tokens, from the first to the last event."""

import time
from collections.abc import Callable
from typing import Final

import orjson

from bench.client import Line, job, percentile
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig, settle

READS: Final = 300


async def measure(progress: Callable[[float, str], None]) -> Measured:
    with Rig(OURS) as rig:
        port = rig.ports["api"]
        progress(0.1, "an answer of 2,000 tokens")
        line = await Line.open(port)
        created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(2_000, 1))))
        await line.stream("GET", created["events_url"])
        line.close()
        await settle()
        took_ms, events = [], 0
        for read in range(READS):
            if read % 20 == 0:
                progress(0.2 + 0.8 * read / READS, "late readers")
            line = await Line.open(port)
            began_ns = time.monotonic_ns()
            seen = await line.stream("GET", created["events_url"])
            took_ms.append((seen.ended_ns - began_ns) / 1e6)
            # `queued` and `started` are events too.
            events = max(events, seen.events + 2)
            assert seen.tokens == 2_000
            line.close()
    return Measured(
        [
            Figure("late reader of a 2,000-token answer, p99", percentile(took_ms, 0.99), "ms", 20),
            Figure("late reader of a 2,000-token answer: events", events, "", 5),
        ]
    )
