"""A real nginx, as `deploy/nginx` sets it up, in front of API processes: nothing is held back, lost, or let in."""

import asyncio
import signal
import socket
import time
from contextlib import AsyncExitStack, aclosing

import httpx2
import pytest

from tests.client import Client, Frames, body
from tests.deploy.conftest import StartNginx
from tests.deploy.nginx import find_curl
from tests.faults.reader import stream
from tests.faults.scene import Scene
from tests.keys import SECRET
from tests.provider import Stamps, Text, Tokens, Wait
from tests.scrape import scrape
from tests.stack import Stack, eventually
from tests.valkey import free_port

AT_ONCE_S = 0.1
ROOMY = {"max_streams": 1000, "max_active_jobs": 1000, "rate_limit": 100_000}


async def two_apis(stack: Stack, **env: str) -> list[str]:
    """Start two API processes; return their URLs."""
    ports = [free_port(), free_port()]
    await asyncio.gather(*[stack.api_process(port, **env) for port in ports])
    return [f"http://127.0.0.1:{port}" for port in ports]


def client_of(stack: Stack, url: str, key: str | None = None) -> Client:
    client = Client(url, key=key)
    stack.at_close(client.aclose)
    return client


async def lengths(url: str) -> list[tuple[int, float]]:
    """Read a job's events to the end; return how much text there was, and when, after each token."""
    frames, seen, length = Frames(), [], 0
    async with aclosing(stream(url)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            for event in frames.feed(chunk):
                if event.event == "token":
                    length += len(event.data["text"])
                    seen.append((length, time.monotonic()))
    return seen


async def test_events_of_many_streams_pass_at_once(bare: Stack, nginx: StartNginx) -> None:
    """Beside each reader another one asks the API itself: how busy the machine is counts for both."""
    bare.configure(**ROOMY)
    await bare.worker()
    urls = await two_apis(bare)
    front = await nginx(*urls)
    client = client_of(bare, front.url)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("first "), Wait(gate), Stamps(40, delay_s=0.03))
    jobs = [await client.submit() for _ in range(10)]
    paths = [f"/v1/jobs/{job}/events" for job in jobs]
    # A proxy that holds back anything never shows these: the provider waits until all are there.
    for job in jobs:
        await asyncio.wait_for(client.until(job, "token"), 5)
    readers = [[asyncio.create_task(lengths(url + path)) for url in (urls[0], front.url)] for path in paths]

    async def all_read() -> bool:
        return (await scrape(*urls))("rejoin_streams_open") == 2 * len(jobs)

    await eventually(all_read)
    gate.open()
    late = []
    for direct, through in readers:
        here, there = await direct, await through
        assert there[-1][0] == here[-1][0]
        late += [next(at for got, at in there if got >= length) - when for length, when in here]
    assert len(late) > 100
    assert max(late) < AT_ONCE_S, sorted(late)[-5:]


async def test_a_stream_is_never_compressed_and_says_what_it_is(bare: Stack, nginx: StartNginx) -> None:
    await bare.worker()
    api = await bare.api()
    front = await nginx(api.url)
    client = client_of(bare, front.url)
    bare.provider.script("m", Tokens("word " * 200))
    job_id = await client.submit()
    asked = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br"}
    response = await client.http.get(f"/v1/jobs/{job_id}/events", headers=asked)
    assert "content-encoding" not in response.headers
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert Frames().feed(response.content)[-1].event == "completed"


async def test_heartbeats_keep_a_silent_stream_open_beyond_the_proxys_patience(bare: Stack, nginx: StartNginx) -> None:
    bare.configure(heartbeat_s=0.3)
    await bare.worker()
    api = await bare.api()
    front = await nginx(api.url, shorter={"proxy_read_timeout 60s": "proxy_read_timeout 1s"})
    client = client_of(bare, front.url)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("quiet "), Wait(gate), Text("again"))
    job_id = await client.submit()
    reading = asyncio.create_task(client.all_events(job_id))
    await gate.reached()
    asyncio.get_running_loop().call_later(2.2, gate.open)
    events = await reading
    assert [event.event for event in events][-1] == "completed", "cut in its silence"


