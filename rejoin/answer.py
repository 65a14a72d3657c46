"""What a stream's events add up to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from rejoin.events import Event, Reasoning, Restarted, Snapshot, Started, Token, ToolCall


@dataclass(slots=True)
class CalledTool:
    index: int
    id: str | None
    name: str | None
    arguments: str
    """JSON text; whole once the job has completed."""


class Answer:
    """The answer so far. A restart drops what earlier attempts sent; a snapshot replaces everything."""

    def __init__(self) -> None:
        self._begin(0)
        self.end: Event | None = None
        """The last event, once it has come."""

    def _begin(self, attempt: int) -> None:
        self.attempt = attempt
        self._text: list[str] = []
        self._refusal: list[str] = []
        self._reasoning: list[str] = []
        self._calls: dict[int, CalledTool] = {}

    @classmethod
    def of(cls, events: Iterable[Event]) -> Self:
        answer = cls()
        for event in events:
            answer.add(event)
        return answer

    def add(self, event: Event) -> None:
        match event:
            case Token():
                self._text.append(event.text)
                if event.refusal:
                    self._refusal.append(event.text)
            case Reasoning():
                self._reasoning.append(event.text)
            case ToolCall():
                new = CalledTool(event.index, event.call_id, event.name, "")
                self._calls.setdefault(event.index, new).arguments += event.arguments
            case Started():
                self.attempt = event.attempt
            case Restarted():
                self._begin(event.attempt)
            case Snapshot():
                self._begin(event.attempt)
                self._text, self._refusal, self._reasoning = [event.text], [event.refusal], [event.reasoning]
                calls = [CalledTool(c["index"], c["id"], c["name"], c["arguments"]) for c in event.tool_calls]
                self._calls = {call.index: call for call in calls}
            case _ if event.last:
                self.end = event

    @property
    def text(self) -> str:
        return _joined(self._text)

    @property
    def refusal(self) -> str:
        """What of the text the provider calls its refusal to answer."""
        return _joined(self._refusal)

    @property
    def reasoning(self) -> str:
        return _joined(self._reasoning)

    @property
    def tool_calls(self) -> list[CalledTool]:
        return list(self._calls.values())


def _joined(pieces: list[str]) -> str:
    """Join the pieces, once: there may be a hundred thousand, and somebody who looks after each of them."""
    pieces[:] = ["".join(pieces)]
    return pieces[0]
