"""`rejoin run`, `keys` and `doctor`: the server's own commands, under one name."""

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy import local
from tests import keys
from tests.command.terminal import rejoin
from tests.provider import Silence
from tests.stack import ROOT, Stack, eventually
from tests.valkey import Valkey, valkey

SECRET = {"REJOIN_AUTH": "required", "REJOIN_SECRET": keys.SECRET}


def lines(out: str) -> dict[str, tuple[str, str]]:
    """Return each line's level and text by what it is about."""
    found = [re.fullmatch(r"(ok|warn|fail) +(\S+) +(.*)", line) for line in out.splitlines()]
    assert all(found), out
    return {line[2]: (line[1], line[3]) for line in found if line}


async def test_a_key_is_made_listed_and_revoked(bare: Stack) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    api = await bare.api()
    environment = bare.environment()
    made = await rejoin("keys", "create", "--owner", "alice", **environment)
    key, key_id = made.out.strip(), made.err.partition(" ")[0]
    client = bare.client(key)
    assert (await client.http.get(f"{api.url}/v1/jobs")).status_code == 200
    assert key_id in (await rejoin("keys", "list", **environment)).out
    assert (await rejoin("keys", "revoke", key_id, **environment)).out == f"{key_id} is revoked\n"
    assert (await client.http.get(f"{api.url}/v1/jobs")).status_code == 401


async def test_the_servers_commands_say_what_they_are_called(bare: Stack) -> None:
    wrong = await rejoin("keys", "make", **bare.environment())
    assert wrong.code == 2
    assert wrong.err.startswith("usage: rejoin keys ")


def test_run_is_what_make_run_is() -> None:
    assert re.search(r"^run:.*\n\t@exec .*python deploy/run\.py", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_what_make_install_has_written_runs_from_any_folder(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "rejoin"
    if not command.exists():
        pytest.skip("`make install` has not run here")
    said = subprocess.run([command, "keys", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("usage: rejoin keys ")


async def test_run_refuses_a_port_that_is_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        done = await rejoin("run", "--port", str(port))
    assert done.code == 1
    assert f"port {port} is busy" in done.out


async def test_an_installation_that_is_well(stack: Stack) -> None:
    done = await rejoin(
        "doctor", "--url", stack.url, **stack.environment(**SECRET, REJOIN_API_KEYS="alice:key-of-alice")
    )
    found = lines(done.out)
    assert done.code == 0, done.out
    well = {name for name, (level, _) in found.items() if level == "ok"}
    names = "settings Redis eviction memory latency clock workers queue access secret openai anthropic API"
    assert well >= set(names.split())
    # The tests' Valkey keeps nothing.
    assert found["persistence"] == ("warn", "no AOF: a restart of Redis loses jobs → set appendonly yes")
    assert found["workers"][1] == "1 with a lease, 0 of 200 slots taken"
    assert found["openai"][1] == "reached"
    assert "canary" not in done.out


@pytest.fixture(scope="module")
def forgetful() -> Iterator[Valkey]:
    """A server that drops what it likes, with an append-only file."""
    with valkey("--maxmemory-policy", "allkeys-lru", "--maxmemory", "1mb", "--appendonly", "yes") as server:
        yield server


async def test_a_redis_that_drops_keys_an_unknown_key_and_nobody_at_work_are_wrong(
    bare: Stack, forgetful: Valkey
) -> None:
    environment = bare.environment(
        REDIS_URL=forgetful.url, REJOIN_AUTH="required", OPENAI_BASE_URL="http://127.0.0.1:9/v1"
    )
    done = await rejoin("doctor", "--url", "http://127.0.0.1:9", **environment)
    found = lines(done.out)
    assert done.code == 1
    assert found["eviction"] == ("fail", "allkeys-lru: jobs may be dropped → set maxmemory-policy noeviction")
    assert found["persistence"] == ("ok", "AOF, appendfsync everysec")
    assert found["workers"] == ("fail", "none: nothing will run → start one: python -m worker")
    assert found["access"] == ("fail", "no key: nobody may ask → rejoin keys create --owner NAME")
    assert found["secret"][0] == "fail"
    assert found["openai"] == ("fail", "cannot be reached (ConnectError) → look at its URL and the network")
    assert (found["memory"][0], found["API"][0], found["anthropic"][0]) == ("warn", "warn", "ok")


async def test_a_setting_that_is_wrong_is_named() -> None:
    done = await rejoin("doctor", REJOIN_MAX_JOB="7")
    assert (done.code, lines(done.out)) == (
        1, {"settings": ("fail", "REJOIN_MAX_JOB is not a setting → correct it (.env.example)")},
    )  # fmt: skip


async def test_a_redis_that_is_not_there_is_told_of_without_its_password() -> None:
    done = await rejoin("doctor", REDIS_URL="redis://:canary@127.0.0.1:9/0", REJOIN_AUTH="off")
    said = "cannot be used: cannot connect (ConnectionRefusedError) → start it, or correct REDIS_URL"
    assert lines(done.out)["Redis"] == ("fail", said)
    assert done.code == 1
    assert "canary" not in done.out + done.err


async def test_what_waits_and_for_how_long_is_told(bare: Stack) -> None:
    bare.provider.script("m", Silence())
    bare.configure(max_jobs=1)
    await bare.worker()
    await bare.api()
    client = bare.client()
    ids = [await client.submit() for _ in range(2)]
    await eventually(lambda: bare.provider.calls)
    for id in ids:
        await bare.commands.call("HINCRBY", bare.keys.job(id), "created_ms", -90_000)
    done = await rejoin("doctor", "--url", bare.url, **bare.environment())
    level, told = lines(done.out)["queue"]
    assert level == "warn"
    assert re.match(r"1 waiting, the oldest for \d{2,3} s", told), told


def test_the_valkey_of_a_run_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("REDIS_URL", "REJOIN_AUTH", "REJOIN_SECRET"):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(local, "SOCKET", tmp_path / "valkey.sock")
    monkeypatch.setattr(local, "kept_secret", lambda: "kept")
    local.use_running()
    assert not os.environ["REDIS_URL"], "nothing runs"
    (tmp_path / "valkey.sock").touch()
    monkeypatch.setattr(local, "answers", lambda *_: True)
    local.use_running()
    assert os.environ["REDIS_URL"] == f"unix://{tmp_path}/valkey.sock"
    assert (os.environ["REJOIN_AUTH"], os.environ["REJOIN_SECRET"]) == ("off", "kept")
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    local.use_running()
    assert os.environ.get("REDIS_URL") == "redis://elsewhere"
