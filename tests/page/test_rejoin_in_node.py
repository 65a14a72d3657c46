"""`rejoin.js` in Node, as the server gives it out: a program that reads a job while the API is killed."""

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.client import Event
from tests.provider import Text, Tokens, Wait
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SCRIPT = Path(__file__).with_name("node_reader.mjs")
NODE = shutil.which("node")
KEY = "rejoin-in-node-0123456789abcdef"

needs_node = pytest.mark.skipif(NODE is None, reason="no Node.js")


class Reader:
    """A process of Node's that says what it reads."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[dict[str, Any]] = []

    async def until(self, *fields: str, text: str = "") -> dict[str, Any]:
        """Read on to the first line that has one of these fields, and this text in it."""
        assert self._process.stdout is not None
        async with asyncio.timeout(20):
            while line := await self._process.stdout.readline():
                self.said.append(json.loads(line))
                if set(fields) & self.said[-1].keys() and text in line.decode():
                    return self.said[-1]
        raise AssertionError(f"it ended, having said {self.said}")

    @property
    def events(self) -> list[Event]:
        return [Event(**said) for said in self.said if "event" in said]

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [said for said in self.said if "asked" in said]


@asynccontextmanager
async def reader(module: Path, url: str, *args: str) -> AsyncIterator[Reader]:
    assert NODE is not None
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(NODE, str(SCRIPT), str(module), url, *args, stdout=pipe, limit=2**20)
    try:
        yield Reader(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def download(stack: Stack, folder: Path) -> Path:
    """Return the module in a file, as somebody would have it who uses it elsewhere."""
    module = folder / "rejoin.mjs"
    module.write_bytes((await stack.client().http.get("/page/rejoin.js")).content)
    return module


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@needs_node
async def test_a_program_reads_on_while_the_api_is_killed_in_mid_answer(bare: Stack, tmp_path: Path) -> None:
    await bare.worker()
    await bare.api()
    module = await download(bare, tmp_path)
    gate = bare.provider.gate()
    bare.provider.script("m", Tokens("one two three"), Wait(gate), Tokens(" four five"))
    port = free_port()
    first = await bare.api_process(port)
    async with reader(module, f"http://127.0.0.1:{port}") as node:
        await node.until("event", text="three")
        seen = node.events[-1].id
        first.signal(signal.SIGKILL)
        await node.until("connected", text="false")
        gate.open()
        await bare.api_process(port)
        await node.until("over")
    assert "".join(event.data["text"] for event in node.events if event.event == "token") == "one two three four five"
    keys = [event.key for event in node.events]
    assert keys == sorted(set(keys))
    assert node.events[-1].event == "completed"
    _, opened, *again = [asked["headers"].get("Last-Event-ID") for asked in node.asked]
    assert opened is None
    assert again
    assert set(again) == {seen}, "each time from where it was"
    assert len(bare.provider.calls) == 1


@needs_node
async def test_a_program_goes_on_where_an_earlier_one_has_ended(bare: Stack, tmp_path: Path) -> None:
    """As a page does that was reloaded: with a key, which is in a header and in no URL."""
    bare.configure(auth="required", secret="a-secret-of-this-test-0123456789", api_keys=f"alice:{KEY}")
    await bare.worker()
    api = await bare.api()
    module = await download(bare, tmp_path)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    async with reader(module, api.url, KEY) as node:
        await node.until("event", text="Hel")
    job, after = next(said["job"] for said in node.said if "job" in said), node.events[-1].id
    gate.open()
    async with reader(module, api.url, KEY, job, after) as later:
        await later.until("over")
    assert [event.data.get("text") for event in later.events if event.event == "token"] == ["lo"]
    async with reader(module, api.url, KEY, job, later.events[-1].id) as none:
        await none.until("over")
    assert none.events == [], "204: there is nothing more"
    for asked in node.asked + later.asked:
        assert asked["headers"]["Authorization"] == f"Bearer {KEY}"
        assert "ticket" not in asked["asked"]
    async with reader(module, api.url, "wrong", job) as stranger:
        assert await stranger.until("refused") == {"refused": 401, "code": "unauthorized"}
    async with reader(module, api.url, KEY, "job_none") as nobody:
        assert (await nobody.until("refused"))["refused"] in (404, 422)


@needs_node
async def test_silence_counts_as_a_cut(bare: Stack, tmp_path: Path) -> None:
    """A network that is gone without a word: no byte comes, not even a heartbeat, and nothing is closed."""
    await bare.worker()
    await bare.api()
    module = await download(bare, tmp_path)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    port = free_port()
    process = await bare.api_process(port)
    async with reader(module, f"http://127.0.0.1:{port}") as node:
        await node.until("event", text="Hel")
        process.signal(signal.SIGSTOP)
        await node.until("connected", text="false")
        process.signal(signal.SIGCONT)
        gate.open()
        await node.until("over")
    assert "".join(event.data["text"] for event in node.events if event.event == "token") == "Hello"
