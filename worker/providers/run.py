"""A generation that goes on at its provider whoever listens: how it is known again, and how far it has been read."""

from dataclasses import dataclass, field
from typing import NamedTuple, Self

from shared.events import Answer, dump, load


class Half(NamedTuple):
    """The first half of a character that was cut in two, and the event that it belongs to."""

    event: str
    text: str


@dataclass(slots=True)
class Run:
    """One run, as the attempt that listens to it sees it."""

    id: str
    at: int
    """The number of the last of its events that was taken."""
    calls: list[int] = field(default_factory=list)
    """Where in the provider's output each tool call stands: its number in the answer is its place here."""
    written: Answer | None = None
    """What earlier attempts have made of it; None to the attempt that began it."""
    over: bool = False
    """Whether the provider has said that nothing more comes of it: there is nothing to cancel."""

    def bookmark(self, provider: str, half: Half | None = None) -> bytes:
        """Return what the next attempt needs to listen on from here. `half`: taken, and not in the log yet."""
        mark = {"provider": provider, "id": self.id, "at": self.at, "calls": self.calls}
        return dump(mark if half is None else {**mark, "half": half})

    @classmethod
    def at_bookmark(cls, bookmark: bytes, written: Answer) -> tuple[Self, Half | None]:
        """Return the run as it stands in the log, and the half character that was kept back from there."""
        mark = load(bookmark)
        half = Half(*mark["half"]) if "half" in mark else None
        return cls(mark["id"], mark["at"], mark["calls"], written), half


def whose(bookmark: bytes) -> tuple[str, str]:
    """Return the name of a run's provider and its id there."""
    mark = load(bookmark)
    return mark["provider"], mark["id"]
