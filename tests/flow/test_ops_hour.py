"""The operators' hour: what all processes have counted, minute by minute."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from shared.hour import KEPT_MS, MINUTES, Hour, Tally
from shared.keys import Keys
from shared.redis import REDIS_FAULTS, Scripts, connect
from tests.provider import HttpError, Text
from tests.stack import Stack, eventually

FAST, SLOW = "ttft:0.2:0.35", "ttft:5:10"


def hour_of(stack: Stack) -> Hour:
    return Hour(stack.commands, Scripts(stack.commands), stack.keys)


class Process:
    """What one process counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.lag = Histogram("rejoin_relay_lag_seconds", "-", buckets=(0.01, 1), registry=self.registry)
        self.jobs = Counter("rejoin_jobs", "-", ["status", "code"], registry=self.registry)


async def this_minute(stack: Stack) -> int:
    seconds, _ = await stack.commands.read("TIME")
    return int(seconds) // 60


async def put(stack: Stack, minute: int, **figures: int) -> None:
    fields = [part for field, number in figures.items() for part in (field, number)]
    await stack.commands.call("HSET", stack.keys.minute(minute), *fields)


async def test_processes_add_up(bare: Stack) -> None:
    hour, one, other = hour_of(bare), Process(), Process()
    one.jobs.labels("completed", "").inc(5)
    tallies = [Tally(hour, process.registry) for process in (one, other)]
    for process in (one, other):
        process.lag.observe(0.005)
        process.jobs.labels("completed", "").inc()
        process.jobs.labels("failed", "idle_timeout").inc()
    for tally in tallies:
        await tally.tell()
        await tally.tell()
    other.jobs.labels("failed", "worker_lost").inc(3)
    await tallies[1].tell()
    shown = await hour.read()
    assert (shown["completed"], shown["failed"], shown["cancelled"]) == (2, 5, 0)
    assert shown["lag"] == {"count": 2, "p50_s": 0.005, "p99_s": 0.0099}
    assert shown["ttft"] is None
    assert [(failure["code"], failure["count"]) for failure in shown["failures"]] == [
        ("worker_lost", 3), ("idle_timeout", 2),
    ]  # fmt: skip


async def test_nothing_new_is_not_told(bare: Stack) -> None:
    process = Process()
    tally = Tally(hour_of(bare), process.registry)
    await tally.tell()
    assert await bare.redis.keys(f"{bare.prefix}:minute:*") == []


async def test_what_could_not_be_told_is_told_the_next_time(bare: Stack) -> None:
    away = connect("redis://127.0.0.1:1/0")
    process = Process()
    tally = Tally(Hour(away, Scripts(away), Keys(bare.prefix)), process.registry)
    process.jobs.labels("completed", "").inc()
    for _ in range(2):
        try:
            await tally.tell()
        except REDIS_FAULTS:
            pass
        else:
            raise AssertionError("it was told to nobody")
    tally._hour = hour_of(bare)
    process.jobs.labels("completed", "").inc()
    await tally.tell()
    assert (await hour_of(bare).read())["completed"] == 2


async def test_what_happens_to_jobs_is_in_the_hour(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the workers' metrics and the API's, without anybody's doing."""
    monkeypatch.setattr("shared.hour.EVERY_S", 0.05)
    monkeypatch.setattr("api.operations.KEPT_S", 0.0)
    await bare.worker()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("an answer"))
    bare.provider.script("refused", HttpError(400))
    for model in ("m", "m", "refused"):
        await client.all_events(await client.submit(model))

    async def whole() -> Any:
        hour = (await client.http.get("/v1/ops")).json()["hour"]
        return hour if hour["completed"] + hour["failed"] == 3 and hour["ttft"] and hour["lag"] else None

    hour = await eventually(whole)
    assert (hour["completed"], hour["failed"], hour["cancelled"]) == (2, 1, 0)
    assert hour["ttft"]["count"] == 2
    assert 0 < hour["ttft"]["p50_s"] <= hour["ttft"]["p99_s"] < 5
    assert 0 < hour["lag"]["p50_s"] <= hour["lag"]["p99_s"] < 5
    assert [failure["count"] for failure in hour["failures"]] == [1]
    assert (hour["minutes"][-1]["ttft"] or hour["minutes"][-2]["ttft"])["count"] in (1, 2)


async def test_an_hour_is_sixty_minutes_and_forgets_what_is_older(bare: Stack) -> None:
    now = await this_minute(bare)
    for ago in (0, 1, 30, MINUTES - 1, MINUTES, MINUTES + 1):
        await put(bare, now - ago, **{FAST: 9, SLOW: 1, "failed:idle_timeout": 1})
    shown = await hour_of(bare).read()
    # (A minute may have ended meanwhile.)
    assert shown["failed"] in (3, 4)
    assert len(shown["minutes"]) == MINUTES
    measured = [minute["ttft"] for minute in shown["minutes"] if minute["ttft"] is not None]
    assert measured == [{"count": 10, "p50_s": 0.283333, "p99_s": 9.5}] * shown["failed"]
    assert all(minute["lag"] is None for minute in shown["minutes"])
    assert shown["failures"][0]["last_at"] > shown["minutes"][-3]["at"]


async def test_a_minute_is_kept_little_longer_than_it_is_shown(bare: Stack) -> None:
    await hour_of(bare).add({"completed": 1})
    (name,) = await bare.redis.keys(f"{bare.prefix}:minute:*")
    assert 0 < await bare.redis.pttl(name) <= KEPT_MS


async def test_a_minute_that_is_over_is_read_once(bare: Stack, monkeypatch: Any) -> None:
    hour = hour_of(bare)
    asked: list[str] = []
    read = bare.commands.read

    async def counted(*command: Any) -> Any:
        asked.append(command[0])
        return await read(*command)

    monkeypatch.setattr(bare.commands, "read", counted)
    await hour.read()
    assert asked.count("HGETALL") == MINUTES
    asked.clear()
    await hour.read()
    assert asked.count("HGETALL") <= 2


async def test_what_is_not_ours_in_a_minute_counts_as_nothing(bare: Stack) -> None:
    """And is no obstacle to what is to be counted next."""
    now = await this_minute(bare)
    strange = {
        b"\xff": 1,
        "ttft:x:y": 1,
        "ttft:1": 1,
        "ttft:1:2:3": 1,
        "lag:12": 1,
        "completed": "many",
        "failed:<b>": 1,
    }
    await bare.redis.hset(bare.keys.minute(now - 1), mapping=strange)  # type: ignore[misc]
    await bare.redis.set(bare.keys.minute(now - 2), "a string")
    for minute in (now, now + 1):
        await bare.redis.set(bare.keys.minute(minute), "a string")
    hour = hour_of(bare)
    shown = await hour.read()
    assert (shown["completed"], shown["failed"], shown["ttft"], shown["lag"]) == (0, 0, None, None)
    await hour.add({"completed": 1})
    assert (await hour.read())["completed"] == 1
