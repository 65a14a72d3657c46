"""Where a prompt, an answer and a key may be found afterwards, and where not."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from pydantic import ValidationError

from shared.keyring import new_key
from shared.messages import Message
from shared.requests import JobRequest
from tests import keys
from tests.client import Client
from tests.provider import Cut, HttpError, Reasoning, Text
from tests.stack import Process, Stack, eventually
from tests.valkey import free_port


async def test_prompts_are_in_their_job_alone_and_keys_nowhere(bare: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """CWE-532, CWE-312: not in a log line of either process, at DEBUG too; in Redis only where they expire."""
    caplog.set_level(logging.DEBUG)
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    key = await keys.new_key(bare, "alice")
    alice = bare.client(key)
    bare.provider.script("m", Text("canary-answer"))
    bare.provider.script("bad", HttpError(400))
    tickets = []
    for model in ("m", "bad"):
        job_id = await alice.submit(model, messages=[{"role": "user", "content": "canary-prompt"}])
        await asyncio.wait_for(alice.all_events(job_id), 10)
        tickets.append((await alice.job(job_id))["events_url"].partition("ticket=")[2])
    secrets = [key, keys.SECRET, "sk-canary-openai", "sk-canary-anthropic", *tickets]
    ours = [
        record.getMessage() for record in caplog.records if record.name.split(".")[0] in ("api", "worker", "shared")
    ]
    logged = "\n".join(ours)
    for canary in ("canary-prompt", "canary-answer", *secrets):
        assert canary not in logged
    found = set()
    for name in await bare.redis.keys(f"{bare.prefix}:*"):
        dumped = await bare.redis.dump(name)
        # (A long string is compressed in a dump: hashes and streams are read as they are.)
        kind = await bare.redis.type(name)
        if kind == b"hash":
            dumped = repr(await bare.redis.hgetall(name)).encode()  # type: ignore[misc]
        elif kind == b"stream":
            dumped = repr(await bare.redis.xrange(name)).encode()
        for secret in secrets:
            assert secret.encode() not in name + dumped, name
        if b"canary-prompt" in dumped or b"canary-answer" in dumped:
            found.add(name.split(b":")[1])
            assert await bare.redis.pttl(name) > 0, name
    assert found == {b"job", b"log"}


LOUD = "import logging; logging.basicConfig(level=logging.DEBUG); logging.debug('loud'); "
API = (
    LOUD + "import sys, uvicorn; "
    "uvicorn.run('api.main:app', port=int(sys.argv[1]), log_level='debug', access_log=True)"
)  # fmt: skip
WORKER = LOUD + "from worker.__main__ import main; main()"
SAID = ("canary-prompt", "canary-system", "canary-answer", "canary-thought", "canary-argument", "canary-result")
BROUGHT = ("canary-query", "canary-header", "canary-field", "canary-value", "canary-body")


async def loud(stack: Stack, program: str, ready: str, *args: str) -> Process:
    """Start a program that logs, and traces, all that anything in it has to say."""
    environment = stack.environment(
        OPENAI_LOG="debug",
        ANTHROPIC_LOG="debug",
        REJOIN_LOG_LEVEL="debug",
        OTEL_TRACES_EXPORTER="console",
    )
    return cast(Process, await stack._started(Process(["-c", program, *args], environment, ready), []))


def title(process: Process) -> str:
    """Return what `ps` shows of a process to everybody on its machine."""
    return "".join(Path(f"/proc/{process.pid}/{name}").read_text(errors="replace") for name in ("cmdline", "comm"))


def conversation(model: str, provider: str) -> dict[str, Any]:
    call = {"id": "c1", "name": "t", "arguments": '{"a":"canary-argument"}'}
    return {
        "provider": provider,
        "model": model,
        "system": "canary-system",
        "messages": [
            {"role": "user", "content": "canary-prompt"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "canary-result"},
        ],
    }


async def test_real_processes_say_nothing_of_what_they_carry(bare: Stack) -> None:
    """CWE-532, CWE-214, CWE-209: in no line of theirs, every library at DEBUG, no argv, no error, no header."""
    bare.configure(auth="required", secret=keys.SECRET, docs="on", retention_s=600)
    port = free_port()
    processes = [
        await loud(bare, API, "Uvicorn running", str(port)),
        await loud(bare, WORKER, "is ready for"),
    ]
    key, wrong = await keys.new_key(bare, "alice"), new_key()
    url = f"http://127.0.0.1:{port}"
    alice, nobody = bare.client(key, also=url), bare.client(also=url)
    answers: list[httpx2.Response] = []

    async def ask(client: Client, method: str, path: str, **more: Any) -> httpx2.Response:
        answers.append(await client.http.request(method, path, **more))
        return answers[-1]

    bare.provider.script("m", Reasoning("canary-thought"), Text("canary-answer"))
    bare.provider.script("bad", HttpError(400, message="canary-body sk-canary-openai"))
    bare.provider.script("broken", Text("canary-answer"), Cut())
    tickets, jobs = [], []
    for model, provider in (("m", "openai"), ("bad", "openai"), ("broken", "openai"), ("m", "anthropic")):
        accepted = await ask(alice, "POST", "/v1/jobs", json=conversation(model, provider))
        jobs.append(accepted.json()["id"])
        events_url = accepted.json()["events_url"]
        tickets.append(events_url.partition("ticket=")[2])
        streamed = await nobody.http.get(events_url)
        assert streamed.text.rstrip().rpartition("event: ")[2].startswith(("completed", "failed"))
    given: list[dict[str, Any]] = [
        {"json": {**conversation("m", "openai"), "canary-field": "canary-value"}},
        {"json": {**conversation("m", "openai"), "temperature": "canary-value"}},
        {"json": {**conversation("m", "openai"), "metadata": {"x": ["canary-value"]}}},
        {"json": {**conversation("m", "canary-value")}},
        {"content": b'{"canary-body', "headers": {"Content-Type": "application/json"}},
        {"content": b"canary-body", "headers": {"Content-Type": "text/canary-header"}},
        {"json": {}, "headers": {"Idempotency-Key": "canary-header-\u00e9".encode("latin-1")}},
        {"json": {}, "headers": {"Accept": "image/canary-header", "X-Request-ID": "canary-header"}},
    ]
    for request in given:
        refused = await ask(alice, "POST", "/v1/jobs", **request)
        assert 400 <= refused.status_code < 500
        # The name of a field that is unknown is told; its value is not.
        refused._content = refused.content.replace(b"canary-field", b"")
    for path in ("/v1/jobs", f"/v1/jobs/{jobs[0]}/events", "/v1/usage", "/v1/nothing"):
        for query in (
            f"api_key={key}", f"access%5Ftoken={key}&limit=1", f"t%69cket={tickets[0]}x", "prompt=canary-query&limit=x",
            f"{key}", f"limit=1;key={key}", f"from={wrong}", "last_event_id=canary-query",
            f"cursor={key}", "canary-query",
        ):  # fmt: skip
            await ask(nobody, "GET", f"{path}?{query}")
            await ask(alice, "GET", f"{path}?{query}", headers={"Accept": "application/json"})
    await ask(nobody, "GET", "/v1/jobs", headers={"Authorization": f"Bearer {wrong}"})
    await ask(nobody, "GET", "/v1/jobs", headers={"Authorization": f"Basic {wrong}", "Cookie": "canary-header"})
    await ask(alice, "DELETE", f"/v1/jobs/{jobs[1]}")
    for path in ("/livez", "/readyz", "/metrics", "/openapi.json", "/"):
        shown = await nobody.http.get(path)
        assert not [canary for canary in (*SAID, *BROUGHT, *jobs, "alice") if canary in shown.text], path

    titles = [title(process) for process in processes]
    for process in processes:
        process.signal(signal.SIGTERM)
        await process.exit_code()
        await process.line("DEBUG:root:loud")
    secrets = [key, wrong, keys.SECRET, "sk-canary-openai", "sk-canary-anthropic", *tickets]
    secrets += [ticket.rpartition(".")[2] for ticket in tickets]
    lines = [line for process in processes for line in process.lines]
    assert any("GET /v1/jobs?api_key=…" in line for line in lines), "the access log is on"
    assert any('"name": "GET /v1/jobs"' in line for line in lines), "traces are on"
    assert any('"name": "chat m"' in line for line in lines)
    for canary in (*SAID, *BROUGHT, *secrets):
        assert not [line for line in lines if canary in line], canary
        assert not [shown for shown in titles if canary in shown], canary
    for answer in answers:
        for canary in (*SAID, *BROUGHT, key, wrong, keys.SECRET, "sk-canary"):
            assert canary not in str(answer.headers.multi_items()), canary
            if answer.status_code >= 400:
                assert canary not in answer.text, canary


async def traces(stack: Stack, *canaries: str) -> set[bytes]:
    """Return the kinds of keys in Redis that hold any of them, whatever their type."""
    found = set()
    reads: dict[bytes, Any] = {
        b"hash": stack.redis.hgetall, b"stream": stack.redis.xrange, b"string": stack.redis.get,
        b"set": stack.redis.smembers, b"zset": lambda name: stack.redis.zrange(name, 0, -1),
        b"list": lambda name: stack.redis.lrange(name, 0, -1), b"none": stack.redis.get,
    }  # fmt: skip
    for name in [*await stack.redis.keys(f"{stack.prefix}:*"), *await stack.redis.keys("arq:*")]:
        held = name + repr(await reads[await stack.redis.type(name)](name)).encode()
        if any(canary.encode() in held for canary in canaries):
            found.add(name.split(b":")[1])
    return found


@pytest.mark.parametrize("way", ["deleted", "retention", "cancelled while it waits", "failed"])
async def test_what_is_over_leaves_no_trace_of_its_words(bare: Stack, way: str) -> None:
    """CWE-212, CWE-459: Redis has a prompt where its job is, and with its retention or DELETE nowhere."""
    bare.configure(retention_s=600 if way == "deleted" else 0.7)
    bare.provider.script("m", Reasoning("canary-thought"), Text("canary-answer"))
    bare.provider.script("bad", HttpError(400, message="canary-body"))
    await bare.api()
    client = bare.client()
    model = "bad" if way == "failed" else "m"
    headers = {"Idempotency-Key": "canary-header"}
    asked = {**conversation(model, "openai"), "metadata": {"x": "canary-value"}}
    job_id = (await client.http.post("/v1/jobs", json=asked, headers=headers)).json()["id"]
    assert await traces(bare, *SAID, *BROUGHT) == {b"job"}
    if way == "cancelled while it waits":
        await client.cancel(job_id)
    else:
        await bare.worker()
        await client.all_events(job_id)
        assert await traces(bare, *SAID, *BROUGHT) <= {b"job", b"log"}
    if way == "deleted":
        assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
        assert await traces(bare, *SAID, *BROUGHT) == set()

    async def gone() -> bool:
        return await traces(bare, *SAID, *BROUGHT) == set()

    await eventually(gone)
    assert (await client.http.get(f"/v1/jobs/{job_id}")).status_code == 404


async def test_a_record_that_cannot_be_read_is_told_without_its_words(
    bare: Stack, caplog: pytest.LogCaptureFixture
) -> None:
    """CWE-532, CWE-209: errors of validation quote what they were given; ours do not."""
    caplog.set_level(logging.DEBUG)
    await bare.api()
    client = bare.client()
    requests = ['{"provider":"canary-prompt', '{"provider":"x","model":"canary-prompt","messages":["canary-prompt"]}']
    jobs = [await client.submit() for _ in requests]
    for job_id, request in zip(jobs, requests, strict=True):
        await bare.redis.hset(bare.keys.job(job_id), "request", request)  # type: ignore[misc]
    await bare.worker()
    for job_id in jobs:
        assert (await client.all_events(job_id))[-1].event == "failed"
    assert "canary-prompt" not in caplog.text
    for model in (JobRequest, Message):
        with pytest.raises(ValidationError) as raised:
            model.model_validate({"role": "canary-prompt", "messages": "canary-prompt"})
        assert "canary-prompt" not in str(raised.value) + repr(raised.value)
