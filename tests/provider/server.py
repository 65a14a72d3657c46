"""The server itself: scripts by model, calls in order of arrival."""

import asyncio
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.provider import responses_routes
from tests.provider.anthropic_messages import AnthropicMessages
from tests.provider.breaks import Failure, HttpError
from tests.provider.calls import Call
from tests.provider.dialect import Dialect
from tests.provider.event_log import EventLog
from tests.provider.gate import Gate
from tests.provider.http1 import Connection, Request
from tests.provider.openai_chat import OpenAIChat
from tests.provider.openai_responses import OpenAIResponses
from tests.provider.pace import Pace
from tests.provider.player import Player
from tests.provider.responses_events import ResponseEvents
from tests.provider.runs import Read, Run
from tests.provider.script import check, flat
from tests.provider.steps import Step, Tokens

Author = Callable[[Call], Sequence[Step]]

DEFAULT_SCRIPT: tuple[Step, ...] = (Tokens("Hello from the scripted provider."),)

_OPENAI = OpenAIChat()
_ANTHROPIC = AnthropicMessages()


class ScriptedProvider:
    """Answer as scripted, record every call, notice at once when a client leaves. Use as `async with`.

    A model without a script gets `default`. On leaving the block every connection is aborted; a fault of the double
    itself (an improvised script that cannot be played) is raised there, unless the block raises.
    """

    def __init__(self, *, port: int = 0, default: Sequence[Step] = DEFAULT_SCRIPT) -> None:
        self.port = port
        self.calls: list[Call] = []
        """Every request for a generation, also refused ones, in order of arrival."""
        self.max_concurrent = 0
        self._default = check(default)
        self._runs: dict[str, Run] = {}
        self._responses = OpenAIResponses(self._runs)
        self._dialects: dict[str, Dialect] = {
            "/v1/chat/completions": _OPENAI,
            "/v1/responses": self._responses,
            "/v1/messages": _ANTHROPIC,
        }
        self._scripts: dict[str, list[tuple[Step, ...] | Author]] = {}
        self._gates: dict[str, Gate] = {}
        self._numbers = 0
        self._arrivals: asyncio.Queue[Call] = asyncio.Queue()
        self._live: set[Call] = set()
        self._connections: set[Connection] = set()
        self._faults: list[Exception] = []

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._pace = Pace()
        self._server = await loop.create_server(
            lambda: Connection(self._answer, self._connections), "127.0.0.1", self.port, backlog=2048
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for run in self._runs.values():
            if run.task is not None:
                run.task.cancel()
                tasks.append(run.task)
        for connection in list(self._connections):
            connection.shut()
        if tasks:
            await asyncio.wait(tasks, timeout=2)
        async with asyncio.timeout(2):
            await self._server.wait_closed()
        if error is None and self._faults:
            raise self._faults[0]

    @property
    def openai_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def anthropic_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def active(self) -> int:
        """How many calls are being answered; background responses as long as they are generated."""
        return len(self._live)

    @property
    def runs(self) -> list[Run]:
        """The responses of the Responses API that exist, or did: each was paid for once."""
        return [call.run for call in self.calls if call.run is not None]

    def script(self, model: str, *steps: Step) -> None:
        """Answer calls for this model (`"*"`: any model without a script) so from now on, whatever was scripted before.

        Raises ValueError for a script that cannot be played.
        """
        self._scripts[model] = [check(steps)]

    def then(self, model: str, *steps: Step) -> None:
        """Answer so once the scripts before were played, one a call; the last one repeats."""
        self._scripts.setdefault(model, []).append(check(steps))

    def improvise(self, model: str, author: Author) -> None:
        """Let `author` write the script of each call for this model (`"*"`: any without one) when it comes."""
        self._scripts[model] = [author]

    def gate(self, name: str | None = None) -> Gate:
        """Return a new closed gate, or the one of this name."""
        return Gate() if name is None else self._gates.setdefault(name, Gate(name))

    async def next_call(self, timeout_s: float = 5.0) -> Call:
        """Return the next call in order of arrival, each once. Raises TimeoutError."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._arrivals.get()
        except TimeoutError:
            raise TimeoutError(f"no further call within {timeout_s} s; so far {self.calls}") from None

    def drop_idle(self) -> None:
        """Close the connections that nobody is waiting on, as providers do with kept-alive ones after a while."""
        for connection in list(self._connections):
            if connection.task is None:
                connection.fin()

    def forget(self) -> None:
        """Drop the records of all calls (for runs of hours)."""
        self.calls.clear()
        for id in [id for id, run in self._runs.items() if run.call not in self._live]:
            del self._runs[id]
        self._arrivals = asyncio.Queue()

    def other(self, request: Request) -> tuple[int, dict[str, Any]]:
        """Answer what is no generation: status and JSON."""
        dialect: Dialect = _ANTHROPIC if "anthropic-version" in request.headers else _OPENAI
        path = request.target.partition("?")[0]
        if (request.method, path) == ("GET", "/v1/models"):
            return 200, dialect.models(sorted(self._scripts.keys() - {"*"}) or ["scripted"])
        error = HttpError(404, message=f"Unknown request URL: {request.method} {path}", code="unknown_url")
        return 404, dialect.error_body(0, error)

    async def _answer(self, request: Request, connection: Connection) -> None:
        path = request.target.partition("?")[0]
        dialect = self._dialects.get(path)
        if dialect is not None and request.method == "POST":
            await self._generate(dialect, request, connection)
        elif path.startswith("/v1/responses/"):
            await responses_routes.answer(request, connection, self._runs, self._responses)
        else:
            status, value = self.other(request)
            connection.reply(status, {"content-type": "application/json"}, json.dumps(value).encode())

    async def _generate(self, dialect: Dialect, request: Request, connection: Connection) -> None:
        body = _json(request.body)
        call = Call(self._numbers, dialect.name, request.headers, body if isinstance(body, dict) else {})
        self._numbers += 1
        self.calls.append(call)
        self._arrivals.put_nowait(call)
        self._live.add(call)
        self.max_concurrent = max(self.max_concurrent, self.active)
        connection.on_client_left = lambda: self._ended(call, client_left=True)
        try:
            complaint = dialect.complaint(request.headers, body)
            if complaint is None:
                steps = self._steps(call)
            else:
                message, param, code, status = complaint
                call.rejected = message
                steps = [HttpError(status, message=message, param=param, code=code)]
            log = EventLog() if call.body.get("background") is True and self._generates(dialect, steps) else None
            player = Player(log or connection, call, dialect, steps, self._pace)
            if self._generates(dialect, steps) and isinstance(player.wire, ResponseEvents):
                call.run = self._runs[f"resp_{call.number:08x}"] = Run(call, dialect, player.wire, log)
            if call.run is None or log is None:
                await self._play(call, player, request, connection)
            else:
                await self._play_apart(call, player, call.run, request, connection)
        except Exception as fault:
            self._fault(call, fault)
            connection.shut()
        finally:
            connection.on_client_left = None

    def _generates(self, dialect: Dialect, steps: Sequence[Step]) -> bool:
        """Return whether this script makes a response of the Responses API exist."""
        return dialect is self._responses and not any(isinstance(step, HttpError | Failure) for step in flat(steps))

    async def _play(self, call: Call, player: Player, request: Request, connection: Connection) -> None:
        """Play a call that is over when its connection is."""
        if call.run is not None:
            call.run.arrived(Read("POST", request.headers, call.stream, None))
        try:
            await player.play()
            self._ended(call, finished=True)
        except ConnectionResetError:
            self._ended(call, client_left=True)
        finally:
            self._ended(call)

    async def _play_apart(self, call: Call, player: Player, run: Run, request: Request, connection: Connection) -> None:
        """Play a background response, to whoever reads it, in a task of its own."""

        async def generate() -> None:
            try:
                await player.play()
                self._ended(call, finished=True)
            except Exception as fault:
                self._fault(call, fault)
                run.broke()

        run.task = asyncio.create_task(generate())
        run.task.add_done_callback(lambda task: self._ended(call))
        await run.serve(Read("POST", request.headers, call.stream, None), connection)

    def _ended(self, call: Call, *, finished: bool = False, client_left: bool = False) -> None:
        if call.ended_at is None:
            self._live.discard(call)
            call.end(finished=finished, client_left=client_left)
            if call.run is not None:
                call.run.ended_with_call()

    def _fault(self, call: Call, fault: Exception) -> None:
        self._faults.append(fault)
        asyncio.get_running_loop().call_exception_handler({"message": f"{call!r}", "exception": fault})
        self._ended(call)

    def _steps(self, call: Call) -> Sequence[Step]:
        scripts = self._scripts.get(call.model) or self._scripts.get("*")
        if not scripts:
            return self._default
        script = scripts.pop(0) if len(scripts) > 1 else scripts[0]
        return check(script(call)) if callable(script) else script


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None
