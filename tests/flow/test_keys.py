"""Keys that a command has made: what they open, what they may do, and that their end is the end."""

import asyncio
import socket
import sys
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest

from api import known_keys
from api.keys import Refused, expiry_ms
from shared.clock import wall_ms
from shared.keyring import Keyring, Limits, Terms, covers, looks_like_key, new_key
from shared.redis import Scripts
from shared.settings import hash_key, key_id
from tests import keys
from tests.client import Client, body
from tests.faults.proxy import Proxy
from tests.keys import command
from tests.provider import Silence, Text
from tests.stack import ROOT, Stack, eventually


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    """One worker and two API processes that let in alice by the settings, and whom the command gives a key."""
    bare.configure(auth="required", secret=keys.SECRET, api_keys="alice:key-of-alice")
    await bare.worker()
    await bare.api()
    await bare.api()
    return bare


def keyring(stack: Stack) -> Keyring:
    return Keyring(stack.commands, Scripts(stack.commands), stack.keys)


async def statuses(client: Client, path: str = "/v1/jobs") -> list[int]:
    return [(await client.http.get(url + path)).status_code for url in client.urls]


async def test_a_new_key_opens_every_process_and_is_kept_as_a_hash_only(guarded: Stack) -> None:
    key = await keys.new_key(guarded, "bob", "--name", "Bob's laptop")
    assert looks_like_key(key)
    bob = guarded.client(key)
    assert await statuses(bob) == [200, 200]
    job_id = await bob.submit()
    await bob.all_events(job_id)
    assert (await guarded.client("key-of-alice").http.get(f"/v1/jobs/{job_id}")).status_code == 404
    (row,) = (await bob.http.get("/v1/usage", params={"group_by": "key"})).json()["data"]
    assert row["key"] == key_id(hash_key(key))
    for name in await guarded.redis.keys(f"{guarded.prefix}:*"):
        assert key.encode() not in name
        assert key.encode() not in await guarded.redis.dump(name)
    assert key not in await command(guarded, "list")


async def test_a_key_is_asked_for_once(guarded: Stack) -> None:
    bob = guarded.client(await keys.new_key(guarded, "bob"))
    await bob.http.get("/v1/models")
    before = (await guarded.redis.info("commandstats"))["cmdstat_hmget"]["calls"]
    for _ in range(5):
        assert (await bob.http.get("/v1/models")).status_code == 200
    assert (await guarded.redis.info("commandstats"))["cmdstat_hmget"]["calls"] == before


@pytest.mark.parametrize("wrong", ["other", "swapped", "cut", "longer", "spaced"])
async def test_what_is_not_the_key_is_401(guarded: Stack, wrong: str) -> None:
    key = await keys.new_key(guarded, "bob")
    shown = {
        "other": new_key(), "swapped": key.swapcase(), "cut": key[:-1], "longer": key + "A",
        "spaced": key[:20] + " " + key[20:],
    }[wrong]  # fmt: skip
    response = await guarded.client(shown).http.get("/v1/jobs")
    assert (response.status_code, response.json()["code"]) == (401, "unauthorized")


async def test_two_keys_in_one_request_are_none(guarded: Stack) -> None:
    twice = [("Authorization", "Bearer key-of-alice")] * 2
    assert (await guarded.client().http.get("/v1/jobs", headers=twice)).status_code == 401


async def test_an_id_that_is_taken_by_another_hash_opens_nothing(guarded: Stack) -> None:
    """An id has 48 bits of the hash: the whole of it decides."""
    key = new_key()
    terms = Terms(owner="bob").model_dump_json()
    name = guarded.keys.api_key(key_id(hash_key(key)))
    await guarded.commands.call("HSET", name, "hash", "00" * 32, "terms", terms, "created_ms", 1)
    assert (await guarded.client(key).http.get("/v1/jobs")).status_code == 401


