"""What is held: Redis' memory for jobs, logs and answers; a worker's for jobs that run; a connection's at Redis."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.asyncio import Redis

from bench.client import Line, job
from bench.provider import SILENT, model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig, fallen, settle

JOBS: Final = 1_000
LOGS: Final = 100
SHORT: Final = 50
LONG: Final = 550
"""Tokens of two answers: what is between them is what tokens take."""

PACE_MS: Final = 10
"""Slower than a worker's ticks with so many streams, so that a token is an event."""

AT_ONCE: Final = 16
COMPACTED_S: Final = 16.0
CONNECTIONS: Final = 500


async def measure(progress: Callable[[float, str], None]) -> Measured:
    held: dict[str, float] = {}
    with Rig(OURS) as rig:
        port = rig.ports["api"]
        async with Redis(port=rig.ports["valkey"]) as redis:
            await _post(port, [model(1)] * 50)
            await settle(COMPACTED_S)

            async def grown(count: int, act: Callable[[], Awaitable[object]]) -> float:
                before = await _used(redis)
                await act()
                return (await _used(redis) - before) / count

            progress(0.1, "jobs that run, silent")
            worker = rig.resident_bytes("worker")
            held["running"] = await grown(JOBS, lambda: _begin(port, redis, [SILENT] * JOBS))
            await settle(2)
            held["worker"] = (rig.resident_bytes("worker") - worker) / JOBS
            for name, tokens in (("short", SHORT), ("long", LONG)):
                progress(0.3 if name == "short" else 0.6, f"answers of {tokens} tokens")
                before = await _used(redis)
                await _run(port, redis, tokens)
                held[name] = (await _used(redis) - before) / LOGS
                held[f"{name}_events"] = await _events(redis)
                await settle(COMPACTED_S)
                held[f"{name}_compact"] = (await _used(redis) - before) / LOGS
            progress(0.9, "connections")
            held["connection"] = await _connections(rig.ports["valkey"], grown)
    events = held["long_events"] - held["short_events"]
    token = (held["long"] - held["short"]) / (LONG - SHORT)
    kept = (held["long_compact"] - held["short_compact"]) / (LONG - SHORT)
    stamp = len(f"{time.monotonic_ns()} ")
    figures = [
        Figure("memory of Redis for a running job, before its first token", held["running"], "B"),
        Figure(
            "memory of Redis for a token of a log",
            token,
            "B",
            note=f"{stamp} characters each, {(LONG - SHORT) / max(1, events):.2f} tokens an event",
        ),
        Figure("memory of Redis for an ended job of 50 tokens, compacted", held["short_compact"], "B"),
        Figure("memory of Redis for a token of it", kept, "B", note=f"{stamp} characters each"),
        Figure("memory of Redis for a connection", held["connection"], "B"),
        Figure("memory of a worker for a running job", held["worker"] / 1024, "KiB", note=f"{JOBS:,} silent ones"),
    ]
    return Measured(figures, dict[str, Any](held))


async def _used(redis: Redis) -> float:
    return float((await redis.info("memory"))["used_memory"])


async def _post(port: int, models: list[str]) -> None:
    left = iter(models)

    async def post() -> None:
        line = await Line.open(port)
        for asked in left:
            await line.ask("POST", "/v1/jobs", job(asked))
        line.close()

    await asyncio.gather(*[post() for _ in range(AT_ONCE)])


async def _begin(port: int, redis: Redis, models: list[str]) -> None:
    await _post(port, models)
    await fallen(redis, "rejoin:queue")
    await settle(1)


async def _run(port: int, redis: Redis, tokens: int) -> None:
    """Return when so many answers are there, before their logs are compacted."""
    live: int = await redis.zcard("rejoin:owner:local:live")
    await _post(port, [model(tokens, PACE_MS)] * LOGS)
    await fallen(redis, "rejoin:owner:local:live", live)


async def _events(redis: Redis) -> float:
    """Return how many events the logs have that are not compacted yet, on average."""
    lengths: list[int] = [await redis.xlen(b"rejoin:log:" + id) for id in await redis.zrange("rejoin:ended", 0, -1)]
    return sum(lengths) / len(lengths)


async def _connections(port: int, grown: Callable[[int, Callable[[], Awaitable[object]]], Awaitable[float]]) -> float:
    writers: list[asyncio.StreamWriter] = []

    async def connect() -> None:
        for _ in range(CONNECTIONS):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
        await settle(1)

    each = await grown(CONNECTIONS, connect)
    for writer in writers:
        writer.close()
    return each
