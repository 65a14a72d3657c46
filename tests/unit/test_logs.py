"""Log lines: one each, for machines and for eyes, with what is known and without the words of others."""

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import logs

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def record() -> logging.LogRecord:
    return logging.LogRecord("worker.x", logging.WARNING, __file__, 1, "waits for %s", ("Redis",), None)


@pytest.fixture(autouse=True)
def no_fields() -> Iterator[None]:
    token = logs._about.set({})
    yield
    logs._about.reset(token)


def raised() -> BaseException:
    try:
        try:
            raise ValueError("canary-words")
        except ValueError as error:
            raise OSError(24, "canary-too") from error
    except OSError as error:
        return error


def test_a_json_line_says_when_who_what_and_about_what(record: logging.LogRecord) -> None:
    logs.note(request_id="r1")
    logs.note(job_id="job_1")
    record.created = 1_795_287_600.0425
    line = json.loads(logs.Json().format(record))
    assert line.pop("pid") > 0
    assert line == {
        "time": "2026-11-21T19:00:00.042Z", "level": "warning", "logger": "worker.x", "message": "waits for Redis",
        "request_id": "r1", "job_id": "job_1",
    }  # fmt: skip


def test_a_field_of_the_line_itself_counts_more_than_its_tasks(record: logging.LogRecord) -> None:
    logs.note(job_id="job_1")
    record.job_id = "job_2"
    assert json.loads(logs.Json().format(record))["job_id"] == "job_2"


def test_a_text_line_is_as_short_as_it_can_be_read(record: logging.LogRecord) -> None:
    logs.note(job_id="job_1")
    line = logs.Plain().format(record)
    assert re.fullmatch(r"2\S+Z WARNING worker\.x: waits for Redis  job_id=job_1", line)


@pytest.mark.parametrize("form", [logs.Json(), logs.Plain()])
def test_an_exception_is_one_line_of_types_and_places_and_none_of_its_words(
    form: logging.Formatter, record: logging.LogRecord
) -> None:
    """CWE-532: whatever an exception quotes."""
    error = raised()
    record.exc_info = (type(error), error, error.__traceback__)
    line = form.format(record)
    assert "\n" not in line
    assert "canary" not in line
    assert re.search(r"OSError \[24: Too many open files\] in unit/test_logs\.py:\d+ raised <- ValueError in", line)


@pytest.mark.parametrize("form", [logs.Json(), logs.Plain()])
def test_nobody_writes_a_line_of_their_own(form: logging.Formatter) -> None:
    """CWE-117: no line break, no terminal's sequence."""
    for words in ("a\n2026-11-21T00:00:00Z INFO x: forged", "a\x1b[2Jb", "a\u2028b\rc", "\ud800"):
        line = form.format(logging.LogRecord("x", logging.INFO, "", 1, "%s", (words,), None))
        assert len(line.splitlines()) == 1
        assert "\x1b" not in line
        line.encode()


def test_asyncios_word_of_a_lost_exception_is_without_that_ones() -> None:
    words = "Task exception was never retrieved\nfuture: <Task exception=ValueError('canary-words')>"
    line = logs.Json().format(logging.LogRecord("asyncio", logging.ERROR, "", 1, words, (), None))
    assert json.loads(line)["message"] == "Task exception was never retrieved"


PROGRAM = """
import logging, sys, warnings
from shared import logs
logs.configure("info", None)
logging.getLogger("httpx2").info("canary-url")
logging.getLogger("a").debug("canary-debug")
logging.getLogger("a").info("said")
warnings.warn("old")
raise RuntimeError("canary-words")
"""


def test_without_a_terminal_all_that_a_process_says_is_json_its_end_too() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=30)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"].partition(" ")[0] for line in lines[:1]] == ["said"]
    assert [(line["logger"], line["level"]) for line in lines] == [
        ("a", "info"), ("py.warnings", "warning"), ("rejoin", "critical"),
    ]  # fmt: skip
    assert "RuntimeError in" in lines[-1]["exception"]
    assert "canary" not in done.stderr
    assert (done.returncode, done.stdout) == (1, "")


def test_a_collector_that_is_gone_is_told_of_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr(logs, "mono_s", lambda: now_s)
    seldom = logs.Seldom()
    exporter = logging.LogRecord("opentelemetry.exporter.x", logging.WARNING, "", 1, "gone", (), None)
    ours = logging.LogRecord("worker", logging.WARNING, "", 1, "gone", (), None)
    assert [seldom.filter(exporter), seldom.filter(exporter), seldom.filter(ours)] == [True, False, True]
    now_s += 61
    assert seldom.filter(exporter)
