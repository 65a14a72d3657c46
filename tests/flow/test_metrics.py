"""`/metrics` of API processes and workers: what is scraped is what has happened."""

import asyncio
import signal
import sys
import time
from contextlib import aclosing
from typing import Any

import httpx2
import pytest

from api import hub
from shared.metrics import MOST_UNKNOWN
from shared.prices import Usage as Taken
from shared.redis_clock import RedisClock
from tests import keys
from tests.provider import HttpError, Reasoning, Silence, StreamError, Text, Tokens, Usage, Wait
from tests.scrape import Scrape, scrape
from tests.stack import Stack, eventually
from tests.valkey import free_port

PROMISED = {
    "rejoin_jobs_total": {"status", "code"},
    "rejoin_queue_wait_seconds_bucket": {"le"},
    "rejoin_ttft_seconds_bucket": {"le"},
    "rejoin_relay_lag_seconds_bucket": {"le"},
    "rejoin_cancel_seconds_bucket": {"le"},
    "rejoin_tokens_total": {"provider", "model", "kind"},
    "rejoin_attempts_total": {"reason"},
    "rejoin_streams_open": set(),
    "rejoin_queue_depth": set(),
    "rejoin_queue_oldest_seconds": set(),
    "rejoin_slots": {"state"},
}
"""Contract §5: names and labels that dashboards may count on."""


@pytest.fixture
async def place(bare: Stack) -> "Place":
    return await Place(bare).open()


