"""Who may see what: keys, loopback, and everybody else's jobs."""

import asyncio

import pytest

from tests.client import Client, body
from tests.keys import SECRET
from tests.stack import Stack

KEYS = "alice:key-of-alice,bob:key-of-bob"
ROUTES = [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")]


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=SECRET, api_keys=KEYS)
    await bare.worker()
    await bare.api()
    await bare.api()
    return bare


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer nobody", "Basic key-of-alice", "key-of-alice",
                                    "Bearer key-of-alice key-of-alice", "Bearer " + "x" * 5_000])  # fmt: skip
async def test_without_a_valid_key_everything_is_401(guarded: Stack, header: str | None) -> None:
    client = guarded.client()
    headers = {} if header is None else {"Authorization": header}
    for method, path in [("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", "/v1/models"), ("GET", "/v1/jobs/x")]:
        response = await client.http.request(method, path, json=body() if method == "POST" else None, headers=headers)
        assert response.status_code == 401
        assert response.json()["code"] == "unauthorized"
        assert response.headers["www-authenticate"] == "Bearer"


async def test_a_key_that_is_not_ascii_is_401(guarded: Stack) -> None:
    client = guarded.client()
    response = await client.http.get("/v1/jobs", headers=[(b"Authorization", "Bearer schlüssel".encode())])
    assert response.status_code == 401


@pytest.mark.parametrize(("method", "tail"), ROUTES)
async def test_anothers_job_is_the_same_404_as_no_job(guarded: Stack, method: str, tail: str) -> None:
    """CWE-639: whoever knows an id must not read, cancel or delete with it."""
    alice, bob = guarded.client("key-of-alice"), guarded.client("key-of-bob")
    job_id = await alice.submit()
    await alice.all_events(job_id)
    foreign = await bob.http.request(method, f"/v1/jobs/{job_id}{tail}")
    unknown = await bob.http.request(method, f"/v1/jobs/job_{'0' * 32}{tail}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.content == unknown.content
    assert (await bob.http.get("/v1/jobs")).json()["data"] == []
    assert (await alice.job(job_id))["status"] == "completed"


async def test_keys_are_kept_as_hashes_only(guarded: Stack) -> None:
    alice = guarded.client("key-of-alice")
    await alice.all_events(await alice.submit())
    assert "key-of-alice" not in repr(guarded.settings())
    for key in await guarded.redis.keys("*"):
        assert b"key-of-alice" not in key
    settled = guarded.apis[0].app.state.rejoin.known_keys._settled
    assert "key-of" not in repr(settled)
    assert sorted(key.terms.owner for key in settled.values()) == ["alice", "bob"]


async def test_without_auth_only_loopback_is_answered(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    await bare.api()
    client = bare.client()
    assert (await client.http.get("/v1/jobs")).status_code == 200
    monkeypatch.setattr("api.access.is_local", lambda request: False)
    response = await client.http.get("/v1/jobs")
    assert response.status_code == 401
    assert response.json()["code"] == "loopback_only"


HERE = [
    {"Host": "localhost:8000"},
    {"Host": "LOCALHOST."},
    {"Host": "mymachine:8000"},
    {"Host": "127.8.9.10"},
    {"Host": "app.localhost:8000", "Origin": "http://app.localhost:8000"},
    {"Host": "[::1]:8000", "Origin": "http://127.0.0.1:3000"},
    {"Host": "localhost", "Origin": "tauri://localhost"},
    {"X-Forwarded-For": "127.0.0.1, ::1", "X-Forwarded-Host": "localhost:3000"},
    {"X-Forwarded-For": "::ffff:127.0.0.1"},
    {"Forwarded": 'for="[::1]";host=localhost'},
]
ELSEWHERE = [
    {"Host": "evil.example"},
    {"Host": "evil.example:8000"},
    {"Host": "192.168.1.7:8000"},
    {"Host": "0.0.0.0:8000"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "localhost.evil.example"},
    {"Host": "localhost@evil.example"},
    {"Host": "evil.example@localhost"},
    {"Host": "evil.example#localhost"},
    {"Host": "localhost, evil.example"},
    {"Host": "[::1"},
    {"Host": "[2001:db8::1]"},
    {"Host": "localhost:port"},
    {"Origin": "https://evil.example"},
    {"Origin": "https://localhost.evil.example"},
    {"Origin": "https://localhost@evil.example"},
    {"Origin": "null"},
    {"Origin": "http://intranet"},
    {"Origin": ""},
    {"Origin": "chrome-extension://abcdefgh"},
    {"X-Forwarded-For": "203.0.113.7"},
    {"X-Forwarded-For": "127.0.0.1, 203.0.113.7"},
    {"X-Forwarded-For": "203.0.113.7, 127.0.0.1"},
    {"X-Forwarded-For": "unknown"},
    {"X-Real-IP": "203.0.113.7"},
    {"X-Forwarded-Host": "app.example"},
    {"Forwarded": "for=203.0.113.7"},
    {"Forwarded": "for=127.0.0.1, for=203.0.113.7;proto=https"},
    {"Forwarded": "by=_hidden"},
]


@pytest.mark.parametrize(
    ("headers", "status"), [(headers, 200) for headers in HERE] + [(headers, 401) for headers in ELSEWHERE], ids=str
)
async def test_without_auth_nobody_asks_through_this_machine(bare: Stack, headers: dict[str, str], status: int) -> None:
    """CWE-350, CWE-346, CWE-290: a visitor's browser and a proxy both ask from loopback, on behalf of strangers."""
    await bare.api()
    client = bare.client()
    assert (await client.http.get("/v1/jobs", headers=headers)).status_code == status


async def test_a_proxys_word_cannot_make_a_stranger_local(bare: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """CWE-348: a server that trusts all proxies puts a header's address in the place of the connection's own."""
    await bare.api()
    client = bare.client()
    monkeypatch.setattr("api.loopback.peer", lambda scope: "203.0.113.7")
    assert (await client.http.get("/v1/jobs", headers={"X-Forwarded-For": "127.0.0.1"})).status_code == 401


async def test_two_hosts_in_one_request_are_both_looked_at(bare: Stack) -> None:
    await bare.api()
    reader, writer = await asyncio.open_connection("127.0.0.1", int(bare.url.rpartition(":")[2]))
    writer.write(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert (await reader.readline()).split()[1] in (b"400", b"401")
    writer.close()


async def test_the_document_is_for_those_who_need_no_key(bare: Stack) -> None:
    """CWE-200: what a server can do is told in production only where the operator wants it to be."""
    await bare.api()
    await bare.api(auth="required", secret=SECRET)
    await bare.api(auth="required", secret=SECRET, docs="on")
    await bare.api(docs="off")
    client = bare.client()
    documents = [(await client.http.get(url + "/openapi.json")).status_code for url in client.urls]
    assert documents == [200, 404, 200, 404]
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert [(await client.http.get(url + path)).status_code for url in client.urls] == [404] * 4, "a CDN's scripts"


async def test_cors_is_off_by_default_and_exact_when_on(bare: Stack) -> None:
    await bare.api()
    await bare.api(cors_origins="https://app.example")
    preflight = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, last-event-id",
    }

    async def allowed(api: int, origin: str) -> str | None:
        client: Client = bare.client()
        url = f"{bare.apis[api].url}/v1/jobs"
        response = await client.http.options(url, headers={"Origin": origin, **preflight})
        return response.headers.get("access-control-allow-origin")

    assert await allowed(0, "https://app.example") is None
    assert await allowed(1, "https://app.example") == "https://app.example"
    assert await allowed(1, "https://evil.example") is None
    assert await allowed(1, "null") is None
