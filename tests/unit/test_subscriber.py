"""What is subscribed at Redis while channels come and go, in orders of replies that a network would show by luck."""

import asyncio
from typing import Any

import pytest

from shared import subscriber
from shared.subscriber import Subscriber
from tests.stack import eventually


class Ear:
    def __init__(self) -> None:
        self.gaps = 0

    def message(self, payload: bytes) -> None: ...

    def gap(self) -> None:
        self.gaps += 1


class Wire:
    """Stands where the connection is."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, ...]] = []

    def send(self, command: tuple[Any, ...]) -> None:
        self.sent.append(command)


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def listening(wire: Wire) -> Subscriber:
    made = Subscriber("redis://nowhere")
    made._link = wire  # type: ignore[assignment]
    return made


async def test_who_leaves_goes_with_whoever_comes(listening: Subscriber, wire: Wire) -> None:
    listening.subscribe("a", Ear())
    await asyncio.sleep(0)
    listening.unsubscribe("a")
    await asyncio.sleep(0)
    assert wire.sent == [("SUBSCRIBE", b"a")]
    listening.subscribe("b", Ear())
    await asyncio.sleep(0)
    assert wire.sent[1:] == [("UNSUBSCRIBE", b"a"), ("SUBSCRIBE", b"b")]


async def test_who_leaves_goes_soon_also_alone(listening: Subscriber, wire: Wire) -> None:
    listening.subscribe("a", Ear())
    await asyncio.sleep(0)
    listening.unsubscribe("a")
    await eventually(lambda: wire.sent[1:] == [("UNSUBSCRIBE", b"a")])


async def test_who_comes_back_before_that_is_listening_still(
    listening: Subscriber, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "LEAVE_S", 60)
    listening.subscribe("a", Ear())
    await asyncio.sleep(0)
    listening._take([b"subscribe", b"a", 1])
    listening.unsubscribe("a")
    assert listening.subscribe("a", Ear()).done()
    await asyncio.sleep(0)
    assert wire.sent == [("SUBSCRIBE", b"a")]


async def test_who_leaves_before_it_is_confirmed_and_comes_back_after_it_is_listening(
    listening: Subscriber, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscriber, "LEAVE_S", 60)
    listening.subscribe("a", Ear())
    await asyncio.sleep(0)
    listening.unsubscribe("a")
    listening._take([b"subscribe", b"a", 1])
    assert listening.subscribe("a", Ear()).done()
    await asyncio.sleep(0)
    assert wire.sent == [("SUBSCRIBE", b"a")]


async def test_a_confirmation_of_before_is_none_for_who_comes_later(listening: Subscriber, wire: Wire) -> None:
    ear = Ear()
    listening.subscribe("a", Ear())
    await asyncio.sleep(0)
    listening.unsubscribe("a")
    await eventually(lambda: len(wire.sent) == 2)
    listening._take([b"subscribe", b"a", 1])
    later = listening.subscribe("a", ear)
    assert not later.done()
    await asyncio.sleep(0)
    assert wire.sent[2:] == [("SUBSCRIBE", b"a")]
    listening._take([b"subscribe", b"a", 1])
    assert later.done()
    assert ear.gaps == 0
