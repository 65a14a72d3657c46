"""The documents' examples of the command, run by a shell as they stand."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests import keys
from tests.client import Client
from tests.command.terminal import environment
from tests.documents import blocks
from tests.provider import Text, Usage
from tests.stack import Stack

LINES = sorted(
    {
        line.removeprefix("$ ").partition("  #")[0].rstrip()
        for name in ("README.md", "docs/USING.md")
        for block in blocks(name, "From a terminal", "console")
        for line in block.splitlines()
    }
)
RUN = [line for line in LINES if not line.startswith("rejoin run")]
"""That one runs until it is stopped, with the checkout's own data: `test_operating`."""


@pytest.mark.parametrize("line", RUN)
async def test_an_example_is_a_success(stack: Stack, client: Client, tmp_path: Path, line: str) -> None:
    for model in ("m", "gpt-4o-mini"):
        stack.provider.script(model, Text("It scatters light."), Usage(input=9, output=7))
    job_id = await client.submit()
    await client.all_events(job_id)
    (tmp_path / "question.txt").write_text("Why?")
    (tmp_path / "rejoin").write_text(f'#!/bin/sh\nexec {sys.executable} -m rejoin "$@"\n')
    (tmp_path / "rejoin").chmod(0o755)
    given = stack.environment(
        REJOIN_AUTH="required", REJOIN_SECRET=keys.SECRET, REJOIN_API_KEYS="alice:key-of-alice",
        REJOIN_URL=stack.url, REJOIN_MODEL="openai/m",
    )  # fmt: skip
    found = environment(**given)
    process = await asyncio.create_subprocess_shell(
        line.replace("job_…", job_id), cwd=tmp_path, env={**found, "PATH": f"{tmp_path}:{found['PATH']}"},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, (said.decode(), errors.decode())
    if "answer.txt" in line:
        assert (tmp_path / "answer.txt").read_text() == "It scatters light.\n"
    else:
        assert said


def test_there_are_examples() -> None:
    assert len(RUN) >= 12
    assert len(LINES) > len(RUN)
