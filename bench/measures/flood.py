"""How late one owner's first tokens are while another has 10,000 jobs waiting, and all slots are taken."""

import asyncio
import random
from collections.abc import Callable
from typing import Final

import orjson

from bench.client import Line, Seen, job, percentile
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig, settle

FLOOD: Final = 10_000
POSTING: Final = 16
"""Connections that bring the flood."""

SLOTS: Final = 50
TTFT_MS: Final = 300
TOKENS: Final = 10
PACE_MS: Final = 20
ASKED: Final = 150
OVER_S: Final = 15.0

KEYS: Final = {"flood": "flood-key-of-the-benchmark", "calm": "calm-key-of-the-benchmark"}
SETTINGS: Final = {
    "REJOIN_AUTH": "required",
    "REJOIN_SECRET": "5f0c7a96d1e84b3fa2c6e9d07b814f35",
    "REJOIN_API_KEYS": ",".join(f"{owner}:{key}" for owner, key in KEYS.items()),
    "REJOIN_MAX_JOBS": str(SLOTS),
}


async def measure(progress: Callable[[float, str], None]) -> Measured:
    with Rig(OURS, pins=None, **SETTINGS) as rig:
        port = rig.ports["api"]
        await _calm(port, 20, 1.0)
        await settle()
        progress(0.1, "alone")
        alone = await _calm(port, ASKED, OVER_S)
        progress(0.4, f"{FLOOD:,} jobs of another owner")
        await _flood(port)
        progress(0.7, "beside them")
        beside = await _calm(port, ASKED, OVER_S)
        still = await _waiting(port)
    if still < FLOOD / 20:
        raise RuntimeError(f"the flood was over before the measurement was: {still} jobs left")
    before, after = (percentile([seen.ttft_s * 1e3 for seen in some], 0.99) for some in (alone, beside))
    what = "an owner's p99 TTFT beside another's 10,000 waiting jobs"
    note = f"{after:.0f} against {before:.0f} ms; {still:,} still waiting"
    return Measured([Figure(what, after / before, "×", 1.2, note=note)])


async def _flood(port: int) -> None:
    left = iter(range(FLOOD))
    chance = random.Random(2)

    async def post() -> None:
        line = await Line.open(port, KEYS["flood"])
        for _ in left:
            # Of different lengths, or those that began together would end together.
            asked = model(chance.randint(1, 2 * TOKENS), PACE_MS, chance.randint(100, 2 * TTFT_MS - 100))
            await line.ask("POST", "/v1/jobs", job(asked))
        line.close()

    await asyncio.gather(*[post() for _ in range(POSTING)])


async def _waiting(port: int) -> int:
    """Return the place in the queue of one more job of the flood's."""
    line = await Line.open(port, KEYS["flood"])
    created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(1))))
    told = orjson.loads(await line.ask("GET", f"{created['url']}/events"))
    line.close()
    place: int = told["events"][0]["data"]["position"]
    return place


async def _calm(port: int, asked: int, over_s: float) -> list[Seen]:
    moments = random.Random(1)

    async def one() -> Seen:
        await asyncio.sleep(moments.uniform(0, over_s))
        line = await Line.open(port, KEYS["calm"])
        try:
            return await line.stream("POST", "/v1/jobs", job(model(TOKENS, PACE_MS, TTFT_MS)))
        finally:
            line.close()

    return await asyncio.gather(*[one() for _ in range(asked)])
