"""The examples of the documents, as they stand there."""

import re

from tests.stack import ROOT


def blocks(document: str, section: str, language: str) -> list[str]:
    """Return the fenced blocks of one section, its subsections included."""
    text = (ROOT / document).read_text()
    (found,) = re.findall(rf"^## {re.escape(section)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    return re.findall(rf"^```{language}\n(.*?)^```$", found, re.DOTALL | re.MULTILINE)
