"""`rejoin doctor`: looks at an installation, a line each for what is well, doubtful or wrong, and what to do.

It asks each provider for its list of models, with its key, and nothing else of anybody.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import httpx2

from shared.checkup import Checkup, check, server
from shared.keys import Keys
from shared.redis import MIN_VERSION, REDIS_FAULTS, connect, reason
from shared.secrecy import is_doubtful
from shared.settings import ProviderConfig, Settings, load_settings

TIMEOUT_S: Final = 5.0
SLOW_MS: Final = 5.0
"""A round trip that costs a first token more than all of Rejoin does."""
CLOCK_S: Final = 1.0
"""Expiries and tickets go by the API's clock, leases and times shown by Redis'."""
FULL: Final = 0.8
OLD_S: Final = 60.0
"""A job that has waited so long has more work before it than workers."""

SHOWN: Final = ("Redis", "persistence", "latency")

_OWN_URLS: Final = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""The SDKs' defaults."""
_RANDOM: Final = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
_COLOURS: Final = {"ok": "\x1b[32m", "warn": "\x1b[33m", "fail": "\x1b[31m"}


class Finding(NamedTuple):
    level: Literal["ok", "warn", "fail"]
    what: str
    seen: str
    todo: str = ""


async def examine(url: str) -> AsyncIterator[Finding]:
    """Yield what is found, settings first: without them nothing else is known."""
    try:
        settings = load_settings("command")
    except SystemExit as refused:
        yield Finding("fail", "settings", str(refused.code).removeprefix("rejoin: "), "correct it (.env.example)")
        return
    yield Finding("ok", "settings", "all names and values are known")
    seen: Checkup | None = None
    redis = connect(settings.redis_url, timeout_s=TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            seen = await check(redis, Keys(settings.key_prefix))
    except (*REDIS_FAULTS, TimeoutError) as fault:
        yield Finding("fail", "Redis", f"cannot be used: {reason(fault)}", "start it, or correct REDIS_URL")
    finally:
        await redis.close()
    of_server = [] if seen is None else [*of_redis(seen), *([] if seen.work is None else of_work(seen.work))]
    for finding in of_server:
        yield finding
    for finding in await asyncio.gather(*[of_event_server(*named) for named in settings.stream_urls.items()]):
        yield finding
    if seen is not None and seen.work is not None:
        for finding in of_unknown_servers(seen.work, settings.stream_urls):
            yield finding
    for finding in of_access(settings, seen):
        yield finding
    async with httpx2.AsyncClient(timeout=TIMEOUT_S) as http:
        probes = [provider(http, name, config) for name, config in _configured(settings).items()]
        for finding in await asyncio.gather(*probes, _api(url)):
            yield finding
    if not probes:
        yield Finding("warn", "providers", "none but demo", "set OPENAI_API_KEY, ANTHROPIC_API_KEY or REJOIN_PROVIDERS")


def of_redis(seen: Checkup) -> Iterator[Finding]:
    """Judge whether what is accepted is kept."""
    said, number = seen.said, ".".join(map(str, seen.version))
    if seen.version < MIN_VERSION:
        yield Finding("fail", "Redis", f"{seen.server} {number} is too old", "6.2 or later is needed")
    else:
        yield Finding("ok", "Redis", f"{seen.server} {number}")
    policy = said.get("maxmemory_policy", "noeviction")
    if policy == "noeviction":
        yield Finding("ok", "eviction", policy)
    else:
        yield Finding("fail", "eviction", f"{policy}: jobs may be dropped", "set maxmemory-policy noeviction")
    if said.get("role", "master") != "master":
        yield Finding("fail", "role", "a replica: nothing can be written", "point REDIS_URL at the primary")
    yield _persistence(seen)
    yield _memory(said)
    slow = seen.latency_ms > SLOW_MS
    todo = "put Redis next to API and workers" if slow else ""
    yield Finding("warn" if slow else "ok", "latency", f"{seen.latency_ms:.1f} ms a round trip", todo)
    off = abs(seen.ahead_s) > CLOCK_S
    where = "ahead of" if seen.ahead_s > 0 else "behind"
    clock = f"Redis' is {abs(seen.ahead_s):.1f} s {where} this machine's" if off else "Redis and this machine agree"
    yield Finding("warn" if off else "ok", "clock", clock, "run NTP on both" if off else "")


async def of_event_server(name: str, url: str) -> Finding:
    """Judge whether logs can be kept on one of them."""
    what = f"events {name}"
    redis = connect(url, timeout_s=TIMEOUT_S)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            seen = await server(redis)
    except (*REDIS_FAULTS, TimeoutError) as fault:
        todo = "start it, or correct REJOIN_STREAM_URLS"
        return Finding("fail", what, f"cannot be used: {reason(fault)}", todo)
    finally:
        await redis.close()
    findings = list(of_redis(seen))
    for level in ("fail", "warn"):
        for finding in findings:
            if finding.level == level:
                return finding._replace(what=what, seen=f"{finding.what}: {finding.seen}")
    return Finding("ok", what, ", ".join(finding.seen for finding in findings if finding.what in SHOWN))


def of_unknown_servers(work: Mapping[str, Any], known: Collection[str]) -> Iterator[Finding]:
    """Find jobs that wait for event servers that the settings do not name: one was renamed, or taken out too soon."""
    for line in work["queue"]["lines"]:
        scope, waiting = line["scope"], line["waiting"]
        if scope.startswith("@") and scope[1:] not in known:
            told = f"{waiting} waiting for it, and REJOIN_STREAM_URLS has no such name"
            yield Finding("fail", f"events {scope[1:]}", told, "name it again, for all workers and API processes")


def _persistence(seen: Checkup) -> Finding:
    said = seen.said
    if said.get("aof_enabled") != "1":
        return Finding("warn", "persistence", "no AOF: a restart of Redis loses jobs", "set appendonly yes")
    broken = [name for name in ("aof_last_write_status", "aof_last_bgrewrite_status") if said.get(name, "ok") != "ok"]
    if broken:
        return Finding("fail", "persistence", f"{broken[0]} is {said[broken[0]]}", "look at Redis' log and its disk")
    if seen.fsync == "no":
        return Finding("warn", "persistence", "AOF, but appendfsync no", "set appendfsync everysec")
    return Finding("ok", "persistence", f"AOF{f', appendfsync {seen.fsync}' if seen.fsync else ''}")


def _memory(said: Mapping[str, str]) -> Finding:
    used, most = int(said.get("used_memory", 0)), int(said.get("maxmemory", 0))
    room = most or int(said.get("total_system_memory", 0))
    seen = f"{used / 2**20:.0f} MiB of {room / 2**20:.0f}{'' if most else ' (the machine; no maxmemory)'}"
    if room and used > FULL * room:
        return Finding("warn", "memory", seen, "give Redis more, or lower REJOIN_RETENTION_S")
    return Finding("ok", "memory", seen)


def of_work(work: Mapping[str, Any]) -> Iterator[Finding]:
    """Judge whether what waits is worked at."""
    workers, queue = work["workers"], work["queue"]
    lost = sum(worker["state"] == "lost" for worker in workers["data"])
    alive = workers["count"] - lost
    if lost:
        todo = "nothing, they are on their way" if alive else "start a worker"
        yield Finding("warn", "lost", f"{lost} worker{'s' if lost > 1 else ''}; their jobs are still theirs", todo)
    if alive:
        running = work["running"]["count"]
        yield Finding("ok", "workers", f"{alive} with a lease, {running} of {workers['slots']} slots taken")
    else:
        yield Finding("fail", "workers", "none: nothing will run", "start one: python -m worker")
    for pause in queue["pauses"]:
        seen = f"{pause['scope']} answers 429, for {pause['left_s']:.0f} s more"
        yield Finding("warn", "pause", seen, "a limit in REJOIN_LIMITS, or a higher one at the provider")
    told, oldest_s = f"{queue['waiting']} waiting", queue["oldest_age_s"]
    if queue["blocked"]:
        told += f", {queue['blocked']} of them for room at a provider"
    if oldest_s is not None:
        told += f", the oldest for {oldest_s:.0f} s"
    if oldest_s is not None and oldest_s > OLD_S:
        yield Finding("warn", "queue", told, "more workers, or REJOIN_MAX_JOBS; REJOIN_LIMITS where they wait for room")
    else:
        yield Finding("ok", "queue", told)


def of_access(settings: Settings, seen: Checkup | None) -> Iterator[Finding]:
    """Judge who may ask."""
    if settings.auth == "off":
        yield Finding("warn", "access", "off: everybody on this machine may do everything", "REJOIN_AUTH=required")
        return
    count = len(settings.api_keys) + (0 if seen is None else seen.keys)
    if count:
        yield Finding("ok", "access", f"{count} key{'s' if count > 1 else ''}")
    elif seen is not None:
        yield Finding("fail", "access", "no key: nobody may ask", "rejoin keys create --owner NAME")
    if not settings.secret:
        yield Finding("fail", "secret", "not set: no API process will start", f"set REJOIN_SECRET: {_RANDOM}")
    elif any(is_doubtful(secret.get_secret_value()) for secret in settings.secret):
        yield Finding("warn", "secret", "can be guessed", f"set REJOIN_SECRET: {_RANDOM}")
    else:
        yield Finding("ok", "secret", "set")


def _configured(settings: Settings) -> dict[str, ProviderConfig]:
    """Return the providers that somebody has set up; those of one key and address once."""
    of_openai = settings.openai_api_key is not None or settings.openai_base_url is not None
    of_anthropic = settings.anthropic_api_key is not None or settings.anthropic_base_url is not None
    known = settings.providers()
    built_in = {"openai": of_openai, "anthropic": of_anthropic, "openai-responses": False, "demo": False}
    return {name: config for name, config in known.items() if built_in.get(name, True)}


async def provider(http: httpx2.AsyncClient, name: str, config: ProviderConfig) -> Finding:
    """Ask one for its list of models: the cheapest question that takes its address and its key."""
    if config.kind in ("langchain", "demo"):
        return Finding("ok", name, "runs in the worker; not asked")
    anthropic = config.kind == "anthropic"
    base = (config.base_url or _OWN_URLS["anthropic" if anthropic else "openai"]).rstrip("/")
    key = config.api_key.get_secret_value() if config.api_key else None
    headers = {"anthropic-version": "2023-06-01"} if anthropic else {}
    if key is not None:
        headers |= {"x-api-key": key} if anthropic else {"Authorization": f"Bearer {key}"}
    try:
        response = await http.get(f"{base}{'/v1' if anthropic else ''}/models", headers=headers)
    except (httpx2.HTTPError, httpx2.InvalidURL, UnicodeError) as fault:
        return Finding("fail", name, f"cannot be reached ({type(fault).__name__})", "look at its URL and the network")
    status = response.status_code
    if status in (401, 403):
        return Finding("fail", name, f"answers {status}", "give it a key that it takes")
    if status == 429 or status >= 500:
        return Finding("warn", name, f"answers {status}", "look at its status page")
    return Finding("ok", name, "reached" if response.is_success else f"reached (answers {status} for its models)")


async def _api(url: str) -> Finding:
    try:
        # Apart, as what is on this machine is not asked through a proxy.
        async with httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            response = await http.get(f"{url.rstrip('/')}/readyz")
    except (httpx2.HTTPError, httpx2.InvalidURL) as fault:
        return Finding("warn", "API", f"none at {url} ({type(fault).__name__})", "start one, or say where: --url")
    if response.is_success:
        return Finding("ok", "API", f"{url} is ready")
    return Finding("fail", "API", f"{url} answers {response.status_code}", "look at its /readyz")


async def run(url: str) -> int:
    """Print each finding as it is made; return the exit code."""
    colours = _COLOURS if sys.stdout.isatty() else dict.fromkeys(_COLOURS, "")
    plain = "\x1b[0m" if sys.stdout.isatty() else ""
    worst = 0
    async for level, what, seen, todo in examine(url):
        print(f"{colours[level]}{level:<5}{plain} {what:<12} {seen}{f' → {todo}' if todo else ''}", flush=True)
        worst = 1 if level == "fail" else worst
    return worst


def main(args: Sequence[str] | None = None, prog: str | None = None) -> int:
    about = "Check settings, Redis, providers, workers and the API. Exit code 1 when something is wrong."
    parser = argparse.ArgumentParser(prog=prog, description=about)
    default = os.environ.get("REJOIN_URL") or f"http://127.0.0.1:{os.environ.get('PORT') or 8000}"
    parser.add_argument("--url", default=default, help="where an API process is (or REJOIN_URL)")
    return asyncio.run(run(parser.parse_args(args).url))


if __name__ == "__main__":
    sys.exit(main())
