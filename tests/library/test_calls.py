"""Everything but streams: what the methods return, and what they raise."""

import inspect
import re
from datetime import UTC, datetime
from decimal import Decimal

import pytest

import rejoin
from rejoin import (
    IdempotencyMismatch,
    InvalidRequest,
    JobLive,
    JobNotFound,
    LimitReached,
    NotFound,
    Patience,
    Problem,
    RateLimited,
    Unauthorized,
    Unavailable,
    Unexpected,
    UnknownProvider,
)
from rejoin.errors import problem_of
from rejoin.target import http_options, urls_of
from tests import keys
from tests.library.both import Both, Kind
from tests.library.wire import Canned, answer
from tests.provider import Silence, Text, Usage
from tests.stack import ROOT, Stack


async def test_a_job_from_its_beginning_to_its_end(stack: Stack, both: Both) -> None:
    stack.provider.script("gpt-4o-mini", Text("Hello"), Usage(input=1000, output=10))
    model = "openai/gpt-4o-mini"
    job = await both.call("submit", [{"role": "user", "content": "Hi"}], model=model, metadata={"chat": "42"})
    assert (job.status, job.replayed, job.text) == ("queued", False, None)
    assert job.events_url.startswith(f"/v1/jobs/{job.id}/events")
    assert abs((datetime.now(UTC) - job.created_at).total_seconds()) < 60
    await both.read("subscribe", job.id)
    job = await both.call("job", job.id)
    assert (job.status, job.live, job.text, job.finish_reason) == ("completed", False, "Hello", "stop")
    assert (job.usage.input_tokens, job.attempts, job.error, job.metadata) == (1000, 1, None, {"chat": "42"})
    assert job.created_at <= job.started_at <= job.finished_at
    table = await both.call("usage", group_by="day,model")
    assert [(row.model, row.day, row.jobs) for row in table.rows] == [(model, table.to, 1)]
    assert table.total.cost_usd == Decimal("0.000156")
    assert (await both.call("cancel", job.id)).outcome == "already_finished"
    await both.call("delete", job.id)
    with pytest.raises(JobNotFound):
        await both.call("job", job.id)


async def test_jobs_are_listed_over_all_pages_newest_first(stack: Stack, both: Both) -> None:
    ids = [(await both.call("submit", f"{i}", model="demo/tour")).id for i in range(5)]
    assert [job.id for job in await both.listed()] == ids[::-1]
    assert [job.id for job in await both.listed(limit=3)] == ids[:1:-1]
    assert await both.listed(limit=0) == []


async def test_pages_are_asked_for_as_they_are_wanted(kind: Kind) -> None:
    page = b'{"data":[{"id":"job_1","status":"queued"}],"next_cursor":"7"}'
    async with Canned(answer(200, page), answer(200, page.replace(b'"7"', b"null"))) as server:
        both = Both(kind, server.url)
        assert len(await both.listed()) == 2
        await both.aclose()
    assert [head.split()[1] for head in server.heads] == ["/v1/jobs?limit=100", "/v1/jobs?limit=100&cursor=7"]


async def test_models_are_names_to_ask_for(stack: Stack, both: Both) -> None:
    assert "demo/tour" in await both.call("models")


async def test_a_key_of_idempotency_is_one_job(stack: Stack, both: Both) -> None:
    jobs = [await both.call("submit", "Hi", idempotency_key="mine") for _ in range(2)]
    assert jobs[0].id == jobs[1].id
    assert [job.replayed for job in jobs] == [False, True]
    with pytest.raises(IdempotencyMismatch):
        await both.call("submit", "Other", idempotency_key="mine")


async def test_refusals_are_raised_by_their_code(stack: Stack, both: Both) -> None:
    with pytest.raises(UnknownProvider) as refused:
        await both.call("text", "Hi", model="nobody/m")
    assert (refused.value.status, refused.value.code) == (422, "unknown_provider")
    assert refused.value.errors[0]["field"] == "provider"
    with pytest.raises(InvalidRequest, match="temperature"):
        await both.read("stream", "Hi", temperature=9)
    for missing in ("job_" + "0" * 32, "nonsense"):
        with pytest.raises(JobNotFound):
            await both.read("subscribe", missing)
        with pytest.raises(JobNotFound):
            await both.call("cancel", missing)
    stack.provider.script("m", Silence())
    job = await both.call("submit", "Hi")
    with pytest.raises(JobLive):
        await both.call("delete", job.id)


@pytest.mark.parametrize("path", ["../models", "a/b", "", "..", "job_1?x=1"])
async def test_what_can_be_no_id_is_never_sent(stack: Stack, both: Both, path: str) -> None:
    for ask in (both.call("delete", path), both.read("subscribe", path)):
        with pytest.raises(ValueError, match="not the id of a job"):
            await ask


