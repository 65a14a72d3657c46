"""Text as providers send it: in pieces that may be cut inside a character."""


class Surrogates:
    """Joins pairs of surrogates that a provider has split over two deltas.

    UTF-8 cannot carry half a pair, and JSON strings can only be joined where no pair is split. A half that
    stays alone is passed on as it came: `shared.events.dump` writes it as an escape.
    """

    __slots__ = ("_half",)

    def __init__(self) -> None:
        self._half = ""

    def feed(self, text: str) -> str:
        """Return the text that is whole, keeping back a first half at its end."""
        if self._half:
            text = (self._half + text).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
            self._half = ""
        if "\ud800" <= text[-1:] <= "\udbff":
            self._half = text[-1]
            return text[:-1]
        return text

    @property
    def half(self) -> str:
        """The half that waits for what follows."""
        return self._half

    def rest(self) -> str:
        """Return the half that nothing followed."""
        half, self._half = self._half, ""
        return half
