"""Everything that runs in production, in one test: API and worker, in this process or in processes of their own."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, nullcontext, suppress
from pathlib import Path
from typing import Any

import uvicorn
from redis.asyncio import Redis

from api.main import create_app
from shared.keys import Keys
from shared.redis import Multiplexer, connect
from shared.settings import ENV_NAMES, Settings
from tests.client import Client
from tests.provider import ScriptedProvider
from tests.valkey import Valkey
from worker.dispatch import LeaseWorker
from worker.workshop import Workshop

ROOT = Path(__file__).parent.parent
START_S = 20
COMMAND_S = 5.0
LOOKS = 50
"""Turns of the loop in which clients that have left are noticed."""


class Server(uvicorn.Server):
    """uvicorn's, but it notices when it is told to end, not at its next look, and waits for nobody where nobody is."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told = asyncio.Event()

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(seconds * 10) and not self.told.is_set():
            seconds += 1
            with suppress(TimeoutError):
                await asyncio.wait_for(self.told.wait(), 1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for _ in range(LOOKS):
            if not self.server_state.connections and not self.server_state.tasks:
                for server in self.servers:
                    server.close()
                await self.lifespan.shutdown()
                return
            await asyncio.sleep(0)
        await super().shutdown(sockets)


class Api:
    """One API process' worth of app, served by a real uvicorn on a port of its own."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        # With its protocol named: asyncio sets TCP_NODELAY on no other (40 ms a request, else).
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(self.app, log_config=None, access_log=False, timeout_graceful_shutdown=2)
        self._server = Server(config)
        self._server.capture_signals = nullcontext  # type: ignore[method-assign, assignment]
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._server.serve([self._socket]))
        while not self._server.started:
            assert not self._task.done(), self._task.exception()
            await asyncio.sleep(0)

    def begin_to_stop(self) -> None:
        self.app.state.rejoin.hub.end_all()
        self._server.should_exit = True
        self._server.told.set()

    async def stop(self) -> None:
        assert self._task is not None
        self.begin_to_stop()
        await self._task


class LocalWorker:
    """A worker inside the test's own process."""

    def __init__(self, settings: Settings) -> None:
        self.worker = LeaseWorker(Workshop(settings), handle_signals=False)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self.worker.async_run())
        lease = self.worker.workshop.lease
        while not lease.worker:
            assert not self._task.done(), self._task.exception()
            await asyncio.sleep(0.001)

    async def stop(self) -> None:
        assert self._task is not None
        self.worker.handle_sig(signal.SIGTERM)
        await self._task
        await self.worker.close()


