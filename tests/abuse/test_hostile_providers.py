"""What a provider sends, or a model that somebody steers, is data, of bounded size, or the failure of its own job."""

import asyncio
import gzip
import json
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import count, repeat
from typing import Any

import pytest

from shared.events import Answer, Entry, EventId, dump
from tests.abuse.attacker import CHUNKED, OPEN, SSE, Attack, Attacker, begin, call, chunk, event, finish, more, usage
from tests.abuse.attacker import text as delta
from tests.client import Client, text
from tests.provider import Stamps, Text
from tests.stack import Stack, eventually
from worker.providers.sse import EventTooLarge, SseDecoder

DIALECTS = ("openai", "anthropic")
HONEST = {"openai": "anthropic", "anthropic": "openai"}
"""Who is asked meanwhile."""


@asynccontextmanager
async def attacked(stack: Stack, attacks: dict[str, Attack], **settings: Any) -> AsyncIterator[tuple[Attacker, Client]]:
    """Run a worker and an API process whose providers are one that means harm, and `honest`, which does not."""
    with Attacker(attacks) as attacker:
        honest = {"kind": "openai", "base_url": stack.provider.openai_url}
        stack.configure(
            openai_base_url=attacker.openai_url,
            anthropic_base_url=attacker.anthropic_url,
            more_providers={"honest": honest},
            **settings,
        )
        await stack.worker()
        await stack.api()
        yield attacker, stack.client()


def stream(*frames: bytes) -> bytes:
    """Return a whole answer: these frames, in one chunk each, and the body's end."""
    return CHUNKED + b"".join(map(chunk, frames)) + b"0\r\n\r\n"


def said(dialect: str, raw: str) -> bytes:
    """Return a whole answer of one delta, whose JSON is `raw`."""
    return stream(begin(dialect), delta(dialect, raw), finish(dialect)) if dialect == "anthropic" else stream(
        delta(dialect, raw), finish(dialect)
    )  # fmt: skip


def asked_well(dialect: str, *frames: bytes) -> bytes:
    return stream(*filter(None, (begin(dialect), delta(dialect, '"ok"'), *frames, finish(dialect))))


