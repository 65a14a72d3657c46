"""What the doctor makes of what it sees, where a test cannot have the server that it is about."""

from typing import Any

import httpx2
import pytest

from deploy.doctor import of_access, of_redis, of_unknown_servers, of_work, provider
from shared.checkup import Checkup
from shared.settings import ProviderConfig, Settings
from tests.library.wire import Canned, answer

WELL = {"aof_enabled": "1", "used_memory": "100", "maxmemory": "1000", "role": "master"}
WORK: dict[str, Any] = {
    "queue": {"waiting": 0, "blocked": 0, "oldest_age_s": None, "pauses": []},
    "workers": {"count": 1, "slots": 200, "data": [{"state": "alive"}]},
    "running": {"count": 3},
}


def seen(said: dict[str, str] | None = None, **other: Any) -> Checkup:
    given = {
        "version": (7, 4),
        "fsync": "everysec",
        "latency_ms": 0.2,
        "ahead_s": 0.0,
        "work": WORK,
        "keys": 0,
        **other,
    }
    return Checkup(server="Redis", said={**WELL, **(said or {})}, **given)


def test_a_server_that_is_well() -> None:
    assert {finding.level for finding in of_redis(seen())} == {"ok"}
    assert {finding.level for finding in of_work(WORK)} == {"ok"}


@pytest.mark.parametrize(
    ("what", "level", "checkup"),
    [
        ("Redis", "fail", seen(version=(6, 0))),
        ("eviction", "fail", seen({"maxmemory_policy": "volatile-ttl"})),
        ("role", "fail", seen({"role": "slave"})),
        ("persistence", "warn", seen({"aof_enabled": "0"})),
        ("persistence", "warn", seen(fsync="no")),
        ("persistence", "fail", seen({"aof_last_write_status": "err"})),
        ("memory", "warn", seen({"used_memory": "801"})),
        ("memory", "warn", seen({"used_memory": "801", "maxmemory": "0", "total_system_memory": "1000"})),
        ("latency", "warn", seen(latency_ms=20.0)),
        ("clock", "warn", seen(ahead_s=-2.5)),
    ],
)
def test_one_thing_that_is_not(what: str, level: str, checkup: Checkup) -> None:
    (found,) = [finding for finding in of_redis(checkup) if finding.level != "ok"]
    assert (found.what, found.level) == (what, level)
    assert found.todo


def test_what_is_not_worked_at() -> None:
    def levels(**changed: Any) -> dict[str, str]:
        return {found.what: found.level for found in of_work({**WORK, **changed})}

    lost = {"count": 1, "slots": 0, "data": [{"state": "lost"}]}
    assert levels(workers=lost) == {"lost": "warn", "workers": "fail", "queue": "ok"}
    paused = {**WORK["queue"], "pauses": [{"scope": "openai/m", "left_s": 7.2}]}
    assert levels(queue=paused) == {"workers": "ok", "pause": "warn", "queue": "ok"}
    assert levels(queue={**WORK["queue"], "oldest_age_s": 61.0})["queue"] == "warn"


def test_who_may_ask() -> None:
    def levels(keys: int = 0, **settings: Any) -> dict[str, str]:
        found = of_access(Settings(_env_file=None, **settings), seen(keys=keys))
        return {finding.what: finding.level for finding in found}

    assert levels(auth="off") == {"access": "warn"}
    assert levels() == {"access": "fail", "secret": "fail"}
    assert levels(keys=1, secret="kqz8-Wv3T_0pJr5yQmXs") == {"access": "ok", "secret": "ok"}
    assert levels(api_keys="a:some-key", secret="abababababababababab") == {"access": "ok", "secret": "warn"}


@pytest.mark.parametrize(("status", "level"), [(200, "ok"), (401, "fail"), (404, "ok"), (429, "warn"), (500, "warn")])
@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_provider_is_asked_for_its_models_with_its_key(kind: str, status: int, level: str) -> None:
    async with Canned(answer(status)) as server, httpx2.AsyncClient(trust_env=False) as http:
        base = server.url + ("/v1" if kind == "openai" else "")
        config = ProviderConfig.model_validate({"kind": kind, "base_url": base, "api_key": "sk-mine"})
        found = await provider(http, "it", config)
    assert (found.level, found.what) == (level, "it")
    head = server.heads[0].lower()
    assert head.startswith("get /v1/models ")
    assert ("authorization: bearer sk-mine" if kind == "openai" else "x-api-key: sk-mine") in head
    assert "sk-mine" not in found.seen + found.todo


def test_jobs_that_wait_for_an_event_server_that_nobody_knows_are_told_of() -> None:
    lines = [{"scope": name, "waiting": 2} for name in ("openai", "@events-1", "@events-9")]
    work = {**WORK, "queue": {**WORK["queue"], "lines": lines}}
    (found,) = of_unknown_servers(work, {"events-1": "redis://here"})
    assert (found.level, found.what) == ("fail", "events events-9")
    assert found.seen.startswith("2 waiting")
