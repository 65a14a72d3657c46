"""Processes are started with the few files that systems give by default, and take as many as they may have."""

import asyncio

from tests.provider import Text, Wait
from tests.stack import Process, Stack, eventually
from tests.valkey import free_port

FEW = 80
MORE = 150
START = f"""
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({FEW}, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


async def _started(stack: Stack, ready: str, *argv: str) -> Process:
    process = Process(["-c", START, *argv], stack.environment(REJOIN_MAX_ACTIVE_JOBS="1000"), ready)
    stack.at_close(process.stop)
    await process.start()
    return process


async def test_an_api_process_holds_more_streams_than_the_files_it_was_started_with(bare: Stack) -> None:
    port = free_port()
    await _started(bare, "Uvicorn running", "uvicorn", "api.main:app", "--port", str(port))
    lines = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MORE)]
    for _, writer in lines:
        writer.write(b"GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(10):
        for reader, _ in lines:
            assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
    for _, writer in lines:
        writer.close()


async def test_a_worker_calls_a_provider_more_often_than_the_files_it_was_started_with(bare: Stack) -> None:
    await bare.api(max_active_jobs=1_000)
    await _started(bare, "is ready for", "worker")
    client, gate = bare.client(), bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate))
    await asyncio.gather(*[client.submit() for _ in range(MORE)])
    await eventually(lambda: bare.provider.active == MORE, timeout_s=15)
    gate.open()