class Process:
    """A program of ours as a process of its own, to be killed by real signals."""

    def __init__(self, args: list[str], env: dict[str, str], ready: str) -> None:
        self._args = args
        self._env = env
        self._ready = ready
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()
        self._news = asyncio.Event()

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._args, cwd=ROOT, env={**os.environ, **self._env},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(START_S):
                await self._is_ready.wait()
        except TimeoutError:
            raise TimeoutError("not ready:\n" + "\n".join(self.lines)) from None

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode(errors="replace").rstrip())
            self._news.set()
            if self._ready in self.lines[-1]:
                self._is_ready.set()

    async def line(self, part: str) -> str:
        """Return the first line of output with this part in it."""
        async with asyncio.timeout(5):
            while True:
                for line in self.lines:
                    if part in line:
                        return line
                self._news.clear()
                await self._news.wait()

    def signal(self, signum: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(signum)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def peak_bytes(self) -> int:
        """Return the most memory that it has had."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def exit_code(self) -> int:
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()
        if self._reader is not None:
            await self._reader


class Stack:
    """Starts what a test asks for and stops all of it in the end, last first."""

    def __init__(self, valkey: Valkey, prefix: str, provider: ScriptedProvider) -> None:
        self.valkey = valkey
        self.prefix = prefix
        self.provider = provider
        self.keys = Keys(prefix)
        self.redis: Redis = Redis.from_url(valkey.url)
        """For a raw look, or a hand, into what is kept."""
        self.commands: Multiplexer = connect(valkey.url, timeout_s=COMMAND_S)
        """For scripts and logs, as our own processes use them."""
        self.apis: list[Api] = []
        self.workers: list[LocalWorker] = []
        self.event_servers: dict[str, str] = {}
        """Where logs are kept, by name: what is started after it is filled."""
        self._exits = AsyncExitStack()
        self._overrides: dict[str, Any] = {}

    def configure(self, **overrides: Any) -> None:
        """Change settings of whatever is started after this."""
        self._overrides |= overrides

    def settings(self, **overrides: Any) -> Settings:
        given: dict[str, Any] = {
            "stream_urls": self.event_servers,
            "redis_url": self.valkey.url,
            "key_prefix": self.prefix,
            "auth": "off",
            "openai_api_key": "sk-canary-openai",
            "openai_base_url": self.provider.openai_url,
            "anthropic_api_key": "sk-canary-anthropic",
            "anthropic_base_url": self.provider.anthropic_url,
        }
        return Settings(_env_file=None, **{**given, **self._overrides, **overrides})

    def environment(self, **more: str) -> dict[str, str]:
        """Return the same settings for a process of its own."""
        overrides = {ENV_NAMES[name]: str(value) for name, value in self._overrides.items()}
        overrides.setdefault(
            "REJOIN_STREAM_URLS", ",".join(f"{url}#{name}" for name, url in self.event_servers.items())
        )
        return {
            "REDIS_URL": self.valkey.url,
            "REJOIN_KEY_PREFIX": self.prefix,
            "REJOIN_AUTH": "off",
            "OPENAI_API_KEY": "sk-canary-openai",
            "OPENAI_BASE_URL": self.provider.openai_url,
            "ANTHROPIC_API_KEY": "sk-canary-anthropic",
            "ANTHROPIC_BASE_URL": self.provider.anthropic_url,
            **overrides,
            **more,
        }

    async def api(self, **overrides: Any) -> Api:
        return await self._started(Api(self.settings(**overrides)), self.apis)

    async def worker(self, **overrides: Any) -> LocalWorker:
        return await self._started(LocalWorker(self.settings(**overrides)), self.workers)

    async def worker_process(self, **env: str) -> Process:
        process = Process(["-m", "worker"], self.environment(**env), "is ready for")
        return await self._started(process, [])

    async def api_process(self, port: int, *more: str, ready: str = "Uvicorn running", **env: str) -> Process:
        """Start uvicorn with `more` arguments; it is there when it says so (`ready`)."""
        args = ["-m", "uvicorn", "api.main:app", "--port", str(port), *more]
        return await self._started(Process(args, self.environment(**env), ready), [])

    async def _started(self, part: Any, parts: list[Any]) -> Any:
        self._exits.push_async_callback(part.stop)
        await part.start()
        parts.append(part)
        return part

    def client(self, key: str | None = None, also: str | None = None) -> Client:
        """Return a client of all API processes started so far, and of one that runs elsewhere."""
        urls = [api.url for api in self.apis] + ([also] if also else [])
        client = Client(*urls, key=key)
        self._exits.push_async_callback(client.aclose)
        return client

    def at_close(self, close: Callable[[], Awaitable[Any]]) -> None:
        """Close something of a test's own with the rest."""
        self._exits.push_async_callback(close)

    async def log_at(self, job_id: str) -> tuple[str, str]:
        """Return the URL of the server that a job's log is on, and the log's name there."""
        server = await self.redis.hget(self.keys.job(job_id), "server")  # type: ignore[misc]
        if server is None:
            return self.valkey.url, self.keys.log(job_id)
        return self.event_servers[server.decode()], self.keys.on_event_servers().log(job_id)

    @property
    def url(self) -> str:
        return self.apis[0].url

    async def close(self) -> None:
        await self._exits.aclose()
        await self.commands.close()
        await self.redis.aclose()


async def eventually(condition: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """Return the first true value of a condition (sync or async), looked at as often as the loop turns."""
    async with asyncio.timeout(timeout_s):
        while True:
            value = condition()
            if asyncio.iscoroutine(value):
                value = await value
            if value:
                return value
            await asyncio.sleep(0.002)
