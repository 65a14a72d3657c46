"""Bad input gets a problem with a stable code, and nothing is queued for it."""

import gzip
import json
from typing import Any

import pytest

from tests.client import Client, body
from tests.provider import Silence
from tests.stack import Stack

TEXT = "application/json"


def problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code"} <= set(found)
    assert (found["status"], found["code"]) == (status, code)
    return found


async def nothing_queued(stack: Stack) -> None:
    assert await stack.redis.keys(f"{stack.prefix}:job:*") == []
    assert stack.provider.calls == []


@pytest.mark.parametrize("raw", ["", "{", "nope", '{"provider":', "[1,2", "\ud83d".encode("utf-8", "surrogatepass")])
async def test_a_body_that_is_not_json_is_400(stack: Stack, client: Client, raw: str | bytes) -> None:
    response = await client.http.post("/v1/jobs", content=raw, headers={"Content-Type": TEXT})
    problem(response, 400, "invalid_json")
    await nothing_queued(stack)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"base_url": "http://169.254.169.254/"}, "unknown_field"),
        ({"api_key": "x"}, "unknown_field"),
        ({"provider": "nobody"}, "unknown_provider"),
        ({"provider": None}, "invalid_request"),
        ({"provider": 7}, "invalid_request"),
        ({"messages": []}, "invalid_request"),
        ({"messages": "Hi"}, "invalid_request"),
        ({"messages": [{"role": "user"}]}, "invalid_request"),
        ({"messages": [{"role": "root", "content": "x"}]}, "invalid_request"),
        ({"messages": [{"role": "user", "content": "x", "extra": 1}]}, "unknown_field"),
        ({"model": ""}, "invalid_request"),
        ({"model": "m\r\nX-Evil: 1"}, "invalid_request"),
        ({"max_tokens": 0}, "invalid_request"),
        ({"max_tokens": "many"}, "invalid_request"),
        ({"temperature": 3}, "invalid_request"),
        ({"metadata": {"a": 1}}, "invalid_request"),
        ({"metadata": {"a": "line\nbreak"}}, "invalid_request"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "invalid_request"),
        ({"priority": "urgent"}, "invalid_request"),
        ({"timeout_s": 0}, "invalid_request"),
        ({"provider": "anthropic", "seed": 1}, "unsupported_parameter"),
        ({"fallbacks": [{"provider": "demo"}]}, "invalid_request"),
    ],
)
async def test_a_field_that_does_not_fit_is_422_and_named(
    stack: Stack, client: Client, change: dict[str, Any], code: str
) -> None:
    response = await client.http.post("/v1/jobs", json={**body(), **change})
    found = problem(response, 422, code)
    field = next(name for name in change if name != "provider" or len(change) == 1)
    assert field in found["detail"]
    await nothing_queued(stack)


async def test_a_problem_never_shows_the_input(stack: Stack, client: Client) -> None:
    response = await client.http.post(
        "/v1/jobs", json={**body(), "temperature": "canary-4711", "canary": "canary-4712"}
    )
    assert response.status_code == 422
    assert "4711" not in response.text
    assert "4712" not in response.text


async def test_a_deep_body_is_refused_and_not_a_crash(stack: Stack, client: Client) -> None:
    """CWE-674: JSON ten thousand levels deep."""
    deep = '{"provider":' + "[" * 10_000 + "]" * 10_000 + "}"
    response = await client.http.post("/v1/jobs", content=deep, headers={"Content-Type": TEXT})
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(bare: Stack, chunked: bool) -> None:
    bare.configure(max_body_bytes=10_000)
    await bare.api()
    client = bare.client()
    raw = json.dumps(body(system="x" * 20_000)).encode()

    async def pieces():
        for at in range(0, len(raw), 1_000):
            yield raw[at : at + 1_000]

    response = await client.http.post("/v1/jobs", content=pieces() if chunked else raw, headers={"Content-Type": TEXT})
    problem(response, 413, "body_too_large")


