"""Bodies, heads and senders that are meant to hurt: each is refused with a 4xx, soon, and the next one is served."""

import asyncio
import gzip
import json
import time
from typing import Any

import pytest

from shared.requests import JobRequest
from tests import keys
from tests.client import Client, body
from tests.provider import Text
from tests.stack import Stack

JSON = {"Content-Type": "application/json"}
MAX_BYTES = 200_000


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    """One worker and one API process that wants keys and takes small bodies."""
    bare.configure(auth="required", secret=keys.SECRET, max_body_bytes=MAX_BYTES)
    await bare.worker()
    await bare.api()
    return bare


async def works(stack: Stack, client: Client) -> None:
    stack.provider.script("fine", Text("fine"))
    events = await asyncio.wait_for(client.all_events(await client.submit("fine")), 10)
    assert events[-1].event == "completed"


def bearer(client: Client) -> bytes:
    return b"Authorization: " + client.http.headers["authorization"].encode() + b"\r\n"


async def raw(client: Client, request: bytes, *, close: bool = False) -> bytes:
    """Send bytes as they are; return what comes back until the server closes, or nothing more comes."""
    host, _, port = client.urls[0].removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        if close:
            writer.write_eof()
        answer = b""
        try:
            async with asyncio.timeout(1):
                while chunk := await reader.read(65536):
                    answer += chunk
                    if b"\r\n\r\n" in answer and not close and _whole(answer):
                        break
        except (TimeoutError, ConnectionResetError):
            pass
        return answer
    finally:
        writer.transport.abort()


def _whole(answer: bytes) -> bool:
    head, _, rest = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(rest) >= int(line.partition(b":")[2])
    return False


def statuses(answer: bytes) -> list[int]:
    return [int(line.split()[1]) for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]


def post(client: Client, content: bytes, *headers: bytes, length: bool = True) -> bytes:
    lines = [b"POST /v1/jobs HTTP/1.1", b"Host: x", b"Content-Type: application/json", *headers]
    if length:
        lines.append(b"Content-Length: %d" % len(content))
    return b"\r\n".join(lines) + b"\r\n" + bearer(client) + b"\r\n" + content


GOOD = json.dumps(body("fine")).encode()

