"""Minutes of everything at once: `python -m tests.soak --seed S --seconds N`, with `--servers 2` over event servers.

Random jobs, readers that drop and resume, cancels; SIGKILL, SIGTERM and SIGSTOP of every process, Redis killed and
restarted, connections cut, slowed and swallowed. What happens when follows from the seed alone. In rounds of at most a
minute: faults, then quiet; then the oracle judges what clients saw, and memory, connections and keys must be flat.
Event servers are killed and cut off as well, each by itself.
"""

import argparse
import asyncio
import contextlib
import random
import re
import resource
import signal
import statistics
import sys
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
from redis.asyncio import Redis

from tests.client import Event, body
from tests.faults.proxy import Proxy, sha
from tests.faults.scene import Scene
from tests.provider import Call, Delay, HttpError, ScriptedProvider, Step, Tokens
from tests.stack import Process, Stack, eventually
from tests.valkey import Valkey, free_port, valkey

LEASE_S = 1.5
ROUND_S = 60.0
QUIET_S = 40.0
"""How long everything may take to end once nothing fails any more."""

WORKERS, APIS = 3, 2
TRIES = 40
"""How often one thing is asked before it is given up."""

MAX_RSS_MB = 250
MAX_GROWTH_MB = 40
"""A round's growth of a process that lived through it: caches fill, nothing piles up."""

SETTINGS = {
    "lease_s": LEASE_S,
    "max_attempts": 50,
    "rate_limit": 1_000_000,
    "max_active_jobs": 10_000,
    "max_streams": 10_000,
    "heartbeat_s": 1.0,
}
FAULTS = (
    *("kill worker", "kill worker", "stop worker", "freeze worker", "kill api", "stop api", "freeze api"),
    *("kill redis", "cut", "slow", "black hole", "lose reply"),
)
SPREAD_FAULTS = (*FAULTS, "kill events", "kill events")
"""With event servers. Which connections are cut, slowed or swallowed is then left to chance."""

SCRIPTS = ("claim", "append", "finish", "release", "renew")
SPREAD_SCRIPTS = ("claim", "finish", "release", "renew", "milestones", "sent", "progress")
EVENT_SCRIPTS = ("append", "deliver")
"""Whose replies get lost."""

HOME = "redis"


@dataclass(frozen=True)
class Plan:
    """One thing that happens, so many seconds after the round's beginning."""

    at_s: float
    what: str
    number: int
    """Decides whatever is left to chance in it."""


@dataclass(frozen=True)
class Server:
    """A server, and worker 0's way to it."""

    valkey: Valkey
    proxy: Proxy


def schedule(seed: str, seconds: float, faults: Sequence[str] = FAULTS) -> list[Plan]:
    """Return what happens in a round: the same for the same seed."""
    choose = random.Random(seed)
    plans, at_s = [], 0.0
    while (at_s := at_s + choose.expovariate(8)) < seconds:
        plans.append(Plan(at_s, "job", choose.randrange(2**32)))
    at_s = 1.0
    while at_s < seconds:
        plans.append(Plan(at_s, choose.choice(faults), choose.randrange(2**32)))
        at_s += choose.uniform(0.8, 3.0)
    return sorted(plans, key=lambda plan: plan.at_s)


@dataclass
class Figures:
    """What was measured, in seconds."""

    takeover: list[float] = field(default_factory=list)
    hand_over: list[float] = field(default_factory=list)
    cancel: list[float] = field(default_factory=list)
    outage: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        lines = ["  ".join(f"{name}: {count}" for name, count in sorted(self.counts.items()))]
        for name in ("takeover", "hand_over", "cancel", "outage"):
            values = sorted(getattr(self, name))
            if values:
                p99 = values[min(len(values) - 1, int(len(values) * 0.99))]
                lines.append(f"{name}: p50 {statistics.median(values):.3f} s, p99 {p99:.3f} s of {len(values)}")
        return lines


