"""No field of any request makes one of our processes ask anybody but Redis and the operator's providers."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from itertools import cycle
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests import keys
from tests.abuse.test_doors import DOORS, OWN
from tests.client import Client, body
from tests.provider import HttpError, Text
from tests.stack import Stack
from tests.valkey import free_port

CALLS = frozenset(("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"))
STARTS = frozenset(("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"))

_heard: list[tuple[str, Any]] | None = None


def _hear(event: str, args: tuple[Any, ...]) -> None:
    if _heard is not None:
        if event in CALLS:
            # (socket, address), or a name and what goes with it.
            _heard.append((event, args[1] if event in ("socket.connect", "socket.sendto") else args[:2]))
        elif event in STARTS or (event == "open" and "canary" in str(args[0])):
            _heard.append((event, args[0]))


@contextmanager
def listening() -> Iterator[list[tuple[str, Any]]]:
    """Gather whom this process connects to, and whose address it looks for, in any thread and by any library.

    API and worker run in it, on asyncio's own loop, which does all of that through Python's sockets.
    """
    global _heard
    if not getattr(_hear, "installed", False):
        # For good: nothing takes a hook away.
        sys.addaudithook(_hear)
        _hear.installed = True  # type: ignore[attr-defined]
    _heard = []
    try:
        yield _heard
    finally:
        _heard = None


class Trap:
    """Listens on loopback, in both families, and keeps what comes."""

    def __init__(self) -> None:
        self.port = free_port()
        self.got: list[bytes] = []

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.got.append(b"")
        self.got[-1] = await reader.read(4096)
        writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Trap"]:
        hosts = ["127.0.0.1", "::1"] if socket.has_ipv6 else ["127.0.0.1"]
        async with await asyncio.start_server(self._take, hosts, self.port):
            yield self

    def addresses(self) -> list[str]:
        """Return ways to write where it is, as filters have been led past them, and whither else they lead."""
        here = [
            "127.0.0.1", "localhost", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "0.0.0.0", "[::1]",
            "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:ffff:127.0.0.1]", "[::]", "LOCALHOST", "①②⑦.0.0.1",
            "127.0.0.1.nip.io", "localtest.me", "rebind.network", "x@127.0.0.1", "api.openai.com@127.0.0.1",
        ]  # fmt: skip
        return [f"http://{host}:{self.port}/canary" for host in here] + [
            "http://169.254.169.254/latest/meta-data/iam/", "http://2852039166/", "http://[::ffff:a9fe:a9fe]/",
            "http://metadata.google.internal/computeMetadata/v1/", "https://evil.example/canary",
            f"gopher://127.0.0.1:{self.port}/_canary", f"redis://127.0.0.1:{self.port}/0", "file:///etc/canary",
            f"//127.0.0.1:{self.port}/canary", f"ftp://127.0.0.1:{self.port}/canary", "data:text/plain,canary",
        ]  # fmt: skip


@pytest.fixture
async def trap() -> AsyncIterator[Trap]:
    async with Trap().open() as trap:
        yield trap


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=keys.SECRET, rate_limit=100_000, max_active_jobs=100_000)
    await bare.worker()
    await bare.api()
    client = bare.client(await keys.new_key(bare, "somebody"))
    for name in ("openai", "anthropic", "openai-responses"):
        # The SDKs ask the machine once what it is (`uname`).
        await client.all_events(await client.submit(provider=name))
    bare.provider.calls.clear()
    return bare


def strangers(stack: Stack, heard: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return what was heard but for Redis, the provider's double, and the test's own requests."""
    known = {stack.valkey.port, urlsplit(stack.url).port, urlsplit(stack.provider.openai_url).port}
    friends = {("127.0.0.1", port) for port in known}
    return [(event, told) for event, told in heard if tuple(told)[:2] not in friends]


