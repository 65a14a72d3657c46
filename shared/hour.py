"""The last hour, minute by minute, over all processes: waits for a first token, lag, how jobs ended.

Each process adds what its own metrics have counted, every few seconds: no job pays for it, and it is small however
many there are.
"""

import asyncio
import logging
import math
import random
import re
from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry

from shared.clock import iso
from shared.keys import Keys
from shared.redis import REDIS_FAULTS, Multiplexer, RedisError, Scripts, is_damage

_FIELD: Final = re.compile(rb"completed|cancelled|failed:[a-z0-9_]{0,64}|(ttft|lag):\d+(\.\d+)?:(\d+(\.\d+)?|inf)")

logger = logging.getLogger(__name__)

EVERY_S: Final = 5.0
"""Between two words of a process: how late a figure may be."""

MINUTES: Final = 60
KEPT_MS: Final = (MINUTES + 2) * 60_000

SPREADS: Final = {"rejoin_ttft_seconds_bucket": "ttft", "rejoin_relay_lag_seconds_bucket": "lag"}
"""The histograms of `shared.metrics` that are kept, with their own buckets."""

ENDS: Final = "rejoin_jobs_total"
ENDED: Final = ("completed", "failed", "cancelled")


def counted(registry: CollectorRegistry) -> Counter[str]:
    """Return what a process has counted since its start: `completed`, `failed:<code>`, `ttft:<bucket's bounds>`, …"""
    found: Counter[str] = Counter()
    for metric in registry.restricted_registry([ENDS, *SPREADS]).collect():
        buckets: list[tuple[float, float]] = []
        for sample in metric.samples:
            if sample.name == ENDS:
                status, code = sample.labels["status"], sample.labels["code"]
                found[f"{status}:{code}" if status == "failed" else status] += int(sample.value)
            else:
                buckets.append((float(sample.labels["le"]), sample.value))
        # Prometheus' buckets hold those below as well.
        for (low, below), (high, upto) in pairwise([(0.0, 0.0), *sorted(buckets)] if buckets else []):
            found[f"{SPREADS[metric.samples[0].name]}:{low:g}:{high:g}"] = int(upto - below)
    return found


class Bucket(NamedTuple):
    low: float
    high: float
    size: int


class Hour:
    """What all processes have counted, by minutes. One that is over does not change: it is read once."""

    def __init__(self, redis: Multiplexer, scripts: Scripts, keys: Keys) -> None:
        self._redis = redis
        self._scripts = scripts
        self._keys = keys
        self._over: dict[int, Counter[str]] = {}

    async def add(self, figures: Mapping[str, int]) -> None:
        """Add to this minute's. A reply that gets lost may have them counted twice."""
        pairs = [part for pair in figures.items() for part in pair]
        await self._scripts.run("tally", [], [self._keys.prefix, KEPT_MS, *pairs])

    async def read(self) -> dict[str, Any]:
        """Return the last sixty minutes, the one that goes on included, and their sums."""
        seconds, _ = await self._redis.read("TIME")
        this = int(seconds) // 60
        minutes = range(this - MINUTES + 1, this + 1)
        unread = [minute for minute in minutes if minute not in self._over]
        read = dict(zip(unread, await asyncio.gather(*map(self._minute, unread)), strict=True))
        by_minute = [self._over.get(minute) or read.get(minute) or Counter() for minute in minutes]
        self._over = dict(zip(minutes[:-1], by_minute[:-1], strict=True))
        whole = sum(by_minute, Counter[str]())
        rows = list(zip(minutes, by_minute, strict=True))
        failures = sorted((field for field in whole if field.startswith("failed:")), key=lambda field: -whole[field])
        last = {field: minute for minute, found in rows for field in found}
        return {
            **{status: _sum(whole, status) for status in ENDED},
            **_spreads(whole),
            "failures": [
                {"code": field.partition(":")[2], "count": whole[field], "last_at": iso(last[field] * 60_000)}
                for field in failures[:50]
            ],
            "minutes": [{"at": iso(minute * 60_000), **_spreads(found)} for minute, found in rows],
        }

    async def _minute(self, minute: int) -> Counter[str]:
        """Return a minute's figures; what stands there and is not ours counts as nothing."""
        try:
            flat = await self._redis.read("HGETALL", self._keys.minute(minute))
        except RedisError as error:
            if not is_damage(error):
                raise
            return Counter()
        pairs = zip(flat[::2], flat[1::2], strict=True)
        return Counter({f.decode(): int(n) for f, n in pairs if _FIELD.fullmatch(f) and n.isdigit() and len(n) < 16})


class Tally:
    """Tells the hour what this process counts."""

    def __init__(self, hour: Hour, registry: CollectorRegistry) -> None:
        self._hour = hour
        self._registry = registry
        self._told = counted(registry)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(EVERY_S * random.uniform(0.8, 1.2))
            try:
                await self.tell()
            except REDIS_FAULTS as error:
                logger.warning("figures not told yet (%s)", type(error).__name__)
            except Exception:
                # Nobody's answer may end by this.
                logger.exception("figures not told")

    async def tell(self) -> None:
        """Tell what is new; what cannot be told now is told the next time."""
        now = counted(self._registry)
        if new := now - self._told:
            await self._hour.add(new)
        self._told = now


def _sum(found: Mapping[str, int], status: str) -> int:
    return sum(number for field, number in found.items() if field.partition(":")[0] == status)


def _spreads(found: Mapping[str, int]) -> dict[str, Any]:
    return {name: _spread(_buckets(found, name)) for name in SPREADS.values()}


def _buckets(found: Mapping[str, int], name: str) -> list[Bucket]:
    parts = ((field.split(":"), number) for field, number in found.items())
    return sorted(Bucket(float(part[1]), float(part[2]), number) for part, number in parts if part[0] == name)


def _spread(buckets: list[Bucket]) -> dict[str, Any] | None:
    count = sum(bucket.size for bucket in buckets)
    if count <= 0:
        return None
    return {"count": count, "p50_s": quantile(buckets, 0.5), "p99_s": quantile(buckets, 0.99)}


def quantile(buckets: list[Bucket], share: float) -> float:
    """Return the value below which this share lies, as far as buckets tell: on a line between the bounds of its own.

    Of what is beyond the highest bound it is known that it is beyond.
    """
    rank = share * sum(bucket.size for bucket in buckets)
    for low, high, size in buckets:
        if rank <= size:
            return low if math.isinf(high) else round(low + (high - low) * rank / size, 6)
        rank -= size
    raise ValueError(share)