async def test_readers_of_a_killed_api_process_go_on_at_the_other_and_miss_nothing(
    bare: Stack, nginx: StartNginx
) -> None:
    bare.configure(**ROOMY)
    await bare.worker()
    ports = [free_port(), free_port()]
    victim, _ = await asyncio.gather(*[bare.api_process(port) for port in ports])
    front = await nginx(*[f"http://127.0.0.1:{port}" for port in ports])
    scene = Scene(bare, urls=[front.url])
    gate = bare.provider.gate()
    words = "one two three four five six seven "
    for _ in range(20):
        await scene.submit(Tokens(words, delay_s=0.02), Wait(gate), Tokens(words, delay_s=0.02))
    readers = [scene.read(job_id) for job_id in scene.models]
    await gate.reached(20)
    for reader in readers:
        await reader.until("token")
    victim.signal(signal.SIGKILL)
    await victim.exit_code()
    gate.open()
    await scene.assert_clean()
    back = [reader for reader in readers if reader.connections > 1]
    assert 5 <= len(back) <= 15, "half of them were at each"
    assert all(reader.connections == 2 and not reader.refusals for reader in back), "come back once, and let in"


async def test_logs_hold_no_ticket_even_where_an_api_process_dies(bare: Stack, nginx: StartNginx) -> None:
    """CWE-532: what opens a stream must not be in a log, and nginx quotes requests when their backend fails."""
    curl = find_curl()
    if curl is None:
        pytest.skip("there is no curl")
    await bare.worker()
    port = free_port()
    api = await bare.api_process(port, REJOIN_AUTH="required", REJOIN_API_KEYS="a:k", REJOIN_SECRET=SECRET)
    front = await nginx(f"http://127.0.0.1:{port}")
    client = client_of(bare, front.url, key="k")
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate), Text("b"))
    created = (await client.http.post("/v1/jobs", json=body())).json()
    await client.until(created["id"], "token")
    url = front.url + created["events_url"]
    reading = await asyncio.create_subprocess_exec(
        curl, "-sN", url, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    assert reading.stdout is not None
    await reading.stdout.readuntil(b"token")
    api.signal(signal.SIGKILL)
    await reading.stdout.read()
    assert await reading.wait() != 0, "a cut stream must not look like a whole one"
    refused = await client.http.get(created["events_url"])
    assert refused.status_code == 503
    log = front.output()
    assert f"GET /v1/jobs/{created['id']}/events" in log
    assert created["events_url"].partition("ticket=")[2] not in log
    assert "ticket" not in log
    gate.open()


def own_address() -> str:
    """Return an address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
    return address


async def test_a_server_without_keys_answers_no_stranger_through_the_proxy(bare: Stack, nginx: StartNginx) -> None:
    """CWE-290, CWE-348: to the API all of them come from loopback; what counts is who came to nginx."""
    api = await bare.api()
    front = await nginx(api.url)
    stranger = client_of(bare, front.url.replace("127.0.0.1", own_address()))
    here = {"Host": "localhost"}
    forged = {**here, "X-Forwarded-For": "127.0.0.1", "X-Real-IP": "127.0.0.1", "Forwarded": "for=127.0.0.1"}
    assert (await stranger.http.get("/v1/jobs", headers=here)).status_code == 401
    assert (await stranger.http.get("/v1/jobs", headers=forged)).status_code == 401
    assert (await client_of(bare, front.url).http.get("/v1/jobs")).status_code == 200


async def test_a_body_above_the_limit_is_a_problem_and_one_at_the_limit_passes(bare: Stack, nginx: StartNginx) -> None:
    api = await bare.api()
    front = await nginx(api.url)
    client = client_of(bare, front.url)
    limit = bare.settings().max_body_bytes
    headers = {"Content-Type": "application/json"}
    at_limit = await client.http.post("/v1/jobs", content=b"x" * limit, headers=headers)
    assert (at_limit.status_code, at_limit.json()["code"]) == (400, "invalid_json")
    above = await client.http.post("/v1/jobs", content=b"x" * (limit + 1), headers=headers)
    assert (above.status_code, above.json()["code"]) == (413, "body_too_large")
    assert above.headers["content-type"] == "application/problem+json"


async def test_a_long_poll_waits_and_is_answered_by_the_next_event(bare: Stack, nginx: StartNginx) -> None:
    await bare.worker()
    api = await bare.api()
    front = await nginx(api.url)
    client = client_of(bare, front.url)
    gate = bare.provider.gate()
    bare.provider.script("m", Text("a"), Wait(gate), Text("b"))
    job_id = await client.submit()
    first = await client.until(job_id, "token")
    asked = {"Accept": "application/json", "Last-Event-ID": first.id}
    poll = asyncio.create_task(client.http.get(f"/v1/jobs/{job_id}/events", params={"wait_s": 20}, headers=asked))
    done, _ = await asyncio.wait([poll], timeout=0.5)
    assert not done
    gate.open()
    events = (await asyncio.wait_for(poll, 5)).json()["events"]
    assert events
    assert events[0]["event"] == "token"


async def test_http2_carries_the_same_bytes_and_a_cut_is_an_error(bare: Stack, nginx: StartNginx) -> None:
    curl = find_curl()
    if curl is None:
        pytest.skip("there is no curl with HTTP/2")
    await bare.worker()
    port = free_port()
    api = await bare.api_process(port)
    front = await nginx(f"http://127.0.0.1:{port}", tls=True)
    direct = client_of(bare, f"http://127.0.0.1:{port}")
    gate = bare.provider.gate()
    bare.provider.script("m", Tokens("grüße \n\n😀 "))
    bare.provider.script("held", Text("a"), Wait(gate), Text("b"))
    whole, held = await direct.submit(), await direct.submit("held")
    await direct.until(whole, "completed")

    async def ask(job_id: str, *more: str) -> asyncio.subprocess.Process:
        url = f"{front.url}/v1/jobs/{job_id}/events"
        return await asyncio.create_subprocess_exec(
            curl, "-sNk", "--http2", "-H", "Accept: text/event-stream", *more, url, stdout=asyncio.subprocess.PIPE
        )

    reading = await ask(whole, "-w", "%{http_version}")
    out, _ = await reading.communicate()
    expected = (await direct.http.get(f"/v1/jobs/{whole}/events", headers={"Accept": "text/event-stream"})).content
    # The `retry:` in front is each connection's own.
    assert out.partition(b"\n")[2].removesuffix(b"2") == expected.partition(b"\n")[2]
    assert out.endswith(b"2")

    cut = await ask(held)
    assert cut.stdout is not None
    await asyncio.wait_for(cut.stdout.readuntil(b"token"), 5)  # not buffered in frames either
    api.signal(signal.SIGKILL)
    await cut.stdout.read()
    assert await cut.wait() != 0
    gate.open()


async def test_without_any_api_process_it_is_a_problem_to_be_tried_again(nginx: StartNginx, bare: Stack) -> None:
    front = await nginx(f"http://127.0.0.1:{free_port()}")
    client = client_of(bare, front.url)
    for response in (await client.http.get("/v1/jobs"), await client.http.post("/v1/jobs", json=body())):
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert response.headers["retry-after"] == "1"
    assert (await client.http.get("/metrics")).status_code == 404


@pytest.mark.parametrize(("method", "sent"), [("GET", 3), ("POST", 1)])
async def test_a_post_that_was_sent_is_not_sent_again_by_the_proxy(
    bare: Stack, nginx: StartNginx, method: str, sent: int
) -> None:
    """Its answer was lost, not its work: only the client, with its Idempotency-Key, can repeat it.

    (A GET is: to each of both, and once more to either, as its own backup.)
    """
    heads: list[bytes] = []

    async def lose(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    servers = [await asyncio.start_server(lose, "127.0.0.1", 0) for _ in range(2)]
    front = await nginx(*[f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}" for server in servers])
    response = await client_of(bare, front.url).http.request(method, "/v1/jobs", json=body())
    assert response.status_code == 503
    assert len(heads) == sent
    assert b"\r\nConnection: close" not in heads[0]
    assert b" HTTP/1.1\r\n" in heads[0]
    for server in servers:
        server.close()


async def test_streams_alone_find_processes_that_have_all_been_away(nginx: StartNginx) -> None:
    """No request ends meanwhile, by which nginx would learn that a process it has found away is well again."""
    ports, opened = [free_port(), free_port()], asyncio.Event()

    async def endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: ping\n\n")
        await writer.drain()
        await opened.wait()
        writer.close()

    front = await nginx(*[f"http://127.0.0.1:{port}" for port in ports])
    async with AsyncExitStack() as closing:
        http = await closing.enter_async_context(httpx2.AsyncClient(base_url=front.url, trust_env=False))
        assert (await http.get("/livez")).status_code == 503
        servers = [await asyncio.start_server(endless, "127.0.0.1", port) for port in ports]
        for server in servers:
            closing.callback(server.close)
        closing.callback(opened.set)
        path = "/v1/jobs/job_1/events"
        streams = [await closing.enter_async_context(http.stream("GET", path)) for _ in range(20)]
        assert [response.status_code for response in streams] == [200] * 20
