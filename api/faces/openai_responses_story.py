"""A job's log as a response: its status and output, and the events by which it became so.

A function of the log alone: whoever reads it, wherever and whenever, gets the same events under the same numbers.

What was told cannot be taken back. So an attempt that begins again is held back while it only repeats what was told of
the lost one. Where it goes beyond that, it goes on in the same item; where it says something else, what was told ends
as `incomplete`, and it is told behind that, in items of its own. The response's output has these alone.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from api.faces.openai_responses_items import Called, Event, Item, ItemStatus, Kind, Spoken
from api.faces.openai_responses_repeat import Repeat
from api.faces.telling import Arguments, Call, Ended, Queued, Restarted, Started, Step, Telling, Text, Thought
from shared.events import CANCELLED, COMPLETED, Entry

INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}

ERRORS: Final = {
    "provider_rate_limited": "rate_limit_exceeded",
    "provider_bad_request": "invalid_prompt",
    "context_too_long": "invalid_prompt",
    "content_refused": "invalid_prompt",
}
"""Our codes that the API has words of its own for; all others are a `server_error`. Its list is closed."""


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    taken, given = usage["input_tokens"], usage["output_tokens"]
    return {
        "input_tokens": taken,
        "input_tokens_details": {"cached_tokens": usage.get("cached_input_tokens", 0), "cache_write_tokens": 0},
        "output_tokens": given,
        "output_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "total_tokens": taken + given,
    }


def error_of(error: Mapping[str, Any]) -> dict[str, Any]:
    return {"code": ERRORS.get(error["code"], "server_error"), "message": error["message"]}


class Story:
    """Takes the entries of one log, from its beginning. `head`: what the response says that no event changes."""

    def __init__(self, head: Mapping[str, Any], created_ms: int) -> None:
        self._head = head
        self._created_ms = created_ms
        self._key: Final[str] = head["id"].partition("_")[2]
        self._model = head["model"]
        self._telling = Telling()
        self._opened = False
        self._items: list[Item] = []
        """Those of the attempt that counts."""
        self._calls: dict[int, Called] = {}
        self._call_ids: set[str] = set()
        self._next = 0
        self._repeat: Repeat | None = None
        """Set while a new attempt is held back."""
        self.ended = False
        self.status = "queued"
        self._end: dict[str, Any] = {}

    def response(self) -> dict[str, Any]:
        """Return the response as it stands."""
        return {
            **self._head,
            "status": self.status,
            "model": self._model,
            "output": [item.view() for item in self._items],
            "completed_at": None,
            "error": None,
            "incomplete_details": None,
            "usage": None,
            **self._end,
        }

    def read(self, entry: Entry) -> list[Event]:
        """Take the next entry; return its events."""
        return [event for step in self._telling.steps(entry) for event in self._take(step)]

    def lost(self, error: Mapping[str, Any]) -> None:
        """Take the word of the job's record: its log is gone."""
        self._fail(error, None)

    def _take(self, step: Step) -> Iterator[Event]:
        yield from self._open()
        match step:
            case Text(text, refusal):
                yield from self._say("refusal" if refusal else "output_text", text)
            case Thought(text):
                yield from self._say("summary_text", text)
            case Call(number, id, name):
                yield from self._call(number, id, name)
            case Arguments(number, piece):
                yield self._calls[number].add(piece)
            case Started(provider, model):
                self._model = f"{provider}/{model}"
                yield from self._start()
            case Restarted(provider, model):
                self._model = f"{provider}/{model}"
                yield from self._again()
            case Ended(event, data):
                yield from self._finish(event, data)
            case Queued():
                pass

    def _open(self) -> Iterator[Event]:
        if not self._opened:
            self._opened = True
            yield Event("response.created", {"response": self.response()})
            yield Event("response.queued", {"response": self.response()})

    def _start(self) -> Iterator[Event]:
        if self.status == "queued":
            self.status = "in_progress"
            yield Event("response.in_progress", {"response": self.response()})

    def _say(self, kind: Kind, text: str) -> Iterator[Event]:
        yield from self._start()
        if self._repeat is not None:
            beyond = self._repeat.take(kind, text)
            if beyond is None:
                yield from self._part_ways()
            else:
                text = beyond
                if self._repeat.whole:
                    self._repeat = None
        if text:
            yield from self._tell(kind, text)

    def _tell(self, kind: Kind, text: str) -> Iterator[Event]:
        """Go on in the item that is being written, or begin one."""
        thought = kind == "summary_text"
        item = self._items[-1] if self._items else None
        if not isinstance(item, Spoken) or item.thought != thought:
            yield from self._close_spoken()
            prefix = "rs" if thought else "msg"
            item = Spoken(self._item_id(prefix), self._next, thought=thought)
            yield from self._add(item)
        yield from item.say(kind, text)

    def _call(self, number: int, call_id: str, name: str) -> Iterator[Event]:
        yield from self._start()
        if self._repeat is not None:
            yield from self._part_ways()
        yield from self._close_spoken()
        # Clients tell calls apart by it alone, and servers may begin to count anew in each attempt.
        call_id = f"{call_id}_{self._next}" if call_id in self._call_ids else call_id
        self._call_ids.add(call_id)
        self._calls[number] = item = Called(self._item_id("fc"), self._next, call_id, name)
        yield from self._add(item)

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}_{self._key}_{self._next}"

    def _add(self, item: Item) -> Iterator[Event]:
        self._next += 1
        self._items.append(item)
        yield item.begin()

    def _close_spoken(self) -> Iterator[Event]:
        """End a message or a thought, behind which another item begins. Calls may still get arguments."""
        if self._items and isinstance(self._items[-1], Spoken):
            yield from self._items[-1].close("completed")

    def _again(self) -> Iterator[Event]:
        """Hold the attempt that begins against what was told; one that has called a tool is not repeated."""
        if self._calls:
            yield from self._part_ways()
            return
        told = [(part.kind, part.text) for item in self._items if isinstance(item, Spoken) for part in item.parts]
        self._repeat = Repeat(told)

    def _part_ways(self) -> Iterator[Event]:
        """Give up what was told of the lost attempt, and tell what was held back of the new one."""
        held = [] if self._repeat is None else self._repeat.said()
        self._repeat = None
        for item in self._items:
            if item.open:
                yield from item.close("incomplete")
        self._items = []
        self._calls = {}
        for kind, text in held:
            yield from self._tell(kind, text)

    def _finish(self, event: str, data: dict[str, Any]) -> Iterator[Event]:
        self.ended = True
        if event == COMPLETED:
            yield from self._complete(data)
        elif event == CANCELLED:
            # The API has no event for it: the stream ends, and the response says why.
            self.status = "cancelled"
            self._end = {"usage": usage_of(data.get("usage"))}
            self._break_off()
        else:
            self._fail(data, data.get("usage"))
            yield Event("response.failed", {"response": self.response()})

    def _complete(self, data: dict[str, Any]) -> Iterator[Event]:
        yield from self._start()
        if self._repeat is not None:
            # It has ended before it had said all that was told.
            yield from self._part_ways()
        why = INCOMPLETE.get(data["finish_reason"])
        for item in self._items:
            if item.open:
                cut = why is not None and item is self._items[-1]
                status: ItemStatus = "incomplete" if cut else "completed"
                yield from item.close(status)
        self._model = f"{data['provider']}/{data['model']}"
        self.status = "completed" if why is None else "incomplete"
        self._end = {"usage": usage_of(data["usage"])}
        if why is None:
            self._end["completed_at"] = (self._created_ms + data["duration_ms"]) // 1000
        else:
            self._end["incomplete_details"] = {"reason": why}
        yield Event(f"response.{self.status}", {"response": self.response()})

    def _fail(self, error: Mapping[str, Any], usage: Mapping[str, Any] | None) -> None:
        self.ended = True
        self.status = "failed"
        self._end = {"error": error_of(error), "usage": usage_of(usage)}
        self._break_off()

    def _break_off(self) -> None:
        for item in self._items:
            if item.open:
                item.status = "incomplete"
