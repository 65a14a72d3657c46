"""Plays one script for one call: the script's words to bytes, in order, until its end or the client's."""

import asyncio
import re
from collections.abc import Sequence
from typing import assert_never

from tests.provider.breaks import Cut, CutReader, Eof, Failure, HttpError, Silence, StreamError
from tests.provider.calls import Call
from tests.provider.dialect import Dialect, Outlet, error_answer
from tests.provider.event_log import EventLog
from tests.provider.pace import Pace
from tests.provider.quirks import EmptyChunk, Quirks
from tests.provider.script import flat, natural_end, plausible_usage, quirks
from tests.provider.steps import (
    Arguments,
    Begin,
    Delay,
    Dribble,
    Finish,
    Headers,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    RedactedThinking,
    Refusal,
    Stamps,
    Step,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)

_STATUS_OF = {"invalid_request_error": 400, "rate_limit_error": 429, "overloaded_error": 529}
_FIELD = re.compile(rb"^(data|event): ", re.MULTILINE)
_YIELD_EVERY = 32  # writes, about 0.3 ms; an unpaced script must not keep the loop from the client it shares it with


class Player:
    """One call's answer."""

    def __init__(self, outlet: Outlet, call: Call, dialect: Dialect, steps: Sequence[Step], pace: Pace) -> None:
        all_steps = list(flat(steps))
        said = [s for s in all_steps if isinstance(s, Usage | NoUsage)]
        usage = said[-1] if said else plausible_usage(all_steps, call.body)
        self.wire = dialect.wire(call, usage if isinstance(usage, Usage) else None, all_steps)
        self._outlet = outlet
        self._call = call
        self._dialect = dialect
        self._steps = steps
        self._pace = pace
        self._streamed = call.stream or isinstance(outlet, EventLog)
        self._reason = natural_end(all_steps)
        self._headers_wait = any(isinstance(s, Headers | HttpError | Failure) for s in all_steps)
        self._cut_first = bool(all_steps) and isinstance(all_steps[0], Cut | CutReader)
        self._headers_sent = False
        self._finished = False
        self._error: StreamError | None = None
        self._raw: list[bytes] = []
        self._notes: list[tuple[str, str]] = []
        self._dribble: Dribble | None = None
        self._quirks = quirks(all_steps)
        self._writes = 0

    async def play(self) -> None:
        """Play to the end. Cancelled, or ConnectionResetError, when the client leaves before."""
        if not self._headers_wait and not self._cut_first:
            await self._open()
        for step in self._steps:
            if await self._play(step):
                break
        else:
            await self._end()
        await self._outlet.flushed()

    async def _play(self, step: Step) -> bool:
        """Play one step; True if it was the last, whatever follows it in the script."""
        match step:
            case Text(text, utf8):
                await self._put(self.wire.text(text, utf8=utf8), "text", text)
            case Tokens() | Stamps():
                await self._tokens(step)
            case Reasoning(text, field):
                await self._put(self.wire.reasoning(text, field), "reasoning", text)
            case RedactedThinking(hidden):
                await self._put(self.wire.redacted(hidden))
            case Refusal(text):
                await self._put(self.wire.refusal(text), "refusal", text)
            case ToolCall(id, name) if self.wire.whole_tool_calls:
                arguments = "".join(step.pieces())
                await self._put(self.wire.tool_call(id, name, arguments), "arguments", arguments)
            case ToolCall(id, name):
                await self._put(self.wire.tool_call(id, name))
                for piece in step.pieces():
                    await self._put(self.wire.arguments(piece), "arguments", piece)
            case Arguments(piece):
                await self._put(self.wire.arguments(piece), "arguments", piece)
            case Headers():
                await self._open()
            case Begin():
                await self._put(self.wire.begin())
            case Ping(event):
                await self._put(self.wire.ping(event=event))
            case EmptyChunk():
                await self._put(self.wire.empty())
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Wait(gate):
                await gate.passed()
            case Silence():
                await asyncio.get_running_loop().create_future()
            case Cut(fin):
                return await self._cut(CutReader(how="fin" if fin else "rst"))
            case Eof():
                return await self._cut(CutReader(how="eof"))
            case CutReader():
                return await self._cut(step)
            case HttpError():
                self._reply_error(step)
                return True
            case Failure():
                self._reply_error(self._dialect.failure(step))
                return True
            case StreamError():
                self._error = step
                await self._put(self.wire.error(step))
            case Usage() | NoUsage() | Quirks():
                pass  # known from the start: Anthropic reports input first
            case Finish(reason, text):
                self._finished = True
                await self._put(self.wire.finish(reason, text), "text" if text else None, text)
            case RawBytes(data):
                self._raw.append(data)
                await self._put(data, framed=True)
            case Dribble(steps):
                self._dribble = step
                for inner in steps:
                    if await self._play(inner):
                        return True
                self._dribble = None
            case _:
                assert_never(step)
        return False

    async def _tokens(self, step: Tokens | Stamps) -> None:
        due_s = asyncio.get_running_loop().time()
        pieces = iter(step.pieces())
        for i in range(step.count):
            if i and step.delay_s:
                due_s += step.delay_s
                await self._pace.until(due_s)
            piece = next(pieces)  # only now: a stamp is the time of its sending
            await self._put(self.wire.text(piece), "text", piece)

    async def _cut(self, step: CutReader) -> bool:
        """Drop the connection; True if the answer is over with it."""
        if step.how == "eof":
            self._send_headers()
        if isinstance(self._outlet, EventLog):
            self._outlet.cut(step)
            if not self._headers_wait:
                await self._open()
            return False
        await self._outlet.drop("fin" if step.how == "eof" and not self._streamed else step.how)
        return True

    async def _end(self) -> None:
        if not self._streamed:
            self._reply_whole()
        elif self._error is not None:
            self._outlet.end()
        else:
            if not self._finished:
                await self._put(self.wire.finish(self._reason))
            self._outlet.end(self._framed(self.wire.end()))

    async def _put(self, data: bytes, kind: str | None = None, piece: str = "", *, framed: bool = False) -> None:
        """Send what a step gave, and record the piece of the answer that it was."""
        outlet = self._outlet
        if self._streamed and data:
            if not self._headers_sent:
                self._send_headers()
            if not framed:
                data = self._framed(data)
            if self._dribble is None:
                outlet.send(data)
            else:
                await outlet.dribble(data, self._dribble.size, self._dribble.gap_s)
        if kind is not None:
            if self._streamed:
                self._call.note(kind, piece)
            else:
                self._notes.append((kind, piece))  # sent only with the rest
        if outlet.full:
            await outlet.writable()
        self._writes += 1
        if not self._writes % _YIELD_EVERY:
            await asyncio.sleep(0)

    def _framed(self, data: bytes) -> bytes:
        """Return frames as the script's quirks want them. (JSON has no raw line ends.)"""
        if not self._quirks.space:
            data = _FIELD.sub(rb"\1:", data)
        return data.replace(b"\n", b"\r\n") if self._quirks.crlf else data

    async def _open(self) -> None:
        """Send headers and what goes with them, if that is still to be done."""
        if not self._headers_sent:
            self._send_headers()
            await self._put(self.wire.open())

    def _send_headers(self) -> None:
        if not self._headers_sent and self._streamed:
            self._headers_sent = True
            headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            self._outlet.head(200, {**headers, **self._dialect.headers(self._call.number)})

    def _reply_error(self, step: HttpError) -> None:
        self._outlet.reply(*error_answer(self._dialect, self._call.number, step))

    def _reply_whole(self) -> None:
        if self._error is not None:
            status = _STATUS_OF.get(self._error.type or "", 500)
            self._reply_error(HttpError(status, self._error.type, self._error.message, self._error.code))
            return
        if not self._finished:
            self.wire.finish(self._reason)
        headers = {"content-type": "application/json", **self._dialect.headers(self._call.number)}
        self._outlet.reply(200, headers, b"".join(self._raw) or self.wire.end())
        for kind, piece in self._notes:
            self._call.note(kind, piece)
