"""Which pages of other sites may read what: those of exact origins everything, errors too, and the rest nothing."""

from typing import Any

import httpx2
import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from tests import keys
from tests.client import Client, body
from tests.provider import Silence, Text
from tests.stack import Stack

APP, OTHER = "https://app.example", "http://localhost:3000"
FOREIGN = {
    "another": "https://evil.example",
    "null, of a sandboxed frame": "null",
    "a name behind it": "https://app.example.evil.example",
    "a name before it": "https://evilapp.example",
    "a subdomain": "https://x.app.example",
    "its parent": "https://example",
    "another scheme": "http://app.example",
    "another port": "https://app.example:8443",
    "its usual port": "https://app.example:443",
    "the other's host": "https://localhost:3000",
    "a port that begins like it": "http://localhost:30000",
    "upper case": "https://APP.example",
    "a user": "https://app.example@evil.example",
    "itself as a user": "https://evil.example@app.example",
    "a path": "https://app.example/",
    "a final dot": "https://app.example.",
    "a look-alike": "https://app.exаmple",
    "two in one": f"{APP} {OTHER}",
    "a list": f"{APP}, https://evil.example",
    "a star": "*",
    "nothing": "",
    "a tab": f"{APP}\thttps://evil.example",
}
PREFLIGHTS = [
    ("GET", "authorization"), ("GET", "last-event-id"), ("GET", "authorization, last-event-id"), ("GET", None),
    ("POST", "authorization,content-type,idempotency-key"), ("POST", "Authorization, Content-Type, Idempotency-Key"),
    ("DELETE", "authorization"), ("POST", "authorization,content-type,x-stainless-lang,x-stainless-retry-count"),
    ("POST", "anthropic-dangerous-direct-browser-access,anthropic-version,content-type,x-api-key,x-stainless-os"),
]  # fmt: skip
EXPOSED = {"location", "x-job-id", "retry-after", "ratelimit", "ratelimit-policy", "idempotency-replayed"}


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=keys.SECRET, docs="on", cors_origins=f"{APP},{OTHER}")
    await bare.worker()
    await bare.api()
    return bare


def told(response: httpx2.Response) -> dict[str, str]:
    """Return what a browser is told about who may read this."""
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def readable(response: httpx2.Response, origin: str) -> None:
    """Fail unless a page of this origin may read the answer and its headers, and no cache gives it to others."""
    assert response.headers.get_list("access-control-allow-origin") == [origin], response
    exposed = response.headers["access-control-expose-headers"].lower().split(", ")
    assert set(exposed) >= EXPOSED
    assert response.headers["vary"].split(", ").count("Origin") == 1
    assert "access-control-allow-credentials" not in response.headers


async def test_every_answer_to_an_allowed_origin_can_be_read(guarded: Stack, alice: Client) -> None:
    """CWE-942: 2xx and errors, JSON and streams, by key and by ticket, wherever they were written."""
    guarded.provider.script("m", Text("a"))
    job_id = await alice.submit()
    await alice.all_events(job_id)
    events_url = (await alice.job(job_id))["events_url"]
    last_id = (await alice.all_events(job_id))[-1].id
    nobody = guarded.client()
    sse, ndjson = {"Accept": "text/event-stream"}, {"Accept": "application/x-ndjson"}
    json = {"Content-Type": "application/json"}
    asked: list[tuple[int, Client, str, str, dict[str, Any]]] = [
        (202, alice, "POST", "/v1/jobs", {"json": body()}),
        (200, alice, "POST", "/v1/jobs", {"json": body(), "headers": sse}),
        (200, alice, "POST", "/v1/jobs", {"json": body(), "headers": ndjson}),
        (200, alice, "GET", f"/v1/jobs/{job_id}", {}),
        (200, nobody, "GET", events_url, {"headers": sse}),
        (200, alice, "GET", f"/v1/jobs/{job_id}/events", {"headers": ndjson}),
        (200, alice, "GET", f"/v1/jobs/{job_id}/events", {"headers": {"Accept": "application/json"}}),
        (204, nobody, "GET", events_url, {"headers": {**sse, "Last-Event-ID": last_id}}),
        (400, nobody, "GET", events_url, {"headers": {**sse, "Last-Event-ID": "x"}}),
        (400, alice, "POST", "/v1/jobs", {"content": b"{", "headers": json}),
        (401, nobody, "POST", "/v1/jobs", {"json": body()}),
        (401, nobody, "GET", f"/v1/jobs/{job_id}/events?ticket=x", {"headers": sse}),
        (404, alice, "GET", f"/v1/jobs/job_{'0' * 32}", {}),
        (404, alice, "GET", "/v1/nothing", {}),
        (405, alice, "PUT", "/v1/jobs", {}),
        (406, alice, "GET", "/v1/jobs", {"headers": {"Accept": "image/png"}}),
        (413, alice, "POST", "/v1/jobs", {"content": b"x" * 1_100_000, "headers": json}),
        (415, alice, "POST", "/v1/jobs", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}),
        (422, alice, "POST", "/v1/jobs", {"json": {}}),
        (200, nobody, "GET", "/livez", {}),
        (200, nobody, "GET", "/openapi.json", {}),
        (200, nobody, "GET", "/", {}),
        (204, alice, "DELETE", f"/v1/jobs/{job_id}", {}),
    ]  # fmt: skip
    for status, client, method, path, more in asked:
        for origin in (APP, OTHER) if method == "GET" else (APP,):
            headers = {**more.get("headers", {}), "Origin": origin}
            response = await client.http.request(method, path, **{**more, "headers": headers})
            assert response.status_code == status, (method, path, more, response.text)
            readable(response, origin)