class Soak:
    """The whole of it: processes, their enemies and their clients."""

    def __init__(self, stack: Stack, servers: dict[str, Server], seed: int) -> None:
        """`servers`: HOME, and those for events by their names."""
        self.stack = stack
        self.figures = Figures()
        self._servers = servers
        self._events = [name for name in servers if name != HOME]
        self._faults = SPREAD_FAULTS if self._events else FAULTS
        self._seed = seed
        self._ports = [free_port() for _ in range(APIS)]
        self._urls = [f"http://127.0.0.1:{port}" for port in self._ports]
        self._http = httpx2.AsyncClient(timeout=5, trust_env=False, verify=False)
        self._processes: dict[str, Process] = {}
        self._busy: set[str] = set()
        self._scene: Scene
        self._lengths: dict[str, tuple[int, int, float]] = {}
        self._calls: Counter[str] = Counter()
        self._found: list[str] = []
        self._kills: list[tuple[float, str]] = []
        self._outages: list[tuple[float, float]] = []
        """When Redis was away, and a while before and after: takeovers are not timed then."""

    async def open(self) -> None:
        self.stack.configure(**SETTINGS)
        self.stack.provider.improvise("*", self._improvise)
        names = [f"worker {n}" for n in range(WORKERS)] + [f"api {n}" for n in range(APIS)]
        await asyncio.gather(*[self._start(name) for name in names])
        scripts: dict[str, Sequence[str]] = dict.fromkeys(self._events, EVENT_SCRIPTS)
        scripts[HOME] = SPREAD_SCRIPTS if self._events else SCRIPTS
        self._shas = {name: [await sha(self.stack.commands, script) for script in scripts[name]] for name in scripts}

    async def close(self) -> None:
        await self._http.aclose()
        for process in self._processes.values():
            await process.stop()

    async def _start(self, name: str) -> None:
        kind, number = name.split()
        env = self.stack.environment(**(self._through_proxies() if name == "worker 0" else {}))
        if kind == "worker":
            process = Process(["-m", "worker"], env, "is ready for")
        else:
            port = str(self._ports[int(number)])
            process = Process(["-m", "uvicorn", "api.main:app", "--port", port], env, "Uvicorn running")
        self._processes[name] = process
        await process.start()

    def _through_proxies(self) -> dict[str, str]:
        urls = {name: server.proxy.url for name, server in self._servers.items()}
        return {
            "REDIS_URL": urls.pop(HOME),
            "REJOIN_STREAM_URLS": ",".join(f"{url}#{name}" for name, url in urls.items()),
        }

    # What the provider says.

    def _improvise(self, call: Call) -> Sequence[Step]:
        self._calls[call.model] += 1
        kind, words, pace_s = self._lengths.get(call.model, (0, 3, 0.01))
        if kind == 1:
            return [HttpError(400)]
        pieces = Tokens([f"{call.model}.{self._calls[call.model]}.{n} " for n in range(words)], delay_s=pace_s)
        return [Delay(pace_s * 10), pieces] if kind == 2 else [pieces]

    # A round.

    async def round(self, number: int, seconds: float) -> list[str]:
        """Run one round and return what is wrong."""
        scene = self._scene = Scene(self.stack, seed=self._seed + number, urls=self._urls)
        self._kills.clear()
        self._outages.clear()
        before = {name: (process, _rss_mb(process)) for name, process in self._processes.items()}
        began, tasks = time.monotonic(), set[asyncio.Task[None]]()
        for plan in schedule(f"{self._seed}/{number}", seconds, self._faults):
            await asyncio.sleep(max(0.0, began + plan.at_s - time.monotonic()))
            work = self._job(plan, number) if plan.what == "job" else self._fault(plan)
            tasks.add(asyncio.create_task(work, name=plan.what))
            self.figures.counts[plan.what] += 1
        await asyncio.gather(*tasks)
        await self._adopt(scene)
        found = await scene.verdict(QUIET_S)
        self._measure(scene)
        self.figures.counts["attempts"] += sum(len(calls) for calls in scene.record.calls.values())
        self.figures.counts["connections"] += sum(reader.connections for reader in scene.readers)
        found += [*self._found, *await self._what_is_left(scene)]
        for name, process in self._processes.items():
            if not process.running:
                found.append(f"{name} has exited: {process.lines[-5:]}")
                continue
            rss_mb, (older, older_mb) = _rss_mb(process), before[name]
            if rss_mb > MAX_RSS_MB or (process is older and rss_mb > older_mb + MAX_GROWTH_MB):
                found.append(f"{name} has {rss_mb:.0f} MB, had {older_mb:.0f}")
            found += [f"{name}: {fault}" for fault in sorted(_faults(process.lines))]
        self.stack.provider.forget()
        return found + [line for job_id in _named(found) for line in _story(scene, job_id)]

    async def _job(self, plan: Plan, round_: int) -> None:
        choose, scene = random.Random(plan.number), self._scene
        answer = choose.choices((0, 1, 2), (8, 1, 2))[0], choose.randint(1, 60), choose.uniform(0, 0.06)
        fields = choose.choice(({}, {}, {"on_worker_lost": "continue"}, {"on_worker_lost": "fail"}))
        provider = choose.choice(("openai", "anthropic"))
        # Its own model, and its own key: a POST that was heard and not answered is the same one when it is repeated.
        model = f"r{round_}-{plan.number:08x}"
        self._lengths[model] = answer
        headers = {"Idempotency-Key": model}
        response = await self._ask("POST", "/v1/jobs", choose, json=body(model, provider, **fields), headers=headers)
        if response is None:
            self.figures.counts["posts given up"] += 1
            return
        self.figures.counts["posts replayed"] += "idempotency-replayed" in response.headers
        job_id = scene.accept(response.json()["id"], model)
        patience_s = choose.choice((0.05, 0.3, 1.0, 5.0))
        for _ in range(choose.randint(1, 3)):
            scene.read(job_id, cut_after=lambda: choose.expovariate(1 / patience_s))
        if choose.random() < 0.25:
            await asyncio.sleep(choose.uniform(0, 1.5))
            asked, calm = time.monotonic(), not self._busy
            response = await self._ask("POST", f"/v1/jobs/{job_id}/cancel", choose)
            outcome = "not answered" if response is None else response.json()["outcome"]
            self.figures.counts[f"cancel {outcome}"] += 1
            if outcome in ("cancelled", "cancelled_before_start"):
                scene.record.cancelled.add(job_id)
                calls = [call for call in self.stack.provider.calls if call.model == model]
                if calls and (closed_at := calls[-1].closed_at) and closed_at > asked and calm and not self._busy:
                    self.figures.cancel.append(closed_at - asked)

    async def _ask(
        self, method: str, path: str, choose: random.Random, *, tries: int = TRIES, **more: Any
    ) -> httpx2.Response | None:
        """Ask one API process or another until one has answered; None when none did for a while.

        A request without an answer may have been heard all the same: a POST's job is adopted in the end.
        """
        for _ in range(tries):
            with contextlib.suppress(httpx2.HTTPError):
                response = await self._http.request(method, choose.choice(self._urls) + path, **more)
                if response.status_code < 400:
                    return response
                assert response.status_code == 503, f"{path}: {response.status_code} {response.text}"
            await asyncio.sleep(0.1)
        return None

    # What goes wrong.

    async def _fault(self, plan: Plan) -> None:
        choose = random.Random(plan.number)
        action, _, kind = plan.what.partition(" ")
        if kind in ("worker", "api"):
            name = f"{kind} {choose.randrange(WORKERS if kind == 'worker' else APIS)}"
            await self._hurt_process(action, name, choose)
            return
        if action == "kill":
            server = HOME if kind == "redis" else choose.choice(self._events)
            name = server
        else:
            server = choose.choice([HOME, *self._events]) if self._events else HOME
            name = f"proxy of {server}"
        if name in self._busy:
            return
        self._busy.add(name)
        began = time.monotonic()
        try:
            if action == "kill":
                await self._kill_server(server, choose)
            else:
                await self._hurt_way(plan.what, server, choose)
        finally:
            self._busy.discard(name)
            if action == "kill":
                self._outages.append((began - LEASE_S - 2, time.monotonic() + LEASE_S + 2))

    async def _hurt_process(self, action: str, name: str, choose: random.Random) -> None:
        if name in self._busy:
            return
        self._busy.add(name)
        process = self._processes[name]
        try:
            if not process.running:
                self._found.append(f"{name} has exited by itself ({await process.exit_code()}): {process.lines[-5:]}")
                await self._start(name)
                return
            self._kills.append((time.monotonic(), f"{action} {name}"))
            if action == "freeze":
                process.signal(signal.SIGSTOP)
                await asyncio.sleep(choose.uniform(0.1, LEASE_S * 2))
                process.signal(signal.SIGCONT)
                return
            process.signal(signal.SIGKILL if action == "kill" else signal.SIGTERM)
            await asyncio.wait_for(process.exit_code(), 15)
            await self._start(name)
        finally:
            self._busy.discard(name)

    async def _kill_server(self, name: str, choose: random.Random) -> None:
        server = self._servers[name].valkey
        server.kill()
        await asyncio.sleep(choose.uniform(0, 2.5) if name == HOME else choose.uniform(0.2, 3))
        server.start()
        if name == HOME:
            began = time.monotonic()
            await eventually(self._ready, 20)
            self.figures.outage.append(time.monotonic() - began)

    async def _hurt_way(self, what: str, name: str, choose: random.Random) -> None:
        proxy = self._servers[name].proxy
        if what == "cut":
            proxy.cut()
        elif what == "slow":
            proxy.latency_s, proxy.jitter_s = 0.15, 0.1
            await asyncio.sleep(choose.uniform(0.5, 3))
            proxy.latency_s = proxy.jitter_s = 0.0
        elif what == "black hole":
            proxy.black_hole()
            await asyncio.sleep(choose.uniform(0.1, LEASE_S * 2))
            proxy.heal()
        else:
            with contextlib.suppress(TimeoutError, OSError, httpx2.HTTPError):
                await proxy.lose_reply(choose.choice(self._shas[name])).happened(2)

    async def _ready(self) -> bool:
        """Say whether an API process that is there takes jobs again."""
        for url in self._urls:
            with contextlib.suppress(httpx2.HTTPError):
                if (await self._http.get(f"{url}/readyz", timeout=1)).status_code == 200:
                    return True
        return False

    # Afterwards.

    def _measure(self, scene: Scene) -> None:
        """Time from each kill of a worker to the next call of each job whose call it closed, if nothing else failed."""
        for killed_at, what in self._kills:
            action, kind, _ = what.split()
            if kind != "worker" or action == "freeze" or any(begin < killed_at < end for begin, end in self._outages):
                continue
            took = self.figures.takeover if action == "kill" else self.figures.hand_over
            for calls in scene.record.calls.values():
                for call, following in pairwise(calls):
                    mine = call.closed_at is not None and killed_at <= call.closed_at < killed_at + 0.2
                    if mine and not any(killed_at < at < following.started_at for at, _ in self._kills):
                        took.append(following.started_at - killed_at)

    async def _adopt(self, scene: Scene) -> None:
        """Take jobs whose POST was never answered for accepted ones: they exist, and must end as well."""
        cursor = ""
        while True:
            page = await self._ask("GET", f"/v1/jobs?limit=100{cursor}", scene.choose)
            assert page is not None, "no API process answers"
            for job in page.json()["data"]:
                scene.record.posts[job["model"]].add(job["id"])
                if job["id"] not in scene.record.accepted:
                    scene.accept(job["id"], job["model"])
                    self.figures.counts["adopted"] += 1
            if not page.json()["has_more"]:
                return
            cursor = f"&cursor={page.json()['next_cursor']}"

    async def _what_is_left(self, scene: Scene) -> list[str]:
        """Delete the jobs; return what is there that should not be."""
        found, redis, keys = [], self.stack.redis, self.stack.keys
        for job_id in scene.record.accepted:
            response = await self._ask("DELETE", f"/v1/jobs/{job_id}", scene.choose)
            if response is None:
                found.append(f"{job_id} cannot be deleted")

        async def flat() -> list[str]:
            names = [key.decode() async for key in redis.scan_iter(count=1000)]
            kept = (
                *(keys.created, keys.round, keys.leases, keys.wake, keys.ended),
                *(f"{keys.prefix}:health:", f"{keys.prefix}:usage:", f"{keys.prefix}:idempotency:"),
                *(keys.posts("local"), f"{keys.prefix}:minute:"),
            )
            reports = [name for name in names if name.startswith(keys.report(""))]
            left = [name for name in names if not name.startswith((*kept, keys.report("")))]
            # Those of the workers that live: a dead one's is gone soon after its lease.
            left += reports[WORKERS:]
            leases, clients = await redis.zcard(keys.leases), len(await redis.client_list())
            if leases != WORKERS:
                left.append(f"{leases} leases")
            if clients > WORKERS * 6 + APIS * 4 + 4:
                left.append(f"{clients} connections")
            for name in self._events:
                async with Redis.from_url(self._servers[name].valkey.url) as events:
                    written = keys.on_event_servers().written.encode()
                    left += [f"{key.decode()} on {name}" async for key in events.scan_iter() if key != written]
                    if len(await events.client_list()) > WORKERS + APIS * 2 + 4:
                        left.append(f"too many connections to {name}")
            return left

        with contextlib.suppress(TimeoutError):
            await eventually(lambda: _none(flat), LEASE_S + 4)
            return found
        return found + [f"left in Redis: {name}" for name in (await flat())[:20]]


