"""An answer as an Anthropic message: its blocks one by one, as events or whole."""

from collections import deque
from typing import Any, Final

from api.dialect import Translation
from api.faces.anthropic_thoughts import signature
from api.faces.errors import anthropic_error
from api.faces.failures import attempt_lost, unfinished
from api.faces.target import Target
from api.faces.telling import Arguments, Call, Ended, Queued, Restarted, Started, Step, Telling, Text, Thought
from api.problems import Problem
from shared.events import COMPLETED, REASONING, SNAPSHOT, TOKEN, Entry, dump, load, quoted_text
from shared.structured import reading

REASONS: Final = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


def message_id(job_id: str) -> str:
    return job_id.replace("job_", "msg_")


def request_id(job_id: str) -> str:
    return job_id.replace("job_", "req_")


def stop(data: dict[str, Any], *, called: bool, refused: bool) -> dict[str, Any]:
    """Return why the answer ended. `refused`: its text is what the provider calls a refusal."""
    reason = "refusal" if refused else REASONS.get(data["finish_reason"], "end_turn")
    sequence = data.get("stop_sequence")
    if reason == "end_turn":
        # Some providers say no more than `stop` of a call that they were made to make.
        reason = "tool_use" if called else "end_turn" if sequence is None else "stop_sequence"
    details = {"type": "refusal", "category": None, "explanation": None} if reason == "refusal" else None
    return {"stop_reason": reason, "stop_sequence": sequence, "stop_details": details}


def usage(taken: dict[str, Any]) -> dict[str, Any]:
    """Return what it took; what was read from a cache stands beside the input here."""
    cached = taken["cached_input_tokens"]
    return {
        "input_tokens": taken["input_tokens"] - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": taken["output_tokens"],
        "output_tokens_details": {"thinking_tokens": taken.get("reasoning_tokens", 0)},
    }


class _Called:
    """A call whose block is not closed yet."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.pieces: list[bytes] = []
        """What the arguments are, quoted already."""

    def whole(self) -> bool:
        """Say whether the arguments are all there."""
        if not self.pieces or not self.pieces[-1].endswith(b'}"'):
            return False
        try:
            load("".join([load(piece) for piece in self.pieces]).encode("utf-8", "surrogatepass"))
        except ValueError:
            return False
        return True


class Events(Translation):
    """A log as the events of a message. An answer that begins again ends here, with an error: never doubled text."""

    def __init__(self, job_id: str, asked: Target, input_estimate: int, *, thinks: bool, shows_thinking: bool) -> None:
        """`thinks`: thinking was asked for. `shows_thinking`: its text is wanted, and not its signature alone."""
        self._job_id = job_id
        self._model = str(asked)
        self._input_estimate = input_estimate
        self._shows_thinking = shows_thinking
        self._unsigned = thinks
        """Whether no block stands yet for what was thought and not shown."""
        self._telling = Telling()
        self._begun = False
        self._index = -1
        self._open: str | None = None
        self._delta = (b"", b"")
        """What stands before and behind a piece of the open block."""
        self._thoughts = 0
        self._calls: deque[_Called] = deque()
        """Those that have begun: the first one's block is open, the others wait for it to be closed."""
        self._called = False
        self._refused = False

    def tell(self, entry: Entry) -> bytes:
        if self._open == _KINDS.get(entry.event) and (text := quoted_text(entry)) is not None and text != b'""':
            self._telling.more(entry, text)
            before, behind = self._delta
            return before + text + behind if self._open == "text" or self._shows_thinking else b""
        return b"".join([self._step(step) for step in self._telling.steps(entry) if not self.over])

    def _step(self, step: Step) -> bytes:
        match step:
            case Text(text, refusal):
                self._refused |= refusal
                return self._piece("text", text)
            case Thought(text):
                return self._piece("thinking", text)
            case Call():
                return self._call(step)
            case Arguments(number, piece):
                return self._arguments(number, piece)
            case Started(provider, model):
                self._model = f"{provider}/{model}"
                return b""
            case Restarted():
                self.gave_up = True
                return self._error(attempt_lost())
            case Ended(event, data):
                return self._end(data) if event == COMPLETED else self._error(unfinished(event, data))
            case Queued():
                return b""

    def _piece(self, kind: str, text: str) -> bytes:
        opening = b"" if self._open == kind else self._close() + self._begin(kind)
        if kind == "thinking" and not self._shows_thinking:
            return opening
        before, behind = self._delta
        return opening + before + dump(text) + behind

    def _begin(self, kind: str, call: Call | None = None) -> bytes:
        """Open a block. What a model has thought without showing it is a block as well: it wants to have it back."""
        before = b"" if self._begun else self._start()
        if kind == "thinking":
            self._unsigned = False
        elif self._unsigned:
            before += self._begin("thinking") + self._stop()
        self._index += 1
        self._open = kind
        block, delta, field = _BLOCKS[kind]
        if call is not None:
            block = {**block, "id": call.id, "name": call.name}
        start = {"type": "content_block_start", "index": self._index, "content_block": block}
        self._delta = _around(self._index, delta, field)
        return before + _event("content_block_start", start)

    def _close(self) -> bytes:
        """Close what is open, calls that have waited included."""
        closing = b""
        while self._calls:
            self._calls.popleft()
            closing += self._stop()
            if self._calls:
                closing += self._open_call()
        return closing + (b"" if self._open is None else self._stop())

    def _stop(self) -> bytes:
        signed = b""
        if self._open == "thinking":
            before, behind = _around(self._index, "signature_delta", "signature")
            signed = before + dump(signature(self._job_id, self._thoughts)) + behind
            self._thoughts += 1
        self._open = None
        return signed + _event("content_block_stop", {"type": "content_block_stop", "index": self._index})

    def _call(self, call: Call) -> bytes:
        self._called = True
        if self._calls:
            self._calls.append(_Called(call))
            return self._advance()
        closing = self._close()
        self._calls.append(_Called(call))
        return closing + self._open_call()

    def _open_call(self) -> bytes:
        called = self._calls[0]
        opening = self._begin("tool_use", called.call)
        before, behind = self._delta
        return opening + b"".join([before + piece + behind for piece in called.pieces])

    def _arguments(self, number: int, piece: str) -> bytes:
        called = next((called for called in self._calls if called.call.number == number), None)
        if called is None:
            return self._error(Problem(502, "provider_protocol", "The provider went on with a call that was over."))
        quoted = dump(piece)
        called.pieces.append(quoted)
        if called is not self._calls[0]:
            return b""
        before, behind = self._delta
        return before + quoted + behind + self._advance()

    def _advance(self) -> bytes:
        """Go on to the calls that wait, as far as those before them are whole: blocks come one after the other."""
        told = b""
        while len(self._calls) > 1 and self._calls[0].whole():
            told += self._stop()
            self._calls.popleft()
            told += self._open_call()
        return told

    def _start(self) -> bytes:
        self._begun = True
        message: dict[str, Any] = {
            "id": message_id(self._job_id),
            "type": "message",
            "role": "assistant",
            "model": self._model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {
                # A guess; the end has the figure.
                "input_tokens": self._input_estimate,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 0,
                "output_tokens": 0,
                "service_tier": "standard",
            },
        }
        return _event("message_start", {"type": "message_start", "message": message})

    def _end(self, data: dict[str, Any]) -> bytes:
        self.over = True
        before = self._close() if self._begun else self._start()
        why = stop(data, called=self._called, refused=self._refused)
        delta = {"type": "message_delta", "delta": why, "usage": usage(data["usage"])}
        return before + _event("message_delta", delta) + _event("message_stop", {"type": "message_stop"})

    def _error(self, problem: Problem) -> bytes:
        self.over = True
        return _event("error", anthropic_error(problem, request_id(self._job_id)))


