"""Each client's ten lines in `examples/`, run as they stand."""

import asyncio
import os
import sys

import pytest

from tests.provider import Text
from tests.stack import ROOT, Stack

PYTHON = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


async def output(*command: str, stack: Stack, model: str) -> str:
    """Return what an example writes, pointed at the stack. It has no setting but these."""
    asked = {"PATH": os.environ["PATH"], "REJOIN_URL": stack.url, "REJOIN_MODEL": model, "NO_PROXY": "127.0.0.1"}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()


@pytest.mark.parametrize("example", PYTHON)
async def test_it_writes_the_answer(stack: Stack, example: str) -> None:
    stack.provider.script("m", Text("Hello "), Text("world"))
    outputs = [
        output(sys.executable, f"examples/{example}", stack=stack, model=model) for model in ("openai/m", "anthropic/m")
    ]
    assert [said.strip() for said in await asyncio.gather(*outputs)] == ["Hello world"] * 2