BOMBS: dict[str, bytes] = {
    "depth 90,000 of lists": b'{"provider":"openai","model":"m","messages":' + b"[" * 90_000 + b"]" * 90_000 + b"}",
    "depth 30,000 of objects": b'{"a":' * 30_000 + b"1" + b"}" * 30_000,
    "depth never closed": b"[" * 150_000,
    "depth in a tool": GOOD[:-1]
    + b',"tools":[{"name":"t","parameters":'
    + b'{"a":' * 9_000
    + b"1"
    + b"}" * 9_000
    + b"}]}",
    "20,000 keys": b"{" + b",".join(b'"k%d":1' % i for i in range(15_000)) + b"}",
    "20,000 items": GOOD[:-1] + b',"stop":[' + b",".join([b'"x"'] * 20_000) + b"]}",
    "100,000 digits": GOOD[:-1] + b',"max_tokens":' + b"9" * 100_000 + b"}",
    "100,000 digits behind the point": GOOD[:-1] + b',"temperature":9.' + b"9" * 100_000 + b"}",
    "1e400": GOOD[:-1] + b',"temperature":1e400}',
    "-1e400": GOOD[:-1] + b',"top_p":-1e400}',
    "NaN": GOOD[:-1] + b',"temperature":NaN}',
    "Infinity": GOOD[:-1] + b',"timeout_s":Infinity}',
    "a whole number that is none": GOOD[:-1] + b',"max_tokens":1.5}',
    "2**64 as seed": GOOD[:-1] + b',"seed":18446744073709551616}',
    "a lone surrogate": GOOD[:-1] + b',"system":"\\ud83d"}',
    "a lone surrogate as a name": GOOD[:-1] + b',"metadata":{"\\udc00":"x"}}',
    "bytes that are no UTF-8": GOOD[:-1] + b',"system":"\xff\xfe"}',
    "UTF-16": json.dumps(body()).encode("utf-16"),
    "NUL bytes": b"\x00" * 1000,
    "a comment": b"/* x */" + GOOD,
    "two values": GOOD + GOOD,
    "single quotes": str(body()).encode(),
    "a BOM": b"\xef\xbb\xbf{",
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
async def test_a_json_bomb_is_refused_at_once(guarded: Stack, alice: Client, bomb: bytes) -> None:
    """CWE-674, CWE-400, CWE-20"""
    began = time.monotonic()
    for headers in (JSON, {**JSON, "Idempotency-Key": "one"}):
        response = await alice.http.post("/v1/jobs", content=bomb, headers=headers)
        assert response.status_code in (400, 422), response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert len(response.content) < 10_000
    assert time.monotonic() - began < 1
    await works(guarded, alice)


ODD_SCHEMAS: dict[str, bytes] = {
    "a number of 100 digits": b'{"maximum":' + b"9" * 100 + b"}",
    "a number of 4,000 digits": b'{"maximum":' + b"9" * 4_000 + b"}",
    "1e400": b'{"maximum":1e400}',
    "NaN": b'{"maximum":NaN,"minimum":-Infinity}',
    "two keys of one name": b'{"type":"string","type":"object"}',
    "__proto__": b'{"__proto__":{"x":1},"constructor":{"prototype":1}}',
    "control characters": b'{"\\u0000\\r\\n":"\\u2028\\u0085"}',
    "depth 150": b'{"a":' * 150 + b"1" + b"}" * 150,
}


@pytest.mark.parametrize("schema", ODD_SCHEMAS.values(), ids=ODD_SCHEMAS.keys())
@pytest.mark.parametrize("field", ["tools", "response_format"])
async def test_odd_values_in_a_schema_are_refused_or_the_providers_business(
    guarded: Stack, alice: Client, field: str, schema: bytes
) -> None:
    """CWE-20, CWE-1321: whatever JSON a free field holds, there is no server error, and the job ends."""
    part = {
        "tools": b'[{"name":"t","parameters":%b}]' % schema,
        "response_format": b'{"type":"json_schema","json_schema":{"schema":%b}}' % schema,
    }[field]
    guarded.provider.script("fine", Text('{"a":1}'))
    for provider in (b"openai", b"anthropic"):
        content = GOOD.replace(b"openai", provider)[:-1] + b',"%b":%b}' % (field.encode(), part)
        for headers in (JSON, {**JSON, "Idempotency-Key": f"one-{provider!r}"}):
            response = await alice.http.post("/v1/jobs", content=content, headers=headers)
            assert response.status_code in (202, 400, 422), response.text
            if response.status_code == 202:
                last = (await asyncio.wait_for(alice.all_events(response.json()["id"]), 10))[-1]
                assert last.event in ("completed", "failed")
                assert last.data.get("code") != "internal_error"
    await works(guarded, alice)


WRONG: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", "\r\n\x00", [], [None], [[]], {}, {"": None}, {"a": {}}]


@pytest.mark.parametrize("field", JobRequest.model_fields)
async def test_a_wrong_type_in_any_field_is_no_server_error(guarded: Stack, alice: Client, field: str) -> None:
    """CWE-20, CWE-704: every field of the request, with every type, at the top and one step below."""
    guarded.configure(max_active_jobs=10_000)
    for wrong in WRONG:
        for value in (wrong, [wrong], {field: wrong}, {"type": wrong}):
            response = await alice.http.post("/v1/jobs", json={**body(), field: value})
            assert response.status_code in (202, 422, 429), (field, value, response.text)
    message: dict[str, Any] = {"role": "user", "content": "Hi"}
    for name in ("role", "content", "tool_calls", "tool_call_id", "reasoning_blocks"):
        for wrong in WRONG if field == "messages" else []:
            response = await alice.http.post("/v1/jobs", json=body(messages=[{**message, name: wrong}]))
            assert response.status_code in (202, 422, 429), (name, wrong, response.text)


async def test_a_key_that_stands_twice_is_one_request(guarded: Stack, alice: Client) -> None:
    """CWE-436: what is checked is what is sent on."""
    content = b'{"model":"other",' + GOOD[1:]
    response = await alice.http.post("/v1/jobs", content=content, headers=JSON)
    await alice.all_events(response.json()["id"])
    assert (await alice.job(response.json()["id"]))["model"] == "fine"
    assert [call.model for call in guarded.provider.calls] == ["fine"]


async def test_a_body_beyond_the_limit_is_refused_before_it_is_read(guarded: Stack, alice: Client) -> None:
    """CWE-770, CWE-400: by its declared length at once; in chunks at the limit, not at the end that never comes."""
    declared = post(alice, b"", b"Content-Length: 1000000000000", length=False)
    assert statuses(await raw(alice, declared)) == [413]
    chunk = b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000)
    endless = post(alice, b"", b"Transfer-Encoding: chunked", length=False) + chunk * 3
    assert statuses(await raw(alice, endless)) == [413]
    await works(guarded, alice)


async def test_a_body_that_is_shorter_than_it_says_makes_no_job(guarded: Stack, alice: Client) -> None:
    """CWE-130: nothing is taken from half a body."""
    short = post(alice, GOOD[:20], b"Content-Length: 5000", length=False)
    answer = await raw(alice, short, close=True)
    assert all(400 <= status < 500 for status in statuses(answer)), answer
    assert await guarded.redis.zcard(guarded.keys.owner_jobs("alice")) == 0
    await works(guarded, alice)


SMUGGLED = b"GET /v1/usage HTTP/1.1\r\nHost: x\r\n\r\n"