_KINDS: Final = {TOKEN: "text", REASONING: "thinking"}
"""Which block an event's text goes into."""

_BLOCKS: Final[dict[str, tuple[dict[str, Any], str, str]]] = {
    "text": ({"type": "text", "text": ""}, "text_delta", "text"),
    "thinking": ({"type": "thinking", "thinking": "", "signature": ""}, "thinking_delta", "thinking"),
    "tool_use": ({"type": "tool_use", "id": "", "name": "", "input": {}}, "input_json_delta", "partial_json"),
}
"""How each kind of block opens, and what its pieces are called."""


def _event(name: str, data: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), dump(data))


def _around(index: int, delta: str, field: str) -> tuple[bytes, bytes]:
    """Return what stands before and behind a piece of the block: the same for each of them."""
    before = (
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"%b","%b":'
        % (index, delta.encode(), field.encode())
    )
    return before, b"}}\n\n"


class Content:
    """A log as the blocks of a whole message."""

    def __init__(self, job_id: str, *, thinks: bool, shows_thinking: bool) -> None:
        self._job_id = job_id
        self._thinks = thinks
        self._shows_thinking = shows_thinking
        self._again()

    def _again(self) -> None:
        self._telling = Telling()
        self._blocks: list[dict[str, Any]] = []
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, entry: Entry) -> None:
        if entry.event == SNAPSHOT:
            self._again()
        for step in self._telling.steps(entry):
            match step:
                case Text(text):
                    self._last("text")["text"].append(text)
                case Thought(text):
                    self._last("thinking")["thinking"].append(text)
                case Call(number, id, name):
                    self._calls[number] = {"type": "tool_use", "id": id, "name": name, "input": []}
                    self._blocks.append(self._calls[number])
                case Arguments(number, piece):
                    self._calls[number]["input"].append(piece)
                case Restarted():
                    self._blocks, self._calls = [], {}

    def _last(self, kind: str) -> dict[str, Any]:
        if not self._blocks or self._blocks[-1]["type"] != kind:
            self._blocks.append({"type": kind, kind: []})
        return self._blocks[-1]

    @property
    def called(self) -> bool:
        return bool(self._calls)

    def blocks(self, *, cut: bool) -> list[dict[str, Any]]:
        """Return the blocks; of an answer that was cut in its length, also the beginning of a call.

        Raises the problem of a call whose arguments are none.
        """
        unseen: list[dict[str, Any]] = []
        if self._thinks and self._blocks and self._blocks[0]["type"] != "thinking":
            unseen = [{"type": "thinking", "thinking": []}]
        found: list[dict[str, Any]] = []
        thoughts = 0
        for block in [*unseen, *self._blocks]:
            match block:
                case {"type": "text", "text": pieces}:
                    found.append({"type": "text", "text": "".join(pieces)})
                case {"type": "thinking", "thinking": pieces}:
                    thought = "".join(pieces) if self._shows_thinking else ""
                    signed = signature(self._job_id, thoughts)
                    found.append({"type": "thinking", "thinking": thought, "signature": signed})
                    thoughts += 1
                case {"type": "tool_use", "input": pieces}:
                    found.append({**block, "input": _input("".join(pieces), cut=cut)})
        return found


def _input(arguments: str, *, cut: bool) -> dict[str, Any]:
    try:
        found = reading(arguments) if cut else load(arguments.encode("utf-8", "surrogatepass") or b"{}")
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    if cut:
        return {}
    raise Problem(502, "provider_protocol", "The provider called a tool with arguments that are no JSON object.")
