"""What a job's calls to providers have taken together, and how a call is settled (`lua/_settle.lua`)."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final, Literal, NamedTuple

from shared.prices import Rates, Usage, usd

Unsaid = Literal["estimate", "unasked", "open"]
ESTIMATE: Final = "estimate"
"""Nobody knows what the call took: the script guesses from the log."""
UNASKED: Final = "unasked"
"""No provider was asked."""
OPEN: Final = "open"
"""Not settled yet: the next attempt goes on with the same call."""

Settlement = Usage | Unsaid


def told(settlement: Settlement) -> str:
    """Return a settlement as the scripts take it."""
    return settlement if isinstance(settlement, str) else settlement.model_dump_json()


class Spent(NamedTuple):
    """The settled calls of one job, or of many, added up. The record's field `used` has these numbers in this order."""

    requests: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: int = 0
    """Requests whose usage is a guess."""
    cost: int = 0
    """In 10^-12 dollars."""
    unpriced: int = 0
    """Requests that took tokens that have no price: their cost is not known."""

    @classmethod
    def parse(cls, stored: bytes | None) -> "Spent":
        return cls(*map(int, (stored or b"").split()))

    def plus(self, settlement: Settlement, rates: Rates | None) -> "Spent":
        """Add one more call, as the script will."""
        if isinstance(settlement, str):
            return self
        usage = settlement
        call = Spent(
            requests=1,
            input_tokens=usage.input_tokens,
            cached_input_tokens=min(usage.cached_input_tokens, usage.input_tokens),
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            estimated=int(usage.estimated),
            cost=0 if rates is None else rates.cost(usage),
            unpriced=int(rates is None and usage.input_tokens + usage.output_tokens > 0),
        )
        return Spent.total((self, call))

    @staticmethod
    def total(parts: Iterable["Spent"]) -> "Spent":
        """Add up any number of them."""
        return Spent(*map(sum, zip(Spent(), *parts, strict=True)))

    def usage(self) -> Usage:
        return Usage(
            input_tokens=self.input_tokens,
            cached_input_tokens=self.cached_input_tokens,
            output_tokens=self.output_tokens,
            reasoning_tokens=self.reasoning_tokens,
            estimated=self.estimated > 0,
        )

    @property
    def cost_usd(self) -> Decimal | None:
        """What all of it cost; None when a part of that is not known: never a wrong figure."""
        return None if self.unpriced else usd(self.cost)
