"""The users of `deploy/redis`: with exactly their rights everything works, and nothing else does."""

import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from string import Template

import httpx2
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from shared.redis import connect
from tests import keys
from tests.client import text
from tests.command.terminal import rejoin
from tests.deploy.files import DEPLOY, ROOT
from tests.provider import ScriptedProvider, Silence, Text
from tests.sentinels import watched
from tests.stack import Stack, eventually
from tests.valkey import Valkey, free_port, valkey

PASSWORD = "of-the-tests"


def filled(file: str, prefix: str) -> str:
    """Return a template as the guide has it filled in."""
    hashed = hashlib.sha256(PASSWORD.encode()).hexdigest()
    given = {f"{who}_PASSWORD_SHA256": hashed for who in ("REJOIN", "REPLICA", "SENTINEL")}
    return Template((DEPLOY / "redis" / file).read_text()).substitute(given, REJOIN_KEY_PREFIX=prefix)


def rules(name: str, file: str, prefix: str) -> list[str]:
    """Return what makes a user, as `ACL SETUSER` takes it."""
    lines = filled(file, prefix).splitlines()
    (found,) = [line.split()[2:] for line in lines if line.startswith(f"user {name} ")]
    return found


async def make(redis: Redis, name: str, prefix: str = "rejoin") -> None:
    await redis.execute_command("ACL", "SETUSER", name, *rules(name, "users.acl.template", prefix))


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with valkey("--appendonly", "yes") as started:
        yield started