def _named(found: Sequence[str]) -> list[str]:
    """Return the jobs that violations name, a few of them."""
    return sorted(set(re.findall(r"job_[0-9a-f]{32}", "\n".join(found))))[:5]


def _story(scene: Scene, job_id: str) -> list[str]:
    """Return what is known of a job: what its log has, what each reader saw, when it was called."""
    calls = [f"{call.started_at:.3f}-{call.ended_at or 0:.3f}" for call in scene.record.calls[job_id]]
    lines = [f"{job_id} {scene.record.statuses.get(job_id)}, provider called {', '.join(calls)}"]
    lines.append(f"  log: {_brief(scene.record.logs.get(job_id, []))}")
    readings = [reading for reading in scene.record.readings if reading.job_id == job_id]
    return [*lines, *(f"  seen: {_brief(reading.events)}" for reading in readings)]


def _brief(events: Sequence[Event]) -> str:
    """Return events by id and name, and the data of all but texts."""
    shown = [f"{event.id} {event.event}" + ("" if event.event == "token" else f" {event.data}") for event in events]
    return "; ".join(shown if len(shown) < 16 else [*shown[:4], "…", *shown[-8:]])


async def _none(look: Any) -> bool:
    return not await look()


def _faults(lines: Sequence[str]) -> set[str]:
    """Return what tracebacks end with."""
    faults, inside = set[str](), False
    for line in lines:
        if inside and line and not line[0].isspace() and "Traceback" not in line:
            faults.add(line)
        inside = "Traceback" in line or (inside and (not line or line[0] in " +|"))
    return faults


