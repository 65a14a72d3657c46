"""The command as a process of its own: what a shell, or somebody at a terminal, gets."""

import asyncio
import os
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.stack import ROOT

PROGRAM = (sys.executable, "-m", "rejoin")


@dataclass
class Done:
    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Return what a command finds: nothing of this machine's settings."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {"PATH": path, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "COLUMNS": "120", **more}


async def rejoin(*args: str, stdin: str = "", **env: str) -> Done:
    """Run a command to its end, in a folder that has nothing to do with it."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, *args, cwd=tempfile.gettempdir(), env=environment(**env), stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(10):
            out, err = await process.communicate(stdin.encode())
    except TimeoutError:
        process.kill()
        raise
    return Done(process.returncode or 0, out.decode(), err.decode())


class Running:
    """A command that is watched as it goes: on pipes, or with a terminal as its standard output."""

    def __init__(self, *args: str, tty: bool = False, **env: str) -> None:
        self.seen = ""
        self._args, self._tty, self._env = args, tty, env
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        ours, theirs = os.openpty() if self._tty else os.pipe()
        self.process = await asyncio.create_subprocess_exec(
            *PROGRAM, *self._args, cwd=ROOT, env=environment(**self._env), stdin=asyncio.subprocess.DEVNULL,
            stdout=theirs, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        os.close(theirs)
        self._out = ours
        os.set_blocking(ours, False)
        asyncio.get_running_loop().add_reader(ours, self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close_pipe()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    def _readable(self) -> None:
        try:
            chunk = os.read(self._out, 65_536)
        except OSError:  # a terminal whose other side is gone
            chunk = b""
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._out)
        self.seen += chunk.decode()
        self._news.set()

    async def until(self, text: str) -> None:
        """Return when this has been written."""
        async with asyncio.timeout(10):
            while text not in self.seen:
                self._news.clear()
                await self._news.wait()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def close_pipe(self) -> None:
        """Read no more of it."""
        if self._out >= 0:
            asyncio.get_running_loop().remove_reader(self._out)
            os.close(self._out)
            self._out = -1

    async def done(self) -> Done:
        """Wait for the end; what it has written is in `seen` then."""
        async with asyncio.timeout(10):
            _, err = await self.process.communicate()
        await asyncio.sleep(0)
        if self._out >= 0:
            self._readable()
        return Done(self.process.returncode or 0, self.seen, err.decode())
