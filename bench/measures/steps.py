"""What is paid once: CPU of a POST, of a job's run beside its tokens, of a reader that comes; and of who waits."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import orjson
from redis.asyncio import Redis

from bench.client import Line, job
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig, fallen, settle

JOBS: Final = 2_000
COMINGS: Final = 1_000
AT_ONCE: Final = 16
LONG: Final = 500
"""Tokens behind which a late reader comes."""

REST_S: Final = 10.0
REST_OF: Final = 4
"""Workers, or API processes, that wait together: one alone is hard to see."""

SHORT: Final = 10
"""Tokens of a job. So few come as one event or two."""

LIVE: Final = "rejoin:owner:local:live"
"""The jobs that wait or run."""

Costs = dict[str, float]


async def measure(progress: Callable[[float, str], None]) -> Measured:
    series: dict[str, Any] = {}
    with Rig(OURS) as rig:
        port = rig.ports["api"]
        async with Redis(port=rig.ports["valkey"]) as redis:
            await post(port, 200)
            await fallen(redis, LIVE)
            progress(0.1, "jobs that nobody reads")
            series["job"] = await cost(rig, OURS, JOBS, lambda: post_and_wait(port, redis))
            progress(0.5, "readers of a long answer")
            line = await Line.open(port)
            created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(LONG, 1))))
            await line.stream("GET", created["events_url"])
            line.close()
            series["late"] = await cost(rig, OURS, COMINGS, lambda: late(port, created["events_url"]))
    with Rig(["api", "valkey"]) as rig:
        port = rig.ports["api"]
        await post(port, 200)
        progress(0.6, "POSTs")
        urls: list[str] = []
        series["post"] = await cost(rig, ("api", "valkey"), JOBS, lambda: post(port, JOBS, urls))
        progress(0.7, "readers come and go")
        series["come"] = await cost(rig, ("api", "valkey"), COMINGS, lambda: come_and_go(port, urls[:COMINGS]))
    progress(0.75, "nobody")
    with Rig(["valkey"]) as rig:
        await settle(2)
        alone = await cost(rig, ["valkey"], REST_S, lambda: settle(REST_S))
    for of, share in (("worker", 0.8), ("api", 0.9)):
        progress(share, f"{REST_OF} that wait: {of}")
        parts = ["valkey", *(f"{of}.{number}" for number in range(REST_OF))]
        with Rig(parts) as rig:
            lines = [await _wait_there(rig.ports[part]) for part in parts if of == "api" and part != "valkey"]
            await settle(3)
            used = await cost(rig, parts, REST_OF * REST_S, lambda: settle(REST_S))
            for line in lines:
                line.close()
        theirs = used["valkey"] - alone["valkey"] / REST_OF
        series[f"rest_{of}"] = {of: sum(used[part] for part in parts[1:]), "valkey": theirs}
    what = {
        "post": "a POST",
        "job": f"a job of {SHORT} tokens that nobody reads, its POST included",
        "come": "a reader that comes to a waiting job, and goes",
        "late": f"a reader of an answer of {LONG} tokens that is there",
        "rest_worker": "a worker at rest, a second",
        "rest_api": "an API process with one silent reader, a second",
    }
    figures = [
        Figure(
            f"CPU of {text}",
            sum(series[name].values()),
            "µs",
            note=", ".join(f"{part} {cost:.0f}" for part, cost in series[name].items()),
        )
        for name, text in what.items()
    ]
    return Measured(figures, series)


async def cost(rig: Rig, parts: Sequence[str], times: float, act: Callable[[], Awaitable[object]]) -> Costs:
    """Return the µs of CPU that each process used for one of so many times."""
    before_s = {part: rig.cpu_s([part]) for part in parts}
    await act()
    await settle()
    return {part: (rig.cpu_s([part]) - before_s[part]) / times * 1e6 for part in parts}


async def _together(act: Callable[[int], Awaitable[None]], times: int) -> None:
    left = iter(range(times))

    async def go() -> None:
        for number in left:
            await act(number)

    await asyncio.gather(*[go() for _ in range(AT_ONCE)])


async def post(port: int, jobs: int, urls: list[str] | None = None) -> None:
    """Submit over connections that stay, as a proxy's do."""
    free = [await Line.open(port) for _ in range(AT_ONCE)]

    async def one(_: int) -> None:
        line = free.pop()
        created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(SHORT))))
        free.append(line)
        if urls is not None:
            urls.append(created["events_url"])

    await _together(one, jobs)
    for line in free:
        line.close()


async def post_and_wait(port: int, redis: Redis) -> None:
    await post(port, JOBS)
    await fallen(redis, LIVE)


async def come_and_go(port: int, urls: Sequence[str]) -> None:
    """Connect, read what is there, and go, as a reader does that comes back."""

    async def one(number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n" % urls[number].encode())
        await reader.readuntil(b"event: queued")
        writer.transport.abort()

    await _together(one, len(urls))


async def late(port: int, url: str) -> None:
    async def one(_: int) -> None:
        line = await Line.open(port)
        await line.stream("GET", url)
        line.close()

    await _together(one, COMINGS)


async def _wait_there(port: int) -> Line:
    """Leave a reader behind whose job waits."""
    line = await Line.open(port)
    created = orjson.loads(await line.ask("POST", "/v1/jobs", job("m")))
    reading = asyncio.ensure_future(line.stream("GET", created["events_url"]))
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())
    return line
