"""Going on from the text that an earlier attempt has left in the log."""


class Continuation:
    """The text as a provider may be given it, and the seam where the provider's text follows.

    Providers refuse a beginning that ends in white space, and then often start with that very white space.
    """

    def __init__(self, text: str) -> None:
        self.prefix = text.rstrip()
        self._held = text[len(self.prefix) :]

    def feed(self, piece: str) -> str:
        """Return what of this piece is new to the reader."""
        if not self._held:
            return piece
        most = min(len(self._held), len(piece))
        known = next((at for at in range(most) if piece[at] != self._held[at]), most)
        self._held, piece = self._held[known:], piece[known:]
        if piece:
            self._held = ""
        return piece
