"""Answers on a terminal, or in a pipe: what is shown is the answer, also when an attempt was lost in its middle."""

import json
import re
import sys
from typing import Final

from rejoin.answer import Answer
from rejoin.command.manners import say
from rejoin.events import Cancelled, Completed, Event, Failed, Reasoning, Restarted, Snapshot, Token

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def harmless(text: str) -> str:
    """Return text for a terminal: what a model writes is not to move the cursor, set the title, or turn text around."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


class Screen:
    """Writes an answer's text as it comes; thinking, dimmed, on a terminal only.

    What has been written cannot be taken back. When an attempt is lost, the next one's text is held for as long as it
    repeats what is there, and goes on from it; where it differs, a line says that it begins again.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._tty = sys.stdout.isatty()
        self._quiet = quiet
        self._written = ""
        """Of the answer: what stands there."""
        self._behind = False
        """Whether what stands there may be another attempt's."""
        self._thinking = False
        self._line_open = False

    def show(self, event: Event, answer: Answer) -> None:
        """Show one event; `answer` is what all of them add up to, this one included."""
        if self._quiet:
            if isinstance(event, Completed):
                self._write(answer.text)
        else:
            self._show(event, answer)
        if event.last:
            self.end_line()
            if isinstance(event, Completed):
                for call in answer.tool_calls:
                    print(self._fit(f"{call.name} {call.arguments}"), flush=True)

    def _show(self, event: Event, answer: Answer) -> None:
        match event:
            case Reasoning(text=text) if self._tty and not self._behind:
                self._think(text)
            case Token(text=text) if not self._behind:
                self._write(text)
                self._written += text
            case Restarted() | Snapshot():
                self._behind = True
        if self._behind:
            self._catch_up(answer.text, over=event.last)

    def _catch_up(self, text: str, *, over: bool) -> None:
        if not text.startswith(self._written):
            if self._written.startswith(text) and not over:
                return
            self.end_line()
            say("the attempt was lost; the answer begins again")
            self._written = ""
        if len(text) > len(self._written) or over:
            self._write(text[len(self._written) :])
            self._written, self._behind = text, False

    def _think(self, text: str) -> None:
        # Noted first: Ctrl-C may come in the middle of a print.
        self._thinking = self._line_open = True
        print(f"{DIM}{harmless(text)}{PLAIN}", end="", flush=True)

    def _write(self, text: str) -> None:
        if text:
            if self._thinking:
                print("\n", flush=True)
                self._thinking = False
            self._line_open = not text.endswith("\n")
            print(self._fit(text), end="", flush=True)

    def _fit(self, text: str) -> str:
        return harmless(text) if self._tty else text

    def end_line(self) -> None:
        """See that what comes next begins a line."""
        if self._line_open:
            self._line_open = False
            print(flush=True)


class Lines:
    """Writes each event as the server tells it: `{"id", "event", "data"}`, one a line."""

    def show(self, event: Event, _: Answer) -> None:
        told = {"id": event.id, "event": event.event, "data": event.data}
        print(json_line(told), flush=True)

    def end_line(self) -> None: ...


def json_line(value: object) -> str:
    """Return one line of JSON, readable where that is possible: a lone surrogate has no UTF-8."""
    line = json.dumps(value, ensure_ascii=False)
    return line if line.isascii() or _fits_utf8(line) else json.dumps(value)


def _fits_utf8(text: str) -> bool:
    try:
        return bool(text.encode())
    except UnicodeEncodeError:
        return False


def figures(job_id: str | None, end: Event | None) -> str:
    """Return what became of the job, in one line."""
    match end:
        case Completed():
            tokens = (
                f"{'about ' if end.usage.estimated else ''}{end.usage.input_tokens} + {end.usage.output_tokens} tokens"
            )
            told = [f"{end.provider}/{end.model}", tokens]
            if end.ttft_ms is not None:
                told.append(f"first after {end.ttft_ms} ms")
            if end.duration_ms is not None:
                told.append(f"{end.duration_ms / 1000:.1f} s")
            if end.cost_usd is not None:
                told.append(f"${end.cost_usd:.6f}")
            return ", ".join([*told, job_id or ""])
        case Failed():
            return f"{job_id} failed: {end.message} ({end.code})"
        case Cancelled():
            return f"{job_id} was cancelled"
    return f"{job_id}: nothing more to come"
