"""Settings: the names of the contract, and one plain line for a wrong one."""

import base64
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.main import create_app
from rejoin.target import KEY_NAME, MODEL_NAME, URL_NAME
from shared.secrecy import is_weak
from shared.settings import CLIENT_NAMES, Settings, load_settings

ROOT = Path(__file__).parent.parent.parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("REJOIN_", "REDIS_"))}


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Leave no settings of the machine, and no .env."""
    for name in os.environ:
        if name.startswith(("REJOIN_", "REDIS_", "OPENAI_", "ANTHROPIC_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_defaults_are_the_contracts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_AUTH", "off")
    settings = load_settings("api")
    assert settings.redis_url == "redis://127.0.0.1:6379/0"
    assert (settings.max_jobs, settings.lease_s, settings.max_attempts, settings.retention_s) == (200, 5, 3, 3600)
    assert (settings.first_token_timeout_s, settings.idle_timeout_s, settings.job_timeout_s) == (60, 60, 600)
    assert (settings.heartbeat_s, settings.rate_limit, settings.max_active_jobs) == (10, 600, 100)
    assert (settings.max_streams, settings.max_queue, settings.max_body_bytes) == (100, 10_000, 1_048_576)
    assert (settings.cors_origins, settings.prices, settings.worker_port) == ([], None, 0)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REJOIN_LEASE", "5", "REJOIN_LEASE"),
        ("REJOIN_LEASE_S", "soon", "REJOIN_LEASE_S"),
        ("REJOIN_MAX_JOBS", "0", "REJOIN_MAX_JOBS"),
        ("REJOIN_AUTH", "maybe", "REJOIN_AUTH"),
        ("REJOIN_PROVIDERS", "{not json", "REJOIN_PROVIDERS"),
        ("REJOIN_PROVIDERS", '{"x":{"kind":"soap"}}', "REJOIN_PROVIDERS"),
        ("REJOIN_PROVIDERS", '{"demo":{"kind":"openai"}}', "REJOIN_PROVIDERS"),
        ("REJOIN_API_KEYS", "justakey-canary", "REJOIN_API_KEYS"),
        ("REJOIN_API_KEYS", "bad owner:key-canary", "REJOIN_API_KEYS"),
        ("REJOIN_CORS_ORIGINS", "*", "REJOIN_CORS_ORIGINS"),
        ("REJOIN_CORS_ORIGINS", "https://a.example/path", "REJOIN_CORS_ORIGINS"),
        ("REDIS_URL", "http://canary@x", "REDIS_URL"),
        ("REDIS_URL", "redis://:canary@127.0.0.1:port/0", "REDIS_URL"),
        ("REDIS_URL", "redis+sentinel://:canary@a:26379", "REDIS_URL"),
        ("REDIS_URL", "redis+sentinel://:canary@a:26379/service/zero", "REDIS_URL"),
        ("REDIS_URL", "redis+sentinel://:canary@a:port,b:26379/service", "REDIS_URL"),
        ("REDIS_URL", "redis+sentinel://:canary@a,,b/service", "REDIS_URL"),
        ("REDIS_URL", "redis+sentinel://a/service?sentinel_pasword=canary", "REDIS_URL"),
        ("REDIS_URL", "rediss://:canary@a?ssl_ca_certs=/no/such/file", "its ssl_… files cannot be used"),
        ("REDIS_URL", "rediss://:canary@a?ssl_cert_reqs=canary", "REDIS_URL"),
        ("REDIS_URL", "rediss://:canary@a?ssl_ca_cert=canary", "REDIS_URL"),
        ("OPENAI_BASE_URL", "nonsense", "OPENAI_BASE_URL"),
        ("REJOIN_PROVIDERS", '{"x":{"kind":"openai","base_url":"nope"}}', "REJOIN_PROVIDERS"),
        ("REJOIN_PROVIDERS", '{"x":{"kind":"openai"}}', "REJOIN_PROVIDERS"),
        ("REJOIN_LIMITS", "{not json", "REJOIN_LIMITS"),
        ("REJOIN_LIMITS", '{"openai":{"concurrent":0}}', "REJOIN_LIMITS.openai.concurrent"),
        ("REJOIN_LIMITS", '{"openai":{"concurrent":"5"}}', "REJOIN_LIMITS.openai.concurrent"),
        ("REJOIN_LIMITS", '{"openai":{"at_once":5}}', "REJOIN_LIMITS.openai.at_once"),
        ("REJOIN_LIMITS", '{"nobody":{}}', "REJOIN_LIMITS"),
        ("REJOIN_LIMITS", '{"openai/":{}}', "REJOIN_LIMITS"),
        ("REJOIN_API_KEYS", "a:canary,b:canary", "REJOIN_API_KEYS"),
        ("REJOIN_SECRET", "canary", "REJOIN_SECRET"),
        ("REJOIN_SECRET", "changeme-changeme-changeme", "REJOIN_SECRET"),
        ("REJOIN_SECRET", "your-super-secret-key-here", "REJOIN_SECRET"),
        ("REJOIN_SECRET", "a good one, as far as it goes,canary", "REJOIN_SECRET"),
        ("REJOIN_API_KEYS", "alice:changeme", "REJOIN_API_KEYS"),
        ("REJOIN_DOCS", "maybe", "REJOIN_DOCS"),
    ],
)
def test_a_wrong_setting_ends_the_process_with_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv("REJOIN_AUTH", "off")
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load_settings("api")
    line = str(ended.value.code)
    assert said in line
    assert "\n" not in line
    assert "canary" not in line, "a value may be a secret"


@pytest.mark.parametrize(
    "origin",
    ["null", "https://*.example.com", "https://App.example", "https://app.example:443", "http://app.example:80",
     "https://user@app.example", "https://app.example:99999", "https://app.example:0", "https://app.example:x",
     "https://app.example.", "https://app..example", "https://bücher.example", "ftp://app.example", "https://",
     "https://a.example/", "https://a.example?x", "https://a.example#x", "https://a.example b", "app.example"],
)  # fmt: skip
def test_an_origin_that_no_browser_writes_stops_the_start(monkeypatch: pytest.MonkeyPatch, origin: str) -> None:
    """It would be equal to no `Origin`, and its page locked out without a word."""
    monkeypatch.setenv("REJOIN_AUTH", "off")
    fine = "https://app.example,http://localhost:3000,http://[::1]:8080,https://xn--bcher-kva.example,http://127.0.0.1"
    monkeypatch.setenv("REJOIN_CORS_ORIGINS", fine)
    assert load_settings("api").cors_origins == fine.split(",")
    monkeypatch.setenv("REJOIN_CORS_ORIGINS", f"{fine},{origin}")
    with pytest.raises(SystemExit, match="REJOIN_CORS_ORIGINS"):
        load_settings("api")


def test_the_environment_file_counts_and_is_checked_too(empty_environment: Path) -> None:
    (empty_environment / ".env").write_text("REJOIN_AUTH=off\nREJOIN_MAX_JOBS=7\nUNRELATED=1\n")
    assert load_settings("worker").max_jobs == 7
    (empty_environment / ".env").write_text("REJOIN_AUTH=off\nREJOIN_MAX_JOB=7\n")
    with pytest.raises(SystemExit, match="REJOIN_MAX_JOB is not a setting"):
        load_settings("worker")


def test_an_api_without_a_secret_does_not_start_unless_auth_is_off() -> None:
    with pytest.raises(SystemExit, match="REJOIN_SECRET"):
        load_settings("api")
    load_settings("worker")


def test_a_secret_of_commas_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_SECRET", " , ")
    with pytest.raises(SystemExit, match="REJOIN_SECRET"):
        load_settings("api")


def test_an_old_secret_may_stand_behind_a_new_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_SECRET", "the-new-one-0123456789, the-old-one-0123456789")
    assert load_settings("api").ticket_secrets() == [b"the-new-one-0123456789", b"the-old-one-0123456789"]


@given(st.binary(min_size=16, max_size=40), st.sampled_from(["hex", "base64"]))
def test_a_random_secret_is_never_called_weak(drawn: bytes, alphabet: str) -> None:
    random = hashlib.shake_128(drawn).digest(24)
    assert not is_weak(random.hex() if alphabet == "hex" else base64.urlsafe_b64encode(random).decode())


@pytest.mark.parametrize("secret", ["x" * 40, "abcabcabcabcabcabcabc", "secret-secret-secret"])
def test_a_secret_of_a_trial_is_taken_and_warned_of(secret: str, caplog: pytest.LogCaptureFixture) -> None:
    assert not is_weak(secret)
    create_app(Settings(_env_file=None, auth="required", secret=secret))
    assert "REJOIN_SECRET can be guessed" in caplog.text
    assert secret not in caplog.text


def test_no_secret_is_in_the_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "REJOIN_SECRET"):
        monkeypatch.setenv(name, "canary-long-enough-to-be-a-secret")
    monkeypatch.setenv("REJOIN_API_KEYS", "alice:canary-key")
    monkeypatch.setenv("REDIS_URL", "redis://:canary@127.0.0.1:6379/0")
    monkeypatch.setenv("REJOIN_PROVIDERS", '{"x":{"kind":"openai","base_url":"http://x","api_key":"canary"}}')
    assert "canary" not in repr(Settings())


@pytest.mark.parametrize("args", [["-m", "worker"], ["-m", "uvicorn", "api.main:app", "--port", "1"]])
def test_both_programs_say_it_in_one_line(args: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, *args], cwd=ROOT, env={**CLEAN, "REJOIN_LEASE_S": "soon", "REJOIN_AUTH": "off"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("rejoin: REJOIN_LEASE_S: ")
    assert "Traceback" not in ended.stderr


def test_the_names_of_clients_are_no_mistake_beside_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REJOIN_AUTH", "off")
    for name in (URL_NAME, KEY_NAME, MODEL_NAME):
        monkeypatch.setenv(name, "x")
    assert load_settings("api").api_keys == {}
    assert {URL_NAME, KEY_NAME, MODEL_NAME} == CLIENT_NAMES


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://10.0.0.1:6379", "10.0.0.1:6379"),
        ("redis://user:canary@host:6379/2", "host:6379/2"),
        ("rediss://host/0?ssl_ca_certs=", "host/0"),
        ("redis://host:1/0?sentinel_password=p@canary", "host:1/0"),
        ("redis+sentinel://:canary@a:1/service/0?sentinel_password=p@canary", "a:1/service/0"),
        ("redis://user:canary@host:6379/2#events-1", "events-1"),
    ],
)
def test_the_name_of_an_event_server_has_nothing_of_a_password(
    monkeypatch: pytest.MonkeyPatch, url: str, name: str
) -> None:
    """It is in logs, metrics and records."""
    monkeypatch.setenv("REJOIN_AUTH", "off")
    monkeypatch.setenv("REJOIN_STREAM_URLS", url)
    assert list(load_settings("api").stream_urls) == [name]


def test_an_api_process_builds_itself_once_though_uvicorn_asks_for_it_twice() -> None:
    code = "from api import main; assert main.app is main.app"
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**CLEAN, "REJOIN_AUTH": "off"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("REJOIN_AUTH=off") == 1
