"""Traces of real processes, as a collector gets them: one from the POST to the provider and back, whatever happens."""

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from shared.telemetry import span_of, trace_of
from tests.client import body
from tests.collector import Collector, Span
from tests.provider import HttpError, Reasoning, Silence, Text, ToolCall, Usage
from tests.stack import ROOT, Stack, eventually
from tests.valkey import free_port

CALLER = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as started:
        yield started


async def span(collector: Collector, name: str, nth: int = 0) -> Span:
    """Return the nth span of this name when it has come."""
    await eventually(lambda: len(collector.named(name)) > nth, 10)
    return collector.named(name)[nth]


def attempt_id(job_id: str, attempt: int) -> str:
    return f"{span_of(job_id, attempt):016x}"


async def test_one_trace_goes_from_the_post_through_the_queue_to_the_provider_and_tells_no_content(
    bare: Stack, collector: Collector
) -> None:
    """CWE-532: neither what is said nor keys, tickets, owners."""
    port = free_port()
    # The framework would tell more, of itself.
    await bare.api_process(port, FASTAPI_OTEL_AUTO_CONFIGURE="true", **collector.environment)
    worker = await bare.worker_process(**collector.environment)
    client = bare.client(also=f"http://127.0.0.1:{port}")
    bare.provider.script(
        "m", Reasoning("canary-thought"), *[Text("canary-answer ")] * 50,
        ToolCall("canary-id", "canary-tool", '{"a":"canary-arg"}'), Usage(input=9, output=7),
    )  # fmt: skip
    asked = body(system="canary-system", max_tokens=50, metadata={"a": "canary-meta"})
    asked["messages"][0]["content"] = "canary-prompt"
    answer = await client.http.post(
        "/v1/jobs?canary-query=1", json=asked, headers={"traceparent": f"00-{CALLER[0]}-{CALLER[1]}-01"}
    )
    job_id, ticket = answer.json()["id"], answer.json()["events_url"]
    await client.http.get(ticket)
    await client.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "1-3"})
    assert (await client.http.get("/v1/jobs/job_canary")).status_code == 404

    post, attempt = await span(collector, "POST /v1/jobs"), await span(collector, "attempt")
    queue, call = await span(collector, "queue"), await span(collector, "chat m")
    reads = [await span(collector, "GET /v1/jobs/{job_id}/events", nth) for nth in range(2)]
    await span(collector, "GET /v1/jobs/{job_id}")
    assert (post.trace_id, post.parent, post.kind, post.service) == (*CALLER, "server", "rejoin-api")
    assert {queue.trace_id, attempt.trace_id, call.trace_id} == {post.trace_id}
    assert (queue.parent, attempt.parent, call.parent) == (post.id, post.id, attempt.id)
    assert (attempt.kind, attempt.service, attempt.links) == ("consumer", "rejoin-worker", [])
    assert attempt.id == attempt_id(job_id, 1)
    assert queue.end_ns <= attempt.start_ns <= call.start_ns <= call.end_ns <= attempt.end_ns
    assert post.attributes == {
        "http.request.method": "POST", "http.route": "/v1/jobs", "http.response.status_code": 202,
        "rejoin.job.id": job_id,
    }  # fmt: skip
    assert attempt.attributes == {
        "rejoin.job.id": job_id, "rejoin.attempt": 1, "rejoin.provider": "openai", "rejoin.outcome": "completed",
    }  # fmt: skip
    host, _, address = bare.provider.openai_url.partition("//")[2].partition("/")[0].partition(":")
    assert call.kind == "client"
    assert call.attributes == {
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m",
        "gen_ai.request.max_tokens": 50, "gen_ai.response.model": "m", "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 7, "gen_ai.response.finish_reasons": ["tool_calls"],
        "server.address": host, "server.port": int(address),
    }  # fmt: skip
    for read in reads:
        assert read.trace_id != post.trace_id
        assert read.links == [(post.trace_id, post.id)]
        assert read.attributes["rejoin.stream.outcome"] == "told"
    assert not [each for each in collector.spans if each.failed or each.events or each.words]
    assert "traceparent" not in bare.provider.calls[0].headers
    ended = json.loads(await worker.line("job ended"))
    assert (ended["job_id"], ended["trace_id"]) == (job_id, post.trace_id)
    assert len(collector.spans) == 7, "one a request, and no span a token"
    assert collector.paths == {"/v1/traces"}
    for canary in (b"canary", b"local", ticket.partition("ticket=")[2].encode()):
        assert canary not in collector.bodies


async def test_each_end_has_its_span_and_each_attempt_its_link_to_the_one_before(
    bare: Stack, collector: Collector
) -> None:
    await bare.api()
    worker = await bare.worker_process(**collector.environment)
    client = bare.client()
    bare.provider.script("again", HttpError(503, message="canary"))
    bare.provider.then("again", Text("Here."))
    job_id = await client.submit("again")
    await client.all_events(job_id)
    first, second = await span(collector, "attempt"), await span(collector, "attempt", 1)
    assert {first.trace_id, second.trace_id} == {f"{trace_of(job_id):032x}"}
    assert (first.failed, first.attributes["error.type"], first.links) == (True, "provider_overloaded", [])
    assert (second.failed, second.links) == (False, [(first.trace_id, first.id)])
    refused, answered = await span(collector, "chat again"), await span(collector, "chat again", 1)
    assert (refused.parent, refused.attributes["error.type"]) == (first.id, "provider_overloaded")
    assert (answered.parent, answered.failed) == (second.id, False)

    bare.provider.script("bad", HttpError(400, message="canary"))
    await client.all_events(await client.submit("bad"))
    failed = await span(collector, "attempt", 2)
    assert failed.failed
    assert (failed.attributes["error.type"], failed.attributes["rejoin.outcome"]) == ("provider_bad_request", "failed")

    bare.provider.script("slow", Text("Hel"), Silence())
    stopped = await client.submit("slow")
    await client.until(stopped, "token")
    await client.cancel(stopped)
    cancelled = await span(collector, "attempt", 3)
    assert (cancelled.failed, cancelled.attributes["rejoin.outcome"]) == (False, "cancelled")

    left = await client.submit("slow")
    await client.until(left, "token")
    worker.signal(signal.SIGTERM)
    assert await worker.exit_code() == 0
    handed = await span(collector, "attempt", 4)
    assert (handed.attributes["rejoin.outcome"], handed.id) == ("handed_over", attempt_id(left, 1))
    assert b"canary" not in collector.bodies


