"""Real sentinels that watch a real primary and its replica, and fail over within a second or two."""

import contextlib
import subprocess
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from shared.redis import REDIS_FAULTS, connect
from tests.stack import eventually
from tests.valkey import Valkey, binary, free_port

SERVICE = "rejoin"
PATIENT_MS = 60_000
"""How long a server may be silent while nothing is tried with it: a busy machine is no fail-over."""

QUICK_MS = (500, 2000, 3000)
"""And then. One finds out first and leads, with the others' votes: all at once, each would vote for itself."""

QUICK = ("info-period", 300, "ask-period", 100, "publish-period", 500)
"""In place of 10 s, 1 s, 2 s: also how soon a primary that comes back is made a replica."""


class Sentinel:
    """One sentinel process."""

    def __init__(self, folder: Path, primary_port: int) -> None:
        self.port = free_port()
        self._folder = folder / f"sentinel-{self.port}"
        self._folder.mkdir()
        self._config = self._folder / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self._folder}",
            "loglevel warning",
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} 1",
            f"sentinel down-after-milliseconds {SERVICE} {PATIENT_MS}",
            f"sentinel failover-timeout {SERVICE} 4000",
        ]
        self._config.write_text("\n".join(lines) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._run()

        async def answers() -> bool:
            with contextlib.suppress(*REDIS_FAULTS):
                return await self.ask("SENTINEL", "DEBUG", *QUICK) == b"OK"
            return False

        await eventually(answers)

    def _run(self) -> None:
        command = [binary(), str(self._config), "--sentinel"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def ask(self, *command: Any) -> Any:
        sentinel = connect(f"redis://127.0.0.1:{self.port}")
        try:
            return await sentinel.call(*command)
        finally:
            await sentinel.close()

    async def set(self, *names_and_values: Any) -> None:
        assert await self.ask("SENTINEL", "SET", SERVICE, *names_and_values) == b"OK"

    async def content(self) -> bool:
        """Say whether this sentinel knows the others, and a replica that could take over."""
        primary = _pairs(await self.ask("SENTINEL", "MASTER", SERVICE))
        replicas = [_pairs(told) for told in await self.ask("SENTINEL", "REPLICAS", SERVICE)]
        fit = [replica for replica in replicas if replica[b"master-link-status"] == b"ok"]
        flags = [replica[b"flags"] for replica in fit if replica[b"role-reported"] == b"slave"]
        return (primary[b"flags"], primary[b"num-other-sentinels"], flags) == (b"master", b"2", [b"slave"])

    async def primary_port(self) -> int:
        return int((await self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE))[1])

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Watched:
    """A primary, its replica, and three sentinels that know each other and both of them."""

    def __init__(self, folder: Path, *config: str) -> None:
        self.first = self._server(folder, "first", *config)
        self.second = self._server(folder, "second", "--replicaof", "127.0.0.1", str(self.first.port), *config)
        self.sentinels = [Sentinel(folder, self.first.port) for _ in QUICK_MS]
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        self.url = f"redis+sentinel://{hosts}/{SERVICE}/0"

    def _server(self, folder: Path, name: str, *config: str) -> Valkey:
        (folder / name).mkdir()
        return Valkey(folder / name, "--repl-diskless-sync-delay", "0", *config)

    async def start(self) -> None:
        self.first.start()
        self.second.start()
        for sentinel in self.sentinels:
            await sentinel.start()
        await self.settled()

    async def settled(self) -> None:
        """Return when a fail-over would go well, by what every sentinel says."""

        async def all_content() -> bool:
            return all([await sentinel.content() for sentinel in self.sentinels])

        await eventually(all_content, 15)

    async def promoted(self, server: Valkey, timeout_s: float = 15) -> None:
        """Return when every sentinel calls this server the primary."""

        async def agreed() -> bool:
            return {await sentinel.primary_port() for sentinel in self.sentinels} == {server.port}

        await eventually(agreed, timeout_s)

    async def missed(self) -> None:
        """Have the sentinels miss the first server, and return when they have promoted the second."""
        for sentinel, down_after_ms in zip(self.sentinels, QUICK_MS, strict=True):
            await sentinel.set("down-after-milliseconds", down_after_ms)
        await self.promoted(self.second)
        for sentinel in self.sentinels:
            await sentinel.set("down-after-milliseconds", PATIENT_MS)

    async def switch(self) -> None:
        """Have the primary and its replica change places, both alive, as an operator would."""

        await self.settled()
        assert await self.sentinels[0].ask("SENTINEL", "FAILOVER", SERVICE) == b"OK"

    def kill(self) -> None:
        for sentinel in self.sentinels:
            sentinel.kill()
        self.first.kill()
        self.second.kill()


def _pairs(told: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(told[::2], told[1::2], strict=True))


async def role(server: Valkey) -> bytes:
    """Return what the server says that it is: `master` or `slave`; nothing while it changes."""
    redis = connect(server.url)
    try:
        return (await redis.call("ROLE"))[0]
    except REDIS_FAULTS:
        return b""
    finally:
        await redis.close()


@contextlib.asynccontextmanager
async def watched(*config: str) -> AsyncIterator[Watched]:
    with tempfile.TemporaryDirectory(prefix="rejoin-sentinel-") as folder:
        servers = Watched(Path(folder), *config)
        try:
            await servers.start()
            yield servers
        finally:
            servers.kill()
