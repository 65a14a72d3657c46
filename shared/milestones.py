"""What is decided about a job whose log is on an event server, on its way there."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from shared.errors import Damaged


class Milestones(NamedTuple):
    """All milestones of a job, as they stand beside its record; told by the script that wrote one, or read."""

    lives_ms: int
    """How long the record lives, and so its log."""
    events: Sequence[tuple[bytes, bytes, bytes]]
    """Id, name and data of each."""
    noted: bool
    """Whether there is a note that some are unsent."""


def milestones(reply: Sequence[Any], *, noted: bool) -> Milestones | None:
    """Read what scripts say of them (`milestones_of` in lua/_spread.lua); None when there are none."""
    if not reply:
        return None
    lives_ms, entries = reply
    try:
        return Milestones(lives_ms, [(id, event, data) for id, (event, data) in entries], noted)
    except ValueError as error:
        raise Damaged("milestones that are no events") from error