def whole(status: str, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status.encode(), *headers, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


PROTOCOL, OK = "provider_protocol", "completed"
DEEP = "[" * 100_000 + "]" * 100_000

# What comes, and how its job has to end, in the words of `worker.failures`.
BYTES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "text 100,000 deep": (lambda d: said(d, DEEP), PROTOCOL),
    "text 1,010 deep": (lambda d: said(d, "[" * 1010 + "]" * 1010), PROTOCOL),
    "an error 100,000 deep": (lambda d: whole("200 OK", DEEP.encode(), b"Content-Type: application/json"), PROTOCOL),
    "text that is a number": (lambda d: said(d, "1e999"), PROTOCOL),
    "text that is NaN": (lambda d: said(d, "NaN"), PROTOCOL),
    "text that is a number of 5,000 digits": (lambda d: said(d, "9" * 5_000), PROTOCOL),
    "text that is a list": (lambda d: said(d, '["x"]'), PROTOCOL),
    "bytes that are no UTF-8": (lambda d: stream(begin(d) + delta(d, '"x"').replace(b"x", b"\xff\xfe")), PROTOCOL),
    "an event that is no object": (lambda d: stream(event(d, "content_block_delta", "[1]")), PROTOCOL),
    "an event that is no JSON": (lambda d: stream(event(d, "content_block_delta", "{")), PROTOCOL),
    "a tool call's id that is an object": (lambda d: asked_well(d, call(d, "0", '{"a":1}', '"t"')), PROTOCOL),
    "a tool call's id that is a number": (lambda d: asked_well(d, call(d, "0", "5", '"t"')), PROTOCOL),
    "a tool's name that is a list": (lambda d: asked_well(d, call(d, "0", '"c"', "[1]")), PROTOCOL),
    "a tool's name of 100,000 characters": (
        lambda d: asked_well(d, call(d, "0", '"c"', json.dumps("n" * 100_000))), "answer_too_large",
    ),
    "usage that is text": (lambda d: asked_well(d, usage(d, '"9"', '"many"', '"1"')), OK),
    "usage that is negative": (lambda d: asked_well(d, usage(d, "-1", "-99999", "-1")), OK),
    "usage that is huge": (lambda d: asked_well(d, usage(d, "5", "5", "9" * 30)), OK),
    "usage that is huger": (lambda d: asked_well(d, usage(d, "9" * 300, "1e300", "5")), OK),
    "usage that is lists": (lambda d: asked_well(d, usage(d, "[1]", "{}", "[[]]")), OK),
    "usage that is fractions": (lambda d: asked_well(d, usage(d, "0.5", "1.5", "true")), OK),
    "HTML in place of a stream": (lambda d: whole("200 OK", b"<script>", b"Content-Type: text/html"), PROTOCOL),
    "a redirection": (lambda d: whole("307 Temporary Redirect", b"", b"Location: http://127.0.0.1:1/v1"), PROTOCOL),
    "a redirection to nonsense": (lambda d: whole("302 Found", b"", b"Location: http://[:::x]\x7f"), "any"),
    "a stream that is packed": (
        lambda d: whole("200 OK", gzip.compress(said(d, '"x"')), b"Content-Encoding: gzip"), PROTOCOL,
    ),
    "an error that is packed": (
        lambda d: whole(
            "400 Bad Request", gzip.compress(b'{"error":{"code":"invalid_api_key"}}'), b"Content-Encoding: gzip"
        ),
        "provider_bad_request",
    ),
    "an error in a codec that takes the square of its length": (
        lambda d: whole(
            "400 Bad Request", b"a-" + b"b" * 400_000, b"Content-Type: application/json; charset=punycode"
        ),
        "provider_bad_request",
    ),
    "an error without an end": (
        lambda d: b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n\r\n" + b'"' * 5_000_000,
        "provider_bad_request",
    ),
    "an error whose words are long": (
        lambda d: whole("400 Bad Request", json.dumps({"error": {"message": "exceeds " * 25_000}}).encode()),
        "provider_bad_request",
    ),
    "more than the length says": (lambda d: whole("400 Bad Request", b"{}") + b"HTTP/1.1 200 OK\r\n", "any"),
    "chunks of less than they say": (
        lambda d: CHUNKED + chunk(begin(d) + delta(d, '"x"'))[:-2] + b"0\r\n\r\n", "provider_unreachable",
    ),
    "a chunk of 2**64": (lambda d: CHUNKED + b"10000000000000000\r\nx", "provider_unreachable"),
    "a chunk of -1": (lambda d: CHUNKED + b"-1\r\nx", "provider_unreachable"),
    "a length of 30 digits": (lambda d: SSE + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n", "provider_unreachable"),
    "length and chunks": (lambda d: CHUNKED[:-2] + b"Content-Length: 5\r\n\r\n", "provider_unreachable"),
    "a status of 999": (lambda d: whole("999 What", b""), "provider_error"),
    "another protocol": (lambda d: b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "provider_unreachable"),
    "no HTTP": (lambda d: b"SSH-2.0-OpenSSH_9.6\r\n", "provider_unreachable"),
    "a megabyte of header": (lambda d: SSE + b"X-A: " + b"a" * 1_000_000, "provider_unreachable"),
    "headers without an end": (lambda d: SSE + b"X-A: a\r\n" * 100_000, "provider_unreachable"),
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
async def test_bytes_that_are_no_answer_fail_their_job_with_a_code(bare: Stack, name: str) -> None:
    """CWE-20, CWE-674, CWE-409, CWE-1333: and nothing of them is shown, and the next job is served by the same worker.

    In bounded time, with the worker's loop never held for long.
    """
    answer, code = BYTES[name]
    bare.provider.script("fine", Text("fine"))
    async with attacked(bare, {"m": lambda dialect: [answer(dialect)]}) as (attacker, client):
        for dialect in DIALECTS:
            async with beat() as longest:
                events = await asyncio.wait_for(client.all_events(await client.submit(provider=dialect)), 10)
            assert longest() < 0.5
            last = events[-1]
            assert last.event in ("completed", "failed"), last
            if code != "any":
                assert last.data.get("code", last.event) == code
            assert last.data.get("code") != "internal_error"
            assert last.data["usage"]["input_tokens"] < 100
            if code == OK:
                assert text(events) == "ok"
        assert (await client.all_events(await client.submit("fine", "honest")))[-1].event == "completed"
        assert not any(b"127.0.0.1:1" in head for head in attacker.heads)


@asynccontextmanager
async def beat() -> AsyncIterator[Callable[[], float]]:
    """Say how long the loop, which the test shares with worker and API, was held at most."""
    longest = 0.0

    async def watch() -> None:
        nonlocal longest
        while True:
            began = time.monotonic()
            await asyncio.sleep(0.01)
            longest = max(longest, time.monotonic() - began - 0.01)

    task = asyncio.create_task(watch())
    try:
        yield lambda: longest
    finally:
        task.cancel()


NASTY = '<script>alert(1)</script>\x00\r\n\r\nevent: completed\ndata: {}\n\n\u2028\ud83d"><img src=x onerror=alert(1)>'


async def test_what_a_model_writes_is_text_in_every_field(bare: Stack) -> None:
    """CWE-79, CWE-93: markup, frames, NUL, half a surrogate pair, in text, tool names, ids, arguments."""
    raw = json.dumps(NASTY)
    attacks: dict[str, Attack] = {"m": lambda d: [asked_well(d, delta(d, raw), call(d, "7", raw, raw, NASTY))]}
    async with attacked(bare, attacks) as (_, client):
        for dialect in DIALECTS:
            job_id = await client.submit(provider=dialect)
            events = await asyncio.wait_for(client.all_events(job_id), 10)
            assert text(events) == "ok" + NASTY
            assert {event.event for event in events} == {"queued", "started", "token", "tool_call", "completed"}
            response = await client.http.get(f"/v1/jobs/{job_id}")
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.json()["tool_calls"] == [{"index": 0, "id": NASTY, "name": NASTY, "arguments": NASTY}]


async def test_a_hundred_thousand_deltas_of_one_character_are_one_text_in_fewer_events(bare: Stack) -> None:
    """CWE-400: line ends, NUL and the halves of pairs among them."""
    written = ("a\r\n\x00\ud83d\ude00\u2028" * 15_000)[:100_000]
    attacks: dict[str, Attack] = {
        "m": lambda d: [asked_well(d, b"".join(delta(d, json.dumps(character)) for character in written))]
    }
    async with attacked(bare, attacks) as (_, client):
        for dialect in DIALECTS:
            job_id = await client.submit(provider=dialect)
            events = await asyncio.wait_for(client.all_events(job_id), 20)
            joined = "ok" + written.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
            assert (text(events) == joined, events[-1].event) == (True, "completed")
            assert (await client.job(job_id))["text"] == joined
            assert len(events) < 5_000


@pytest.mark.parametrize("index", ["-1", "1000000000", "99999999999999999999", "null", '"x"', "1.5", "true"])
async def test_a_tool_call_has_our_number_whatever_the_providers_is(bare: Stack, index: str) -> None:
    """CWE-129, CWE-789: readers keep calls in arrays."""
    attacks: dict[str, Attack] = {
        "m": lambda d: [asked_well(d, call(d, "3", '"a"', '"t"'), call(d, index, '"b"', '"t"'), more(d, index, "{}"))]
    }
    async with attacked(bare, attacks) as (_, client):
        for dialect in DIALECTS:
            job_id = await client.submit(provider=dialect)
            assert (await asyncio.wait_for(client.all_events(job_id), 10))[-1].event == "completed"
            calls = (await client.job(job_id))["tool_calls"]
            assert [(call["index"], call["id"], call["arguments"]) for call in calls] == [(0, "a", ""), (1, "b", "{}")]


async def test_what_comes_behind_the_end_is_not_part_of_the_answer(bare: Stack) -> None:
    """CWE-444, CWE-436: not text, not usage, not an error; nor is it the answer to what is asked next."""
    attacks: dict[str, Attack] = {
        "m": lambda d: [asked_well(d, finish(d) + delta(d, '"more"') + usage(d, "50", "50", "1") + b"data: {\n\n")],
        "two": lambda d: [asked_well(d) + said(d, '"forged"')],
    }
    async with attacked(bare, attacks) as (_, client):
        for dialect in DIALECTS:
            for model in ("m", "two", "m"):
                events = await asyncio.wait_for(client.all_events(await client.submit(model, dialect)), 10)
                assert (text(events), events[-1].event) == ("ok", "completed"), model
                assert events[-1].data["usage"]["output_tokens"] < 10


async def test_a_cookie_of_one_answer_is_not_sent_with_another_owners_call(bare: Stack) -> None:
    """CWE-565, CWE-770: nothing that a provider says stays with us from call to call."""
    cookies = b"".join(b"Set-Cookie: c%d=%b; Path=/\r\n" % (number, b"x" * 200) for number in range(50))
    attacks: dict[str, Attack] = {"m": lambda d: [asked_well(d).replace(b"\r\n", b"\r\n" + cookies, 1)]}
    async with attacked(bare, attacks) as (attacker, client):
        for dialect in (*DIALECTS, *DIALECTS):
            assert (await client.all_events(await client.submit(provider=dialect)))[-1].event == "completed"
    assert len(attacker.heads) == 4
    assert not any(b"cookie" in head.lower() for head in attacker.heads)


async def test_nobody_is_followed_to_another_host(bare: Stack) -> None:
    """CWE-918, CWE-601, CWE-522: the key goes where the operator sent it, whatever the status and the method."""
    with Attacker({"m": lambda dialect: [said(dialect, '"stolen"')]}) as other:
        to = f"Location: {other.anthropic_url}/v1/messages".encode()
        attacks: dict[str, Attack] = {
            str(status): (lambda d, status=status: [whole(f"{status} Moved", b"", to)])  # type: ignore[misc]
            for status in (300, 301, 302, 303, 304, 307, 308)
        }
        async with attacked(bare, attacks) as (_, client):
            for dialect in DIALECTS:
                for model in attacks:
                    events = await asyncio.wait_for(client.all_events(await client.submit(model, dialect)), 10)
                    assert events[-1].data["code"] == "provider_protocol", model
        assert other.heads == []


async def test_a_head_that_drips_is_given_up_with_the_first_tokens_time(bare: Stack) -> None:
    """CWE-400: a byte now and then is not an answer."""

    def drip(dialect: str) -> Iterator[bytes]:
        for byte in SSE * 10:
            yield bytes((byte,))
            time.sleep(0.02)

    async with attacked(bare, {"m": drip}, first_token_timeout_s=0.3) as (attacker, client):
        for dialect in DIALECTS:
            attacker.left.clear()
            began = time.monotonic()
            events = await client.all_events(await client.submit(provider=dialect))
            assert events[-1].data["code"] == "first_token_timeout"
            assert time.monotonic() - began < 2
            await eventually(lambda: attacker.left == {"m"})


BLOCK = 64 * 1024


def _times(data: bytes) -> bytes:
    """Return so many of it that a write is worth its while."""
    return data * max(1, BLOCK // len(data))


def _text_in_tiny_chunks(dialect: str) -> Iterator[bytes]:
    yield CHUNKED + chunk(begin(dialect) + delta(dialect, '"x"'))
    yield from repeat(_times(b"".join(chunk(bytes((byte,))) for byte in delta(dialect, '"xxxxxxxxxxxxx"'))))


def _calls(dialect: str) -> Iterator[bytes]:
    yield OPEN + begin(dialect)
    for number in count():
        yield b"".join(call(dialect, str(n), f'"c{n}"', '"t"') for n in range(number * 500, number * 500 + 500))


def _begin_call(dialect: str) -> bytes:
    return begin(dialect) + call(dialect, "1", '"c"', '"t"')


def _endless(head: bytes, again: Callable[[str], bytes], opening: Callable[[str], bytes] = begin) -> Attack:
    def attack(dialect: str) -> Iterator[bytes]:
        yield head + opening(dialect)
        yield from repeat(_times(again(dialect)))

    return attack


def _thinking(dialect: str) -> bytes:
    """Return a piece of thinking; of a signature too, where there is one."""
    if dialect == "openai":
        return event(dialect, "", '{"choices":[{"delta":{"reasoning_content":"hm "}}]}')
    piece = '{"type":"content_block_delta","index":1,"delta":{"type":"%s_delta","%s":"hm "}}'
    return b"".join(event(dialect, "content_block_delta", piece % (kind, kind)) for kind in ("thinking", "signature"))


def _begin_thinking(dialect: str) -> bytes:
    if dialect == "openai":
        return b""
    block = '{"type":"content_block_start","index":1,"content_block":{"type":"thinking","thinking":""}}'
    return begin(dialect) + event(dialect, "content_block_start", block)


def _sealed(dialect: str) -> bytes:
    """Return thinking that only its provider can read: kept for the next turn, never shown."""
    if dialect == "openai":
        return event(dialect, "", '{"choices":[{"delta":{"content":""}}]}')
    block = json.dumps({"type": "redacted_thinking", "data": "x" * 1000})
    return event(dialect, "content_block_start", f'{{"index":2,"content_block":{block}}}')


def nothing(dialect: str) -> bytes:
    return b""


TOO_LARGE = {"answer_too_large"}
SILENT = {"first_token_timeout", "idle_timeout", "answer_too_large"}
NO_BODY = {"provider_unreachable"}

# What never ends, and how its job may end.
FLOODS: dict[str, tuple[Attack, set[str]]] = {
    "deltas": (_endless(OPEN, lambda d: delta(d, '"x"')), TOO_LARGE),
    "deltas in chunks of a byte": (_text_in_tiny_chunks, TOO_LARGE | SILENT),
    "deltas of NUL": (_endless(OPEN, lambda d: delta(d, json.dumps("\x00" * 1000))), TOO_LARGE),
    "empty deltas": (_endless(OPEN, lambda d: delta(d, '""')), SILENT),
    "empty events": (_endless(OPEN, lambda d: event(d, "ping", "{}")), SILENT),
    "comments": (_endless(OPEN, lambda d: b":\n"), SILENT),
    "line ends": (_endless(OPEN, lambda d: b"\n"), SILENT),
    "a line": (_endless(OPEN, lambda d: b"x" * BLOCK), {PROTOCOL}),
    "a line in chunks of 16 bytes": (_endless(CHUNKED, lambda d: chunk(b"x" * 16), nothing), {PROTOCOL} | SILENT),
    "an event of empty lines": (_endless(OPEN, lambda d: b"data:\n"), {PROTOCOL}),
    "tool calls": (_calls, TOO_LARGE),
    "arguments": (_endless(OPEN, lambda d: more(d, "1", "1"), _begin_call), TOO_LARGE),
    "thinking": (_endless(OPEN, _thinking, _begin_thinking), TOO_LARGE),
    "sealed thinking": (_endless(OPEN, _sealed), TOO_LARGE | SILENT),
    "interim answers": (_endless(b"", lambda d: b"HTTP/1.1 100 Continue\r\n\r\n", nothing), NO_BODY),
    "headers": (_endless(SSE, lambda d: b"a: b\r\n", nothing), NO_BODY),
    "trailers": (_endless(CHUNKED + b"0\r\n", lambda d: b"a: b\r\n", nothing), NO_BODY),
    "one trailer": (_endless(CHUNKED + b"0\r\na: ", lambda d: b"b" * BLOCK, nothing), NO_BODY),
    "a chunk's extension": (_endless(CHUNKED + b"1;a=", lambda d: b"b" * BLOCK, nothing), NO_BODY),
}  # fmt: skip

MB = 1024 * 1024


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_what_never_ends_is_cut(bare: Stack, dialect: str) -> None:
    """CWE-770, CWE-400, CWE-407: with bounded memory, and another job on the same worker goes on in time."""
    other, most = HONEST[dialect], 256 * 1024
    with Attacker({name: attack for name, (attack, _) in FLOODS.items()}) as attacker:
        url = attacker.openai_url if dialect == "openai" else attacker.anthropic_url
        bare.configure(
            **{f"{dialect}_base_url": url}, max_answer_bytes=most, first_token_timeout_s=0.5, idle_timeout_s=0.5
        )
        worker = await bare.worker_process()
        await bare.api()
        client = bare.client()
        bare.provider.script("stamps", Stamps(10_000, delay_s=0.01))
        lags: list[float] = []
        stamps = asyncio.create_task(_lags(client, await client.submit("stamps", other), lags))
        await eventually(lambda: len(lags) > 3)
        wrong: dict[str, list[object]] = {}
        for name, (_, codes) in FLOODS.items():
            if codes is NO_BODY and dialect == "anthropic":
                # Below the dialects: once is enough.
                continue
            before = worker.peak_bytes()
            lags.clear()
            events = await asyncio.wait_for(client.all_events(await client.submit(name, dialect)), 40)
            await eventually(lambda name=name: name in attacker.left)  # type: ignore[misc]
            await eventually(lambda: lags)
            code, longest, grown = events[-1].data.get("code"), max(lags), worker.peak_bytes() - before
            size = sum(len(dump(told.data)) for told in events)
            if code not in codes or size > 7 * most or longest > 0.5 or grown > 64 * MB:
                wrong[name] = [code, size, longest, grown]
        stamps.cancel()
        assert worker.running
        assert wrong == {}


async def _lags(client: Client, job_id: str, lags: list[float]) -> None:
    async for told in client.events(job_id):
        if told.event == "token":
            now = time.monotonic_ns()
            lags += [(now - int(stamp)) / 1e9 for stamp in told.data["text"].split()]


def test_a_line_that_comes_byte_by_byte_is_looked_at_once() -> None:
    """CWE-407: a megabyte in pieces of 16 bytes took 13 seconds once."""
    decoder, began = SseDecoder(), time.process_time()
    for piece in repeat(b"x" * 16, 65_536):
        decoder.feed(piece)
    assert time.process_time() - began < 1


def test_an_event_of_empty_lines_is_given_up() -> None:
    """CWE-770: they have no bytes, and are kept all the same."""
    with pytest.raises(EventTooLarge):
        deque(map(SseDecoder().feed, repeat(b"data:\n" * 10_000, 100)), maxlen=0)


def _log(pieces: Iterable[dict[str, Any]]) -> Iterator[Entry]:
    return (Entry(EventId(1, seq), "tool_call", dump(piece)) for seq, piece in enumerate(pieces, 1))


def test_a_log_of_many_pieces_is_read_in_the_time_of_its_length() -> None:
    """CWE-407: whoever reads it, the API for each snapshot or a worker that compacts it, has others to serve."""
    calls = _log({"index": number, "id": "c", "name": "t", "arguments": ""} for number in range(20_000))
    pieces = _log({"index": 0, "arguments": "x" * 20} for _ in range(100_000))
    turns = (
        Entry(EventId(1, seq), ("token", "reasoning")[seq % 2], dump({"text": "x" * 20})) for seq in range(1, 100_001)
    )
    began = time.process_time()
    assert len(Answer.of(turns).text) == 1_000_000
    assert len(Answer.of(calls).tool_calls) == 20_000
    assert len(Answer.of(pieces).tool_calls[0]["arguments"]) == 2_000_000
    assert time.process_time() - began < 2
