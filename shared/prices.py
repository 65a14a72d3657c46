"""What tokens cost, from a table that the operator can replace. Exact decimals, no floats."""

import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

BUILT_IN: Final = Path(__file__).parent / "prices.toml"


MOST_TOKENS: Final = 100_000_000
"""No call takes more. Up to 90 dollars a million its cost is exact even in a script's doubles."""


class Usage(BaseModel):
    """Tokens of one generation; `cached_input_tokens` are among the input's, `reasoning_tokens` among the output's."""

    model_config = ConfigDict(frozen=True)

    input_tokens: NonNegativeInt = 0
    cached_input_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0
    reasoning_tokens: NonNegativeInt = 0
    estimated: bool = False
    """True when the provider's own figure is not known."""

    @classmethod
    def told(cls, **figures: object) -> "Usage | None":
        """Return what a provider says; None when its figures are none."""
        try:
            usage = cls.model_validate(figures, strict=True)
        except ValidationError:
            return None
        most = max(usage.input_tokens + usage.output_tokens, usage.cached_input_tokens, usage.reasoning_tokens)
        return usage if most <= MOST_TOKENS else None

    def shown(self) -> dict[str, Any]:
        """Return what a reader is shown: no `reasoning_tokens` where nobody has told of any."""
        return self.model_dump(exclude=None if self.reasoning_tokens else {"reasoning_tokens"})


class Rates(NamedTuple):
    """What one token costs, in 10^-12 US dollars: whole numbers, which Lua and Redis add up without loss."""

    input: int
    cached_input: int
    output: int

    @classmethod
    def parse(cls, stored: bytes) -> Self:
        return cls(*map(int, stored.split()))

    def __str__(self) -> str:
        return f"{self.input} {self.cached_input} {self.output}"

    def cost(self, usage: Usage) -> int:
        """Return what a generation cost, in the same unit."""
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        fresh = usage.input_tokens - cached
        return fresh * self.input + cached * self.cached_input + usage.output_tokens * self.output


def usd(cost: int) -> Decimal:
    """Return a cost in dollars."""
    return Decimal(cost).scaleb(-12)


Dollars = Annotated[Decimal, Field(ge=0, le=1_000_000, decimal_places=6)]
"""With six places a single token's price is a whole number of 10^-12 dollars."""


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Dollars
    cached_input: Dollars | None = None
    output: Dollars

    def rates(self) -> Rates:
        cached_input = self.input if self.cached_input is None else self.cached_input
        return Rates(*(int(dollars.scaleb(6)) for dollars in (self.input, cached_input, self.output)))


class Prices:
    def __init__(self, table: dict[str, Price]) -> None:
        self._table = table

    @classmethod
    def read(cls, path: str | None) -> Self:
        """Read the table, or end the process with one line that says what is wrong with it."""
        file = BUILT_IN if path is None else Path(path)
        try:
            raw: dict[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"), parse_float=Decimal)
            return cls(TypeAdapter(dict[str, Price]).validate_python(raw))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            sys.exit(f"rejoin: REJOIN_PRICES: {'.'.join(map(str, first['loc']))}: {first['msg']}")
        except (OSError, ValueError) as error:
            sys.exit(f"rejoin: REJOIN_PRICES: {error}")

    def models(self) -> list[str]:
        """Return the models that have a price, as they stand in the table."""
        return list(self._table)

    def rates(self, provider: str, model: str) -> Rates | None:
        """Return what a model's tokens cost; None for a model without a price."""
        price = self._table.get(f"{provider}/{model}") or self._table.get(model)
        return None if price is None else price.rates()
