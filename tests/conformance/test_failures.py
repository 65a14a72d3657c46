"""Failures: each ends in its code, in our words, after as many requests as there were attempts."""

from typing import Final

import pytest

from tests.conformance.bench import Bench
from tests.provider import Cut, Eof, Failure, HttpError, RawBytes, Step, StreamError, Text, Wait
from worker import retries

pytestmark = pytest.mark.asyncio(loop_scope="module")

BODY = b"<html>sk-canary host.internal</html>"
IN_STREAM, UNREADABLE = "stream_error", "unreadable"
"""The row names the code."""

BEFORE: Final[list[tuple[Step, str, bool]]] = [
    (HttpError(400), "provider_bad_request", False),
    (HttpError(401, message="Wrong key: sk-canary"), "provider_authentication", False),
    (HttpError(403), "provider_permission", False),
    (HttpError(404), "provider_model_not_found", False),
    (HttpError(413), "context_too_long", False),
    (HttpError(429, message="Slow down, org-canary"), "provider_rate_limited", True),
    (HttpError(500), "provider_error", True),
    (HttpError(503, body=BODY), "provider_overloaded", True),
    (HttpError(529), "provider_overloaded", True),
    (Cut(), "provider_unreachable", True),
    (Cut(fin=True), "provider_unreachable", True),
    (StreamError(), IN_STREAM, True),
]


def named(value: object) -> str:
    return f"{value.status}" if isinstance(value, HttpError) else repr(value)[:24]


@pytest.mark.parametrize(("step", "code", "retryable"), BEFORE, ids=named)
async def test_a_failure_before_the_first_token(bench: Bench, step: Step, code: str, retryable: bool) -> None:
    bench.script(step)
    answer = await bench.answer()
    code = getattr(bench.row, code, code)
    assert answer.end == ("failed", code)
    failed = answer.last.data
    assert failed["retryable"] is retryable
    assert answer.job["error"] == {name: failed[name] for name in ("code", "message", "retryable")}
    assert "token" not in answer.names
    attempts = retries.TRIES if code in retries.AGAIN else 1
    assert answer.job["attempts"] == attempts
    # A cut on a connection that was used before reads as a stale one: it is asked once more, at once.
    spare = 1 if step == Cut() else 0
    assert attempts <= len(bench.calls) <= attempts + spare, "one attempt is one request"
    assert failed["usage"]["input_tokens"] == 0, "a call that was refused costs nothing"


async def test_an_answer_that_never_begins_is_truncated(bench: Bench) -> None:
    bench.script(Eof())
    answer = await bench.answer()
    assert answer.end == bench.row.never_begun
    if answer.end[1] == "provider_truncated":
        assert len(bench.calls) == 1, "it may have been billed"


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (StreamError(), IN_STREAM),
        (Eof(), "provider_truncated"),
        (Cut(), "provider_unreachable"),
        (Cut(fin=True), "provider_unreachable"),
        (RawBytes(b"event: content_block_delta\ndata: {nonsense\n\n"), UNREADABLE),
    ],
    ids=named,
)
async def test_a_failure_in_mid_answer_is_never_completed(bench: Bench, step: Step, code: str) -> None:
    if isinstance(step, Eof) and not bench.row.tells_reason:
        return
    gate = bench.provider.gate()
    bench.script(Text("half"), Wait(gate), step)
    job_id = await bench.submit()
    await bench.client.until(job_id, "token")
    gate.open()
    answer = await bench.ended(job_id)
    if bench.row.background and isinstance(step, Cut | Eof):
        assert answer.names == ["queued", "started", "token", "started", "completed"]
        assert (answer.text, len(bench.calls)) == ("half", 1), "only the listening was cut off"
        return
    assert answer.names == ["queued", "started", "token", "failed"]
    assert answer.end == ("failed", getattr(bench.row, code, code))
    assert answer.job["text"] == "half"
    assert answer.job["usage"]["estimated"] is True
    assert len(bench.calls) == 1


async def test_what_passes_by_itself_is_asked_again(bench: Bench) -> None:
    bench.script(HttpError(503))
    bench.then(Text("Here."))
    answer = await bench.answer()
    assert (answer.end, answer.text, answer.job["attempts"]) == (("completed", "stop"), "Here.", 2)
    assert answer.names == ["queued", "started", "restarted", "token", "completed"]


async def test_retry_after_is_honoured(bench: Bench) -> None:
    bench.script(Failure("rate_limit", retry_after_s=1))
    bench.then(Text("Now."))
    assert (await bench.answer()).text == "Now."
    first, second = bench.calls
    assert second.started_at - first.started_at >= 0.99


async def test_a_stale_kept_alive_connection_costs_nothing(bench: Bench) -> None:
    bench.script(Text("ok"))
    await bench.answer()
    bench.provider.drop_idle()
    answer = await bench.answer()
    assert (answer.end, answer.job["attempts"]) == (("completed", "stop"), 1)