async def test_a_repeated_issue_makes_one_key_and_a_taken_id_another(
    guarded: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring, (first, second) = keyring(guarded), (new_key(), new_key())
    drawn = iter([first, first, second])
    monkeypatch.setattr("shared.keyring.new_key", lambda: next(drawn))
    assert (await ring.issue(Terms(owner="bob")))[0] == first
    # After a lost reply the script runs again, with the same key.
    again, kept = await ring.issue(Terms(owner="bob"))
    assert again == first
    # Keys of one millisecond have no order.
    while await ring.now_ms() <= kept.created_ms:
        pass
    taken = guarded.keys.api_key(key_id(hash_key(second)))
    await guarded.commands.call("HSET", taken, "hash", "00" * 32, "created_ms", 1)
    third = new_key()
    drawn = iter([second, third])
    assert (await ring.issue(Terms(owner="bob")))[0] == third
    assert [key.hashed for key in await ring.all() if key.hashed != bytes(32)] == [hash_key(first), hash_key(third)]


# --- the end of a key


async def reading(client: Client, url: str, **headers: str) -> asyncio.Task[bool]:
    """Read a stream in a task; it says whether the body ended as one that is whole."""
    began = asyncio.Event()

    async def read() -> bool:
        async with client.http.stream("GET", url, headers=headers) as response:
            assert response.status_code == 200
            try:
                async for _ in response.aiter_bytes():
                    began.set()
            except (httpx2.RemoteProtocolError, httpx2.ReadError):
                return False
        return True

    task = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 5)
    return task


async def test_revoking_cuts_all_streams_of_the_key_and_of_its_tickets_on_all_processes(guarded: Stack) -> None:
    key, second = await keys.new_key(guarded, "bob"), await keys.new_key(guarded, "bob")
    bob, other, anybody = guarded.client(key), guarded.client(second), guarded.client()
    guarded.provider.script("m", Text("x"), Silence())
    job_id = await bob.submit()
    events_url = (await bob.job(job_id))["events_url"]
    cut, kept = [], []
    for url in bob.urls:
        path = f"{url}/v1/jobs/{job_id}/events"
        cut.append(await reading(bob, path))
        cut.append(await reading(bob, path, Accept="application/x-ndjson"))
        cut.append(await reading(anybody, url + events_url))
        kept.append(await reading(other, path))
    post = bob.http.stream("POST", "/v1/jobs", json=body(), headers={"Accept": "text/event-stream"})
    async with post as response:
        chunks = response.aiter_bytes()
        await anext(chunks)
        for api in guarded.apis:
            # By the messages alone.
            await api.app.state.rejoin.known_keys.stop()
        await command(guarded, "revoke", key_id(hash_key(key)))
        assert await asyncio.wait_for(asyncio.gather(*cut), 5) == [False] * 6
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            async for _ in chunks:
                pass
    assert await statuses(bob) == [401, 401]
    assert await statuses(anybody, events_url) == [401, 401]
    assert not any(task.done() for task in kept)
    assert await statuses(other, f"/v1/jobs/{job_id}") == [200, 200]
    await other.cancel(job_id)
    assert await asyncio.gather(*kept) == [True] * 2


@pytest.mark.alone
async def test_a_reader_that_takes_nothing_is_cut_too(guarded: Stack) -> None:
    key = await keys.new_key(guarded, "bob")
    bob = guarded.client(key)
    guarded.provider.script("m", *[Text("x" * 60_000) for _ in range(100)], Silence())
    job_id = await bob.submit()
    sock = socket.socket()
    # Or the kernel takes all of it for the reader.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", int(guarded.url.rpartition(":")[2])))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    writer.write(f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    hub = guarded.apis[0].app.state.rejoin.hub
    await eventually(lambda: any(hub._sending), 10)
    await command(guarded, "revoke", key_id(hash_key(key)))
    await eventually(lambda: hub.open_streams == 0, 2)
    writer.close()
    assert not reader.at_eof()


