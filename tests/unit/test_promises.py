"""What the documents promise is shown by tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = ("README.md", "SECURITY.md", "docs/GUARANTEES.md", "docs/API.md", "docs/PROVIDERS.md", "docs/DEPLOYING.md")
DOCUMENTS = [ROOT / name for name in NAMES]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_test_that_is_named_is_there(document: Path) -> None:
    for name in re.findall(r"`?(?:\.\./)*(tests/[\w/]+(?:\.py)?)", document.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("document", DOCUMENTS[1:3], ids=lambda path: path.name)
def test_each_row_of_promises_names_its_test(document: Path) -> None:
    """But for figures that were measured, and tables of other things."""
    header, rows = "", 0
    for line in document.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = ""
        elif not header:
            header = cells[-1]
        elif header == "test" and set(cells[-1]) != {"-"}:
            assert re.search("tests/|make ", cells[-1]), line
            rows += 1
    assert rows > 20


def test_each_file_of_abuse_has_its_row_in_the_security_document() -> None:
    document = (ROOT / "SECURITY.md").read_text()
    for file in (ROOT / "tests/abuse").glob("test_*.py"):
        assert f"tests/abuse/{file.name}" in document, file.name
