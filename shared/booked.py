"""What a script has ended and settled by itself: to be counted by whoever ran it, as nobody else is left who could."""

from typing import Any, NamedTuple

from shared.prices import Usage


class Ended(NamedTuple):
    """A job that has got its last event."""

    status: str
    code: str
    """That of one that failed."""
    cancel_ms: int | None
    """How long before somebody had asked for it."""


class Settled(NamedTuple):
    """A call whose worker could not say what it took: a guess."""

    provider: str
    model: str
    usage: Usage
    cost: int
    """In 10^-12 dollars."""


class Booked(NamedTuple):
    """As `lua/_booked.lua` tells it."""

    ended: list[Ended]
    settled: list[Settled]

    @classmethod
    def read(cls, raw: Any) -> "Booked":
        ended, settled = raw
        return cls([_ended(*one) for one in ended], [_settled(*one) for one in settled])


def _ended(status: bytes, code: bytes, cancel_ms: int) -> Ended:
    return Ended(status.decode(), code.decode(), None if cancel_ms < 0 else cancel_ms)


def _settled(provider: bytes, model: bytes, taken: int, cached: int, given: int, reasoning: int, cost: int) -> Settled:
    usage = Usage.model_construct(
        input_tokens=taken,
        cached_input_tokens=cached,
        output_tokens=given,
        reasoning_tokens=reasoning,
        estimated=True,
    )
    return Settled(provider.decode("utf-8", "replace"), model.decode("utf-8", "replace"), usage, cost)