SMUGGLERS: dict[str, tuple[bytes, ...]] = {
    "length and chunks": (b"Content-Length: 5", b"Transfer-Encoding: chunked"),
    "chunks and length": (b"Transfer-Encoding: chunked", b"Content-Length: 5"),
    "two lengths": (b"Content-Length: 5", b"Content-Length: 50"),
    "a list of lengths": (b"Content-Length: 5, 50",),
    "a signed length": (b"Content-Length: +5",),
    "a negative length": (b"Content-Length: -5",),
    "a hexadecimal length": (b"Content-Length: 0x5",),
    "a length of 30 digits": (b"Content-Length: " + b"9" * 30,),
    "chunks in other words": (b"Transfer-Encoding: xchunked",),
    "chunks, not last": (b"Transfer-Encoding: chunked, identity",),
    "chunks behind a tab": (b"Transfer-Encoding:\x0bchunked",),
    "a blank before the colon": (b"Transfer-Encoding : chunked",),
    "a folded header": (b"X-A: b\r\n Transfer-Encoding: chunked",),
    "a bare line feed": (b"X-A: b\nTransfer-Encoding: chunked",),
    "a bare carriage return": (b"X-A: b\rTransfer-Encoding: chunked",),
    "a NUL": (b"X-A: b\x00c",),
    "a header without a name": (b": b",),
    "a line without a colon": (b"nonsense",),
}


@pytest.mark.parametrize("headers", SMUGGLERS.values(), ids=SMUGGLERS.keys())
async def test_a_request_that_could_be_two_is_never_two(
    guarded: Stack, alice: Client, headers: tuple[bytes, ...]
) -> None:
    """CWE-444: what stands in the body of a request that is read by its length is no request."""
    smuggled = SMUGGLED.replace(b"\r\n\r\n", b"\r\n" + bearer(alice) + b"\r\n")
    answer = await raw(alice, post(alice, b"0\r\n\r\n" + smuggled, *headers, length=False))
    assert len(statuses(answer)) <= 2
    assert not any(status >= 500 for status in statuses(answer))
    if len(statuses(answer)) == 2:
        # By the chunks alone it is a second request: then the first must not have been read by a length.
        assert b"Connection: close" in answer or b"connection: close" in answer or statuses(answer)[0] >= 400
    await works(guarded, alice)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"}, {"Content-Type": "application/xml"}, {"Content-Type": ""},
        {"Content-Type": "json"}, {"Content-Type": "a" * 10_000},
        {**JSON, "Content-Encoding": "gzip"}, {**JSON, "Content-Encoding": "br"},
        {**JSON, "Content-Encoding": "gzip, gzip"},
        {**JSON, "Content-Encoding": "identity, gzip"}, {**JSON, "Content-Encoding": "x" * 1000},
    ],
)  # fmt: skip
async def test_another_type_or_encoding_is_415_and_never_unpacked(
    guarded: Stack, alice: Client, headers: dict[str, str]
) -> None:
    """CWE-409, CWE-436: a gzip bomb is not opened."""
    bomb = gzip.compress(b" " * 10_000_000)
    for content in (GOOD, bomb):
        response = await alice.http.post("/v1/jobs", content=content, headers=headers)
        assert response.status_code in (400, 415), (headers, response.text)
    assert guarded.provider.calls == []


async def test_huge_heads_are_refused_soon(guarded: Stack, alice: Client) -> None:
    """CWE-770: a header of a megabyte, ten thousand of them, a path of a megabyte: never kept, never a server error."""
    for head in (
        b"X-A: " + b"a" * 1_000_000,
        b"\r\n".join(b"X-%d: a" % number for number in range(20_000)),
        b"Last-Event-ID: " + b"1" * 50_000,
        b"Cookie: " + b"a=b; " * 20_000,
    ):
        answer = await raw(alice, b"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n" + bearer(alice) + b"\r\n")
        assert not any(status >= 500 for status in statuses(answer))
    answer = await raw(alice, b"GET /v1/jobs/" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not any(status >= 500 or status < 400 for status in statuses(answer))
    response = await alice.http.get("/v1/jobs?" + "&".join(f"limit={number}" for number in range(5_000)))
    assert response.status_code in (200, 400, 414, 422)
    await works(guarded, alice)


async def test_connections_that_say_nothing_keep_nobody_out(guarded: Stack, alice: Client) -> None:
    """CWE-400: 500 of them, silent or in mid-head or in mid-body, and a job goes through in its usual time."""
    host, _, port = alice.urls[0].removeprefix("http://").partition(":")
    opened = await asyncio.gather(*[asyncio.open_connection(host, int(port)) for _ in range(500)])
    try:
        for number, (_, writer) in enumerate(opened):
            if number % 3 == 1:
                writer.write(b"GET /v1/jobs HTTP/1.1\r\nX-Slow: ")
            elif number % 3 == 2:
                writer.write(post(alice, b"{", b"Content-Length: 100", length=False))
        began = time.monotonic()
        await works(guarded, alice)
        assert time.monotonic() - began < 5
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def test_a_slow_body_is_given_up(guarded: Stack, alice: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """CWE-400: a sender that drips has its answer when its time is over, not when it ends."""
    monkeypatch.setattr("api.body.LONGEST_S", 0.3)
    began = time.monotonic()
    request = post(alice, GOOD[:5], b"Content-Length: %d" % len(GOOD), length=False)
    answer = await raw(alice, request)
    assert statuses(answer) == [408]
    assert time.monotonic() - began < 1
    assert b"connection: close" in answer.lower()
