"""What each owner's jobs have taken, by day, key and model: written by the scripts that settle calls, read here."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from shared.keys import Keys
from shared.redis import Multiplexer
from shared.spent import Spent

AT_ONCE: Final = 8
"""Days that are read together; between them others have their turn."""

TOTAL: Final = b"cost"
"""The field with the cost of all rows together: what a day's budget is judged by."""

_EPOCH: Final = date(1970, 1, 1).toordinal()


class Row(NamedTuple):
    """What one key's calls to one model took on one day."""

    day: date
    key: str | None
    """None where jobs need no key."""
    model: str
    """`provider/model`."""
    jobs: int
    """Those whose first call is in this row: rows can be added up."""
    spent: Spent


class Ledger:
    """Read by owner; who may ask is decided in `api.access`."""

    def __init__(self, redis: Multiplexer, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def today(self) -> date:
        """Return the day by Redis' clock, in UTC: the one that calls are entered under."""
        seconds, _ = await self._redis.read("TIME")
        return datetime.fromtimestamp(int(seconds), UTC).date()

    async def rows(self, owner: str, first: date, last: date) -> AsyncIterator[Row]:
        """Yield all that was entered from the first day to the last, both included."""
        days = range(first.toordinal(), last.toordinal() + 1)
        for start in range(0, len(days), AT_ONCE):
            some = days[start : start + AT_ONCE]
            names = [self._keys.ledger(owner, day - _EPOCH) for day in some]
            for day, raw in zip(some, await asyncio.gather(*map(self._hash, names)), strict=True):
                for row in _rows(date.fromordinal(day), raw):
                    yield row

    async def _hash(self, name: str) -> list[bytes]:
        flat: list[bytes] = await self._redis.read("HGETALL", name)
        return flat


def _rows(day: date, flat: list[bytes]) -> list[Row]:
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        if field == TOTAL:
            continue
        figure, key, model = field.decode().split(":", 2)
        found[key, model][figure] = int(value)
    return [
        Row(day, key or None, model, figures.pop("jobs", 0), Spent(**figures))
        for (key, model), figures in found.items()
    ]