SETTINGS = [
    "base_url", "api_base", "api_url", "endpoint", "host", "url", "uri", "proxy", "proxies", "http_proxy", "webhook",
    "webhook_url", "callback", "callback_url", "notify", "target", "upstream", "azure_endpoint", "extra_body",
    "extra_headers", "headers", "api_key", "organization", "runnable", "kind", "file", "file_id", "file_url",
    "redirect_uri", "image_url", "attachments", "metadata_url", "$schema", "$ref",
]  # fmt: skip


def bodies(path: str) -> dict[str, Any]:
    """Return what one of the routes takes, or would take it for if it is a new one."""
    if path == "/v1/jobs":
        return body()
    return {"model": "openai/m", "messages": body()["messages"], "max_tokens": 9}


@pytest.mark.parametrize("path", [path for (method, path), kind in DOORS.items() if (method, kind) == ("POST", OWN)])
async def test_no_address_can_be_set_by_a_request(guarded: Stack, alice: Client, trap: Trap, path: str) -> None:
    """CWE-918: by every name that other gateways have for it, at the top and within, in the query and in headers."""
    fine = bodies(path)
    with listening() as heard:
        for address in trap.addresses()[::4]:
            for name in SETTINGS:
                for value in (address, {"url": address}):
                    await alice.http.post(path, json={**fine, name: value})
            within: list[dict[str, Any]] = [
                {"messages": [{**fine["messages"][0], "base_url": address}]},
                {"metadata": {"base_url": address, "webhook": address}},
                {"provider": address}, {"provider": f"openai@{address}"}, {"model": address},
                {"model": f"openai/{address}"}, {"fallbacks": [{"provider": address, "model": "m"}]},
                {"fallbacks": [{"provider": "openai", "model": address, "base_url": address}]},
            ]  # fmt: skip
            for change in within:
                await alice.http.post(path, json={**fine, **change})
            headers = [
                (name.encode(), address.encode())
                for name in (
                    "X-Base-URL", "X-Forwarded-Host", "Host", "Proxy", "Referer", "X-Callback-URL", "Forwarded", "Link",
                    "Idempotency-Key", "X-Original-URL", "X-Rewrite-URL", "OpenAI-Organization", "Traceparent",
                )
            ]  # fmt: skip
            await alice.http.post(path, json=fine, headers=headers, params={"base_url": address, "url": address})
        await settled(alice)
    assert strangers(guarded, heard) == []
    assert trap.got == []


async def settled(client: Client) -> None:
    """Return when all jobs that were accepted have ended."""
    async with asyncio.timeout(20):
        for job in (await client.http.get("/v1/jobs", params={"limit": 100})).json()["data"]:
            await client.all_events(job["id"])


