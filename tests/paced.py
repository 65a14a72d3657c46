"""An answer whose tokens come one by one, as they are read: as many events as tokens, however slow the machine is."""

from collections.abc import Sequence

from tests.client import Client, Event
from tests.provider import Step, Text, Wait
from tests.provider.gate import Gate
from tests.stack import Stack


class Paced:
    def __init__(self, stack: Stack, pieces: Sequence[str]) -> None:
        self.gates: list[Gate] = [stack.provider.gate() for _ in pieces]
        self.steps: list[Step] = []
        for piece, gate in zip(pieces, self.gates, strict=True):
            self.steps += (Text(piece), Wait(gate))

    async def read(self, client: Client, job_id: str) -> list[Event]:
        """Read all of a job; each token lets the next one come."""
        held, events = iter(self.gates), []
        async for event in client.events(job_id):
            events.append(event)
            if event.event == "token" and (gate := next(held, None)) is not None:
                gate.open()
        return events
