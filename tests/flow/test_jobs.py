"""Reading, listing and forgetting jobs."""

import re

from tests.client import Client, body
from tests.provider import Silence, Text, Usage
from tests.stack import Stack, eventually

TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


async def test_submit_says_where_everything_is(stack: Stack, client: Client) -> None:
    response = await client.http.post("/v1/jobs", json=body())
    assert response.status_code == 202
    job = response.json()
    assert set(job) == {"id", "status", "url", "events_url", "cancel_url", "created_at"}
    assert re.fullmatch(r"job_[0-9a-f]{32}", job["id"])
    assert job["status"] == "queued"
    assert response.headers["location"] == job["url"] == f"/v1/jobs/{job['id']}"
    assert job["events_url"].startswith(f"/v1/jobs/{job['id']}/events?ticket=")
    assert job["cancel_url"] == f"/v1/jobs/{job['id']}/cancel"
    assert TIME.match(job["created_at"])


async def test_a_job_can_be_read_at_every_moment(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Hel"), Silence())
    job_id = await client.submit(metadata={"chat": "42"})
    del gate
    await client.until(job_id, "token")
    job = await client.job(job_id)
    assert set(job) == {
        "id", "status", "provider", "model", "text", "reasoning", "reasoning_blocks", "tool_calls", "parsed",
        "finish_reason", "usage", "cost_usd", "attempts", "error", "created_at", "started_at", "first_token_at",
        "finished_at", "metadata", "events_url",
    }  # fmt: skip
    assert (job["status"], job["text"], job["attempts"]) == ("running", "Hel", 1)
    assert job["metadata"] == {"chat": "42"}
    assert TIME.match(job["started_at"])
    assert TIME.match(job["first_token_at"])
    assert job["finished_at"] is job["usage"] is job["error"] is None
    await client.cancel(job_id)
    job = await client.job(job_id)
    assert job["created_at"] <= job["started_at"] <= job["first_token_at"] <= job["finished_at"]


async def test_a_finished_job_has_its_usage(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("Hello"), Usage(input=3, output=1))
    job_id = await client.submit()
    await client.all_events(job_id)
    job = await client.job(job_id)
    assert (job["status"], job["text"], job["finish_reason"]) == ("completed", "Hello", "stop")
    assert job["usage"] == {"input_tokens": 3, "cached_input_tokens": 0, "output_tokens": 1, "estimated": False}
    assert job["first_token_at"] is not None


async def test_the_list_has_all_jobs_newest_first_page_by_page(stack: Stack, client: Client) -> None:
    ids = [await client.submit() for _ in range(7)]
    for job_id in ids:
        await client.all_events(job_id)
    seen: list[str] = []
    cursor = None
    while True:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await client.http.get("/v1/jobs", params=params)).json()
        seen += [job["id"] for job in page["data"]]
        cursor = page["next_cursor"]
        assert page["has_more"] == (cursor is not None)
        if cursor is None:
            break
    assert seen == ids[::-1]


async def test_the_list_can_be_narrowed_to_a_status(stack: Stack, client: Client) -> None:
    done = [await client.submit() for _ in range(3)]
    for job_id in done:
        await client.all_events(job_id)
    stack.provider.script("m", Silence())
    live = await client.submit()
    await client.until(live, "started")
    running = (await client.http.get("/v1/jobs", params={"status": "running"})).json()["data"]
    assert [job["id"] for job in running] == [live]
    completed = (await client.http.get("/v1/jobs", params={"status": "completed", "limit": 2})).json()["data"]
    assert [job["id"] for job in completed] == done[:0:-1]


async def test_a_deleted_job_is_gone_with_its_log(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    await client.all_events(job_id)
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 204
    assert (await client.http.get(f"/v1/jobs/{job_id}")).status_code == 404
    assert (await client.http.get(f"/v1/jobs/{job_id}/events")).status_code == 404
    assert (await client.http.get("/v1/jobs")).json()["data"] == []
    assert [key for key in await stack.redis.keys(f"{stack.prefix}:*") if job_id.encode() in key] == []


async def test_a_finished_job_is_kept_for_the_retention_and_leaves_nothing_behind(bare: Stack) -> None:
    bare.configure(retention_s=0.3)
    await bare.worker()
    await bare.api()
    client = bare.client()
    job_id = await client.submit()
    await client.all_events(job_id)
    assert (await client.job(job_id))["status"] == "completed"

    async def gone() -> bool:
        return (await client.http.get(f"/v1/jobs/{job_id}")).status_code == 404

    await eventually(gone)
    assert (await client.http.get("/v1/jobs")).json()["data"] == []
    left = await bare.redis.keys(f"*{job_id}*")
    assert left == []


async def test_every_key_of_a_live_job_would_expire(stack: Stack, client: Client) -> None:
    """A crashed process must leak nothing: the time to live is there from the first write on."""
    stack.provider.script("m", Text("x"), Silence())
    job_id = await client.submit()
    await client.until(job_id, "token")
    keys = await stack.redis.keys(f"*{job_id}*")
    assert len(keys) == 3
    for key in keys:
        assert await stack.redis.pttl(key) > 0
