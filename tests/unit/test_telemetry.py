"""When there are traces, and what is taken for a `traceparent`."""

import os
import sys
from pathlib import Path

import pytest

from shared import telemetry
from shared.telemetry import Parent, parse

GOOD = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_traceparent_is_read_as_the_w3c_says() -> None:
    assert parse(f"00-{GOOD}-01") == Parent(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 1)
    assert parse(f"00-{GOOD}-00") is not None
    assert parse(f"01-{GOOD}-01-of-a-later-version") is not None
    for bad in (
        "", "00", f"00-{GOOD}", f"00-{GOOD}-1", f"00-{GOOD}-01-more", f"ff-{GOOD}-01", f"00-{GOOD.upper()}-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01", f"00-{GOOD}-01\n",
    ):  # fmt: skip
        assert parse(bad) is None, bad


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "rejoin: OTEL_TRACES_EXPORTER: otlp, console or none"),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "rejoin: OTEL_EXPORTER_OTLP_PROTOCOL: only http/protobuf",
        ),
    ],
)
def test_what_cannot_be_honoured_ends_the_start_with_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        telemetry.start("api")
    assert str(ended.value) == said


def test_without_its_packages_the_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    monkeypatch.delitem(sys.modules, "shared.traces", raising=False)
    with pytest.raises(SystemExit) as ended:
        telemetry.start("worker")
    assert "pip install opentelemetry-sdk" in str(ended.value)


def test_the_variables_may_stand_in_the_file_beside_the_other_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # (So that the test's end takes it back.)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "")
    del os.environ["OTEL_TRACES_EXPORTER"]
    (tmp_path / ".env").write_text("OTEL_TRACES_EXPORTER=jaeger\n")
    with pytest.raises(SystemExit):
        telemetry.start("api")