async def test_a_long_poll_of_a_revoked_key_ends(guarded: Stack) -> None:
    key = await keys.new_key(guarded, "bob")
    bob = guarded.client(key)
    guarded.provider.script("m", Text("x"), Silence())
    job_id = await bob.submit()
    cursor = (await bob.until(job_id, "token")).id
    headers = {"Accept": "application/json", "Last-Event-ID": cursor}
    poll = asyncio.create_task(bob.http.get(f"/v1/jobs/{job_id}/events?wait_s=30", headers=headers))
    await eventually(lambda: guarded.apis[0].app.state.rejoin.hub.open_streams == 1)
    await command(guarded, "revoke", key_id(hash_key(key)))
    assert (await asyncio.wait_for(poll, 5)).json()["events"] == []
    assert (await bob.http.get(f"/v1/jobs/{job_id}/events?wait_s=30", headers=headers)).status_code == 401


async def test_a_revocation_whose_message_is_lost_is_noticed_all_the_same(
    guarded: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.known_keys.KnownKeys.message", lambda *_: None)
    key = await keys.new_key(guarded, "bob")
    bob = guarded.client(key)
    guarded.provider.script("m", Text("x"), Silence())
    job_id = await bob.submit()
    task = await reading(bob, f"{bob.urls[1]}/v1/jobs/{job_id}/events")
    alice = guarded.client("key-of-alice")
    hers = await alice.submit()
    kept = await reading(alice, f"{alice.urls[1]}/v1/jobs/{hers}/events")
    await command(guarded, "revoke", key_id(hash_key(key)))
    assert await asyncio.wait_for(task, 3 * known_keys.CONFIRM_S) is False
    assert (await bob.http.get(bob.urls[1] + "/v1/jobs")).status_code == 401
    await alice.cancel(hers)
    assert await kept, "a key of the settings is nobody's to revoke"


async def test_an_answer_on_its_way_while_the_key_is_revoked_is_not_kept(guarded: Stack) -> None:
    known = guarded.apis[0].app.state.rejoin.known_keys
    key = await keys.new_key(guarded, "bob")
    id = key_id(hash_key(key))
    asked = known._keyring.get

    async def slow(id: str) -> Any:
        found = await asked(id)
        known.message(id.encode())
        return found

    known._keyring.get = slow
    await guarded.client(key).http.get("/v1/models")
    assert id not in known._known


async def test_an_expired_key_is_over_and_its_streams_are_cut(guarded: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    key = await keys.new_key(guarded, "bob", "--expires", "1h")
    bob = guarded.client(key)
    guarded.provider.script("m", Text("x"), Silence())
    job_id = await bob.submit()
    task = await reading(bob, f"{guarded.url}/v1/jobs/{job_id}/events")
    for api in guarded.apis:
        api.app.state.rejoin.known_keys._now_ms = lambda: wall_ms() + 3_600_000
    assert await asyncio.wait_for(task, 3 * known_keys.CONFIRM_S) is False
    assert await statuses(bob) == [401, 401]


async def test_a_redis_that_has_lost_the_keys_opens_nothing(guarded: Stack) -> None:
    key = await keys.new_key(guarded, "bob")
    bob = guarded.client(key)
    assert await statuses(bob) == [200, 200]
    await command(guarded, "revoke", key_id(hash_key(await keys.new_key(guarded, "carol"))))
    known = guarded.apis[0].app.state.rejoin.known_keys
    await eventually(lambda: known._mark is not None)
    for name in await guarded.redis.keys(f"{guarded.prefix}:key*"):
        await guarded.redis.delete(name)
    await eventually(lambda: not known._known)
    assert (await bob.http.get("/v1/jobs")).status_code == 401
    assert await statuses(guarded.client("key-of-alice")) == [200, 200]


# --- Redis away


async def test_while_redis_is_away_known_keys_work_for_a_while_and_unknown_ones_are_503(
    bare: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Proxy(bare.valkey.port) as proxy:
        bare.configure(auth="required", secret=keys.SECRET, api_keys="alice:key-of-alice")
        await bare.worker()
        await bare.api(redis_url=proxy.url)
        key, unmet = await keys.new_key(bare, "bob"), await keys.new_key(bare, "carol")
        bob, carol, nobody = bare.client(key), bare.client(unmet), bare.client(new_key())
        bare.provider.script("m", Text("x"), Silence())
        job_id = await bob.submit()
        task = await reading(bob, f"{bare.url}/v1/jobs/{job_id}/events")
        proxy.refuse()
        assert await statuses(bob, "/v1/models") == [200]
        assert await statuses(bare.client("key-of-alice"), "/v1/models") == [200]
        for client in (carol, nobody):
            response = await client.http.get("/v1/models")
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
        assert await statuses(bare.client("not a key"), "/v1/models") == [401]
        # Nobody has been able to say for too long whether it is revoked.
        monkeypatch.setattr("api.known_keys.TRUST_S", 0.0)
        assert await statuses(bob, "/v1/models") == [503]
        assert await statuses(bare.client("key-of-alice"), "/v1/models") == [200]
        assert not task.done(), "an outage is no reason to cut anybody off"
        task.cancel()


# --- what a key may do


async def test_a_key_asks_only_for_its_models(guarded: Stack) -> None:
    models = "openai/m,openai/gpt-4o*,demo/*"
    bob = guarded.client(await keys.new_key(guarded, "bob", "--models", models))
    await bob.all_events(await bob.submit("m"))
    await bob.all_events(await bob.submit("gpt-4o-mini", fallbacks=[{"provider": "demo", "model": "tour"}]))
    allowed = {"provider": "demo", "model": "tour"}
    refusals: list[tuple[dict[str, Any], str]] = [
        (body("M"), "model"),
        (body("m2"), "model"),
        (body("m", "anthropic"), "model"),
        (body("m", fallbacks=[allowed, {"provider": "anthropic", "model": "m"}]), "fallbacks"),
    ]  # fmt: skip
    calls = len(guarded.provider.calls)
    for asked, field in refusals:
        response = await bob.http.post("/v1/jobs", json=asked)
        assert (response.status_code, response.json()["code"]) == (422, "model_not_allowed")
        assert [error["field"] for error in response.json()["errors"]] == [field]
    assert len(guarded.provider.calls) == calls
    offered = [model["id"] for model in (await bob.http.get("/v1/models")).json()["data"]]
    assert {"demo/tour", "openai/m", "openai/gpt-4o-mini"} <= set(offered)
    assert all(covers(tuple(models.split(",")), *name.split("/", 1)) for name in offered)
    everything = (await guarded.client("key-of-alice").http.get("/v1/models")).json()["data"]
    assert len(everything) > len(offered)


async def test_a_callers_limits_are_its_keys(guarded: Stack) -> None:
    given = ("--rate-limit", "5", "--max-active-jobs", "2", "--max-streams", "3", "--daily-usd", "1.50")
    key = await keys.new_key(guarded, "bob", *given)
    found = await keyring(guarded).get(key_id(hash_key(key)))
    assert found is not None
    limits = found.terms.limits
    assert (limits.rate_limit, limits.max_active_jobs, limits.max_streams, str(limits.daily_usd)) == (5, 2, 3, "1.50")
    assert (await keyring(guarded).issue(Terms(owner="bob")))[1].terms.limits == Limits()


# --- the command


async def test_the_list_says_what_there_is(guarded: Stack) -> None:
    bob = key_id(hash_key(await keys.new_key(guarded, "bob", "--models", "demo/*", "--rate-limit", "5")))
    carol = key_id(hash_key(await keys.new_key(guarded, "carol", "--expires", "2099-12-31", "--name", "CI")))
    await command(guarded, "revoke", carol)
    lines = {line.split()[0]: line for line in (await command(guarded, "list")).splitlines()}
    assert list(lines) == ["id", key_id(hash_key("key-of-alice")), bob, carol]
    assert "REJOIN_API_KEYS" in lines[key_id(hash_key("key-of-alice"))]
    assert all(part in lines[bob] for part in (" live ", "never", "rate_limit=5", "demo/*"))
    assert all(part in lines[carol] for part in ("revoked ", "2100-01-01T00:00:00.000Z", "CI"))
    assert [line.split()[0] for line in (await command(guarded, "list", "--owner", "bob")).splitlines()] == ["id", bob]


async def test_dead_keys_leave_redis_after_a_while(guarded: Stack) -> None:
    expiring = key_id(hash_key(await keys.new_key(guarded, "bob", "--expires", "1h")))
    lasting = key_id(hash_key(await keys.new_key(guarded, "bob")))
    month_ms = 30 * 86_400_000
    assert month_ms < await guarded.redis.pttl(guarded.keys.api_key(expiring)) <= month_ms + 3_600_000
    assert await guarded.redis.pttl(guarded.keys.api_key(lasting)) == -1
    await command(guarded, "revoke", lasting)
    await command(guarded, "revoke", lasting)
    assert 0 < await guarded.redis.pttl(guarded.keys.api_key(lasting)) <= month_ms
    await guarded.redis.delete(guarded.keys.api_key(lasting))
    assert lasting not in await command(guarded, "list")
    assert await guarded.redis.zcard(guarded.keys.api_keys) == 1


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["create", "--owner", "a b"], "--owner: "),
        (["create", "--owner", "bob", "--expires", "soon"], "--expires: "),
        (["create", "--owner", "bob", "--expires", "0d"], "--expires: "),
        (["create", "--owner", "bob", "--expires", "2001-01-01"], "--expires: "),
        (["create", "--owner", "bob", "--expires", "9999-12-31"], "--expires: "),
        (["create", "--owner", "bob", "--rate-limit", "0"], "--rate-limit: "),
        (["create", "--owner", "bob", "--daily-usd", "nan"], "--daily-usd: "),
        (["create", "--owner", "bob", "--models", "gpt-4o"], "--models: "),
        (["create", "--owner", "bob", "--models", "openai/*-mini"], "--models: "),
        (["create", "--owner", "bob", "--name", "a\nb"], "--name: "),
        (["revoke", "key_nobody"], "there is no key"),
        (["revoke", key_id(hash_key("key-of-alice"))], "REJOIN_API_KEYS"),
    ],
)
async def test_what_cannot_be_done_is_said_and_not_done(guarded: Stack, args: list[str], said: str) -> None:
    with pytest.raises(Refused, match=said):
        await command(guarded, *args)
    assert not await guarded.redis.exists(guarded.keys.api_keys)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-21T12:30:00"),
        ("12h", "2026-11-22T00:00:00"),
        ("90d", "2027-02-19T12:00:00"),
        ("2026-11-21", "2026-11-22T00:00:00"),
    ],
)
def test_an_expiry_is_a_span_or_the_end_of_a_day(text: str, expected: str) -> None:
    now_ms = int(datetime(2026, 11, 21, 12, tzinfo=UTC).timestamp() * 1000)
    assert datetime.fromtimestamp(expiry_ms(text, now_ms) / 1000, UTC).isoformat() == f"{expected}+00:00"


async def test_the_command_as_it_is_called(bare: Stack) -> None:
    async def call(*args: str, **env: str) -> tuple[int | None, str, str]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "api.keys", *args, cwd=ROOT, env=bare.environment(**env),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        return process.returncode, out.decode(), err.decode()

    code, out, err = await call("create", "--owner", "alice", "--expires", "90d", REJOIN_AUTH="required")
    assert code == 0
    assert looks_like_key(out.strip())
    assert out.strip() not in err
    assert key_id(hash_key(out.strip())) in err
    code, out, err = await call("list", REDIS_URL="redis://127.0.0.1:1/0")
    assert (code, out) == (1, "")
    assert err.startswith("rejoin: Redis cannot be used")
    assert "Traceback" not in err


async def test_nobody_is_let_in_before_there_is_a_key(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.api()
    assert await statuses(bare.client()) == [401]
    bob = bare.client(await keys.new_key(bare, "bob"))
    async with aclosing(bob.events(await bob.submit("tour", "demo"))) as events:  # type: ignore[type-var]
        assert (await anext(events)).event == "queued"
