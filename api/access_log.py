"""Keeps what clients write out of uvicorn's access log: tickets, and what else some put into URLs, keys too."""

import logging
import re
from typing import Final

_NAME: Final = re.compile("[a-z_]{1,20}")
_VALUE: Final = re.compile("[0-9.-]{0,41}")
"""Numbers, days, event ids."""


def without_words(path: str) -> str:
    """Return a path with its query, where only names that could be ours are left, and of values only numbers."""
    path, mark, query = path.partition("?")
    return path + mark + "&".join(map(_without_words, query.split("&"))) if mark else path


def _without_words(pair: str) -> str:
    name, is_pair, value = pair.partition("=")
    if not is_pair or not _NAME.fullmatch(name):
        return "…"
    return pair if _VALUE.fullmatch(value) else f"{name}=…"


class HideWords(logging.Filter):
    """Hides them in the path, one of uvicorn's arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(without_words(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


def install() -> None:
    """Hide them in this process, once."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(kept, HideWords) for kept in logger.filters):
        logger.addFilter(HideWords())