@pytest.fixture
async def stack(server: Valkey, prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    """Processes of ours are the template's user; the test itself may look at everything."""
    stack = Stack(server, prefix, provider)
    await stack.redis.execute_command("ACL", "LOG", "RESET")
    await make(stack.redis, "rejoin", prefix)
    stack.configure(redis_url=as_user(server), lease_s=1.5)
    try:
        yield stack
        assert await refused(stack.redis) == []
    finally:
        await stack.close()


def as_user(server: Valkey) -> str:
    return server.url.replace("//", f"//rejoin:{PASSWORD}@")


async def refused(redis: Redis) -> list[str]:
    """Return what anybody was refused, in scripts too."""
    return [f"{entry['username']}: {entry['object']}" for entry in await redis.acl_log()]


async def test_jobs_readers_cancels_and_takeovers_need_no_other_right(stack: Stack) -> None:
    worker = await stack.worker_process()
    await stack.api()
    await stack.api()
    client = stack.client()
    stack.provider.script("whole", Text("all "), Text("of it"))
    job_id = await client.submit("whole", metadata={"chat": "1"})
    events = await client.all_events(job_id)
    assert text(events) == "all of it"
    late = await client.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": events[1].id})
    assert "of it" in late.text
    stack.provider.script("taken over", Text("half"), Silence())
    stack.provider.then("taken over", Text("whole"))
    job_id = await client.submit("taken over")
    await client.until(job_id, "token")
    await stack.worker_process()
    await worker.stop()
    assert text(await client.all_events(job_id)) == "whole"
    stack.provider.script("stopped", Text("half"), Silence())
    job_id = await client.submit("stopped")
    await client.until(job_id, "token")
    assert (await client.cancel(job_id))["outcome"] == "cancelled"
    for path in ("/v1/jobs", "/v1/usage", "/v1/ops", "/metrics", "/readyz"):
        assert (await client.http.get(path)).status_code == 200, path
    stack.provider.script("left", Text("half"), Silence())
    job_id = await client.submit("left", on_disconnect="cancel", disconnect_grace_s=0)
    async with aclosing(client.events(job_id)) as reading:  # type: ignore[type-var]
        async for event in reading:
            if event.event == "token":
                break
    await eventually(lambda: stack.provider.calls[-1].closed_by_client)
    assert (await client.http.delete(f"/v1/jobs/{job_id}")).status_code in (204, 409)


async def test_keys_the_doctor_and_a_workers_figures_need_no_other_right(stack: Stack) -> None:
    port = free_port()
    stack.configure(auth="required", secret=keys.SECRET)
    await stack.worker_process(REJOIN_WORKER_PORT=str(port))
    await stack.api()
    environment = {**stack.environment(), "REJOIN_SECRET": keys.SECRET}
    made = await rejoin("keys", "create", "--owner", "alice", **environment)
    assert made.code == 0, made.err
    client = stack.client(made.out.strip())
    stack.provider.script("m", Text("x"))
    assert (await client.all_events(await client.submit()))[-1].event == "completed"
    listed = await rejoin("keys", "list", **environment)
    (key_id,) = re.findall(r"key_\w+", listed.out)
    done = await rejoin("doctor", "--url", stack.url, **environment)
    assert "AOF" in done.out
    assert "1 with a lease" in done.out
    assert (await rejoin("keys", "revoke", key_id, **environment)).code == 0

    async def shut_out() -> bool:
        return (await client.http.get("/v1/jobs")).status_code == 401

    await eventually(shut_out)
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200
    # The doctor asks for one setting, and does without.
    assert set(await refused(stack.redis)) <= {"rejoin: config|get"}
    await stack.redis.execute_command("ACL", "LOG", "RESET")


async def test_a_server_with_this_file_has_after_a_crash_what_scripts_wrote(tmp_path: Path) -> None:
    """It reads its append-only file as the default user, who is off, so that nobody can be him, and has all rights.

    Without them Redis 7.0 leaves scripts' transactions out, which not every server does that these tests run on.
    """
    assert rules("default", "users.acl.template", "rejoin") == ["off", "~*", "&*", "+@all"]
    users = tmp_path / "users.acl"
    users.write_text(filled("users.acl.template", "rejoin"))
    with valkey("--appendonly", "yes", "--aclfile", str(users)) as server:
        environment = {"REDIS_URL": as_user(server), "REJOIN_AUTH": "required", "REJOIN_SECRET": keys.SECRET}
        made = await rejoin("keys", "create", "--owner", "alice", **environment)
        assert made.code == 0, made.err
        server.kill()
        server.start()
        assert "alice" in (await rejoin("keys", "list", **environment)).out
        async with Redis.from_url(server.url) as nobody:
            with pytest.raises(AuthenticationError):
                await nobody.ping()


REFUSED = """
GET another:job:1
SET arq:queue 1
DEL rejoin2:job:1
PUBLISH another:log:1 x
SUBSCRIBE another:log:1
KEYS *
SCAN 0
FLUSHALL
FLUSHDB
CONFIG SET save x
CONFIG GET requirepass
ACL LIST
EVAL return 0
SCRIPT FLUSH
SHUTDOWN
MONITOR
CLIENT LIST
CLIENT KILL TYPE normal
REPLICAOF NO ONE
MIGRATE host 1 key 0 1
RENAME rejoin:a rejoin:b
COPY rejoin:a another
SAVE
"""


@pytest.mark.parametrize("command", REFUSED.strip().splitlines())
async def test_everything_else_is_refused(server: Valkey, command: str) -> None:
    async with Redis.from_url(server.url) as redis:
        await make(redis, "rejoin")
        async with Redis.from_url(as_user(server)) as user:
            with pytest.raises(NoPermissionError):
                await user.execute_command(*command.split())
        await redis.execute_command("ACL", "LOG", "RESET")


async def test_every_command_that_somebody_sends_is_granted_and_no_other(server: Valkey) -> None:
    """What scripts call, what we send, and what arq sends for its health line."""
    lua = " ".join(path.read_text() for path in (ROOT / "shared" / "lua").glob("*.lua"))
    python = " ".join(path.read_text() for path in (ROOT / "shared").glob("*.py"))
    said = {word.lower() for word in re.findall(r"'([A-Z]{2,})'", lua)}
    said |= {"|".join(words).strip("|").lower() for words in re.findall(r'\("([A-Z]{2,})"(?:, "([A-Z]{2,})")?', python)}
    async with Redis.from_url(server.url) as redis:
        known = {name.lower() for name in await redis.command()} | {"script|load"}
    given = {rule[1:] for rule in rules("rejoin", "users.acl.template", "p") if rule[0] == "+"}
    assert given - said == {"psetex"}
    assert (said & known) - given == {"auth", "readonly"}, "anybody may say who he is, and that is an error's name"


async def test_sentinels_and_replicas_with_their_own_users_fail_over(prefix: str) -> None:
    async with watched() as servers:
        for server in (servers.first, servers.second):
            async with Redis.from_url(server.url) as redis:
                for name in ("rejoin", "replica", "sentinel"):
                    await make(redis, name, prefix)
                await redis.config_set("masteruser", "replica")
                await redis.config_set("masterauth", PASSWORD)
        for sentinel in servers.sentinels:
            await sentinel.set("auth-user", "sentinel", "auth-pass", PASSWORD)
            await sentinel.ask("ACL", "SETUSER", "rejoin", *rules("rejoin", "sentinel-users.acl.template", prefix))
        async with Redis.from_url(servers.first.url) as redis:
            # Everybody has to come again, with a name.
            await redis.execute_command("CLIENT", "KILL", "TYPE", "replica")
            await redis.execute_command("CLIENT", "KILL", "TYPE", "normal")
            await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        url = servers.url.replace("//", f"//rejoin:{PASSWORD}@")
        commands = connect(f"{url}?sentinel_username=rejoin&sentinel_password={PASSWORD}")
        assert await commands.call("SET", f"{prefix}:a", "1") == b"OK"
        await servers.switch()
        await servers.promoted(servers.second)

        async def written() -> bool:
            try:
                return await commands.call("SET", f"{prefix}:a", "2") == b"OK"
            except Exception:
                return False

        await eventually(written)
        await servers.settled()
        for server in (servers.first, servers.second):
            async with Redis.from_url(server.url) as redis:
                assert await refused(redis) == []
        for sentinel in servers.sentinels:
            assert await sentinel.ask("ACL", "LOG") == []
        await commands.close()