class Place:
    """One API process and one worker with a port of its own."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.port = free_port()
        self.worker_url = f"http://127.0.0.1:{self.port}"

    async def open(self, **settings: Any) -> "Place":
        await self.stack.worker(worker_port=self.port, **settings)
        await self.stack.api()
        self.client = self.stack.client()
        return self

    async def scrape(self) -> Scrape:
        """Scrape both, added up."""
        return await scrape(self.stack.url, self.worker_url)

    async def run(self, model: str = "m", **fields: Any) -> str:
        """Bring a job to its end, read live from its first event on; return its id."""
        job_id = await self.client.submit(model, **fields)
        await asyncio.wait_for(self.client.all_events(job_id), 10)
        await self.at_rest()
        return job_id

    async def at_rest(self) -> None:
        """Return when the worker knows that all it has ended has ended."""
        await eventually(lambda: not self.stack.workers[0].worker.tasks)


async def test_the_names_that_are_promised_are_there_after_one_job(place: Place) -> None:
    gate = place.stack.provider.gate()
    place.stack.provider.script("gpt-4o", Text("a"), Wait(gate), Text("b"))
    job_id = await place.client.submit("gpt-4o")
    reader = asyncio.create_task(place.client.all_events(job_id))
    await gate.reached()
    await eventually(lambda: place.stack.apis[0].app.state.rejoin.hub.open_streams == 1)
    gate.open()
    await reader
    await place.at_rest()
    found = await place.scrape()
    assert {name: found.labels(name) for name in PROMISED} == PROMISED
    assert found.types["rejoin_jobs"] == "counter"
    for name in ("queue_wait", "ttft", "relay_lag", "cancel"):
        assert found.types[f"rejoin_{name}_seconds"] == "histogram"


async def test_jobs_are_counted_by_outcome_and_code(place: Place) -> None:
    provider = place.stack.provider
    provider.script("good", Text("hi"))
    provider.script("bad", HttpError(400))
    provider.script("stopped", Text("a"), Silence())
    for _ in range(3):
        await place.run("good")
    await place.run("bad")
    job_id = await place.client.submit("stopped")
    await place.client.until(job_id, "token")
    await place.client.cancel(job_id)
    await place.at_rest()
    found = await place.scrape()
    assert found.by("rejoin_jobs_total", "status", "code") == {
        ("completed", ""): 3, ("failed", "provider_bad_request"): 1, ("cancelled", ""): 1,
    }  # fmt: skip
    assert found("rejoin_jobs_submitted_total") == 5
    assert found.by("rejoin_attempts_total", "reason") == {("first",): 5}
    assert found.by("rejoin_provider_errors_total", "provider", "code") == {("openai", "provider_bad_request"): 1}
    assert found("rejoin_queue_wait_seconds_count") == 5
    assert found("rejoin_ttft_seconds_count") == 4
    assert found("rejoin_cancel_seconds_count") == 1
    assert found("rejoin_cancel_seconds_bucket", le="1.0") == 1


async def test_a_job_that_is_cancelled_while_it_waits_is_counted_by_the_api(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    waiting = await scrape(bare.url)
    assert (waiting("rejoin_queue_depth"), waiting("rejoin_workers")) == (1, 0)
    assert 0 <= waiting("rejoin_queue_oldest_seconds") < 5
    await client.cancel(job_id)
    await client.cancel(job_id)
    found = await scrape(bare.url)
    assert found.by("rejoin_jobs_total", "status", "code") == {("cancelled", ""): 1}


@pytest.mark.parametrize("limits", [{}, {"openai": {"concurrent": 5}}], ids=["no limits", "limits"])
async def test_tokens_and_cost_are_those_of_the_ledger(bare: Stack, limits: dict[str, Any]) -> None:
    """Each call once: what failed and was asked again, or elsewhere; with limits it is settled before that."""
    place = await Place(bare).open(limits=limits)
    provider = bare.provider
    provider.script("gpt-4o", HttpError(500))
    provider.then("gpt-4o", Reasoning("hm"), Text("hi"), Usage(input=1_000, cached=400, output=70, reasoning=20))
    await place.run("gpt-4o")
    provider.script("gpt-4.1", Text("half an ans"), StreamError())
    provider.script("gpt-4.1-mini", Text("whole"))
    await place.run("gpt-4.1", fallbacks=[{"provider": "openai", "model": "gpt-4.1-mini"}])
    provider.script("gpt-4o-mini", Text("four"), Silence())
    job_id = await place.client.submit("gpt-4o-mini")
    await place.client.until(job_id, "token")
    await place.client.cancel(job_id)
    await place.at_rest()
    found = await place.scrape()
    tokens = found.by("rejoin_tokens_total", "provider", "model", "kind")
    assert {key[2]: value for key, value in tokens.items() if key[1] == "gpt-4o"} == {
        "input": 1_000, "cached_input": 400, "output": 70, "reasoning": 20,
    }  # fmt: skip
    usage = (await place.client.http.get("/v1/usage", params={"group_by": "model"})).json()
    for row in usage["data"]:
        key = tuple(row["model"].split("/"))
        assert row["input_tokens"] == tokens[(*key, "input")]
        assert row["output_tokens"] == tokens[(*key, "output")]
        assert row["cost_usd"] == pytest.approx(found.by("rejoin_cost_usd_total", "provider", "model")[key])
    assert {row["model"] for row in usage["data"]} == {
        "openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4.1", "openai/gpt-4.1-mini",
    }  # fmt: skip
    reasons = found.by("rejoin_attempts_total", "reason")
    assert reasons == {("first",): 3, ("provider_error",): 1, ("fallback",): 1}


async def test_a_killed_workers_jobs_are_counted_by_who_takes_them_over(bare: Stack) -> None:
    """Attempts by reason, the takeover, and the tokens that only a script can guess."""
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process()
    await bare.api()
    client = bare.client()
    bare.provider.script("gpt-4o", Text("12345678"), Silence())
    bare.provider.then("gpt-4o", Text("whole"), Usage(input=10, output=5))
    job_id = await client.submit("gpt-4o")
    await client.until(job_id, "token")
    place = Place(bare)
    await bare.worker(worker_port=place.port)
    doomed.signal(signal.SIGKILL)
    await client.all_events(job_id)
    await eventually(lambda: not bare.workers[0].worker.tasks)
    found = await scrape(place.worker_url)
    assert found.by("rejoin_attempts_total", "reason") == {("worker_lost",): 1}
    assert found("rejoin_takeovers_total") == 1
    assert found.by("rejoin_jobs_total", "status", "code") == {("completed", ""): 1}
    usage = (await client.job(job_id))["usage"]
    assert usage["output_tokens"] == 2 + 5
    assert found("rejoin_tokens_total", kind="output") == 2 + 5
    assert found("rejoin_tokens_total", kind="input") == usage["input_tokens"]
    assert found("rejoin_queue_wait_seconds_count") == 0, "it has waited with the first"


async def test_a_job_that_runs_out_of_workers_is_counted_by_the_reaper(bare: Stack) -> None:
    bare.configure(lease_s=0.3, max_attempts=1)
    doomed = await bare.worker_process()
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("a"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    place = Place(bare)
    await bare.worker(worker_port=place.port)
    doomed.signal(signal.SIGKILL)
    await client.all_events(job_id)
    found = await eventually_scraped(place.worker_url, "rejoin_takeovers_total", 1)
    assert found.by("rejoin_jobs_total", "status", "code") == {("failed", "worker_lost"): 1}


async def eventually_scraped(url: str, name: str, value: float, **labels: str) -> Scrape:
    async def reached() -> Scrape | None:
        found = await scrape(url)
        return found if found(name, **labels) == value else None

    found: Scrape = await eventually(reached)
    return found


async def test_a_fenced_write_and_a_lost_lease_are_counted(place: Place) -> None:
    stack = place.stack
    gate = stack.provider.gate()
    stack.provider.script("m", Text("a"), Wait(gate), Text("b"), Silence())
    job_id = await place.client.submit()
    await place.client.until(job_id, "token")
    await stack.redis.hset(stack.keys.job(job_id), "worker", "somebody-else")  # type: ignore[misc]
    gate.open()
    await eventually_scraped(place.worker_url, "rejoin_fenced_writes_total", 1)
    await place.at_rest()
    lease = stack.workers[0].worker.workshop.lease
    await stack.redis.zadd(stack.keys.leases, {lease.worker: 0})
    lease.renew_soon()
    found = await eventually_scraped(place.worker_url, "rejoin_lease_losses_total", 1)
    assert found("rejoin_fenced_writes_total") == 1
    assert not found.by("rejoin_jobs_total", "status", "code"), "it is not this worker's to end"


async def test_streams_are_open_while_they_are_read(place: Place) -> None:
    place.stack.provider.script("m", Text("a"), Silence())
    job_id = await place.client.submit()
    async with aclosing(place.client.events(job_id)) as first, aclosing(place.client.events(job_id)) as second:  # type: ignore[type-var]
        await anext(first)
        await anext(second)
        assert (await scrape(place.stack.url))("rejoin_streams_open") == 2
    await eventually_scraped(place.stack.url, "rejoin_streams_open", 0)
    await place.client.cancel(job_id)
    assert (await scrape(place.stack.url))("rejoin_streams_open") == 0


async def test_resumes_and_snapshots_are_counted(place: Place) -> None:
    place.stack.provider.script("m", Tokens("some words of an answer", delay_s=0))
    job_id = await place.run()
    events = await place.client.all_events(job_id)
    await place.client.all_events(job_id, events[1].id)
    await place.client.all_events(job_id, "7-7")
    found = await scrape(place.stack.url)
    assert (found("rejoin_resumes_total"), found("rejoin_snapshots_total")) == (2, 1)


async def test_slots_are_used_or_free(bare: Stack) -> None:
    place = await Place(bare).open(max_jobs=3)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate), Text("b"))
    jobs = [await place.client.submit() for _ in range(4)]
    await gate.reached(3)
    found = await place.scrape()
    assert found.by("rejoin_slots", "state") == {("used",): 3}
    # (Of both processes, added up.)
    assert (found("rejoin_queue_depth"), found("rejoin_workers")) == (2, 2)
    gate.open()
    await asyncio.gather(*[place.client.all_events(job_id) for job_id in jobs])
    await place.at_rest()
    assert (await scrape(place.worker_url)).by("rejoin_slots", "state") == {("free",): 3}


async def test_a_429_is_an_error_and_one_pause(place: Place) -> None:
    place.stack.provider.script("m", HttpError(429, headers={"retry-after": "30"}))
    job_ids = [await place.client.submit(timeout_s=20) for _ in range(2)]
    await asyncio.gather(*[place.client.all_events(job_id) for job_id in job_ids])
    await place.at_rest()
    found = await scrape(place.worker_url)
    assert found("rejoin_provider_errors_total", code="provider_rate_limited") >= 1
    assert found("rejoin_provider_pauses_total", provider="openai") == 1
    assert found("rejoin_paused_models") == 1


async def test_the_time_to_a_first_token_is_told_in_parts(place: Place) -> None:
    gate = place.stack.provider.gate()
    place.stack.provider.script("gpt-4o", Wait(gate), *[Text(f"{n} ") for n in range(12)], Usage(input=1, output=50))
    job_id = await place.client.submit("gpt-4o")
    reader = asyncio.create_task(place.client.all_events(job_id))
    await gate.reached()
    hub_here = place.stack.apis[0].app.state.rejoin.hub
    await eventually(lambda: hub_here.open_streams == 1 and hub_here._ears[""].clock._looked_s is not None)
    gate.open()
    await reader
    await place.at_rest()
    found = await place.scrape()
    assert found("rejoin_ttft_part_seconds_count", part="queue") == 1
    assert found("rejoin_ttft_part_seconds_count", part="provider") == 1
    assert found("rejoin_ttft_part_seconds_count", part="relay") == 1
    ttft = found("rejoin_ttft_seconds_sum")
    parts = [found("rejoin_ttft_part_seconds_sum", part=part) for part in ("queue", "provider")]
    assert sum(parts) == pytest.approx(ttft)
    assert found("rejoin_provider_ttft_seconds_sum", model="gpt-4o") == pytest.approx(parts[1])
    assert found("rejoin_inter_token_seconds_count", model="gpt-4o") == 11


async def test_the_lag_of_the_relay_is_from_append_to_socket(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is busy for 200 ms is late by as much, on whatever clock Redis goes."""
    real = hub.Watch.hand_out
    slow = asyncio.Event()

    def busy(watch: hub.Watch) -> bool:
        if slow.is_set():
            slow.clear()
            time.sleep(0.2)
        return real(watch)

    gate = place.stack.provider.gate()
    place.stack.provider.script("m", Text("a"), Wait(gate), Text("b"), Silence())
    job_id = await place.client.submit()
    async with aclosing(place.client.events(job_id)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.event == "token":
                break
        here = place.stack.apis[0].app.state.rejoin.hub
        await eventually(lambda: here._ears[""].clock._looked_s is not None)
        before = await scrape(place.stack.url)
        monkeypatch.setattr(hub.Watch, "hand_out", busy)
        slow.set()
        gate.open()
        await anext(events)
        after = await scrape(place.stack.url)
    lag_s = after("rejoin_relay_lag_seconds_sum") - before("rejoin_relay_lag_seconds_sum")
    assert after("rejoin_relay_lag_seconds_count") - before("rejoin_relay_lag_seconds_count") == 1
    assert 0.19 < lag_s < 1


def test_redis_clock_is_known_as_well_as_the_best_look_says() -> None:
    clock = RedisClock(None)  # type: ignore[arg-type]
    assert clock.since_s(b"1000 0", 5.0) is None
    clock.note(1.0, 1001.0, 1.002)
    assert clock.since_s(b"1001 500000", 2.0) == pytest.approx(0.499)
    clock.note(2.0, 1002.9, 3.0)
    assert clock.since_s(b"1001 500000", 2.0) == pytest.approx(0.499), "a look that took a second says less"
    clock.note(4.0, 2004.0, 4.002)
    assert clock.since_s(b"2004 0", 4.501) == pytest.approx(0.5), "somebody has set Redis' clock"
    for junk in (b"", b"x y", b"1", b"\xff 1"):
        assert clock.since_s(junk, 5.0) is None
    assert clock.since_s(b"9999 0", 5.0) == 0
    assert clock.since_s(b"2004 0", 500.0) is None, "nobody has looked for too long"


async def test_requests_are_counted_by_template_and_status(place: Place) -> None:
    http = place.client.http
    await place.client.submit()
    for path in ("/v1/jobs/job_x", "/v1/jobs/job_y", "/no/such/thing", "/page/app.js", "/page/../secret", "/livez"):
        await http.get(path)
    await http.request("PROPFIND", "/livez")
    found = (await scrape(place.stack.url)).by("rejoin_http_requests_total", "method", "route", "status")
    assert found[("POST", "/v1/jobs", "202")] == 1
    assert found[("GET", "/v1/jobs/{job_id}", "404")] == 2
    assert found[("GET", "/page", "200")] == 1
    assert found[("other", "/livez", "405")] == 1
    assert ("GET", "other", "404") in found
    assert all(route == "other" or route.startswith("/") for _, route, _ in found)
    assert not [key for key in found if "such" in key[1] or "job_x" in key[1]]


async def test_a_thousand_invented_models_get_no_label_each(place: Place) -> None:
    """CWE-770: what a client writes is no label, but for a few that have answered."""
    metrics = place.stack.workers[0].worker.workshop.metrics
    for n in range(1_000):
        metrics.first_token("openai", f"invented-{n}", 0.1, 0.1)
        metrics.settled("openai", f"invented-{n}", Taken(input_tokens=1, output_tokens=1), 0)
        metrics.settled("openai", f"never-answered-{n}", Taken(input_tokens=1), 0)
        metrics.failed(f"no-provider-{n}", "provider_error")
    metrics.first_token("openai", 'x"} 1\nrejoin_forged 1', 0.1, 0.1)
    metrics.first_token("openai", "gpt-4o", 0.1, 0.1)
    found = await scrape(place.worker_url)
    models = {dict(labels).get("model") for _, labels in found.samples} - {None}
    assert len([model for model in models if model and model.startswith("invented")]) == MOST_UNKNOWN
    assert models - {f"invented-{n}" for n in range(1_000)} == {"other", "gpt-4o"}
    assert found("rejoin_tokens_total", kind="input") == 2_000
    assert found.by("rejoin_provider_errors_total", "provider", "code") == {("other", "provider_error"): 1_000}
    assert found.text.count("\n") < 3_000


async def test_a_model_that_has_answered_has_a_label_and_one_that_has_not_has_none(place: Place) -> None:
    place.stack.provider.script("mine", Text("hi"))
    place.stack.provider.script("nobodys", HttpError(404))
    await place.run("mine")
    await place.run("nobodys")
    found = await scrape(place.worker_url)
    assert ("openai", "mine", "output") in found.by("rejoin_tokens_total", "provider", "model", "kind")
    assert "nobodys" not in found.text


async def test_nothing_of_anybody_is_in_a_scrape(bare: Stack) -> None:
    """CWE-200: no prompt, answer, key, ticket, id, owner, and no word of a request."""
    bare.configure(auth="required", secret=keys.SECRET)
    place = await Place(bare).open()
    key = await keys.new_key(bare, "alice-owner")
    alice = place.client = bare.client(key)
    bare.provider.script("m", Text("canary-answer"))
    bare.provider.script("canary model", HttpError(400))
    canary = {"messages": [{"role": "user", "content": "canary-prompt"}], "metadata": {"canary": "canary"}}
    ids = [await place.run(model, **canary) for model in ("m", "canary model")]
    ticket = (await alice.job(ids[0]))["events_url"].partition("ticket=")[2]
    await alice.http.get(f"/v1/jobs/{ids[0]}/canary-path", params={"canary": "canary"})
    await alice.http.get("/v1/jobs", headers={"Idempotency-Key": "canary-key", "X-Canary": "canary"})
    text = (await place.scrape()).text
    for secret in (*ids, key, ticket, "alice", "canary", keys.SECRET, bare.workers[0].worker.workshop.lease.worker):
        assert secret not in text, secret


async def test_a_worker_serves_three_routes(place: Place) -> None:
    async with httpx2.AsyncClient(base_url=place.worker_url, trust_env=False, verify=False) as http:
        assert (await http.get("/livez")).status_code == 200
        ready = await http.get("/readyz")
        assert (ready.status_code, ready.headers["cache-control"]) == (200, "no-store")
        head = await http.head("/metrics")
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) > 1_000
        open_metrics = await http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert open_metrics.headers["content-type"].startswith("application/openmetrics-text")
        assert open_metrics.text.endswith("# EOF\n")
        assert (await http.get("/")).status_code == 404
        assert (await http.post("/metrics")).status_code == 405