async def test_an_attempt_names_the_one_before_whose_worker_was_killed(bare: Stack, collector: Collector) -> None:
    """Its span is never exported: what it is called follows from the job."""
    bare.configure(lease_s=0.5)
    port = free_port()
    await bare.api_process(port, **collector.environment)
    doomed = await bare.worker_process(**collector.environment)
    client = bare.client(also=f"http://127.0.0.1:{port}")
    bare.provider.script("m", Text("half an ans"), Silence())
    bare.provider.then("m", Text("a whole answer"))
    job_id = await client.submit()
    await client.until(job_id, "token")
    heir = asyncio.create_task(bare.worker_process(**collector.environment))
    doomed.signal(signal.SIGKILL)
    await heir
    await client.all_events(job_id)
    attempt, post = await span(collector, "attempt"), await span(collector, "POST /v1/jobs")
    assert (attempt.attributes["rejoin.attempt"], attempt.attributes["rejoin.outcome"]) == (2, "completed")
    assert (attempt.trace_id, attempt.parent) == (post.trace_id, post.id)
    assert attempt.links == [(post.trace_id, attempt_id(job_id, 1))]
    assert attempt_id(job_id, 1) not in {each.id for each in collector.spans}


async def test_an_attempt_that_lost_its_job_says_so_when_it_is_back(bare: Stack, collector: Collector) -> None:
    bare.configure(lease_s=0.5)
    frozen = await bare.worker_process(**collector.environment)
    await bare.api()
    client = bare.client()
    bare.provider.script("m", Text("half an ans"), Silence())
    bare.provider.then("m", Text("a whole answer"))
    job_id = await client.submit()
    await client.until(job_id, "token")
    frozen.signal(signal.SIGSTOP)
    await bare.worker()
    await client.all_events(job_id)
    frozen.signal(signal.SIGCONT)
    attempt = await span(collector, "attempt")
    assert (attempt.id, attempt.attributes["rejoin.outcome"]) == (attempt_id(job_id, 1), "lost")


async def test_each_provider_is_named_as_the_field_names_it_and_is_told_nothing(
    bare: Stack, collector: Collector
) -> None:
    """Nor by what an SDK would send along by itself where the whole process has a tracer."""
    await bare.api()
    await bare.worker_process(**collector.environment, OTEL_PYTHON_TRACER_PROVIDER="sdk_tracer_provider")
    client = bare.client()
    bare.provider.script("m", Text("x"), Usage(input=9, output=7))
    for provider, name in (("openai", "openai"), ("openai-responses", "openai"), ("anthropic", "anthropic")):
        for _ in range(3):
            job_id = await client.submit(provider=provider)
            assert (await client.all_events(job_id))[-1].event == "completed"
            called = await span(collector, "chat m", len(bare.provider.calls) - 1)
            said = called.attributes
            assert (said["gen_ai.provider.name"], said["gen_ai.response.model"]) == (name, "m")
            assert (said["gen_ai.usage.input_tokens"], said["gen_ai.usage.output_tokens"]) == (9, 7)
            assert said["server.address"] == "127.0.0.1"
            assert "traceparent" not in bare.provider.calls[-1].headers


@pytest.mark.parametrize("hangs", [True, False])
async def test_a_collector_that_hangs_or_is_gone_costs_a_warning_and_nothing_else(bare: Stack, *, hangs: bool) -> None:
    with Collector(hangs=True) as collector:
        environment = collector.environment
        if not hangs:
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{free_port()}"
        await bare.api()
        worker = await bare.worker_process(**environment)
        client = bare.client()
        bare.provider.script("m", Text("x"))
        for _ in range(30):
            assert (await client.all_events(await client.submit()))[-1].event == "completed"
        if hangs:
            await eventually(lambda: collector.asked)
            began_s = time.monotonic()
            worker.signal(signal.SIGTERM)
            assert await worker.exit_code() == 0
            assert time.monotonic() - began_s < 5
        else:
            await worker.line("Transient error")
            warned = [line for line in worker.lines if "opentelemetry" in line]
            assert len(warned) == 1


OFF = """
import sys
import api.main, worker.__main__
from shared import telemetry
from shared.settings import Settings
assert telemetry.start("api") is None
api.main.create_app(Settings(_env_file=None, auth="off"))
theirs = ("opentelemetry.sdk", "opentelemetry.exporter", "shared.traces")
print(*[name for name in sys.modules if name.startswith(theirs)])
"""


DISABLED = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}


@pytest.mark.parametrize("variables", [{}, DISABLED])
def test_without_traces_nothing_of_them_is_imported(variables: dict[str, str]) -> None:
    done = subprocess.run([sys.executable, "-c", OFF], cwd=ROOT, env=variables, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr
