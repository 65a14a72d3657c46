"""Every door of the API, tried by everybody whom it should not let in. A route that is not in the table fails."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from api.access import ANTHROPIC_PATHS
from api.main import create_app
from shared.settings import hash_key, key_id
from tests import keys
from tests.client import Client, body
from tests.keys import command
from tests.provider import Silence, Text
from tests.stack import Stack, eventually

PUBLIC, OWN, JOB = "tells nothing of anybody", "shows the caller's own", "is for one job"
CHAT = "is for one of the caller's chats"
OPS = "is for operators"

DOORS: dict[tuple[str, str], str] = {
    ("GET", "/"): PUBLIC,
    ("GET", "/ops"): PUBLIC,
    ("*", "/page"): PUBLIC,
    ("GET", "/livez"): PUBLIC,
    ("GET", "/readyz"): PUBLIC,
    ("GET", "/metrics"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    ("HEAD", "/openapi.json"): PUBLIC,
    ("GET", "/v1/ops"): OPS,
    ("POST", "/v1/ops/jobs/{job_id}/cancel"): OPS,
    ("POST", "/v1/jobs"): OWN,
    ("GET", "/v1/jobs"): OWN,
    ("GET", "/v1/usage"): OWN,
    ("GET", "/v1/models"): OWN,
    ("GET", "/v1/models/{name}"): OWN,
    ("POST", "/v1/chat/completions"): OWN,
    ("POST", "/v1/responses"): OWN,
    ("POST", "/v1/messages"): OWN,
    ("POST", "/v1/messages/count_tokens"): OWN,
    ("POST", "/api/chat"): OWN,
    ("GET", "/api/chat/{chat_id}/stream"): CHAT,
    ("POST", "/api/chat/{chat_id}/stop"): CHAT,
    ("GET", "/v1/jobs/{job_id}"): JOB,
    ("DELETE", "/v1/jobs/{job_id}"): JOB,
    ("POST", "/v1/jobs/{job_id}/cancel"): JOB,
    ("GET", "/v1/jobs/{job_id}/events"): JOB,
    ("GET", "/v1/responses/{response_id}"): JOB,
    ("DELETE", "/v1/responses/{response_id}"): JOB,
    ("POST", "/v1/responses/{response_id}/cancel"): JOB,
}
ASKED: dict[str, Any] = {
    "/v1/jobs": body("m2"),
    "/v1/chat/completions": {"model": "openai/m2", "messages": body()["messages"]},
    "/v1/responses": {"model": "openai/m2", "input": "Hi"},
    "/v1/messages": {"model": "openai/m2", "messages": body()["messages"], "max_tokens": 9},
    "/v1/messages/count_tokens": {"model": "openai/m2", "messages": body()["messages"]},
    "/api/chat": {
        "model": "openai/m2",
        "id": "bobs",
        "messages": [{"role": "user", "parts": [{"type": "text", "text": "Hi"}]}],
    },
}
"""What each door that makes a job takes."""
ONLY_STREAMS = ("/api/chat",)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
UNKNOWN = f"job_{'0' * 32}"
CANARY = "canary-of-alice"


def url_of(path: str, job_id: str) -> str:
    """Return where a door is, for one job where it is for one."""
    return path.format(job_id=job_id, response_id=job_id.replace("job_", "resp_"), chat_id="hers", name="demo/tour")


def doors(kind: str) -> list[tuple[str, str]]:
    return [door for door, found in DOORS.items() if found == kind]


def routes(app: FastAPI) -> set[tuple[str, str]]:
    """Return whatever the app answers, and whatever its document says that it does."""
    found = {
        (method, (route.path or "").replace(":path}", "}"))
        for route in iter_route_contexts(app.routes)
        for method in (route.methods or {"*"})
    }  # fmt: skip
    told = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    return found | told


@dataclass
class House:
    """Two API processes, and alice's jobs behind them: one runs, one has ended."""

    stack: Stack
    alice: Client
    bob: Client
    live: str
    ended: str
    nobody: Client

    async def untouched(self) -> None:
        assert (await self.alice.job(self.live))["status"] == "running"
        assert (await self.alice.job(self.ended))["text"] == CANARY
        assert len((await self.alice.http.get("/v1/jobs")).json()["data"]) == 2


@pytest.fixture
async def house(bare: Stack) -> House:
    bare.configure(auth="required", secret=keys.SECRET, docs="on")
    await bare.worker()
    await bare.api()
    await bare.api()
    alice, bob = [bare.client(await keys.new_key(bare, owner)) for owner in ("alice-owner", "bob")]
    bare.provider.script("silent", Text(CANARY), Silence())
    bare.provider.script("m", Text(CANARY))
    live, ended = await alice.submit("silent"), await alice.submit("m", metadata={"note": CANARY})
    await alice.until(live, "token")
    await alice.all_events(ended)
    return House(bare, alice, bob, live, ended, bare.client())


def same(first: httpx2.Response, second: httpx2.Response) -> bool:
    """Say whether two answers cannot be told apart."""

    def seen(response: httpx2.Response) -> Any:
        # (When it was asked, and what that is called, differs each time.)
        unlike = ("date", "x-request-id", "request-id")
        headers = sorted((name, value) for name, value in response.headers.multi_items() if name not in unlike)
        return response.status_code, headers, response.content

    return bool(seen(first) == seen(second))


async def ask(client: Client, method: str, path: str, **more: Any) -> httpx2.Response:
    """Ask without waiting for the end of a stream: an open one is an answer that the test must not get."""
    async with client.http.stream(method, path, **more) as response:
        streams = response.headers.get("content-type", "").startswith("text/event-stream")
        if streams and path not in ONLY_STREAMS:
            raise AssertionError(f"{method} {path} streams")
        await response.aread()
    return response


def test_the_table_has_every_route(bare: Stack) -> None:
    assert routes(create_app(bare.settings())) == set(DOORS)


def test_a_new_route_is_not_in_the_table(bare: Stack) -> None:
    """Also one that hides from the document."""
    app = create_app(bare.settings())

    async def hidden() -> None: ...

    app.add_api_route("/v1/hidden", hidden, include_in_schema=False)
    assert routes(app) - set(DOORS) == {("GET", "/v1/hidden")}


def wrong_keys(key: str, path: str) -> Iterable[dict[str, Any]]:
    """Yield ways to ask without a valid key, where a valid one would open the door."""
    yield {}
    for value in ("Bearer", "Bearer null", f"Basic {key}", key, f"Bearer {key[:-1]}", f"Bearer {key} x"):
        yield {"headers": {"Authorization": value}}
    yield {"headers": [("Authorization", f"Bearer {key}")] * 2}
    other = key[:-1] if path.startswith(ANTHROPIC_PATHS) else key
    yield {"headers": {"X-API-Key": other, "Proxy-Authorization": f"Bearer {key}", "Cookie": f"key={key}"}}
    yield {"params": {"api_key": key, "key": key, "access_token": key, "authorization": f"Bearer {key}"}}
    yield {"auth": ("alice-owner", key)}
    # Whatever else is wrong: who may not ask is told no more.
    yield {"params": {"limit": "x", "cursor": "x", "wait_s": "x", "from": "x", "last_event_id": "x" * 100}}
    yield {"headers": {"Accept": "image/png", "Content-Type": "text/plain"}, "content": b"{"}


def is_told(response: httpx2.Response) -> bool:
    """Say whether a refusal is that of a missing key, in whatever words."""
    if response.headers["content-type"].startswith("text/plain"):
        return response.text.startswith("A valid key is needed")
    said = response.json()
    codes = ("unauthorized", "invalid_api_key", "authentication_error")
    error = said.get("error", {})
    return not {said.get("code"), error.get("code"), error.get("type")}.isdisjoint(codes)


async def test_without_a_key_every_door_is_401_whatever_else_is_wrong(house: House) -> None:
    """CWE-306, CWE-287, CWE-598: only a live key in the header opens a door, and nothing looks behind it before."""
    key = await keys.new_key(house.stack, "alice-owner")
    await command(house.stack, "revoke", key_id(hash_key(key)))
    revoked = house.stack.client(key)
    live_key = house.alice.http.headers["authorization"].partition(" ")[2]
    for method, path in doors(OWN) + doors(JOB) + doors(CHAT) + doors(OPS):
        for job_id in (house.ended, UNKNOWN):
            url = url_of(path, job_id)
            for request in wrong_keys(live_key, path):
                response = await ask(house.nobody, method, url, **request)
                assert (response.status_code, is_told(response)) == (401, True), (method, url, request)
                assert response.headers["www-authenticate"] == "Bearer"
            assert (await ask(revoked, method, url)).status_code == 401
    await house.untouched()


async def test_a_foreign_job_is_the_same_as_none_by_every_method(house: House) -> None:
    """CWE-639, CWE-204: whoever knows an id learns nothing by it, not even that it is one."""
    mine = await house.bob.submit()
    await house.bob.all_events(mine)
    tickets = [(await house.bob.job(mine))["events_url"].partition("=")[2], "x"]
    requests: list[dict[str, Any]] = [
        {},
        {"headers": {"Accept": "application/json"}, "params": {"wait_s": "0"}},
        {"headers": {"Accept": "application/x-ndjson", "Last-Event-ID": "1-0"}},
        {"headers": {"Accept": "image/png"}},
        {"headers": {"Last-Event-ID": "nonsense"}},
        {"headers": {"X-HTTP-Method-Override": "DELETE"}, "json": body()},
        {"headers": {"X-Owner": "alice-owner", "X-Original-URL": f"/v1/jobs/{house.ended}"}},
        {"params": {"owner": "alice-owner", "job_id": house.ended}},
        *[{"params": {"ticket": ticket}} for ticket in tickets],
    ]
    for path in sorted({path for _, path in doors(JOB)}):
        for method in METHODS:
            for request in requests:
                unknown = await ask(house.bob, method, url_of(path, UNKNOWN), **request)
                assert unknown.status_code in ((404, 406) if (method, path) in DOORS else (405,))
                for job_id in (house.live, house.ended):
                    foreign = await ask(house.bob, method, url_of(path, job_id), **request)
                    assert same(foreign, unknown), (method, path, request)
    await house.untouched()


async def test_a_foreign_chat_is_the_same_as_none_by_every_method(house: House) -> None:
    """CWE-639, CWE-204: whoever knows a chat's id learns nothing by it, and stops nothing."""
    asked = {**ASKED["/api/chat"], "id": "hers", "model": "openai/silent"}
    async with house.alice.http.stream("POST", "/api/chat", json=asked) as response:
        hers = response.headers["x-job-id"]
        for method, path in doors(CHAT):
            for client in (house.bob, house.nobody):
                foreign = await ask(client, method, url_of(path, UNKNOWN))
                assert same(foreign, await ask(client, method, path.format(chat_id="none"))), (method, path)
                assert foreign.status_code == (204 if client is house.bob else 401)
        assert (await house.alice.job(hers))["status"] in ("queued", "running")
        # The same id is another chat of bob's: what he asks there interrupts nothing of hers.
        await ask(house.bob, "POST", "/api/chat", json={**ASKED["/api/chat"], "id": "hers"})
        assert (await house.alice.job(hers))["status"] in ("queued", "running")
    assert (await house.alice.http.post("/api/chat/hers/stop")).json()["id"] == hers


async def test_an_ordinary_key_is_told_that_the_operators_doors_are_none(house: House) -> None:
    """CWE-862, CWE-269: not even for a job of her own; and an operator's key is no better elsewhere than any."""
    operator = house.stack.client(await keys.new_key(house.stack, "olga", "--ops"))
    nothing = await ask(house.alice, "GET", "/v1/nothing")
    for method, path in doors(OPS):
        for job_id in (house.live, house.ended, UNKNOWN, "x"):
            assert same(await ask(house.alice, method, url_of(path, job_id)), nothing), (method, path)
            ticket = (await house.alice.job(house.live))["events_url"].partition("=")[2]
            refused = await ask(house.nobody, method, url_of(path, job_id), params={"ticket": ticket})
            assert (refused.status_code, is_told(refused)) == (401, True)
    await house.untouched()
    for method, path in doors(JOB):
        assert (await ask(operator, method, url_of(path, house.live))).status_code == 404
    unknown = await ask(operator, "POST", f"/v1/ops/jobs/{UNKNOWN}/cancel")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "job_not_found")


async def test_an_operator_is_shown_no_words(house: House) -> None:
    """CWE-200: who, what and how long; no prompt, text or metadata, and no key."""
    operator = house.stack.client(await keys.new_key(house.stack, "olga", "--ops"))
    shown = (await operator.http.get("/v1/ops")).text
    assert house.live in shown
    assert "alice-owner" in shown
    her_key = house.alice.http.headers["authorization"].partition(" ")[2]
    for words in (CANARY, body()["messages"][0]["content"], key_id(hash_key(her_key))):
        assert words not in shown


async def test_a_ticket_opens_no_other_job_by_any_method(house: House) -> None:
    """CWE-863: bob's own ticket, and alice's for another of her jobs, are no better than none."""
    mine = await house.bob.submit()
    ended = (await house.alice.job(house.ended))["events_url"].partition("=")[2]
    own = (await house.bob.job(mine))["events_url"].partition("=")[2]
    for ticket in (own, ended):
        for path in sorted({path for _, path in doors(JOB)}):
            for method in METHODS:
                params = {"ticket": ticket}
                unknown = await ask(house.nobody, method, url_of(path, UNKNOWN), params=params)
                foreign = await ask(house.nobody, method, url_of(path, house.live), params=params)
                assert same(foreign, unknown), (method, path)
                assert unknown.status_code == (401 if (method, path) in DOORS else 405)
    await house.untouched()


async def test_a_foreign_job_costs_the_same_as_none(house: House) -> None:
    """CWE-208: one look into Redis for each, and no other."""

    here = house.stack.apis[0].app.state.rejoin
    asked: list[str] = []
    call = here.redis.call
    # What the process does by itself (open streams, revoked keys) falls into anybody's time.
    background = asyncio.all_tasks()

    async def counted(*command: Any) -> Any:
        if asyncio.current_task() not in background:
            asked.append(command[0])
        return await call(*command)

    here.redis.call = counted

    async def looks(method: str, url: str) -> int:
        asked.clear()
        await ask(house.bob, method, url)
        return len(asked)

    await looks("GET", "/v1/models")
    for method, path in doors(JOB):
        for job_id in (house.ended, UNKNOWN):
            assert await looks(method, url_of(path, job_id)) == 1
        # What cannot be an id is not even looked for.
        assert await looks(method, url_of(path, "job_x")) == 0


async def test_nothing_of_anybody_else_is_in_what_a_caller_is_shown(house: House) -> None:
    """CWE-200, CWE-639: lists, usage and models, with all that might choose another owner."""
    cursor = (await house.alice.http.get("/v1/jobs", params={"limit": 1})).json()["next_cursor"]
    choices: list[dict[str, Any]] = [
        {},
        {"params": {"owner": "alice-owner", "user": "alice-owner", "limit": "100", "status": "completed"}},
        {"params": {"cursor": cursor}},
        {"params": {"group_by": "owner,key,model", "owner": "alice-owner"}},
        {"headers": {"X-Owner": "alice-owner", "X-Forwarded-User": "alice-owner", "From": "alice-owner"}},
    ]
    mine = await house.bob.submit("m2")
    await house.bob.all_events(mine)
    her_key = key_id(hash_key(house.alice.http.headers["authorization"].partition(" ")[2]))
    for method, path in doors(OWN):
        for choice in choices:
            given = {"json": ASKED[path], **choice} if method == "POST" else choice
            response = await ask(house.bob, method, url_of(path, UNKNOWN), **given)
            assert response.is_success, (method, path, response.text)
            for hers in (house.live, house.ended, CANARY, "alice-owner", her_key, "openai/silent"):
                assert hers not in response.text, (method, path, choice)
    await house.untouched()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs/{id}/", "/v1/jobs//{id}", "//v1/jobs/{id}", "/V1/jobs/{id}", "/v1/jobs/{ID}", "/v1/jobs/{id}%00",
        "/v1/jobs/{id}%20", "/v1/jobs/{id};x=1", "/v1/jobs/{id}?x", "/v1/jobs/{id}.json", "/v1/jobs/{id},{id}",
        "/v1/jobs/x/..%2f{id}", "/v1/jobs/x%2f..%2f{id}", "/page/../v1/jobs/{id}", "/page/..%2fv1%2fjobs%2f{id}",
        "/v1/jobs/{id}%0d%0aX-Owner:alice-owner", "/v1/jobs/rejoin:job:{id}", "/v1/jobs/*", "/v1/jobs/job_%2a",
        "/v1/jobs/{id}%2fevents", "/v1/jobs/{id}/events/", "/v1/jobs/{id}/events%2f", "/v1/jobs/..",
        "/v1/jobs/%F0%9F%92%A9", "/page/%2e%2e/main.py", "/page/..%2f..%2faccess.py", "/page//etc/passwd",
    ],
)  # fmt: skip
async def test_no_way_of_writing_a_path_leads_around_the_door(house: House, path: str) -> None:
    """CWE-22, CWE-647, CWE-113: neither bob nor nobody gets an answer that is one, and no server error."""
    url = path.format(id=house.ended, ID=house.ended.upper())
    for client in (house.bob, house.nobody):
        request = httpx2.Request("GET", httpx2.URL(client.urls[0]).copy_with(raw_path=url.encode()),
                                 headers=client.http.headers)  # fmt: skip
        response = await client.http.send(request, follow_redirects=True)
        assert 400 <= response.status_code < 500, (url, response.status_code, response.text)
        assert CANARY not in response.text
        assert "alice" not in response.text
        assert "x-owner" not in response.headers


async def test_the_public_doors_tell_nothing_of_anybody(house: House) -> None:
    """CWE-200"""
    await eventually(lambda: house.stack.provider.active == 1)
    for method, path in doors(PUBLIC):
        paths = ["/page/index.html", "/page/app.js"] if method == "*" else [path]
        for url in paths:
            response = await ask(house.nobody, "GET" if method == "*" else method, url)
            assert response.status_code == 200
            for hers in (house.live, house.ended, CANARY, "alice-owner"):
                assert hers not in response.text
