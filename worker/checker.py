"""Checks answers against their schemas, so that no schema can hold up the worker's other jobs.

What is provably short is checked at once. The rest has no bound that can be known before: references that multiply, or
come back to themselves, patterns, keywords of all drafts. A validator keeps the interpreter's lock while it runs, so a
thread would not do: it gets a process, which ends itself when its time is over (`worker.checking`).
"""

import asyncio
import logging
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from shared.events import dump
from shared.structured import Misfit, fits, is_light, parsed
from shared.tools import ResponseFormat

logger = logging.getLogger(__name__)

AT_ONCE: Final = 2
"""Processes, begun when they are needed and kept."""

PATIENCE_S: Final = 10.0
"""For a process to begin, and to be free, and to answer, all together; it has a second for the check itself."""

_ROOT: Final = Path(__file__).parent.parent
_ENVIRONMENT: Final = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "TMPDIR")
"""What the processes are told of the worker's environment: no keys."""


class Unchecked(Exception):
    """Nobody can say in time whether an answer fits."""


class Checker:
    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE)
        self._idle: list[Process] = []
        self._all: set[Process] = set()

    async def check(self, text: str, format: ResponseFormat) -> Any:
        """Return what an answer says. Raises Misfit where it does not fit, Unchecked where nobody knows."""
        value, schema = parsed(text, format), format.schema_value
        if schema is None:
            return value
        if is_light(text, schema):
            try:
                fit = fits(value, schema)
            except ValueError:
                # A schema that some other version has let in.
                raise Unchecked from None
        else:
            fit = await self._apart(text, schema)
        if not fit:
            raise Misfit
        return value

    async def close(self) -> None:
        for process in list(self._all):
            await self._end(process)

    async def _apart(self, text: str, schema: dict[str, Any]) -> bool:
        """Ask a process. One that has not answered, or was ended, is not asked again."""
        try:
            async with asyncio.timeout(PATIENCE_S), self._free:
                process = self._kept() or await self._begin()
                try:
                    answer = await self._ask(process, dump([text, schema]))
                except BaseException:
                    await self._end(process)
                    raise
        except (TimeoutError, OSError) as error:
            logger.warning("an answer could not be checked (%s)", type(error).__name__)
            raise Unchecked from None
        if not answer:
            await self._end(process)
            raise Unchecked
        self._idle.append(process)
        return answer == b"1\n"

    def _kept(self) -> Process | None:
        while self._idle:
            if (process := self._idle.pop()).returncode is None:
                return process
            self._all.discard(process)
        return None

    async def _ask(self, process: Process, question: bytes) -> bytes:
        """Return a line, or nothing when the process has ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question + b"\n")
        with suppress(ConnectionError):
            await process.stdin.drain()
        return await process.stdout.readline()

    async def _begin(self) -> Process:
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "worker.checking", cwd=_ROOT, env=environment,
            stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True,
        )  # fmt: skip
        self._all.add(process)
        return process

    async def _end(self, process: Process) -> None:
        self._all.discard(process)
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