async def test_another_media_type_is_415(stack: Stack, client: Client) -> None:
    response = await client.http.post("/v1/jobs", content=json.dumps(body()), headers={"Content-Type": "text/plain"})
    problem(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("accept", ["text/html", "image/png, text/plain", "application/json;q=0, text/html"])
async def test_an_accept_that_nothing_serves_is_406(stack: Stack, client: Client, accept: str) -> None:
    response = await client.http.post("/v1/jobs", json=body(), headers={"Accept": accept})
    problem(response, 406, "not_acceptable")
    await nothing_queued(stack)
    job_id = await client.submit()
    if "json" not in accept:
        response = await client.http.get(f"/v1/jobs/{job_id}/events", headers={"Accept": accept})
        problem(response, 406, "not_acceptable")


@pytest.mark.parametrize("job_id", ["job_" + "0" * 32, "x", "job_%2e%2e", "job_%00", "*", "job_" + "a" * 5_000])
@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")])
async def test_an_unknown_job_is_404(stack: Stack, client: Client, job_id: str, method: str, tail: str) -> None:
    response = await client.http.request(method, f"/v1/jobs/{job_id}{tail}")
    problem(response, 404, "job_not_found")


async def test_a_reading_route_answers_406_too(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}"):
        problem(await client.http.get(path, headers={"Accept": "image/png"}), 406, "not_acceptable")
    lines = [("Accept", "image/png"), ("Accept", "text/event-stream")]
    response = await client.http.get(f"/v1/jobs/{job_id}/events", headers=lines)
    assert response.headers["content-type"].startswith("text/event-stream"), "two lines are one list"


async def test_an_encoded_body_is_415(stack: Stack, client: Client) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": TEXT}
    response = await client.http.post("/v1/jobs", content=gzip.compress(json.dumps(body()).encode()), headers=headers)
    problem(response, 415, "unsupported_media_type")


async def test_an_unknown_path_is_404_and_a_wrong_method_405(stack: Stack, client: Client) -> None:
    problem(await client.http.get("/v2/jobs"), 404, "not_found")
    problem(await client.http.put("/v1/jobs"), 405, "method_not_allowed")


@pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=x", "cursor=abc", "cursor=-1"])
async def test_a_list_query_that_does_not_fit_is_422(stack: Stack, client: Client, query: str) -> None:
    problem(await client.http.get(f"/v1/jobs?{query}"), 422, "invalid_request")


@pytest.mark.parametrize("wait_s", ["-1", "31", "x", "nan"])
async def test_a_wait_that_does_not_fit_is_422(stack: Stack, client: Client, wait_s: str) -> None:
    job_id = await client.submit()
    response = await client.http.get(
        f"/v1/jobs/{job_id}/events", params={"wait_s": wait_s}, headers={"Accept": "application/json"}
    )
    problem(response, 422, "invalid_request")


async def test_a_live_job_cannot_be_deleted(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Silence())
    job_id = await client.submit()
    problem(await client.http.delete(f"/v1/jobs/{job_id}"), 409, "job_live")
    await client.cancel(job_id)
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code == 204


async def test_a_full_queue_is_503_with_retry_after(bare: Stack) -> None:
    bare.configure(max_queue=2)
    await bare.api()
    client = bare.client()
    await client.submit()
    await client.submit()
    response = await client.http.post("/v1/jobs", json=body())
    problem(response, 503, "queue_full")
    assert int(response.headers["retry-after"]) >= 1


async def test_the_openapi_document_describes_the_request(stack: Stack, client: Client) -> None:
    document = (await client.http.get("/openapi.json")).json()
    assert document["paths"]["/v1/jobs"]["post"]["requestBody"]
    schema = document["components"]["schemas"]["JobRequest"]
    assert schema["required"] == ["provider", "model", "messages"]
    assert "Message" in document["components"]["schemas"]


async def test_the_page_and_its_files_are_served_under_a_strict_policy(stack: Stack, client: Client) -> None:
    page = await client.http.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "<script>" not in page.text, "nothing inline"
    for path in ("/", "/page/app.js", "/page/style.css"):
        response = await client.http.get(path)
        assert response.status_code == 200
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["cache-control"] == "no-cache"
    assert (await client.http.get("/page/../main.py")).status_code == 404
    assert (await client.http.get("/page/%2e%2e/main.py")).status_code == 404
