"""The server itself: scripts by model, calls in order of arrival."""

import asyncio
import json
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

from tests.provider.anthropic_messages import AnthropicMessages
from tests.provider.calls import Call
from tests.provider.dialect import Dialect
from tests.provider.gate import Gate
from tests.provider.http1 import Connection, Request
from tests.provider.openai_chat import OpenAIChat
from tests.provider.pace import Pace
from tests.provider.player import Player, check
from tests.provider.steps import HttpError, Step, Tokens

Author = Callable[[Call], Sequence[Step]]

DEFAULT_SCRIPT: tuple[Step, ...] = (Tokens("Hello from the scripted provider."),)

_OPENAI = OpenAIChat()
_ANTHROPIC = AnthropicMessages()
_DIALECTS: dict[str, Dialect] = {"/v1/chat/completions": _OPENAI, "/v1/messages": _ANTHROPIC}


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
        """How many calls are being answered."""
        return len(self._live)

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
        dialect = _DIALECTS.get(path)
        if dialect is not None and request.method == "POST":
            await self._generate(dialect, request, connection)
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

        def ended(*, finished: bool = False, client_left: bool = False) -> None:
            self._live.discard(call)
            call.end(finished=finished, client_left=client_left)

        connection.on_client_left = lambda: ended(client_left=True)
        try:
            call.rejected = dialect.complaint(request.headers, body)
            steps = [HttpError(400, message=call.rejected)] if call.rejected is not None else self._steps(call)
            await Player(connection, call, dialect, steps, self._pace).play()
            ended(finished=True)
        except ConnectionResetError:
            ended(client_left=True)
        except Exception as fault:
            self._faults.append(fault)
            asyncio.get_running_loop().call_exception_handler({"message": f"{call!r}", "exception": fault})
            connection.shut()
        finally:
            ended()
            connection.on_client_left = None

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
