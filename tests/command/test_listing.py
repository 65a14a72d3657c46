"""`rejoin jobs`, `cancel`, `models`; what a wrong server, or key, is told; how fast help is there."""

import json
import os
import subprocess

from tests import keys
from tests.client import Client
from tests.command.terminal import PROGRAM, Running, environment, rejoin
from tests.provider import Silence, Text, Wait
from tests.stack import ROOT, Stack, eventually
from tests.valkey import free_port


async def test_jobs_as_lines_as_json_and_as_a_table(stack: Stack, client: Client) -> None:
    stack.provider.script("n", Text("a"), Silence())
    done_id = await client.submit()
    await client.all_events(done_id)
    live_id = await client.submit(model="n")
    await client.until(live_id, "token")
    listed = await rejoin("jobs", REJOIN_URL=stack.url)
    names, *rows = [line.split("\t") for line in listed.out.splitlines()]
    assert names[:3] == ["job", "status", "model"]
    assert [row[:3] for row in rows] == [[live_id, "running", "openai/n"], [done_id, "completed", "openai/m"]]
    told = await rejoin("jobs", "--json", "--status", "completed", REJOIN_URL=stack.url)
    assert [json.loads(line)["id"] for line in told.out.splitlines()] == [done_id]
    async with Running("jobs", "--limit", "1", tty=True, REJOIN_URL=stack.url) as table:
        shown = await table.done()
    assert live_id in shown.out
    assert done_id not in shown.out


async def test_a_job_is_cancelled(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Wait(stack.provider.gate()))
    job_id = await client.submit()
    await eventually(lambda: stack.provider.calls)
    done = await rejoin("cancel", job_id, REJOIN_URL=stack.url)
    assert (done.code, done.out) == (0, f"{job_id}: cancelled\n")
    assert stack.provider.calls[0].closed_by_client
    done = await rejoin("cancel", job_id, REJOIN_URL=stack.url)
    assert (done.code, done.out) == (0, f"{job_id}: already finished\n")


async def test_a_key_is_taken_from_the_environment_and_from_an_option(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET, api_keys="alice:key-of-alice")
    api = await bare.api()
    assert "demo/tour" in (await rejoin("models", REJOIN_URL=api.url, REJOIN_API_KEY="key-of-alice")).out
    refused = await rejoin("models", "--url", api.url, "--key", "canary")
    assert refused.code == 1
    assert refused.err.endswith("(--key or REJOIN_API_KEY)\n")
    assert "canary" not in refused.err


def test_help_is_there_at_once() -> None:
    """In CPU time, as this machine may have more to do; of three runs the best."""
    took_s, told = [], ""
    for _ in range(3):
        before = os.times()
        said = subprocess.run([*PROGRAM, "--help"], cwd=ROOT, env=environment(), capture_output=True, text=True)
        after = os.times()
        took_s.append(after.children_user - before.children_user + after.children_system - before.children_system)
        assert said.returncode == 0
        told = said.stdout
    for command in ("ask", "tail", "jobs", "cancel", "run", "keys", "doctor"):
        assert f"  {command} " in told
    assert min(took_s) < 0.3, took_s


def test_help_imports_neither_client_nor_server() -> None:
    code = "import sys; from rejoin.__main__ import main; sys.argv = ['rejoin', '--help']\n"
    code += "try: main()\nfinally: print('imported:', *sorted(sys.modules))"
    said = subprocess.run([PROGRAM[0], "-c", code], cwd=ROOT, env=environment(), capture_output=True, text=True)
    imported = said.stdout.rpartition("imported:")[2].split()
    assert "typer" in imported
    assert not {"httpx2", "rich", "redis", "pydantic", "fastapi", "shared", "api", "deploy"} & set(imported)


def test_a_wrong_address_is_told_of_soon() -> None:
    """Some seconds, in which a server may come up; shortened here."""
    code = "from rejoin.command import manners; manners.HELLO_S = 0.1; from rejoin.__main__ import main; main()"
    url = f"http://127.0.0.1:{free_port()}"
    said = subprocess.run(
        [PROGRAM[0], "-c", code, "jobs"], cwd=ROOT, env=environment(REJOIN_URL=url), capture_output=True, text=True
    )
    assert (said.returncode, said.stdout) == (1, "")
    assert said.stderr.startswith("rejoin: the server cannot be reached (ConnectError). Is it running?")
