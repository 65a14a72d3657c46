"""Which server is connected to when sentinels are down, slow, behind or of two minds: here, they are scripted."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError, ReadOnlyError, RedisError

from shared import sentinel
from shared.redis import REDIS_FAULTS, connect, connect_blocking, pool_for_arq
from shared.subscriber import Subscriber
from tests.stack import eventually
from tests.valkey import Valkey, free_port, valkey


class Scripted:
    """A sentinel that says what it is told to say."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = 0
        self.commands: list[list[bytes]] = []
        self.primary: int | None = None
        self.epoch: int | None = 0
        self.silent = False
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """Stop, also for those that are connected."""
        self.stop()
        for writer in self._writers:
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        commands = hiredis.Reader()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            while data := await reader.read(65_536):
                commands.feed(data)
                while (command := commands.gets()) is not False:
                    self.commands.append(command)
                    if not self.silent:
                        writer.write(self._answer(command))
        writer.close()

    def _answer(self, command: list[bytes]) -> bytes:
        if command[0] == b"AUTH":
            return b"+OK\r\n"
        assert command[2] == b"service", command
        if command[1] == b"MASTER":
            if self.epoch is None:
                return b"-NOPERM this user has no permissions to run the 'sentinel|master' command\r\n"
            return hiredis_list(b"name", b"service", b"config-epoch", b"%d" % self.epoch)
        self.asked += 1
        return b"*-1\r\n" if self.primary is None else hiredis_list(b"127.0.0.1", b"%d" % self.primary)


def hiredis_list(*parts: bytes) -> bytes:
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Three:
    """Three of them."""

    def __init__(self) -> None:
        self.all = [Scripted() for _ in range(3)]

    def __getitem__(self, number: int) -> Scripted:
        return self.all[number]

    def say(self, server: Valkey, epoch: int | None = 0) -> None:
        for scripted in self.all:
            scripted.primary, scripted.epoch = server.port, epoch

    def url(self, user: str = "", more: str = "") -> str:
        return f"redis+sentinel://{user}{','.join(f'127.0.0.1:{one.port}' for one in self.all)}/service/0{more}"


@pytest.fixture
async def sentinels() -> AsyncIterator[Three]:
    three = Three()
    for scripted in three.all:
        await scripted.start()
    yield three
    for scripted in three.all:
        scripted.stop()


@pytest.fixture
def first(shared_valkey: Valkey) -> Valkey:
    return shared_valkey


@pytest.fixture
def second() -> Iterator[Valkey]:
    """Another server, that is free to be demoted, frozen and killed."""
    with valkey() as server:
        yield server


async def port_of(commands: Any) -> int:
    """Return the port of the server behind a connection."""
    return int((await commands.call("CONFIG", "GET", "port"))[1])


async def demote(server: Valkey) -> None:
    """Make a replica of a server, without a word to its clients: sentinels would cut them off."""
    async with Redis.from_url(server.url) as redis:
        await redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))


@pytest.mark.parametrize("how", ["down", "silent", "without the service"])
async def test_sentinels_that_do_not_help_are_passed_over_and_asked_last_the_next_time(
    sentinels: Three, first: Valkey, how: str
) -> None:
    sentinels.say(first)
    for useless in sentinels.all[:2]:
        useless.silent = how == "silent"
        if how == "down":
            useless.stop()
        elif how == "without the service":
            useless.primary = None
    commands = connect(sentinels.url())
    began = time.monotonic()
    assert await port_of(commands) == first.port
    assert time.monotonic() - began < 0.5
    for useless in sentinels.all[:2]:
        useless.commands.clear()
    for _ in range(3):
        commands.drop()
        assert await port_of(commands) == first.port
    assert sentinels[2].asked == 4
    assert not sentinels[0].commands
    assert not sentinels[1].commands
    await commands.close()


async def test_a_server_that_is_no_primary_is_not_used_until_another_one_is_named(
    sentinels: Three, first: Valkey, second: Valkey
) -> None:
    await demote(second)
    sentinels.say(second)
    commands = connect(sentinels.url())
    with pytest.raises(ConnectionError, match="no primary"):
        await commands.call("GET", "a")
    sentinels[2].primary = first.port
    assert await port_of(commands) == first.port, "the others have not heard of it yet"
    await commands.close()


