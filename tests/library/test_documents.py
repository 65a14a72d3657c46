"""The documents' examples of the client, run as they stand."""

import asyncio
import os
import sys

import pytest

from tests.documents import blocks
from tests.provider import Text, Usage
from tests.stack import ROOT, Stack

EXAMPLES = [(name, code) for name in ("README.md", "docs/USING.md") for code in blocks(name, "From Python", "python")]


@pytest.mark.parametrize(("document", "code"), EXAMPLES, ids=[f"{name}-{at}" for at, (name, _) in enumerate(EXAMPLES)])
async def test_an_example_does_what_it_shows(stack: Stack, document: str, code: str) -> None:
    stack.provider.script("m", Text("It scatters "), Text("light."), Usage(input=9, output=77))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code.replace("demo/tour", "openai/m")),
        cwd=ROOT, env={"PATH": os.environ["PATH"], "REJOIN_URL": stack.url},
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    assert errors == b""
    assert said.decode().startswith("It scatters light.\n")
    assert "77" in said.decode() or "154" in said.decode()


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 3