async def test_what_is_no_request_costs_a_worker_nothing(place: Place) -> None:
    """CWE-400: too long, too slow, too many, or no HTTP at all."""
    for sent in (b"", b"\r\n\r\n", b"GET\r\n\r\n", b"\xff\xfe /livez\r\n\r\n", b"GET /" + b"x" * 100_000):
        reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
        writer.write(sent)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 404", b"HTTP/1.1 405"))
        writer.close()
    silent = [await asyncio.open_connection("127.0.0.1", place.port) for _ in range(40)]
    reader, _ = silent[-1]
    assert await asyncio.wait_for(reader.read(), 5) == b"", "one too many is told so"
    for _, writer in silent:
        writer.close()

    async def answers() -> bool:
        async with httpx2.AsyncClient(base_url=place.worker_url, trust_env=False, verify=False) as http:
            try:
                return (await http.get("/livez")).status_code == 200
            except httpx2.TransportError:
                return False

    await eventually(answers)


async def test_a_worker_is_not_ready_while_it_hands_over(bare: Stack) -> None:
    place = Place(bare)
    worker = await bare.worker(worker_port=place.port)
    held = asyncio.Event()
    leave = worker.worker._leave

    async def slowly() -> None:
        await held.wait()
        await leave()

    await eventually(lambda: worker.worker._waiting is not None)
    worker.worker._leave = slowly  # type: ignore[method-assign]
    worker.worker.handle_sig(signal.SIGTERM)
    try:
        async with httpx2.AsyncClient(base_url=place.worker_url, trust_env=False, verify=False) as http:
            assert (await http.get("/readyz")).status_code == 503
            assert (await http.get("/livez")).status_code == 200
        found = await scrape(place.worker_url)
        assert not found.by("rejoin_slots", "state"), "it takes no more"
    finally:
        held.set()


async def test_a_port_that_is_taken_ends_the_worker_with_one_line(bare: Stack) -> None:
    place = Place(bare)
    await bare.worker(worker_port=place.port)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker"),
        env={**bare.environment(), "REJOIN_WORKER_PORT": str(place.port), "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 20)
    assert process.returncode == 1
    last = said.decode().strip().splitlines()
    assert last == [f"rejoin: REJOIN_WORKER_PORT: cannot listen on {place.port} (Address already in use)"]
