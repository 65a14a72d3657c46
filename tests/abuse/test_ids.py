"""Ids that are none, of jobs, events, pages and tickets: each is an unknown one, and Redis does not hear of it."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests import keys
from tests.abuse.test_doors import JOB, doors, url_of
from tests.abuse.wire import Headers, Wire, ask
from tests.client import Client
from tests.stack import Stack, eventually

UNKNOWN = b"job_" + b"0" * 32
WIDE = str.maketrans("0123456789abcdef", "０１２３４５６７８９ａｂｃｄｅｆ")
SEARCHES = {"KEYS", "SCAN", "HSCAN", "SSCAN", "ZSCAN", "SORT", "RANDOMKEY"}


@pytest.fixture
async def guarded(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    return bare


@pytest.fixture
async def job_id(alice: Client) -> str:
    job_id = await alice.submit()
    await alice.all_events(job_id)
    return job_id


def bearer(client: Client) -> Headers:
    return [(b"Authorization", client.http.headers["authorization"].encode())]


@asynccontextmanager
async def heard(stack: Stack) -> AsyncIterator[list[list[str]]]:
    """Gather the commands that Redis gets meanwhile, with what scripts call."""
    commands: list[list[str]] = []
    async with stack.redis.monitor() as monitor:
        yield commands
        mark = f"end of {stack.prefix}"
        await stack.redis.echo(mark)
        while mark not in (command := (await monitor.next_command())["command"]):
            commands.append(command.split(" "))


def altered(job_id: str) -> dict[str, str]:
    """Return what is not the id of a job, as it stands in a path: most of it was made from one that is."""
    digits = job_id.removeprefix("job_")
    return {
        "a star": "job_*", "an escaped star": "job_%2a", "a class": "job_[0-9a-f]*",
        "escaped ones": "job_" + "%3f" * 32, "a backslash": f"{job_id}%5c", "another key": f"rejoin:job:{job_id}",
        "a dot": "%2e", "two dots": "%2e%2e", "two dots before": f"%2e%2e%2fjobs%2f{job_id}", "a slash": "%2f",
        "a slash behind": f"{job_id}%2f", "a slash before": f"%2f{job_id}", "two slashes": f"%2f%2f{job_id}",
        "NUL": "%00", "NUL behind": f"{job_id}%00", "NUL within": f"job_%00{digits}", "a line feed": f"{job_id}%0a",
        "a line": f"{job_id}%0d%0aX-Evil:1", "a blank": f"{job_id}%20", "a blank before": f"%20{job_id}",
        "a tab": f"{job_id}%09", "a wide blank": f"{job_id}%C2%A0", "a line separator": f"{job_id}%E2%80%A8",
        "upper case": job_id.upper(), "upper digits": f"job_{digits.upper()}x", "upper prefix": f"JOB_{digits}",
        "wide digits": "job_" + digits.translate(WIDE), "a Cyrillic o": f"jоb_{digits}",
        "an invisible": f"{job_id}\u200b",
        "no prefix": digits,
        "one digit more": f"{job_id}0", "one digit less": job_id[:-1], "another prefix": f"key_{digits}",
        "8 kB": "x" * 8_000, "8 kB behind": job_id + "x" * 8_000, "8 kB of escapes": "%00" * 2_700,
        "no escape": "%zz", "half an escape": f"{job_id}%", "not UTF-8": "%ff%fe", "overlong": "%c0%ae%c0%ae%c0%af",
        "a surrogate": "%ed%a0%80", "escaped twice": job_id.replace("_", "%255f"), "two": f"{job_id},{job_id}",
        "a parameter": f"{job_id};x=1", "a number": "0", "a negative one": "-1", "a float": "1e9", "null": "null",
        "a list": "[]", "an object": "%7b%7d", "a command": f"{job_id}%20*%0d%0aDEL%20x", "$": "$", "+": "+",
    }  # fmt: skip


async def shown(stack: Stack, key: str, method: str, path: str, id: str) -> Wire:
    url = url_of(path, id).encode()
    return await ask(stack.url, method.encode(), url, [(b"Authorization", key.encode())])


async def test_an_id_that_is_none_is_an_unknown_one(guarded: Stack, alice: Client, job_id: str) -> None:
    """CWE-20, CWE-22, CWE-178, CWE-176: by every door of a job, byte for byte; and no search goes through Redis."""
    known = alice.http.headers["authorization"]
    unknown = {door: await shown(guarded, known, *door, UNKNOWN.decode()) for door in doors(JOB)}
    assert all(answer.status == 404 for answer in unknown.values())
    async with heard(guarded) as commands:
        for name, wrong in altered(job_id).items():
            for method, path in doors(JOB):
                answer = await shown(guarded, known, method, path, wrong)
                # With a slash in it, it leads to another route, or to none.
                nowhere = await shown(guarded, known, method, path.partition("{")[0] + "nothing/at/all", "")
                expected: list[Wire] = [unknown[method, path]] + ([nowhere] if "%2f" in wrong else [])
                refused = answer.status == 400 and answer.headers.get("content-type", "").startswith("text/plain")
                assert refused or answer.shown in [one.shown for one in expected], (name, method, path, answer)
    await quiet(guarded, commands)
    assert (await alice.job(job_id))["status"] == "completed"


async def quiet(stack: Stack, commands: list[list[str]]) -> None:
    """Fail if Redis was searched, or was told of a job that cannot be."""
    ours = [command for command in commands if stack.prefix in " ".join(command) or command[0].upper() in SEARCHES]
    assert not {command[0].upper() for command in ours} & SEARCHES
    for command in ours:
        for name in command[1:]:
            if stack.prefix in name:
                assert name.isascii()
                assert name.isprintable()
                assert not any(mark in name for mark in "*?[]\\%"), command
                assert len(name) < 200


CURSORS = [
    "*", "?", "$", "+", "-", "0", "1", "1-", "-1", "1-1-1", "01-1", "1-01", "１-１", "1–1", "1-1\xa0", "\xa01-1",
    "1-1\t1", "0x1-1", "1_0-1", "1e3-1", "1.0-1", "(1-1", "[1-1", "1-*", "1-%2a", "1-1,1-2", "job_1-1", "../1-1",
    "18446744073709551616-0", "0-18446744073709551616", "9" * 30 + "-1", "9" * 8_000, "1-" + "9" * 8_000, "é",
    "\x80-\x80",
]  # fmt: skip


async def test_a_cursor_that_is_none_is_400_and_for_a_foreign_job_the_same_404(
    guarded: Stack, alice: Client, job_id: str
) -> None:
    """CWE-20, CWE-204: in the header and in the query; whose job it is, is asked before where in it."""
    bob = guarded.client(await keys.new_key(guarded, "bob"))
    first = await ask(guarded.url, b"GET", f"/v1/jobs/{job_id}/events?last_event_id=x".encode(), bearer(alice))
    assert (first.status, json.loads(first.body)["code"]) == (400, "invalid_last_event_id")
    unknown = await ask(guarded.url, b"GET", b"/v1/jobs/" + UNKNOWN + b"/events", bearer(bob))
    async with heard(guarded) as commands:
        for cursor in CURSORS:
            raw = cursor.encode("utf-8")
            escaped = "".join(f"%{byte:02x}" for byte in raw).encode()[:20_000]
            for query, header in ((b"?last_event_id=" + escaped, []), (b"", [(b"Last-Event-ID", raw)])):
                url = f"/v1/jobs/{job_id}/events".encode() + query
                answer = await ask(guarded.url, b"GET", url, [*bearer(alice), *header])
                assert answer.status == 400, cursor
                assert answer.headers["content-type"] == "application/problem+json"
                assert raw not in answer.body or len(raw) < 4
                foreign = await ask(guarded.url, b"GET", url, [*bearer(bob), *header])
                assert foreign.shown == unknown.shown, cursor
    await quiet(guarded, commands)


async def test_an_empty_cursor_leaves_the_word_to_the_other(guarded: Stack, alice: Client, job_id: str) -> None:
    """A proxy or a client that sends the header without a value has said nothing."""
    headers = {"Accept": "application/x-ndjson", "Last-Event-ID": ""}
    url = f"/v1/jobs/{job_id}/events"
    for query, first in (("", "0-1"), ("?last_event_id=", "0-1"), ("?last_event_id=1-0", "1-1")):
        answer = await alice.http.get(url + query, headers=headers)
        assert json.loads(answer.content.splitlines()[0])["id"] == first


@pytest.mark.parametrize(
    "query",
    ["cursor=*", "cursor=-1", "cursor=1e3", "cursor=%00", "cursor=１", "cursor=" + "9" * 16, "cursor=" + "9" * 8_000,
     "cursor=1%0a", "cursor=", "limit=0", "limit=1e1", "limit=-1", "limit=101", "limit=" + "9" * 5_000, "limit=%00",
     "limit=１", "limit=1%20", "status=*", "status=%00", "status=COMPLETED", "status[]=completed"],
)  # fmt: skip
async def test_a_place_in_a_list_that_is_none_is_refused_or_not_looked_at(
    guarded: Stack, alice: Client, job_id: str, query: str
) -> None:
    """CWE-20: never a server error, never a page of anybody else."""
    async with heard(guarded) as commands:
        answer = await ask(guarded.url, b"GET", f"/v1/jobs?{query}".encode(), bearer(alice))
    if answer.status == 200:
        assert [job["id"] for job in json.loads(answer.body)["data"]] == [job_id]
        assert query in ("limit=１", "limit=1%20", "status[]=completed", "cursor=１")
    else:
        assert answer.status in (400, 422)
    await quiet(guarded, commands)


def forged(ticket: str, job_id: str) -> list[str]:
    expires, key, signature = ticket.split(".")
    return [
        "", "*", "%00", "%ff", ".", "..", "...", "x" * 8_000, "." * 8_000, f"{ticket}%00", f"{ticket}%20",
        f"%20{ticket}", f"{ticket}%0a", f"{ticket}.", f"{ticket}=", f"{ticket}%3d", f".{ticket}", ticket.upper(),
        ticket[:-1],
        f"{expires}.*.{signature}", f"{expires}.key_*.{signature}", f"{expires}..{signature}", f"{expires}.{key}.*",
        f"%2b{expires}.{key}.{signature}", f"0{expires}.{key}.{signature}", f"{expires}%00.{key}.{signature}",
        f"{expires}e0.{key}.{signature}", f"{'9' * 5_000}.{key}.{signature}", f"-1.{key}.{signature}",
        "".join(f"%{byte:02x}" for byte in expires.translate(WIDE).encode()) + f".{key}.{signature}",
        f"{expires}.{key}.{signature}&ticket=x", f"{expires}.{job_id}.{signature}", f"{expires}.{key}.%ED%A0%80",
    ]  # fmt: skip


async def test_a_ticket_that_is_none_is_the_same_401_for_any_job(guarded: Stack, alice: Client, job_id: str) -> None:
    """CWE-347, CWE-204: forged, or good and of another job; whether the job is there is not told."""
    ticket = (await alice.job(job_id))["events_url"].partition("ticket=")[2]
    other = await alice.submit()
    await alice.all_events(other)
    first = await ask(guarded.url, b"GET", f"/v1/jobs/{other}/events?ticket={ticket}".encode(), [])
    assert (first.status, json.loads(first.body)["code"]) == (401, "invalid_ticket")
    async with heard(guarded) as commands:
        for wrong in forged(ticket, job_id):
            for job in (job_id, other, UNKNOWN.decode(), "job_*", "x"):
                answer = await ask(guarded.url, b"GET", f"/v1/jobs/{job}/events?ticket={wrong}".encode(), [])
                assert answer.shown == first.shown, (wrong, job)
    await quiet(guarded, commands)
    assert (await ask(guarded.url, b"GET", f"/v1/jobs/{job_id}/events?ticket={ticket}".encode(), [])).status == 200


async def test_no_path_is_answered_with_a_way_to_another_host(guarded: Stack) -> None:
    """CWE-601, CWE-644: a slash too many is no route; nothing that `Host` says comes back."""
    for path in (b"/v1/jobs/", b"/v1/jobs/x/", b"/v1/usage/", b"/livez/", b"/page", b"//evil.example/..", b"/page/.."):
        for method in (b"GET", b"POST"):
            answer = await ask(guarded.url, method, path, [(b"X-Forwarded-Host", b"evil.example"), (b"X-A", b"b")])
            assert answer.status in (404, 405), (path, answer)
            assert "location" not in answer.headers


async def test_the_monitor_hears_what_is_asked(guarded: Stack, alice: Client, job_id: str) -> None:
    """Or the tests above would pass for the wrong reason."""
    async with heard(guarded) as commands:
        await alice.job(job_id)
        await eventually(lambda: True)
    assert any(job_id in " ".join(command) for command in commands)
