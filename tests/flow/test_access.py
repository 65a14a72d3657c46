"""Who may see what: keys, tickets, and everybody else's jobs."""

import pytest

from tests.client import Client, body
from tests.stack import Stack

KEYS = "alice:key-of-alice,bob:key-of-bob"
ROUTES = [("GET", ""), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")]


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret="a secret of the tests, long enough", api_keys=KEYS)
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


async def test_a_ticket_opens_one_stream_without_a_header_on_any_process(guarded: Stack) -> None:
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    created = (await alice.http.post("/v1/jobs", json=body())).json()
    for url in guarded.apis:
        response = await anybody.http.get(url.url + created["events_url"])
        assert response.status_code == 200
        assert b"event: completed" in response.content
    other = await alice.submit()
    ticket = created["events_url"].partition("?")[2]
    assert (await anybody.http.get(f"/v1/jobs/{other}/events?{ticket}")).status_code == 401
    assert (await anybody.http.get(f"/v1/jobs/{created['id']}?{ticket}")).status_code == 401
    assert (await anybody.http.post(f"/v1/jobs/{created['id']}/cancel?{ticket}")).status_code == 401


@pytest.mark.parametrize("ticket", ["", "1.x", "x", ".", "99999999999.", "9" * 100 + ".x", "-1.x", "1795251906.ü"])
async def test_a_forged_ticket_is_401(guarded: Stack, ticket: str) -> None:
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    job_id = await alice.submit()
    response = await anybody.http.get(f"/v1/jobs/{job_id}/events", params={"ticket": ticket})
    assert response.status_code == 401


async def test_a_ticket_expires(guarded: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    monkeypatch.setattr("api.access.TICKET_S", -1)
    created = (await alice.http.post("/v1/jobs", json=body())).json()
    assert (await anybody.http.get(created["events_url"])).status_code == 401


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
    monkeypatch.setattr("api.access._is_loopback", lambda request: False)
    response = await client.http.get("/v1/jobs")
    assert response.status_code == 401
    assert response.json()["code"] == "loopback_only"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 401),
        ({"Host": "evil.example:8000"}, 401),
        ({"Host": "192.168.1.7:8000"}, 401),
        ({"Origin": "https://evil.example"}, 401),
        ({"Host": "localhost:8000"}, 200),
        ({"Host": "app.localhost:8000", "Origin": "http://app.localhost:8000"}, 200),
        ({"Host": "[::1]:8000", "Origin": "http://127.0.0.1:3000"}, 200),
    ],
)
async def test_without_auth_a_page_from_elsewhere_is_not_answered(
    bare: Stack, headers: dict[str, str], status: int
) -> None:
    """CWE-350: a public name bound to 127.0.0.1 makes a visitor's browser ask from loopback."""
    await bare.api()
    client = bare.client()
    assert (await client.http.get("/v1/jobs", headers=headers)).status_code == status


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
