"""What tokens cost, from a table that the operator can replace. Exact decimals, no floats."""

import sys
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, NonNegativeInt, TypeAdapter, ValidationError

BUILT_IN: Final = Path(__file__).parent / "prices.toml"
_MILLION: Final = Decimal(1_000_000)


class Usage(BaseModel):
    """Tokens of one generation. `cached_input_tokens` are among the `input_tokens`."""

    model_config = ConfigDict(frozen=True)

    input_tokens: NonNegativeInt = 0
    cached_input_tokens: NonNegativeInt = 0
    output_tokens: NonNegativeInt = 0
    estimated: bool = False
    """True when the provider's own figure is not known."""


class Price(BaseModel):
    """US dollars per million tokens."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input: Decimal
    cached_input: Decimal | None = None
    output: Decimal


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

    def cost_usd(self, provider: str, model: str, usage: Usage) -> Decimal | None:
        """Return what a generation cost; None for a model without a price."""
        price = self._table.get(f"{provider}/{model}") or self._table.get(model)
        if price is None:
            return None
        cached = min(usage.cached_input_tokens, usage.input_tokens)
        cached_price = price.input if price.cached_input is None else price.cached_input
        total = (usage.input_tokens - cached) * price.input + cached * cached_price + usage.output_tokens * price.output
        return total / _MILLION
