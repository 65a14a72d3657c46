"""What real processes log of a job: enough to follow it by its ids, no line a token, nothing that it says."""

import json
import re
from typing import Any

from tests.provider import HttpError, Text
from tests.stack import Process, Stack, eventually
from tests.valkey import free_port

REQUEST_ID = "0194f7c2-5d1e-7c3a-9a77-1f2e3d4c5b6a"


def said(process: Process) -> list[dict[str, Any]]:
    """Return what a process has logged; every line has to be JSON."""
    return [json.loads(line) for line in process.lines]


def of_job(process: Process, job_id: str) -> list[dict[str, Any]]:
    return [line for line in said(process) if line.get("job_id") == job_id]


async def test_a_job_can_be_followed_by_its_ids_in_lines_of_json(bare: Stack) -> None:
    port = free_port()
    api, worker = await bare.api_process(port), await bare.worker_process()
    client = bare.client(also=f"http://127.0.0.1:{port}")
    bare.provider.script("m", *[Text(f"canary-{i} ") for i in range(200)])
    body = {"provider": "openai", "model": "m", "messages": [{"role": "user", "content": "canary-prompt"}]}
    answer = await client.http.post("/v1/jobs", json=body, headers={"X-Request-ID": REQUEST_ID})
    assert answer.headers["x-request-id"] == REQUEST_ID
    job_id = answer.json()["id"]
    assert (await client.http.get(answer.json()["events_url"])).text.count("event: completed") == 1

    await eventually(lambda: [line for line in of_job(worker, job_id) if line["message"] == "job ended"])
    await eventually(lambda: [line for line in of_job(api, job_id) if line["message"] == "stream closed"])
    at_api, at_worker = of_job(api, job_id), of_job(worker, job_id)
    accepted, posted, opened, read, closed = at_api
    messages = [line["message"] for line in (accepted, opened, closed)]
    assert messages == ["job accepted", "stream opened", "stream closed"]
    assert {accepted["request_id"], posted["request_id"]} == {REQUEST_ID}
    assert (posted["logger"], posted["method"], posted["path"], posted["status"]) == (
        "uvicorn.access", "POST", "/v1/jobs", 202,
    )  # fmt: skip
    assert re.fullmatch("[0-9a-f]{32}", opened["request_id"])
    assert {opened["request_id"]} == {read["request_id"], closed["request_id"]}
    assert read["path"].endswith("ticket=…") or "?" not in read["path"]
    assert (closed["outcome"], closed["duration_ms"] >= 0) == ("told", True)
    assert [line["message"] for line in at_worker] == ["attempt at openai", "job ended"]
    assert at_worker[-1]["outcome"] == "completed"
    assert {line["attempt"] for line in at_worker} == {1}
    for line in said(api) + said(worker):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert "canary" not in str(line)


async def test_a_failed_job_is_told_with_our_code_and_a_strange_request_id_is_not_taken(bare: Stack) -> None:
    """CWE-117, CWE-532."""
    await bare.api()
    worker = await bare.worker_process(REJOIN_LOG_FORMAT="text")
    client = bare.client()
    bare.provider.script("m", HttpError(400, message="canary-body"))
    for strange in ("canary-words", "0" * 65, "sk-abcdefgh", "a", "abcdefgh, 12345678"):
        answer = await client.http.get("/v1/jobs", headers={"X-Request-ID": strange})
        assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])
    assert "x-request-id" in (await client.http.get("/v1/nothing")).headers
    job_id = await client.submit("m")
    await client.all_events(job_id)
    line = await worker.line("job ended")
    assert re.fullmatch(
        rf"2\S+Z INFO    worker\.course: job ended  job_id={job_id}  attempt=1  code=\w+  outcome=failed", line
    )


async def test_uvicorn_is_told_to_write_no_access_log_and_does_not(bare: Stack) -> None:
    port = free_port()
    args = ["-m", "uvicorn", "api.main:app", "--port", str(port), "--no-access-log"]
    api: Process = await bare._started(Process(args, bare.environment(), "Uvicorn running"), [])
    client = bare.client(also=f"http://127.0.0.1:{port}")
    await client.submit("m")
    await api.line("job accepted")
    assert not [line for line in said(api) if line["logger"] == "uvicorn.access"]