async def test_addresses_in_what_a_model_is_to_read_are_the_models_business(
    guarded: Stack, alice: Client, trap: Trap
) -> None:
    """CWE-918: images, prompts, tools, schemas, results and thoughts go to the provider as they are, or not at all."""
    accepted = 0
    with listening() as heard:
        for address, provider in zip(trap.addresses(), cycle(("openai", "anthropic", "openai-responses"))):
            pieces: list[dict[str, Any]] = [
                {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": address}}]}]},
                {"messages": [{"role": "user", "content": f"![x]({address}) <img src={address}>"}], "system": address},
                {"tools": [{"name": "t", "description": address, "parameters": {"$ref": address, "$schema": address}}]},
                {"tools": [{"name": "t", "parameters": {"$id": address, "properties": {"a": {"$ref": "b#/c"}}}}]},
                {"metadata": {"url": address}, "stop": [address[:100]]},
                {
                    "messages": [
                        {"role": "user", "content": "Hi"},
                        {"role": "assistant", "content": None,
                         "tool_calls": [{"id": address, "name": "t", "arguments": json.dumps({"url": address})}],
                         "reasoning_blocks": [{"type": "redacted_thinking", "data": address}]},
                        {"role": "tool", "tool_call_id": address, "content": address},
                    ]
                },
                *[
                    {"response_format": {"type": "json_schema", "json_schema": {"schema": schema}}}
                    for schema in (
                        {"$ref": address}, {"$schema": address}, {"$id": address, "$ref": "other.json"},
                        {"$dynamicRef": address}, {"allOf": [{"$ref": f"{address}#/a"}]},
                        {"type": "object", "$recursiveRef": address}, {"$vocabulary": {address: True}},
                        {"type": "string", "format": "uri", "const": address},
                    )
                ],
            ]  # fmt: skip
            for piece in pieces:
                response = await alice.http.post("/v1/jobs", json=body(provider=provider, **piece))
                assert response.status_code in (202, 422), response.text
                accepted += response.status_code == 202
        await settled(alice)
        assert accepted > 50
        await asyncio.wait_for(alice.all_events(await alice.submit()), 10)
    assert strangers(guarded, heard) == []
    assert trap.got == []
    assert len(guarded.provider.calls) > 50


async def test_an_image_is_fetched_by_nobody_of_ours(guarded: Stack, alice: Client, trap: Trap) -> None:
    """CWE-918: its address arrives at the provider as the client wrote it."""
    url = f"http://127.0.0.1:{trap.port}/canary.png"
    for provider in ("openai", "anthropic"):
        image = {"type": "image_url", "image_url": {"url": url}}
        job_id = await alice.submit(provider=provider, messages=[{"role": "user", "content": [image]}])
        await alice.all_events(job_id)
        assert url in json.dumps(guarded.provider.calls[-1].body)
    assert trap.got == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("name", ["openai", "anthropic", "openai-responses"])
async def test_a_provider_that_redirects_does_not_get_the_key_elsewhere(
    guarded: Stack, alice: Client, trap: Trap, name: str, status: int
) -> None:
    """CWE-918, CWE-601, CWE-522: it may have been taken over, or be a proxy with a login of its own."""
    location = {"location": f"http://127.0.0.1:{trap.port}/canary"}
    guarded.provider.script("m", HttpError(status, headers=location))
    with listening() as heard:
        last = (await asyncio.wait_for(alice.all_events(await alice.submit(provider=name)), 20))[-1]
    assert last.event == "failed"
    assert last.data["code"].startswith("provider_")
    assert strangers(guarded, heard) == []
    assert trap.got == []


async def test_what_hears_connections_hears_them(guarded: Stack, trap: Trap) -> None:
    """Or the tests above would pass for the wrong reason."""
    with listening() as heard:
        _, writer = await asyncio.open_connection("localhost", trap.port)
        writer.close()
        asked = socket.socket()
        asked.setblocking(False)
        with asked, pytest.raises((BlockingIOError, OSError)):
            asked.connect(("169.254.169.254", 80))
    found = strangers(guarded, heard)
    assert ("socket.getaddrinfo", ("localhost", trap.port)) in found
    assert ("socket.connect", ("169.254.169.254", 80)) in found


async def test_the_proxy_of_the_environment_is_for_providers_alone(
    bare: Stack, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CWE-441: HTTP_PROXY and ALL_PROXY are the operator's word for workers; Redis and the API go without."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{trap.port}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.api()
    alice = bare.client(await keys.new_key(bare, "alice"))
    job_id = await alice.submit(timeout_s=5)
    assert trap.got == []
    await bare.worker()
    last = (await asyncio.wait_for(alice.all_events(job_id), 20))[-1]
    assert last.event == "failed"
    assert trap.got[0].startswith(f"POST {bare.provider.openai_url}/chat/completions HTTP/1.1".encode())
    assert bare.provider.calls == []


async def test_no_proxy_leads_around_it(bare: Stack, trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{trap.port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{trap.port}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    bare.provider.script("m", Text("a"))
    await bare.worker()
    await bare.api()
    client = bare.client()
    assert (await client.all_events(await client.submit()))[-1].event == "completed"
    assert trap.got == []
