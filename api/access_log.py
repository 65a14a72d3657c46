"""Keeps tickets out of uvicorn's access log: what is signed there opens a stream."""

import logging
from urllib.parse import unquote_plus


def without_tickets(path: str) -> str:
    """Return a path with its query, the values of `ticket` left out, however its name is written."""
    path, mark, query = path.partition("?")
    return path + mark + "&".join(map(_without_ticket, query.split("&")))


def _without_ticket(pair: str) -> str:
    name, _, _ = pair.partition("=")
    return f"{name}=…" if unquote_plus(name) == "ticket" else pair


class HideTickets(logging.Filter):
    """Hides them in the path, one of uvicorn's arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(without_tickets(arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


def install() -> None:
    """Hide tickets in this process, once."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(kept, HideTickets) for kept in logger.filters):
        logger.addFilter(HideTickets())
