"""docs/PROVIDERS.md says what the rows say."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

from tests.conformance.rows import DEMO, ROWS, Feature, Row
from tests.provider import ScriptedProvider

PAGE = Path(__file__).parent.parent.parent / "docs" / "PROVIDERS.md"
BY_LABEL = {row.label or row.name: row for row in (*ROWS, DEMO)}
NOWHERE = cast(ScriptedProvider, SimpleNamespace(openai_url="http://x/v1", anthropic_url="http://x"))


def table() -> dict[str, dict[str, str]]:
    """Return the page's first table: cells by column and feature."""
    lines = PAGE.read_text(encoding="utf-8").split("\n| |", 1)[1].split("\n\n", 1)[0].splitlines()
    cells = [[cell.strip().strip("`") for cell in line.strip("| ").split("|")] for line in lines]
    return {label: {row[0]: row[at] for row in cells[2:]} for at, label in enumerate(cells[0], 1)}


def test_the_table_is_the_rows() -> None:
    documented = table()
    for label, column in documented.items():
        cannot = BY_LABEL[label].cannot
        assert column == {feature: "422" if feature in cannot else "yes" for feature in get_args(Feature)}, label


def test_every_row_is_like_one_of_the_columns() -> None:
    columns = [signature(BY_LABEL[label]) for label in table()]
    assert [row.name for row in (*ROWS, DEMO) if signature(row) not in columns] == []


def signature(row: Row) -> Any:
    kind = row.name if row.config is None else row.config(NOWHERE)["kind"]
    return kind, dict(row.cannot)
