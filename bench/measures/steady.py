"""What a token costs while streams run, with no job beginning or ending: CPU of each process, and bytes.

With all in one API process and one worker, spread over several of each, and with nobody reading.
"""

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from bench.client import Line, Seen, job, lags_ms, percentile
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import Rig, kind

PACE_MS: Final = 20
WATCH_S: Final = 6.0
BEGIN_S: Final = 2.0
KINDS: Final = ("api", "worker", "valkey", "events")

ONE: Final = ("api", "worker", "valkey")


def _of_each(count: int) -> Sequence[str]:
    return ("valkey", *(f"{part}.{number}" for part in ("api", "worker") for number in range(count)))


CASES: Final[dict[str, tuple[Sequence[str], int, bool]]] = {
    "50 streams": (ONE, 50, True),
    "150 streams": (ONE, 150, True),
    "150 streams, nobody reads": (ONE, 150, False),
    "150 streams over 4 API processes and 4 workers": (_of_each(4), 150, True),
    "300 streams over 2 API processes and 2 workers": (_of_each(2), 300, True),
}
"""The processes, streams of 50 tokens a second, and whether each has a reader."""


async def measure(progress: Callable[[float, str], None]) -> Measured:
    figures: list[Figure] = []
    series: dict[str, Any] = {}
    for done, (name, (parts, streams, read)) in enumerate(CASES.items()):
        progress(done / len(CASES), name)
        used = series[name] = await watch(parts, streams, read)
        there = [part for part in KINDS if part in used]
        by_kind = ", ".join(f"{part} {used[part]:.1f}" for part in there)
        figures.append(Figure(f"steady, {name}: CPU a token", sum(used[part] for part in there), "µs", note=by_kind))
        wire = f"Redis in {used['redis_in']:.0f}, out {used['redis_out']:.0f}, its file {used['file']:.0f}"
        if read:
            figures.append(Figure(f"steady, {name}: bytes a token to its reader", used["reader"], "B", note=wire))
        else:
            figures.append(Figure(f"steady, {name}: bytes a token into Redis", used["redis_in"], "B"))
    return Measured(figures, series)


async def watch(parts: Sequence[str], streams: int, read: bool) -> dict[str, float]:
    """Return what was used for a token: µs of CPU by kind of process, bytes by where they went; and how late they came.

    Redis' bytes are those of the server that has the records.
    """
    tokens = int((WATCH_S + 2 * BEGIN_S + 4) * 1000 / PACE_MS)
    with Rig(parts) as rig:
        ports = [rig.ports[part] for part in parts if kind(part) == "api"]
        lines: list[Line] = []
        reads: list[asyncio.Task[Seen]] = []
        async with Redis(port=rig.ports["valkey"]) as redis:
            for number in range(streams):
                line = await Line.open(ports[number % len(ports)])
                created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(tokens, PACE_MS))))
                if read:
                    lines.append(line)
                    seen = Seen(judged_ns=(math.inf, math.inf))
                    reads.append(asyncio.create_task(line.stream("GET", created["events_url"], seen=seen)))
                else:
                    line.close()
                await asyncio.sleep(BEGIN_S / streams)
            await asyncio.sleep(1)
            for line in lines:
                if line.seen:
                    line.seen.judged_ns = (0, math.inf)
            before, lines_before = await _clocks(rig, parts, redis), _seen(lines)
            began_s = asyncio.get_running_loop().time()
            await asyncio.sleep(WATCH_S)
            after, lines_after = await _clocks(rig, parts, redis), _seen(lines)
            took_s = asyncio.get_running_loop().time() - began_s
        lags = lags_ms([line.seen for line in lines if line.seen])
        for task in reads:
            task.cancel()
        for line in lines:
            line.close()
    # Where nobody reads, the provider's pace says how many there were.
    passed = lines_after[0] - lines_before[0] if read else took_s * 1000 / PACE_MS * streams
    used = {name: (after[name] - before[name]) / passed for name in before}
    return {
        **{part: used[part] * 1e6 for part in KINDS if part in used},
        "redis_in": used["in"],
        "redis_out": used["out"],
        "file": used["file"],
        "reader": (lines_after[1] - lines_before[1]) / passed,
        "frames": (lines_after[2] - lines_before[2]) / passed,
        "lag_p50_ms": percentile(lags, 0.5) if lags else 0.0,
        "lag_p99_ms": percentile(lags, 0.99) if lags else 0.0,
    }


async def _clocks(rig: Rig, parts: Sequence[str], redis: Redis) -> dict[str, float]:
    there = {kind(part) for part in parts}
    cpu: dict[str, float] = {of: rig.cpu_s([part for part in parts if kind(part) == of]) for of in KINDS if of in there}
    stats, file = await redis.info("stats"), await redis.info("persistence")
    wire = {"in": stats["total_net_input_bytes"], "out": stats["total_net_output_bytes"]}
    return {**cpu, **wire, "file": file["aof_current_size"]}


def _seen(lines: Sequence[Line]) -> tuple[int, int, int]:
    """Return tokens, bytes and events that have come."""
    seen = [line.seen for line in lines if line.seen]
    return sum(one.tokens for one in seen), sum(line.bytes_seen for line in lines), sum(one.events for one in seen)
