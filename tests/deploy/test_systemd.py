"""The units start what the image starts, and are given longer to stop than they take."""

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import API_COMMAND, API_STOPS_S, DEPLOY, PROBES, SETTINGS, WORKER_STOPS_S, seconds

UNITS = DEPLOY / "systemd"
SERVICES = {"api": API_STOPS_S, "worker": WORKER_STOPS_S}


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNITS / f"rejoin-{name}@.service")
    return parser


def test_they_start_what_the_image_starts() -> None:
    of_image = [word.replace("0.0.0.0", "127.0.0.1").replace("8000", "%i") for word in API_COMMAND]
    words = unit("api")["Service"]["ExecStart"].split()
    assert [Path(words[0]).name, *words[1:]] == of_image
    assert unit("worker")["Service"]["ExecStart"].split()[1:] == ["-m", "worker"]
    assert unit("worker")["Service"]["Environment"].partition("=")[0] in SETTINGS


@pytest.mark.parametrize("name", SERVICES)
def test_they_have_time_to_stop_and_no_rights(name: str) -> None:
    service = unit(name)["Service"]
    assert seconds(service["TimeoutStopSec"] + "s") > SERVICES[name] + 1
    assert service["User"] != "root"
    assert service["NoNewPrivileges"] == service["PrivateTmp"] == "yes"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    assert service["ExecStartPost"].rpartition("%i")[2] in PROBES


def test_systemd_understands_them(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("there is no systemd")
    for path in UNITS.iterdir():
        text = path.read_text().replace("/opt/rejoin/.venv/bin/uvicorn", "/bin/true")
        text = text.replace("/opt/rejoin/.venv/bin/python", "/bin/true").replace("/usr/bin/curl", "/bin/true")
        (tmp_path / path.name).write_text(text)
    files = [str(path) for path in tmp_path.iterdir() if path.suffix == ".service"]
    said = subprocess.run([analyze, "verify", "--man=no", *files], capture_output=True, text=True)
    assert "Unknown" not in said.stderr, said.stderr
    assert "rejoin-" not in said.stderr or said.returncode == 0, said.stderr
