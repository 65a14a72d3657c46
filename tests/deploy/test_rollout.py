"""Everything is replaced while it is used, workers, then API processes, by SIGTERM: nothing is lost, nobody waits."""

import asyncio
import re
import signal
import time
from contextlib import suppress

import httpx2

from tests.client import body
from tests.deploy.conftest import StartNginx
from tests.faults.reader import Reader
from tests.faults.scene import Scene
from tests.provider import Step, Tokens, Wait
from tests.stack import Process, Stack
from tests.valkey import free_port

STREAMS = 30
LONGEST_WAIT_S = 3.0
STOPS_S = 6.0
"""The API's graceful stop, five seconds, and some."""


class Browser(Reader):
    """Comes back as EventSource does, when `retry:` has said so, and notes what it has had to wait for anything."""

    waited_s = 0.0
    """Longest silence on a connection, from the attempt to open it on."""
    _since_s = 0.0

    async def _connection(self) -> None:
        self._since_s = time.monotonic()
        await super()._connection()

    def _heard(self, chunk: bytes) -> None:
        now_s = time.monotonic()
        self.waited_s, self._since_s = max(self.waited_s, now_s - self._since_s), now_s
        if (retry := re.search(rb"(?m)^retry: (\d+)$", chunk)) is not None:
            self._pause_s = int(retry[1]) / 1000


async def keep_posting(scene: Scene, done: asyncio.Event) -> None:
    """POST jobs all the time, as clients should: the same key again until there is an answer."""
    count = 0
    while not done.is_set():
        count += 1
        model, key = scene.script(Tokens("short answer")), f"post-{count}"
        async with asyncio.timeout(LONGEST_WAIT_S):
            while True:
                with suppress(httpx2.TransportError):
                    answer = await scene.client.http.post(
                        "/v1/jobs", json=body(model), headers={"Idempotency-Key": key}
                    )
                    if answer.status_code == 202:
                        break
                    assert answer.status_code == 503, answer.text
                await asyncio.sleep(0.1)
        job_id = scene.accept(answer.json()["id"], model)
        scene.record.posts[key].add(job_id)
        scene.read(job_id)
        await asyncio.sleep(0.15)
    assert count > 10


async def stopped(*processes: Process) -> None:
    """Tell processes to stop; return when they have, in time and in order."""
    for process in processes:
        process.signal(signal.SIGTERM)
    async with asyncio.timeout(STOPS_S):
        codes = [await process.exit_code() for process in processes]
    assert set(codes) <= {0, -signal.SIGTERM}, [line for process in processes for line in process.lines]


async def test_a_rollout_of_everything_loses_nothing_and_lets_nobody_wait(
    bare: Stack, nginx_if_any: StartNginx | None
) -> None:
    """In the order of docs/DEPLOYING.md: new workers, then the old ones go; new API processes, then the old ones go."""
    bare.configure(heartbeat_s=1.0, max_streams=1000, max_active_jobs=1000, rate_limit=100_000)
    ports = [free_port() for _ in range(4)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]

    async def replicas(of: list[int]) -> tuple[list[Process], list[Process]]:
        found = await asyncio.gather(
            *[bare.api_process(port, "--timeout-graceful-shutdown", "5") for port in of],
            *[bare.worker_process() for _ in range(2)],
        )
        return found[:2], found[2:]

    old_apis, old_workers = await replicas(ports[:2])
    front = urls if nginx_if_any is None else [(await nginx_if_any(*urls)).url]
    scene = Scene(bare, urls=front)
    gate = bare.provider.gate()
    talk: list[Step] = [Tokens("talks all the time " * 25, delay_s=0.05), Wait(gate), Tokens("and ends")]
    quiet: list[Step] = [Tokens("says little "), Wait(gate), Tokens("and ends")]
    browsers = []
    for number in range(STREAMS):
        steps = talk if number % 2 else quiet
        job_id = await scene.submit(*steps, then=[steps])
        browser = scene.read(job_id, kind=Browser)
        assert isinstance(browser, Browser)
        browsers.append(browser)
    for browser in browsers:
        await browser.until("token")
    done = asyncio.Event()
    posting = asyncio.create_task(keep_posting(scene, done))

    new_apis, new_workers = await replicas(ports[2:])
    await stopped(*old_workers)
    for browser in browsers:
        await browser.until("token", attempt=2)
    await stopped(*old_apis)
    gate.open()
    done.set()
    await posting
    await scene.assert_clean()

    restarts = [event for browser in browsers for event in browser.reading.events if event.event == "restarted"]
    assert {event.data["reason"] for event in restarts} == {"worker_stopped"}
    assert len(restarts) == STREAMS, "each job was handed over once, to a new worker"
    assert all(browser.connections == 2 for browser in browsers), "and each reader came back once"
    assert not [status for browser in browsers for status in browser.refusals]
    assert max(browser.waited_s for browser in browsers) < LONGEST_WAIT_S
    assert all(process.running for process in (*new_apis, *new_workers))