async def test_a_refusal_by_limits_by_redis_and_by_ourselves_can_be_read(guarded: Stack, alice: Client) -> None:
    """A page that is told nothing takes 429, 503 and 500 for a network that failed, and comes back at once."""
    guarded.provider.script("silent", Text("a"), Silence())
    api = await guarded.api(max_active_jobs=1)
    alice = guarded.client(alice.http.headers["authorization"].partition(" ")[2])
    url, headers = api.url, {"Origin": APP}
    await alice.http.post(f"{url}/v1/jobs", json=body("silent"))
    limited = await alice.http.post(f"{url}/v1/jobs", json=body(), headers=headers)
    here = api.app.state.rejoin

    async def away(*_: Any, **__: Any) -> None:
        raise RedisConnectionError

    async def fails(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    here.jobs.page = away
    unavailable = await alice.http.get(f"{url}/v1/jobs", headers=headers)
    here.jobs.page = fails
    failed = await alice.http.get(f"{url}/v1/jobs", headers=headers)
    assert [answer.status_code for answer in (limited, unavailable, failed)] == [429, 503, 500]
    for answer in (limited, unavailable, failed):
        readable(answer, APP)
        assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("origin", FOREIGN.values(), ids=FOREIGN.keys())
async def test_another_origin_is_told_nothing(guarded: Stack, alice: Client, origin: str) -> None:
    """CWE-942, CWE-346: neither by an answer nor by a preflight; caches are told that it depends on the origin."""
    sent = [(b"Origin", origin.encode())]
    for path in ("/v1/jobs", "/v1/nothing", "/livez"):
        response = await alice.http.get(path, headers=sent)
        assert told(response) == {}
        assert response.headers["vary"] == "Origin"
        preflight = await alice.http.options(path, headers=[*sent, (b"Access-Control-Request-Method", b"GET")])
        assert preflight.status_code == 400
        assert told(preflight) == {}
        assert "Origin" in preflight.headers["vary"]
        assert preflight.json()["code"] == "cors_refused"
        assert origin not in preflight.text or len(origin) < 2


async def test_two_origins_in_one_request_are_none(guarded: Stack, alice: Client) -> None:
    """CWE-346: whatever stands between may believe the other one."""
    for origins in ([APP, "https://evil.example"], ["https://evil.example", APP], [APP, OTHER]):
        headers = [("Origin", origin) for origin in origins]
        assert told(await alice.http.get("/v1/jobs", headers=headers)) == {}
        preflight = [*headers, ("Access-Control-Request-Method", "GET")]
        assert told(await alice.http.options("/v1/jobs", headers=preflight)) == {}


@pytest.mark.parametrize(("method", "names"), PREFLIGHTS, ids=str)
async def test_a_preflight_of_an_allowed_origin_passes(guarded: Stack, method: str, names: str | None) -> None:
    """It comes without a key, also where the job is nobody's."""
    headers = {"Origin": APP, "Access-Control-Request-Method": method}
    if names is not None:
        headers["Access-Control-Request-Headers"] = names
    for path in ("/v1/jobs", f"/v1/jobs/job_{'0' * 32}/events"):
        response = await guarded.client().http.options(path, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] == APP
        assert method in response.headers["access-control-allow-methods"].split(", ")
        allowed = response.headers["access-control-allow-headers"].lower().split(", ")
        assert {name.strip().lower() for name in (names or "").split(",") if name} <= set(allowed)
        assert "access-control-allow-credentials" not in response.headers
        assert {"Origin", "Access-Control-Request-Method"} <= set(response.headers["vary"].split(", "))


@pytest.mark.parametrize(
    ("method", "names"),
    [("PUT", "authorization"), ("TRACE", None), ("*", None), ("get", None), ("GET", "x-evil"), ("GET", "*"),
     ("GET", "authorization, cookie"), ("POST", "authorization\tx-evil"), ("POST", "x" * 5_000)],
)  # fmt: skip
async def test_a_preflight_for_more_than_there_is_fails(guarded: Stack, method: str, names: str | None) -> None:
    """CWE-942: and nothing that was asked for comes back in a header."""
    headers = {"Origin": APP, "Access-Control-Request-Method": method}
    if names is not None:
        headers["Access-Control-Request-Headers"] = names
    response = await guarded.client().http.options("/v1/jobs", headers=headers)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert told(response) == {}
    assert "evil" not in str(response.headers) + response.text


async def test_without_origins_there_is_no_word_of_cors(bare: Stack) -> None:
    """CWE-1188, CWE-942"""
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.api()
    client = bare.client(await keys.new_key(bare, "alice"))
    for origin in (APP, OTHER, bare.url, "null", "*"):
        preflight = {"Origin": origin, "Access-Control-Request-Method": "GET"}
        for method, path in (("GET", "/v1/jobs"), ("GET", "/v1/nothing"), ("OPTIONS", "/v1/jobs"), ("GET", "/livez")):
            response = await client.http.request(method, path, headers=preflight)
            assert told(response) == {}
            assert "vary" not in response.headers
            assert method != "OPTIONS" or response.status_code == 405