async def test_a_sentinel_that_is_behind_does_not_lead_back(
    sentinels: Three, first: Valkey, second: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both say that they are primaries, as after a partition."""
    monkeypatch.setattr(sentinel, "WATCH_S", 0.01)
    sentinels.say(first, 1)
    sentinels[0].primary, sentinels[0].epoch = second.port, 2
    commands = connect(sentinels.url())
    assert await port_of(commands) == second.port
    sentinels[0].cut()
    held, asked = commands._link, sentinels[1].asked
    await eventually(lambda: sentinels[1].asked > asked + 2)
    assert commands._link is held, "it is not left either"
    commands.drop()
    sentinels[2].primary, sentinels[2].epoch = second.port, 2
    for _ in range(3):
        assert await port_of(commands) == second.port
        commands.drop()
    await commands.close()


async def test_sentinels_that_were_set_up_anew_are_believed_when_nobody_says_otherwise(
    sentinels: Three, first: Valkey, second: Valkey
) -> None:
    sentinels.say(second, 7)
    commands = connect(sentinels.url())
    assert await port_of(commands) == second.port
    sentinels.say(first, 0)
    commands.drop()
    assert await port_of(commands) == first.port
    await commands.close()


@pytest.mark.parametrize("epochs", [(1, 2), (None, None)])
async def test_a_primary_that_has_been_replaced_and_does_not_know_is_left(
    sentinels: Three, first: Valkey, second: Valkey, epochs: tuple[int | None, int | None], prefix: str
) -> None:
    """It is cut off from the others, say, and answers as ever: short commands, waits and subscriptions go."""
    sentinels.say(second, epochs[0])
    commands, blocking = connect(sentinels.url()), connect_blocking(sentinels.url(), longest_wait_s=30)
    ear = Ear()
    subscriber = Subscriber(sentinels.url())
    await subscriber.start()
    await subscriber.subscribe(prefix, ear)
    assert await port_of(commands) == second.port
    waiting = asyncio.create_task(blocking.call("BLPOP", prefix, 30))
    await eventually(lambda: blocking._pending)
    sentinels.say(first, epochs[1])
    async with asyncio.timeout(sentinel.WATCH_S + 1):
        with pytest.raises(ConnectionError):
            await waiting
    await eventually(lambda: ear.gaps == 1, sentinel.WATCH_S + 1)
    async with Redis.from_url(first.url) as redis:
        await redis.publish(prefix, "heard")
    await eventually(lambda: ear.messages == [b"heard"])
    await eventually(lambda: commands._link is None, sentinel.WATCH_S + 1)
    assert await port_of(commands) == first.port
    assert await port_of(blocking) == first.port
    for part in (commands, blocking):
        await part.close()
    await subscriber.stop()


class Ear:
    def __init__(self) -> None:
        self.gaps = 0
        self.messages: list[bytes] = []

    def message(self, payload: bytes) -> None:
        self.messages.append(payload)

    def gap(self) -> None:
        self.gaps += 1


async def test_a_primary_that_is_frozen_costs_a_bounded_wait_also_who_only_listens(
    sentinels: Three, first: Valkey, second: Valkey, prefix: str
) -> None:
    sentinels.say(second, 1)
    subscriber, commands = Subscriber(sentinels.url()), connect(sentinels.url(), timeout_s=0.3)
    await subscriber.start()
    ear = Ear()
    await subscriber.subscribe(prefix, ear)
    assert await port_of(commands) == second.port
    second.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(RedisError):
        await commands.call("PING")
    with pytest.raises(RedisError):
        await commands.call("PING")
    assert time.monotonic() - began < 2, "to connect is no endless wait either"
    sentinels.say(first, 2)
    assert await port_of(commands) == first.port
    await eventually(lambda: ear.gaps == 1, sentinel.WATCH_S + 1.5)
    await subscriber.stop()
    await commands.close()


async def test_a_primary_that_is_demoted_is_left_with_the_first_refusal(
    sentinels: Three, first: Valkey, second: Valkey, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sentinel, "WATCH_S", 60)
    sentinels.say(second, 1)
    commands = connect(sentinels.url())
    await commands.call("SET", prefix, "old")
    await demote(second)
    sentinels.say(first, 2)
    with pytest.raises(ReadOnlyError):
        await commands.call("SET", prefix, "new")
    await asyncio.sleep(0)
    assert await commands.call("SET", prefix, "new") == b"OK"
    assert await port_of(commands) == first.port
    await commands.close()


async def test_the_pool_of_arq_follows_too(sentinels: Three, first: Valkey, second: Valkey, prefix: str) -> None:
    sentinels.say(second, 1)
    redis = Redis.from_pool(pool_for_arq(sentinels.url()))
    await redis.set(prefix, "old")
    await demote(second)
    sentinels.say(first, 2)
    with pytest.raises(REDIS_FAULTS):
        await redis.set(prefix, "new")
    await redis.set(prefix, "new")
    async with Redis.from_url(first.url) as there:
        assert await there.get(prefix) == b"new"
    await redis.aclose()


async def test_servers_and_sentinels_are_each_told_their_own_password(sentinels: Three, second: Valkey) -> None:
    async with Redis.from_url(second.url) as redis:
        await redis.config_set("requirepass", "of the server")
    sentinels.say(second)
    commands = connect(sentinels.url(":of%20the%20server@", "?sentinel_username=us&sentinel_password=of%20sentinels"))
    assert await commands.call("PING") == b"PONG"
    assert sentinels[0].commands[0] == [b"AUTH", b"us", b"of sentinels"]
    assert all(b"of the server" not in command for command in sentinels[0].commands)
    await commands.close()


async def test_without_any_sentinel_it_fails_at_once_and_says_so(sentinels: Three) -> None:
    for scripted in sentinels.all:
        scripted.stop()
    commands = connect(sentinels.url())
    with pytest.raises(ConnectionError, match="no sentinel"):
        await commands.call("PING")
    await commands.close()


async def test_who_closes_leaves_no_connection_and_no_task(sentinels: Three, first: Valkey) -> None:
    sentinels.say(first)
    for silent in (False, True):
        for scripted in sentinels.all:
            scripted.silent = silent
            scripted.commands.clear()
        commands = connect(sentinels.url())
        asked = asyncio.create_task(commands.call("PING"))
        if silent:
            await eventually(lambda: all(scripted.commands for scripted in sentinels.all))
        else:
            await asked
        await commands.close()
        await asyncio.gather(asked, return_exceptions=True)
        await asyncio.sleep(0)
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not any("primary" in name for name in names), names
