"""How many streams each owner has open, over all API processes (`lua/_streams.lua`)."""

from collections.abc import Mapping
from itertools import chain
from typing import Final, NamedTuple

from shared.keys import Keys
from shared.redis import RedisError, Scripts, is_full

WORD_S: Final = 3.0
"""How long an API process' word is good for: what a killed one leaves counted."""


class Bid(NamedTuple):
    """One more stream, as an API process asks for it. The number is the whole: asked twice, it is one stream."""

    process: str
    here: int
    """The owner's streams in that process, with this one."""
    most: int
    """Over all processes."""
    word_ms: int = int(WORD_S * 1000)


NO_BID: Final = Bid("", 0, 0)


class OpenStreams:
    """One method a state change, each one script."""

    def __init__(self, scripts: Scripts, keys: Keys) -> None:
        self._scripts = scripts
        self._keys = keys

    async def open(self, owner: str, bid: Bid) -> bool:
        """Open one more stream; False when there are too many."""
        process, *numbers = bid
        args = [self._keys.prefix, owner, process, *numbers]
        try:
            return bool(await self._scripts.run("open", [], args, again=True) == 1)
        except RedisError as error:
            # What is there can be read, also where nothing more can be counted (before Redis 7).
            if not is_full(error):
                raise
            return True

    async def hold(self, process: str, counts: Mapping[str, int]) -> bool:
        """Say how many streams some owners have here, and renew the word for all others.

        False when that had lapsed: Redis knows nothing any more of those that are not in `counts`.
        """
        keys, args = [self._keys.streams(process)], [self._keys.prefix, process, int(WORD_S * 1000)]
        return bool(await self._scripts.run("hold", keys, [*args, *chain(*counts.items())]) == 1)
