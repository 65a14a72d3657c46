"""Several uvicorn processes on one port: whichever answers a scrape answers for all of them."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from prometheus_client.multiprocess import MultiProcessCollector

from tests.client import Client
from tests.provider import Silence, Text
from tests.scrape import Scrape, scrape
from tests.stack import Process, Stack, eventually
from tests.valkey import free_port

JOBS = 24


def children(pid: int) -> list[int]:
    """Return the processes that serve: uvicorn's, without Python's resource tracker."""
    pids = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [child for child in pids if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


async def scrapes(url: str, count: int = 8) -> list[Scrape]:
    """Scrape over as many connections: the kernel chooses who answers."""
    return [await scrape(url) for _ in range(count)]


@asynccontextmanager
async def siblings(stack: Stack, port: int, folder: Path) -> AsyncIterator[Process]:
    """Run two processes behind one port; end them in order, as their parent's death alone would not."""
    started = "Application startup complete"
    server = await stack.api_process(port, "--workers", "2", ready=started, PROMETHEUS_MULTIPROC_DIR=str(folder))
    try:
        await eventually(lambda: sum(started in line for line in server.lines) == 2, 20)
        yield server
    finally:
        server.signal(signal.SIGTERM)
        await asyncio.wait_for(server.exit_code(), 15)


async def test_figures_of_two_processes_add_up_and_a_killed_ones_streams_are_gone(bare: Stack, tmp_path: Path) -> None:
    folder, port = tmp_path / "not-there-yet", free_port()
    url = f"http://127.0.0.1:{port}"
    async with siblings(bare, port, folder) as server, AsyncExitStack() as exits:
        await bare.worker()
        bare.provider.script("m", Text("a"), Silence())
        clients = [Client(url) for _ in range(JOBS)]
        for client in clients:
            exits.push_async_callback(client.aclose)
        jobs = await asyncio.gather(*[client.submit() for client in clients])
        for found in await scrapes(url):
            assert found("rejoin_jobs_submitted_total") == JOBS
            assert found("rejoin_http_requests_total", route="/v1/jobs", status="202") == JOBS
            assert found("rejoin_workers") == 1
            assert "process_resident_memory_bytes" not in found.names(), "that would be one of them, by chance"

        for client, job_id in zip(clients, jobs, strict=True):
            events: Any = client.events(job_id)
            await anext(events)
            exits.push_async_callback(events.aclose)
        for found in await scrapes(url):
            assert found("rejoin_streams_open") == JOBS
        open_in = {pid: streams_of(folder, pid) for pid in children(server.pid)}
        assert sum(open_in.values()) == JOBS
        doomed = max(open_in, key=lambda pid: open_in[pid])
        os.kill(doomed, signal.SIGKILL)

        async def forgotten() -> bool:
            try:
                found = await scrape(url)
            except httpx2.TransportError:
                # Of the socket that the dead process has left a connection in.
                return False
            # Counters of the dead stay: they only ever rise.
            assert found("rejoin_jobs_submitted_total") == JOBS
            return found("rejoin_streams_open") == JOBS - open_in[doomed]

        await eventually(forgotten, 10)


def streams_of(folder: Path, pid: int) -> float:
    """Return the streams that one of the processes says it has open."""
    files = [str(folder / f"gauge_livesum_{pid}.db")]
    (family,) = MultiProcessCollector.merge(files)
    return float(sum(sample.value for sample in family.samples))


async def test_a_worker_counts_for_itself_alone_whatever_the_variable_says(bare: Stack, tmp_path: Path) -> None:
    port = free_port()
    await bare.worker_process(REJOIN_WORKER_PORT=str(port), PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    found = await scrape(f"http://127.0.0.1:{port}")
    assert found("rejoin_slots") == 200
    assert "process_resident_memory_bytes" in found.names()
    assert os.listdir(tmp_path) == []
