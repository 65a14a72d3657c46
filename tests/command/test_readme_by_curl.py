"""The README's examples with curl, run by a shell as they stand."""

import asyncio
import json
import shutil

import pytest

from tests.client import Client
from tests.documents import blocks
from tests.provider import Text
from tests.stack import Stack

LINES = [
    line.removeprefix("$ ")
    for block in blocks("README.md", "From the shell", "console")
    for line in block.splitlines()
    if line.startswith("$ curl")
]


async def run(stack: Stack, line: str, job_id: str) -> str:
    """Return what an example prints, asked of the test's own server and about its job."""
    line = line.replace("localhost:8000", stack.url.removeprefix("http://")).replace("job_…", job_id)
    line = line.replace('"provider":"demo","model":"tour"', '"provider":"openai","model":"m"')
    process = await asyncio.create_subprocess_shell(
        line.replace("curl", "curl --fail --no-progress-meter --noproxy '*'", 1),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, errors = await process.communicate()
    assert process.returncode == 0, (line, said, errors)
    return said.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
async def test_curl_submits_watches_comes_back_and_stops(stack: Stack, client: Client) -> None:
    submit, watch, come_back, stop = LINES
    stack.provider.script("m", *[Text(f"word {n} ") for n in range(60)])
    job_id = json.loads(await run(stack, submit, ""))["id"]
    assert "event: completed" in await run(stack, watch, job_id)
    rest = await run(stack, come_back, job_id)
    assert "event: completed" in rest
    assert "event: queued" not in rest
    assert json.loads(await run(stack, stop, job_id))["outcome"] == "already_finished"
    assert (await client.job(job_id))["text"].startswith("word 0 word 1 ")
