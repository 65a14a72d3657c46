"""Each client's ten lines in `examples/`, run as they stand."""

import asyncio
import os
import sys

import pytest

from tests import keys
from tests.faces.pages import Browser
from tests.provider import Text, Wait
from tests.stack import ROOT, Stack

PYTHON = sorted(path.name for path in (ROOT / "examples").glob("*.py"))


async def output(*command: str, stack: Stack, model: str, key: str) -> str:
    """Return what an example writes, pointed at the stack. It has no setting but these."""
    asked = {"PATH": os.environ["PATH"], "REJOIN_URL": stack.url, "REJOIN_MODEL": model, "NO_PROXY": "127.0.0.1"}
    asked["REJOIN_API_KEY"] = key
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=asked, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    said, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return said.decode()


@pytest.mark.parametrize("example", PYTHON)
async def test_it_writes_the_answer(bare: Stack, example: str) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    key = await keys.new_key(bare, "alice")
    bare.provider.script("m", Text("Hello "), Text("world"))
    outputs = [
        output(sys.executable, f"examples/{example}", stack=bare, model=model, key=key)
        for model in ("openai/m", "anthropic/m")
    ]
    assert [said.strip() for said in await asyncio.gather(*outputs)] == ["Hello world"] * 2


async def test_a_page_of_the_ai_sdk_is_reloaded_and_stopped(bare: Stack, browser: Browser) -> None:
    bare.configure(default_model="anthropic/m")
    await bare.worker()
    await bare.api()
    bare.provider.script("m", Text("Hello "), Wait(bare.provider.gate()))
    example = ROOT / "examples" / "ai-sdk" / "chat.js"
    page = await browser.example(bare.url, example, id="a/b")
    page.submit("Hi")
    await page.until(lambda page: page.shown == ["Hi", "Hello ", "streaming"])
    page.close()
    again = await browser.example(bare.url, example, id="a/b")
    await again.until(lambda page: page.shown == ["Hello ", "streaming"])
    again.click("Stop")
    await again.until(lambda page: page.shown == ["Hello ", "ready"])
    await bare.provider.calls[0].closed()
