"""nginx as `deploy/nginx` has it, before the API: CPU of a token and a connection, with and without TLS; memory."""

import asyncio
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import orjson

from bench.client import Line, Seen, job
from bench.clocks import cpu_s, resident_bytes
from bench.provider import model
from bench.report import Figure, Measured
from bench.rig import OURS, Rig
from tests.deploy.nginx import Nginx, find_nginx

STREAMS: Final = 100
PACE_MS: Final = 20
WATCH_S: Final = 6.0
BEGIN_S: Final = 2.0
COMINGS: Final = 500


async def measure(progress: Callable[[float, str], None]) -> Measured:
    if find_nginx() is None:
        return Measured([])
    figures: list[Figure] = []
    series: dict[str, Any] = {}
    for done, tls in enumerate((False, True)):
        name = "with TLS" if tls else "without TLS"
        progress(done / 2, name)
        used = series[name] = await _through(tls)
        figures += [
            Figure(f"nginx {name}: CPU of a token to one reader", used["token"] * 1e6, "µs"),
            Figure(f"nginx {name}: CPU of a connection and one request", used["connection"] * 1e6, "µs"),
            Figure(f"nginx {name}: memory of a stream", used["bytes"] / 1024, "KiB"),
        ]
    return Measured(figures, series)


async def _through(tls: bool) -> dict[str, float]:
    """Return what a token, a connection and a stream cost the proxy: seconds, and bytes."""
    tokens = int((WATCH_S + 2 * BEGIN_S + 4) * 1000 / PACE_MS)
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with Rig(OURS) as rig, tempfile.TemporaryDirectory(prefix="rejoin-bench-nginx-") as folder:
        nginx = Nginx(Path(folder), [f"http://127.0.0.1:{rig.ports['api']}"], tls=tls)
        await nginx.start()
        try:
            pids = _workers(nginx.pid)
            before_s = _cpu_s(pids)
            for _ in range(COMINGS):
                line = await Line.open(nginx.port, tls=context)
                await line.ask("GET", "/livez")
                line.close()
            connection = (_cpu_s(pids) - before_s) / COMINGS
            held = sum(resident_bytes(pid) for pid in pids)
            lines: list[Line] = []
            reads: list[asyncio.Task[Seen]] = []
            for _ in range(STREAMS):
                line = await Line.open(nginx.port, tls=context)
                created = orjson.loads(await line.ask("POST", "/v1/jobs", job(model(tokens, PACE_MS))))
                lines.append(line)
                reads.append(asyncio.create_task(line.stream("GET", created["events_url"])))
                await asyncio.sleep(BEGIN_S / STREAMS)
            await asyncio.sleep(1)
            held = sum(resident_bytes(pid) for pid in pids) - held
            before_s, before = _cpu_s(pids), sum(line.seen.tokens for line in lines if line.seen)
            await asyncio.sleep(WATCH_S)
            used_s = _cpu_s(pids) - before_s
            passed = sum(line.seen.tokens for line in lines if line.seen) - before
            for read in reads:
                read.cancel()
            for line in lines:
                line.close()
        finally:
            await nginx.stop()
    return {"token": used_s / passed, "connection": connection, "bytes": held / STREAMS}


def _workers(master: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def _cpu_s(pids: list[int]) -> float:
    return sum(cpu_s(pid) for pid in pids)
