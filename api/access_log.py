"""Keeps tickets out of uvicorn's access log: what is signed there opens a stream."""

import logging
import re

_TICKET = re.compile(r"(?<=[?&]ticket=)[^&]*")


class HideTickets(logging.Filter):
    """Replaces the value of `ticket` in the path, the third of uvicorn's arguments."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(_TICKET.sub("…", arg) if isinstance(arg, str) else arg for arg in record.args)
        return True


def install() -> None:
    """Hide tickets in this process, once."""
    logger = logging.getLogger("uvicorn.access")
    if not any(isinstance(kept, HideTickets) for kept in logger.filters):
        logger.addFilter(HideTickets())
