"""Tickets: what a browser's `EventSource` opens one job's events with, for a while."""

import signal

import pytest

from shared.clock import wall_ms
from shared.settings import hash_key, key_id
from tests import keys
from tests.client import Client, body
from tests.keys import command
from tests.stack import Stack, eventually
from tests.valkey import free_port

KEYS = "alice:key-of-alice,bob:key-of-bob"
OLD, NEW = "the old value of the tests", "the new value of the tests"


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=keys.SECRET, api_keys=KEYS)
    await bare.worker()
    await bare.api()
    await bare.api()
    return bare


async def events_url(client: Client, api: int = 0) -> str:
    """Return where a new job's events are, with the ticket that one API process has signed."""
    created = await client.http.post(f"{client.urls[api]}/v1/jobs", json=body())
    url: str = created.json()["events_url"]
    return url


def ticket_of(url: str) -> str:
    return url.partition("?ticket=")[2]


async def test_a_ticket_opens_one_stream_without_a_header_on_any_process(guarded: Stack) -> None:
    """CWE-639, CWE-863: it is for one job, and for reading its events."""
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    url = await events_url(alice)
    job_id = url.split("/")[3]
    for api in guarded.apis:
        response = await anybody.http.get(api.url + url)
        assert response.status_code == 200
        assert b"event: completed" in response.content
    other = await alice.submit()
    query = f"ticket={ticket_of(url)}"
    assert (await anybody.http.get(f"/v1/jobs/{other}/events?{query}")).status_code == 401
    for method, path in [("GET", ""), ("DELETE", ""), ("POST", "/cancel")]:
        assert (await anybody.http.request(method, f"/v1/jobs/{job_id}{path}?{query}")).status_code == 401
    for path in ("/v1/jobs", "/v1/usage", "/v1/models"):
        assert (await anybody.http.get(f"{path}?{query}")).status_code == 401
    assert (await anybody.http.post(f"/v1/jobs?{query}", json=body())).status_code == 401


@pytest.mark.parametrize("ticket", ["", "1.x", "x", ".", "..", "99999999999..", "9" * 100 + "..x", "-1..x", "٣..x",
                                    "1795251906..ü", "1795251906.key_0.x", "x" * 5_000])  # fmt: skip
async def test_a_forged_ticket_is_401(guarded: Stack, ticket: str) -> None:
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    job_id = await alice.submit()
    response = await anybody.http.get(f"/v1/jobs/{job_id}/events", params={"ticket": ticket})
    assert (response.status_code, response.json()["code"]) == (401, "invalid_ticket")


async def test_no_part_of_a_ticket_can_be_changed(guarded: Stack) -> None:
    """CWE-347: longer life, another key, another signature."""
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    url = await events_url(alice)
    path = url.partition("?")[0]
    expires, key, signature = ticket_of(url).split(".")
    assert key == key_id(hash_key("key-of-alice"))
    changed = [
        (str(int(expires) + 1), key, signature),
        (expires, key_id(hash_key("key-of-bob")), signature),
        (expires, "", signature),
        (expires, key, signature[:-2] + ("AA" if signature[-2:] != "AA" else "BB")),
        (expires, key, signature + "A"),
        (expires, key, ""),
        (f"0{expires}", key, signature + "="),
    ]
    for parts in changed:
        assert (await anybody.http.get(f"{path}?ticket={'.'.join(parts)}")).status_code == 401


async def test_a_ticket_expires_and_reading_the_job_gives_a_new_one(guarded: Stack) -> None:
    """CWE-613: minutes, whatever was done with it."""
    alice, anybody = guarded.client("key-of-alice"), guarded.client()
    url = await events_url(alice)
    job_id = url.split("/")[3]
    assert (await anybody.http.get(url)).status_code == 200
    ten_minutes_on = wall_ms() + 600_000
    guarded.apis[0].app.state.rejoin.access._now_ms = lambda: ten_minutes_on
    assert (await anybody.http.get(url)).status_code == 401
    renewed = (await alice.job(job_id))["events_url"]
    assert ticket_of(renewed) != ticket_of(url)
    assert (await anybody.http.get(renewed)).status_code == 200


async def test_a_key_in_the_header_is_what_counts(guarded: Stack) -> None:
    """CWE-639: a ticket lends no rights to whoever has a key of his own, and a foreign job stays unknown to him."""
    alice, bob = guarded.client("key-of-alice"), guarded.client("key-of-bob")
    url = await events_url(alice)
    foreign = await bob.http.get(url)
    unknown = await bob.http.get(f"/v1/jobs/job_{'0' * 32}/events?ticket={ticket_of(url)}")
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.content == unknown.content


async def test_a_revoked_keys_tickets_are_dead_and_others_are_not(guarded: Stack) -> None:
    """CWE-613: a ticket lives no longer than the key that it was given to."""
    anybody = guarded.client()
    first, second = await keys.new_key(guarded, "carol"), await keys.new_key(guarded, "carol")
    dead, live = [await events_url(guarded.client(key)) for key in (first, second)]
    assert (await anybody.http.get(dead)).status_code == 200
    await command(guarded, "revoke", key_id(hash_key(first)))
    known = guarded.apis[0].app.state.rejoin.known_keys
    await eventually(lambda: key_id(hash_key(first)) not in known._known)
    assert (await anybody.http.get(dead)).status_code == 401
    assert (await anybody.http.get(live)).status_code == 200


async def test_a_secret_is_replaced_without_a_dead_ticket(bare: Stack) -> None:
    """CWE-321: first all processes take both, then all sign with the new one, then none takes the old one."""
    bare.configure(auth="required", api_keys=KEYS)
    await bare.worker()
    for secret in (OLD, f"{OLD},{NEW}", f"{NEW},{OLD}", NEW):
        await bare.api(secret=secret)
    alice, anybody = bare.client("key-of-alice"), bare.client()
    taken = []
    for signer in range(4):
        url = await events_url(alice, signer)
        taken.append([(await anybody.http.get(api.url + url)).status_code == 200 for api in bare.apis])
    by_old, by_new = [True, True, True, False], [False, True, True, True]
    assert taken == [by_old, by_old, by_new, by_new]


async def test_nothing_that_opens_a_door_is_logged(bare: Stack) -> None:
    """CWE-532: neither tickets nor keys, with all that the server can say switched on."""
    key = await keys.new_key(bare, "carol")
    await bare.worker()
    port = free_port()
    env = {"REJOIN_AUTH": "required", "REJOIN_SECRET": keys.SECRET, "REJOIN_API_KEYS": KEYS}
    process = await bare.api_process(port, **env, UVICORN_LOG_LEVEL="debug")
    url = f"http://127.0.0.1:{port}"
    carol, anybody = bare.client(key, also=url), bare.client(also=url)
    carol.http.base_url = anybody.http.base_url = url
    path = await events_url(carol)
    ticket = ticket_of(path)
    for name in ("ticket", "%74icket", "x=1&ticket", "ticket=&ticket", "TICKET"):
        await anybody.http.get(f"{path.partition('?')[0]}?{name}={ticket}&y=2")
    await anybody.http.get(f"{path.partition('?')[0]}/?ticket={ticket}")
    await anybody.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}x"})
    await carol.http.get("/v1/models?last=1")
    await process.line("/v1/models?last=1")
    process.signal(signal.SIGTERM)
    await process.exit_code()
    said = "\n".join(process.lines)
    for secret in (key, "key-of-alice", keys.SECRET, ticket.rpartition(".")[2]):
        assert secret not in said
