"""Logs on event servers beside the same load with everything on one server: what each kind of server does then.

CPU of a token, of a job, of a reader that comes and goes, of a worker that waits; how late tokens and first tokens are.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from bench.client import Line, job, percentile, read_ours_at_once
from bench.measures.steady import watch
from bench.measures.steps import (
    AT_ONCE,
    COMINGS,
    JOBS,
    LIVE,
    LONG,
    REST_OF,
    REST_S,
    SHORT,
    come_and_go,
    cost,
    late,
    post,
    post_and_wait,
)
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import Rig, fallen, kind, settle

SERVERS: Final = (0, 1, 2, 4, 16)
"""Event servers; with none of them everything is on one server."""

STEPS: Final = (0, 2)
STREAMS: Final = 150
FIRST_TOKENS: Final = 300

NAMES: Final = {"valkey": "control", "events": "events", "api": "API", "worker": "worker"}

Costs = dict[str, float]


async def measure(progress: Callable[[float, str], None]) -> Measured:
    figures: list[Figure] = []
    series: dict[str, Any] = {"servers": list(SERVERS), "steps": list(STEPS), "token": [], "rest": []}
    for done, servers in enumerate(SERVERS):
        progress(0.4 * done / len(SERVERS), f"{STREAMS} streams, event servers: {servers}")
        used = await watch(["api", "worker", *_servers(servers)], STREAMS, read=True)
        series["token"].append(used)
        what = f"spread, {STREAMS} streams, event servers: {servers}"
        figures.append(Figure(f"{what}: CPU a token", sum(_costs(used).values()), "µs", note=_note(used, 1)))
        lag = f"p50 {used['lag_p50_ms']:.1f}; {used['redis_in']:.1f} B a token into the control server"
        figures.append(Figure(f"{what}: provider's token to reader's socket, p99", used["lag_p99_ms"], "ms", note=lag))
    progress(0.4, "first tokens")
    series["ttft"] = [of * 1000 for of in await _first_tokens()]
    one, more = series["ttft"]
    turns = f"{more:.2f} against {one:.2f} ms, in turns"
    figures.append(
        Figure(
            "spread, TTFT with 2 event servers against none, p50",
            more / one,
            "×",
            note=turns,
        )
    )
    for done, servers in enumerate(STEPS):
        progress(0.5 + done * 0.15, f"jobs and readers, event servers: {servers}")
        for name, by_kind in (await _steps(servers)).items():
            series.setdefault(name, []).append(by_kind)
    for done, servers in enumerate(STEPS):
        progress(0.8 + done * 0.1, f"who waits, event servers: {servers}")
        series["rest"].append(await _rest(servers))
    texts = {
        "post": "a POST",
        "job": f"a job of {SHORT} tokens that nobody reads, its POST included",
        "come": "a reader that comes to a waiting job, and goes",
        "late": f"a reader of an answer of {LONG} tokens that is there",
        "rest": "a worker at rest, a second",
    }
    for name, text in texts.items():
        for servers, by_kind in zip(STEPS, series[name], strict=True):
            cpu, note = sum(_costs(by_kind).values()), _note(by_kind, 0)
            figures.append(Figure(f"spread, event servers: {servers}: CPU of {text}", cpu, "µs", note=note))
    return Measured(figures, series)


def _servers(count: int) -> Sequence[str]:
    return ("valkey", *(f"events.{number}" for number in range(count)))


def _costs(used: Costs) -> Costs:
    """Return the µs of each kind of process."""
    return {name: used[part] for part, name in NAMES.items() if part in used}


def _note(used: Costs, digits: int) -> str:
    return ", ".join(f"{name} {cost:.{digits}f}" for name, cost in _costs(used).items())


def _by_kind(used: Costs) -> Costs:
    found: Costs = {}
    for part, cpu in used.items():
        found[kind(part)] = found.get(kind(part), 0) + cpu
    return found


async def _first_tokens() -> tuple[float, float]:
    """Return the median seconds to a first token: everything on one server, and two for events, asked in turns."""
    found: tuple[list[float], list[float]] = ([], [])
    with Rig(["api", "worker", *_servers(0)]) as one, Rig(["api", "worker", *_servers(2)]) as more:
        for number in range(FIRST_TOKENS):
            for rig, ttft_s in zip((one, more), found, strict=True):
                seen = await read_ours_at_once(rig.ports["api"], model(1))
                if number >= AT_ONCE:
                    ttft_s.append(seen.ttft_s)
    return percentile(found[0], 0.5), percentile(found[1], 0.5)


async def _steps(servers: int) -> dict[str, Costs]:
    """Return what is paid once, by kind of process."""
    found: dict[str, Costs] = {}
    redises = _servers(servers)
    with Rig(["api", "worker", *redises]) as rig:
        port, parts = rig.ports["api"], ("api", "worker", *redises)
        async with Redis(port=rig.ports["valkey"]) as redis:
            await post(port, 200)
            await fallen(redis, LIVE)
            await settle(1)
            found["job"] = await cost(rig, parts, JOBS, lambda: post_and_wait(port, redis))
            line = await Line.open(port)
            created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(LONG, 1))))
            await line.stream("GET", created["events_url"])
            line.close()
            found["late"] = await cost(rig, parts, COMINGS, lambda: late(port, created["events_url"]))
    with Rig(["api", *redises]) as rig:
        port, parts = rig.ports["api"], ("api", *redises)
        await post(port, 200)
        await settle(1)
        urls: list[str] = []
        found["post"] = await cost(rig, parts, JOBS, lambda: post(port, JOBS, urls))
        found["come"] = await cost(rig, parts, COMINGS, lambda: come_and_go(port, urls[:COMINGS]))
    return {name: _by_kind(used) for name, used in found.items()}


async def _rest(servers: int) -> Costs:
    """Return what a worker that waits costs each, a second, beside what servers do that nobody asks."""
    redises, workers = _servers(servers), [f"worker.{number}" for number in range(REST_OF)]
    found: list[Costs] = []
    for parts in (redises, [*redises, *workers]):
        with Rig(parts) as rig:
            await settle(3)
            found.append(_by_kind(await cost(rig, parts, REST_OF * REST_S, lambda: settle(REST_S))))
    alone, used = found
    return {part: cpu - alone.get(part, 0) for part, cpu in used.items()}