async def test_a_key_opens_and_none_does_not(bare: Stack, kind: Kind) -> None:
    bare.configure(auth="required", secret=keys.SECRET, api_keys="alice:key-of-alice")
    api = await bare.api()
    for key, opens in (("key-of-alice", True), ("another", False), (None, False)):
        both = Both(kind, api.url, key=key)
        if opens:
            assert await both.call("models")
        else:
            with pytest.raises(Unauthorized) as refused:
                await both.call("models")
            assert "another" not in str(refused.value)
        await both.aclose()


async def test_a_limit_is_waited_for_as_long_as_patience_lasts(bare: Stack, kind: Kind) -> None:
    bare.configure(rate_limit=1)
    api = await bare.api()
    both = Both(kind, api.url, patience=Patience(give_up_s=1))
    await both.call("submit", "Hi")
    with pytest.raises(RateLimited) as refused:
        await both.call("submit", "Hi")
    assert refused.value.retry_after_s
    assert refused.value.retry_after_s > 30
    await both.aclose()


async def test_a_503_is_repeated(kind: Kind) -> None:
    unavailable = answer(503, b'{"code":"unavailable"}', "Retry-After: 0")
    models = answer(200, b'{"data":[{"id":"a/b"}]}')
    async with Canned(unavailable, unavailable, models) as server:
        both = Both(kind, server.url)
        assert await both.call("models") == ["a/b"]
        await both.aclose()
    assert len(server.heads) == 3


async def test_a_key_is_not_taken_elsewhere(kind: Kind) -> None:
    async with (
        Canned(answer(200, b'{"data":[]}')) as thief,
        Canned(answer(307, b"", f"Location: {thief.url}")) as server,
    ):
        both = Both(kind, server.url, key="secret-of-mine")
        with pytest.raises(Problem) as refused:
            await both.call("models")
        assert refused.value.code == "http_307"
        await both.aclose()
    assert thief.heads == []


@pytest.mark.parametrize("body", [b"<html>", b'{"data":7}', b"[]"])
async def test_what_is_not_rejoin_is_unexpected(kind: Kind, body: bytes) -> None:
    async with Canned(answer(200, body)) as server:
        both = Both(kind, server.url)
        with pytest.raises(Unexpected):
            await both.call("models")
        with pytest.raises(Unexpected):
            await both.read("stream", "Hi")
        await both.aclose()


def test_each_code_of_the_document_has_its_class() -> None:
    table = (ROOT / "docs/API.md").read_text().partition("## Problems")[2].partition("A job that fails")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if re.match(r"\| [0-9]", line)]
    assert len(rows) > 8
    kinds = {400: InvalidRequest, 401: Unauthorized, 404: NotFound, 422: InvalidRequest, 429: LimitReached}
    for statuses, codes in rows:
        status = int(re.findall("[0-9]+", statuses)[0])
        for code in re.findall("`([a-z_]+)`", codes.partition("(")[0]):
            problem = problem_of(status, {"code": code, "detail": "x"}, "3")
            assert isinstance(problem, {**kinds, 503: Unavailable}.get(status, Problem)), code
            assert (problem.code, problem.retry_after_s) == (code, 3)


@pytest.mark.parametrize(("one", "other"), [(rejoin.Client, rejoin.AsyncClient), (rejoin.Stream, rejoin.AsyncStream)])
def test_both_clients_are_asked_in_the_same_way(one: type, other: type) -> None:
    def methods(kind: type) -> dict[str, list[str]]:
        functions = {name: value for name, value in vars(kind).items() if name[0] != "_" and inspect.isfunction(value)}
        return {name.removeprefix("a"): [*inspect.signature(value).parameters] for name, value in functions.items()}

    assert methods(one) == methods(other)
    assert inspect.signature(one).parameters.keys() == inspect.signature(other).parameters.keys()


def test_server_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_URL", "https://llm.example/")
    monkeypatch.setenv("REJOIN_API_KEY", "key\nwith-canary")
    assert urls_of(None) == ["https://llm.example"]
    with pytest.raises(ValueError, match="REJOIN_API_KEY") as refused:
        rejoin.Client()
    assert "canary" not in str(refused.value)
    refused_too: list[str | list[str]] = ["llm.example", "ftp://x", "", []]
    for wrong in refused_too:
        with pytest.raises(ValueError, match=r"http://|no address"):
            rejoin.Client(wrong)


def test_this_machine_is_not_asked_through_a_proxy() -> None:
    assert http_options(["http://127.0.0.1:8000"])["trust_env"] is False
    assert http_options(["https://llm.example"])["trust_env"] is True


def test_everything_that_is_promised_can_be_imported() -> None:
    for name in rejoin.__all__:
        assert getattr(rejoin, name).__name__ == name
    with pytest.raises(AttributeError):
        rejoin.nothing  # noqa: B018
