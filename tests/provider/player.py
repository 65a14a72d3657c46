"""Plays one script for one call: the script's words to bytes, in order, until its end or the client's."""

import asyncio
import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, assert_never

from tests.provider.calls import Call
from tests.provider.dialect import Dialect, compact
from tests.provider.http1 import Connection
from tests.provider.pace import Pace
from tests.provider.steps import (
    Arguments,
    Begin,
    Cut,
    Delay,
    Dribble,
    Eof,
    Finish,
    Headers,
    HttpError,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    Refusal,
    Silence,
    Stamps,
    Step,
    StreamError,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)

_STATUS_OF = {"invalid_request_error": 400, "rate_limit_error": 429, "overloaded_error": 529}
_YIELD_EVERY = 32  # writes, about 0.3 ms; an unpaced script must not keep the loop from the client it shares it with


def check(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the script if it can be played. Raises ValueError."""
    flat = list(_flat(steps))
    for i, step in enumerate(flat):
        if isinstance(step, HttpError) and not all(isinstance(s, Delay | Wait | Usage | NoUsage) for s in flat[:i]):
            raise ValueError("only waits may precede HttpError: its status is the first thing sent")
        if isinstance(step, Arguments) and not any(isinstance(s, ToolCall) for s in flat[:i]):
            raise ValueError("Arguments continue a ToolCall")
        if isinstance(step, Text) and step.utf8:
            step.text.encode()  # a lone surrogate has no UTF-8
    return tuple(steps)


class Player:
    """One call's answer."""

    def __init__(self, connection: Connection, call: Call, dialect: Dialect, steps: Sequence[Step], pace: Pace) -> None:
        flat = list(_flat(steps))
        said = [s for s in flat if isinstance(s, Usage | NoUsage)]
        usage = said[-1] if said else plausible_usage(flat, call.body)
        self._connection = connection
        self._call = call
        self._dialect = dialect
        self._steps = steps
        self._pace = pace
        self._wire = dialect.wire(call, usage if isinstance(usage, Usage) else None)
        self._reason = _natural_end(flat)
        self._headers_at_once = call.stream and not (
            any(isinstance(s, Headers | HttpError) for s in flat) or isinstance(flat[0] if flat else None, Cut)
        )
        self._headers_sent = False
        self._finished = False
        self._error: StreamError | None = None
        self._raw: list[bytes] = []
        self._notes: list[tuple[str, str]] = []
        self._dribble: Dribble | None = None
        self._writes = 0

    async def play(self) -> None:
        """Play to the end. Cancelled, or ConnectionResetError, when the client leaves before."""
        if self._headers_at_once:
            self._send_headers()
        for step in self._steps:
            if await self._play(step):
                break
        else:
            await self._end()
        await self._connection.flushed()

    async def _play(self, step: Step) -> bool:
        """Play one step; True if it was the last, whatever follows it in the script."""
        match step:
            case Text(text, utf8):
                await self._put(self._wire.text(text, utf8=utf8), "text", text)
            case Tokens() | Stamps():
                await self._tokens(step)
            case Reasoning(text, field):
                await self._put(self._wire.reasoning(text, field), "reasoning", text)
            case Refusal(text):
                await self._put(self._wire.refusal(text), "refusal", text)
            case ToolCall(id, name):
                await self._put(self._wire.tool_call(id, name))
                for piece in step.pieces():
                    await self._put(self._wire.arguments(piece), "arguments", piece)
            case Arguments(piece):
                await self._put(self._wire.arguments(piece), "arguments", piece)
            case Headers():
                self._send_headers()
            case Begin():
                await self._put(self._wire.begin())
            case Ping():
                await self._put(self._wire.ping())
            case Delay(seconds):
                await asyncio.sleep(seconds)
            case Wait(gate):
                await gate.passed()
            case Silence():
                await asyncio.get_running_loop().create_future()
            case Cut(fin):
                await self._connection.flushed()
                self._connection.fin() if fin else self._connection.reset()
                return True
            case Eof():
                if self._call.stream:
                    self._send_headers()
                    self._connection.end()
                else:
                    self._connection.fin()
                return True
            case HttpError():
                self._reply_error(step)
                return True
            case StreamError():
                self._error = step
                await self._put(self._wire.error(step))
            case Usage() | NoUsage():
                pass  # known from the start: Anthropic reports input first
            case Finish(reason):
                self._finished = True
                await self._put(self._wire.finish(reason))
            case RawBytes(data):
                self._raw.append(data)
                await self._put(data)
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
            await self._put(self._wire.text(piece), "text", piece)

    async def _end(self) -> None:
        if not self._call.stream:
            self._reply_whole()
        elif self._error is not None:
            self._connection.end()
        else:
            if not self._finished:
                await self._put(self._wire.finish(self._reason))
            self._connection.end(self._wire.end())

    async def _put(self, data: bytes, kind: str | None = None, piece: str = "") -> None:
        """Send what a step gave, and record the piece of the answer that it was."""
        connection = self._connection
        if self._call.stream and data:
            if not self._headers_sent:
                self._send_headers()
            if self._dribble is None:
                connection.send(data)
            else:
                for i in range(0, len(data), self._dribble.size):
                    if i:
                        await asyncio.sleep(self._dribble.gap_s)
                    connection.send(data[i : i + self._dribble.size])
        if kind is not None:
            if self._call.stream:
                self._call.note(kind, piece)
            else:
                self._notes.append((kind, piece))  # sent only with the rest
        if connection.full:
            await connection.writable()
        self._writes += 1
        if not self._writes % _YIELD_EVERY:
            await asyncio.sleep(0)

    def _send_headers(self) -> None:
        if not self._headers_sent and self._call.stream:
            self._headers_sent = True
            headers = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
            self._connection.head(200, {**headers, **self._dialect.headers(self._call.number)})

    def _reply_error(self, step: HttpError) -> None:
        number = self._call.number
        body = compact(self._dialect.error_body(number, step)).encode() if step.body is None else step.body
        headers = {"content-type": "application/json", **self._dialect.headers(number)}
        self._connection.reply(step.status, {**headers, **{k.lower(): v for k, v in step.headers.items()}}, body)

    def _reply_whole(self) -> None:
        if self._error is not None:
            status = _STATUS_OF.get(self._error.type or "", 500)
            self._reply_error(HttpError(status, self._error.type, self._error.message, self._error.code))
            return
        if not self._finished:
            self._wire.finish(self._reason)
        headers = {"content-type": "application/json", **self._dialect.headers(self._call.number)}
        self._connection.reply(200, headers, b"".join(self._raw) or self._wire.end())
        for kind, piece in self._notes:
            self._call.note(kind, piece)


def plausible_usage(steps: Sequence[Step], body: dict[str, Any]) -> Usage:
    """Return what a script without Usage reports: one output token a piece, one input token for four characters."""
    output = reasoning = 0
    for step in steps:
        match step:
            case Text() | Refusal() | Arguments():
                output += 1
            case Reasoning():
                output += 1
                reasoning += 1
            case Tokens() | Stamps():
                output += step.count
            case ToolCall():
                output += 1 + len(step.pieces())
    characters = sum(map(len, chain(_texts(body.get("system")), _texts(body.get("messages")))))
    return Usage(input=max(1, math.ceil(characters / 4)), output=output, reasoning=reasoning)


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings under `content` and `text` of messages and content blocks."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        yield from _texts(value.get("content"))
        yield from _texts(value.get("text"))


def _natural_end(steps: Sequence[Step]) -> str:
    if any(isinstance(s, ToolCall) for s in steps):
        return "tool_calls"
    if any(isinstance(s, Refusal) for s in steps):
        return "refusal"
    return "stop"


def _flat(steps: Iterable[Step]) -> Iterator[Step]:
    for step in steps:
        if isinstance(step, Dribble):
            yield from _flat(step.steps)
        else:
            yield step
