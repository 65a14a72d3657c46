"""Why a request is refused: what the checks find and the dialects put into their error bodies."""

from typing import NamedTuple


class Complaint(NamedTuple):
    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400
