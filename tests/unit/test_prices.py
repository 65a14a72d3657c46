"""What tokens cost: exact, from the operator's table."""

from decimal import Decimal
from pathlib import Path

import pytest

from shared.prices import Prices, Usage, usd

USAGE = Usage(input_tokens=1_000, cached_input_tokens=400, output_tokens=10)


def cost_usd(prices: Prices, provider: str, model: str) -> Decimal | None:
    rates = prices.rates(provider, model)
    return None if rates is None else usd(rates.cost(USAGE))


def test_cached_tokens_have_their_own_price(tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('["m"]\ninput = 0.1\ncached_input = 0.01\noutput = 0.3\n["mine/m"]\ninput = 1\noutput = 2\n')
    prices = Prices.read(str(table))
    assert cost_usd(prices, "openai", "m") == Decimal("0.000067")
    assert cost_usd(prices, "mine", "m") == Decimal("0.00102"), "no price for cached ones: they cost the same"
    assert cost_usd(prices, "openai", "unknown") is None


def test_the_built_in_table_can_be_read() -> None:
    assert cost_usd(Prices.read(None), "demo", "tour") == 0


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        '["m"]\ninput = "a lot"\noutput = 1\n',
        '["m"]\ninput = 1\n',
        '["m"]\ninput = -1\noutput = 1\n',
        '["m"]\ninput = 0.0000001\noutput = 1\n',
    ],
)
def test_a_wrong_table_ends_the_process_with_one_line(tmp_path: Path, text: str) -> None:
    table = tmp_path / "prices.toml"
    table.write_text(text)
    with pytest.raises(SystemExit, match="REJOIN_PRICES") as ended:
        Prices.read(str(table))
    assert "\n" not in str(ended.value.code)


def test_a_missing_table_ends_the_process_with_one_line() -> None:
    with pytest.raises(SystemExit, match="REJOIN_PRICES"):
        Prices.read("/nowhere/prices.toml")