def _rss_mb(process: Process) -> float:
    try:
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * resource.getpagesize() / 1e6


async def soak(seed: int, seconds: float, event_servers: int = 0) -> tuple[list[str], Figures]:
    """Run for so long; return what is wrong, and what was measured."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 8192), hard), hard))
    async with AsyncExitStack() as exits:
        provider = await exits.enter_async_context(ScriptedProvider())
        servers: dict[str, Server] = {}
        for name in (HOME, *(f"events-{n + 1}" for n in range(event_servers))):
            # Each write on disk: what a slow disk keeps back with `everysec`, SIGKILL loses.
            server = exits.enter_context(valkey("--appendonly", "yes", "--appendfsync", "always"))
            proxy = await exits.enter_async_context(Proxy(server.port, seed=seed))
            servers[name] = Server(server, proxy)
        stack = Stack(servers[HOME].valkey, f"soak-{uuid.uuid4().hex[:8]}", provider)
        stack.event_servers = {name: server.valkey.url for name, server in servers.items() if name != HOME}
        exits.push_async_callback(stack.close)
        run = Soak(stack, servers, seed)
        exits.push_async_callback(run.close)
        await run.open()
        found: list[str] = []
        deadline, number = time.monotonic() + seconds, 0
        while not found and (left_s := deadline - time.monotonic()) > 1:
            found = await run.round(number, min(ROUND_S, left_s))
            number += 1
            print(f"round {number}: {len(found)} violations", flush=True)
        return found, run.figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--servers", type=int, default=0, help="event servers (REJOIN_STREAM_URLS), 0 for none")
    args = parser.parse_args()
    print(f"seed {args.seed}, {args.seconds:.0f} s, event servers: {args.servers}", flush=True)
    found, figures = asyncio.run(soak(args.seed, args.seconds, args.servers))
    print("\n".join(figures.lines()))
    print("\n".join(found) or "clean")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
