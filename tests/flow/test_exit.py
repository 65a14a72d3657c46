"""An API process that is told to exit: its streams end, its readers go on elsewhere, and it is gone."""

import asyncio
import signal
import time

from tests.client import text
from tests.keys import SECRET
from tests.provider import Text, Wait
from tests.stack import Stack
from tests.valkey import free_port


async def test_sigterm_ends_the_streams_and_the_readers_go_on_elsewhere(bare: Stack) -> None:
    await bare.worker()
    port = free_port()
    leaving = await bare.api_process(port)
    await bare.api()
    client = bare.client(also=f"http://127.0.0.1:{port}")
    gate = bare.provider.gate()
    bare.provider.script("m", Text("half "), Wait(gate), Text("whole"))
    job_id = await client.submit()
    readers = [client.events(job_id, api=1) for _ in range(20)]
    seen = [[await anext(reader) for _ in range(3)] for reader in readers]
    leaving.signal(signal.SIGTERM)
    told = time.monotonic()
    for reader, events in zip(readers, seen, strict=True):
        events.extend([event async for event in reader])
        assert events[-1].event == "token", "cut before the end"
    assert await asyncio.wait_for(leaving.exit_code(), 5) in (0, -signal.SIGTERM)
    assert time.monotonic() - told < 4
    assert not any("Traceback" in line for line in leaving.lines), leaving.lines
    gate.open()
    for events in seen:
        events += await client.all_events(job_id, events[-1].id)
        assert text(events) == "half whole"
        assert events[-1].event == "completed"


async def test_the_access_log_never_shows_a_ticket(bare: Stack) -> None:
    """CWE-532: what opens a stream must not be in a log."""
    await bare.worker()
    port = free_port()
    process = await bare.api_process(port, REJOIN_AUTH="required", REJOIN_API_KEYS="a:k", REJOIN_SECRET=SECRET)
    client = bare.client(key="k", also=f"http://127.0.0.1:{port}")
    created = (await client.http.post("/v1/jobs", json={
        "provider": "openai", "model": "m", "messages": [{"role": "user", "content": "x"}]})).json()  # fmt: skip
    assert (await client.http.get(created["events_url"])).status_code == 200
    await process.line("/events?ticket=")
    ticket = created["events_url"].partition("ticket=")[2]
    assert ticket not in "\n".join(process.lines)
