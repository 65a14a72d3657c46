"""An attempt that begins again behind what was told: how far it only repeats that."""

from collections.abc import Sequence

from api.faces.openai_responses_items import Kind

Said = tuple[Kind, str]
"""A run of text of one kind."""


class Repeat:
    """Holds a new attempt against what was told of the lost one. No two neighbours of `told` are of one kind."""

    def __init__(self, told: Sequence[Said]) -> None:
        self._told = told
        self._part = 0
        self._at = 0

    @property
    def whole(self) -> bool:
        """Whether all that was told has been said again: from here on it is this attempt that is told."""
        return self._part == len(self._told) - 1 and self._at == len(self._told[-1][1])

    def take(self, kind: Kind, text: str) -> str | None:
        """Return what of the next piece goes beyond what was told; None when it says something else."""
        part, at = self._part, self._at
        if kind != self._told[part][0] and at == len(self._told[part][1]) and part + 1 < len(self._told):
            part, at = part + 1, 0
        told_kind, told = self._told[part]
        if kind != told_kind:
            return None
        beyond = ""
        if not told.startswith(text, at):
            rest = told[at:]
            if part + 1 < len(self._told) or not text.startswith(rest):
                return None
            text, beyond = rest, text[len(rest) :]
        self._part, self._at = part, at + len(text)
        return beyond

    def said(self) -> list[Said]:
        """Return what the new attempt has said so far, none of which was told as its own."""
        kind, told = self._told[self._part]
        begun: list[Said] = [(kind, told[: self._at])] if self._at else []
        return [*self._told[: self._part], *begun]
