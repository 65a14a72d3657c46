"""One connection for all commands: everybody gets their own reply, and nobody waits for ever."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import hiredis
import pytest
from redis.asyncio import Redis
from redis.exceptions import BusyLoadingError, NoScriptError, ReadOnlyError, ResponseError

from shared.keys import Keys
from shared.log import Log
from shared.multiplexer import Multiplexer
from shared.queue import Queue
from shared.redis import ConnectionError, DataError, Scripts, TimeoutError, connect, connect_blocking
from tests.faults.proxy import Proxy
from tests.stack import Stack, eventually
from tests.valkey import Valkey, valkey


@pytest.fixture
async def commands(shared_valkey: Valkey) -> AsyncIterator[Multiplexer]:
    multiplexer = connect(shared_valkey.url, timeout_s=5)
    yield multiplexer
    await multiplexer.close()


@pytest.fixture
async def redis(shared_valkey: Valkey) -> AsyncIterator[Redis]:
    """Another client, to see and to hurt the first one."""
    async with Redis.from_url(shared_valkey.url) as client:
        yield client


async def turn() -> None:
    """Let the loop turn once: what is to be sent has been sent."""
    await asyncio.sleep(0)


async def outcome(asked: asyncio.Task[Any]) -> Any:
    """Return what a command came to, its error too."""
    async with asyncio.timeout(5):
        return (await asyncio.gather(asked, return_exceptions=True))[0]


async def test_each_of_many_commands_at_once_gets_its_own_reply(commands: Multiplexer, prefix: str) -> None:
    async def ask(n: int) -> None:
        match n % 4:
            case 0:
                assert await commands.call("ECHO", f"{prefix} {n}") == f"{prefix} {n}".encode()
            case 1:
                assert await commands.read("ECHO", b"x" * (n * 100)) == b"x" * (n * 100)
            case 2:
                assert await commands.call("EVAL", "return {ARGV[1], {tonumber(ARGV[2])}}", 0, n, n) == [
                    str(n).encode(), [n],
                ]  # fmt: skip
            case _:
                assert await commands.call("GET", f"{prefix}:{n}") is None

    await asyncio.gather(*[ask(n) for n in range(1000)])


async def test_those_who_come_while_it_connects_share_the_connection(shared_valkey: Valkey) -> None:
    async with Proxy(shared_valkey.port) as proxy:
        commands = connect(proxy.url)
        replies = await asyncio.gather(*[commands.call("ECHO", n) for n in range(50)])
        assert replies == [str(n).encode() for n in range(50)]
        assert proxy.opened == 1
        await commands.close()


async def test_the_commands_of_one_turn_leave_in_one_write(commands: Multiplexer) -> None:
    await commands.call("PING")
    link: Any = commands._link
    transport, writes = link._transport, list[bytes]()

    class Spy:
        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

        def __getattr__(self, name: str) -> Any:
            return getattr(transport, name)

    link._transport = Spy()
    assert await asyncio.gather(*[commands.call("ECHO", n) for n in range(3)]) == [b"0", b"1", b"2"]
    assert writes == [b"".join([b"*2\r\n$4\r\nECHO\r\n$1\r\n%d\r\n" % n for n in range(3)])]
    await commands.call("PING")
    assert len(writes) == 2


async def test_the_reply_of_a_caller_that_has_left_goes_to_nobody_else(commands: Multiplexer) -> None:
    for leave_after in (None, turn):
        asked = [asyncio.create_task(commands.call("ECHO", n)) for n in range(200)]
        await turn()
        if leave_after is not None:
            await leave_after()
        for left in asked[::2]:
            left.cancel()
        later = await commands.call("ECHO", "later")
        assert later == b"later"
        assert await asyncio.gather(*asked[1::2]) == [str(n).encode() for n in range(1, 200, 2)]
        assert all(left.cancelled() for left in asked[::2])


async def test_who_leaves_while_it_connects_takes_nobody_along(shared_valkey: Valkey) -> None:
    async with Proxy(shared_valkey.port) as proxy:
        proxy.latency_s = 0.02
        commands = connect(proxy.url)
        first, second = [asyncio.create_task(commands.call("ECHO", name)) for name in ("first", "second")]
        await eventually(lambda: proxy.opened)
        first.cancel()
        assert await outcome(second) == b"second"
        assert isinstance(await outcome(first), asyncio.CancelledError)
        await commands.close()


async def test_a_server_that_is_stalled_costs_a_bounded_wait_and_the_next_command_is_on_a_new_connection() -> None:
    with valkey() as server:
        commands = connect(server.url, timeout_s=0.3)
        first = await commands.call("CLIENT", "ID")
        server.process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            asked = [asyncio.create_task(ask("ECHO", "x")) for ask in (commands.call, commands.read) * 3]
            assert {type(await outcome(command)) for command in asked} == {TimeoutError}
            assert 0.3 <= time.monotonic() - began < 1, "a read does not wait twice"
            with pytest.raises(TimeoutError):
                await commands.call("PING")
            assert time.monotonic() - began < 2, "to connect is no endless wait either"
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert await commands.call("ECHO", "again") == b"again"
        assert await commands.call("CLIENT", "ID") > first
        await commands.close()


@pytest.mark.alone
async def test_each_command_has_its_own_time_from_when_it_was_sent(shared_valkey: Valkey, prefix: str) -> None:
    """One timer for all of them: it must not take the age of one for that of another."""
    commands = connect(shared_valkey.url, timeout_s=0.5)
    for _ in range(3):
        assert await commands.call("BLPOP", prefix, 0.3) is None
    await commands.close()


async def test_a_connection_that_is_killed_fails_a_call_and_lets_a_read_ask_once_more(
    commands: Multiplexer, redis: Redis, prefix: str
) -> None:
    await redis.set(prefix, "kept")
    number = await commands.call("CLIENT", "ID")
    held = asyncio.create_task(commands.call("BLPOP", f"{prefix}:empty", 0))
    written = asyncio.create_task(commands.call("INCR", f"{prefix}:count"))
    read = asyncio.create_task(commands.read("GET", prefix))
    await eventually(lambda: _is_blocked(redis, number))
    await redis.client_kill_filter(_id=number)
    assert isinstance(await outcome(held), ConnectionError)
    assert isinstance(await outcome(written), ConnectionError), "it may or may not have run"
    assert await outcome(read) == b"kept"
    assert await redis.exists(f"{prefix}:count") == 0


async def _is_blocked(redis: Redis, number: int) -> bool:
    return any(int(client["id"]) == number and "b" in client["flags"] for client in await redis.client_list())


async def test_a_connection_that_was_lost_while_nobody_asked_is_nobodys_error(
    commands: Multiplexer, redis: Redis
) -> None:
    number = await commands.call("CLIENT", "ID")
    await redis.client_kill_filter(_id=number)
    await eventually(lambda: commands._link is None)
    assert await commands.call("ECHO", "x") == b"x"


async def test_a_read_asks_once_more_and_not_for_ever() -> None:
    nobody = connect("redis://127.0.0.1:1/0")
    with pytest.raises(ConnectionError):
        await nobody.read("PING")
    await nobody.close()


@pytest.mark.parametrize("bad", [None, object(), ["a"], {"a": 1}, "\ud800"], ids=lambda bad: type(bad).__name__)
async def test_arguments_that_no_command_can_carry_disturb_nobody(
    commands: Multiplexer, prefix: str, bad: object
) -> None:
    await commands.call("PING")
    answers: Sequence[Any] = await asyncio.gather(
        commands.call("ECHO", "before"),
        commands.call("SET", prefix, bad),
        commands.read("ECHO", "after"),
        return_exceptions=True,
    )
    assert (answers[0], answers[2]) == (b"before", b"after")
    assert isinstance(answers[1], DataError)
    assert prefix not in str(answers[1]), "what was to be sent is not for a log"
    assert await commands.call("EXISTS", prefix) == 0


async def test_what_the_server_refuses_raises_in_who_asked(commands: Multiplexer, prefix: str) -> None:
    await commands.call("SET", prefix, "text")
    answers = await asyncio.gather(
        commands.call("ECHO", "a"),
        commands.call("LPUSH", prefix, "x"),
        commands.call("ECHO", "b"),
        commands.call("NO-SUCH-COMMAND"),
        commands.call("EVALSHA", "0" * 40, 0),
        commands.call("EVAL", "return redis.error_reply('READONLY a replica')", 0),
        commands.call("EVAL", "return redis.error_reply('LOADING the dataset')", 0),
        commands.call("ECHO", "c"),
        return_exceptions=True,
    )
    assert (answers[0], answers[2], answers[-1]) == (b"a", b"b", b"c")
    assert [type(answer) for answer in answers[3:-1]] == [ResponseError, NoScriptError, ReadOnlyError, BusyLoadingError]
    assert str(answers[1]).startswith("WRONGTYPE")
    await turn()
    assert commands._link is None, "a server that has moved is left"


async def test_scripts_that_the_server_has_forgotten_are_sent_again(commands: Multiplexer, prefix: str) -> None:
    scripts, keys = Scripts(commands), Keys(prefix)
    await scripts.load()
    queue = Queue(commands, scripts, keys)
    await commands.call("SCRIPT", "FLUSH")
    renewals = await asyncio.gather(*[queue.register(f"w{n}", 60) for n in range(10)])
    assert all(renewal.lease_held for renewal in renewals)
    assert await commands.call("ZCARD", keys.leases) == 10


async def test_a_wait_for_work_that_is_cancelled_takes_nothing_away(
    shared_valkey: Valkey, redis: Redis, commands: Multiplexer, prefix: str
) -> None:
    queue, keys = Queue(commands, Scripts(commands), Keys(prefix)), Keys(prefix)
    blocking = connect_blocking(shared_valkey.url, longest_wait_s=30)
    number = await blocking.call("CLIENT", "ID")
    waiting = asyncio.create_task(queue.wait(blocking, 30))
    await eventually(lambda: _is_blocked(redis, number))
    waiting.cancel()
    assert isinstance(await outcome(waiting), asyncio.CancelledError)

    async def gone() -> bool:
        return all(int(client["id"]) != number for client in await redis.client_list())

    await eventually(gone)
    await redis.lpush(keys.wake, 1)  # type: ignore[misc]
    assert await redis.llen(keys.wake) == 1  # type: ignore[misc]
    await asyncio.wait_for(queue.wait(blocking, 30), 5)
    assert await redis.llen(keys.wake) == 0, "the next wait is on a new connection"  # type: ignore[misc]
    await blocking.close()


async def test_a_connection_that_is_dropped_or_closed_fails_what_waits_on_it(
    commands: Multiplexer, prefix: str
) -> None:
    waiting = [asyncio.create_task(commands.call("BLPOP", prefix, 0)) for _ in range(2)]
    await eventually(lambda: len(commands._pending) == 2)
    commands.drop()
    assert [type(await outcome(command)) for command in waiting] == [ConnectionError] * 2
    waiting = [asyncio.create_task(commands.call("BLPOP", prefix, 0))]
    await eventually(lambda: commands._pending)
    await commands.close()
    assert isinstance(await outcome(waiting[0]), ConnectionError)


async def test_it_can_be_closed_before_it_connects_and_at_any_moment_while_it_does(shared_valkey: Valkey) -> None:
    await connect(shared_valkey.url).close()
    async with Proxy(shared_valkey.port) as proxy:
        proxy.black_hole()
        for turns in range(1, 40):
            commands = connect(proxy.url)
            waiting = asyncio.create_task(commands.call("PING"))
            for _ in range(turns):
                await turn()
            await asyncio.wait_for(commands.close(), 0.4)
            assert isinstance(await outcome(waiting), ConnectionError)


async def test_what_is_no_reply_ends_the_connection() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65_536):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                writer.write(b"?\r\n" if command[0] == b"ECHO" else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    commands = connect(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
    assert await commands.call("PING") == b"OK"
    with pytest.raises(ConnectionError):
        await commands.call("ECHO", "x")
    assert await commands.call("PING") == b"OK"
    await commands.close()
    server.close()


async def test_a_log_is_read_whole_over_a_connection_that_keeps_breaking(bare: Stack, redis: Redis) -> None:
    log = Log(bare.commands, Scripts(bare.commands), bare.keys)
    for seq in range(1, 1001):
        await redis.xadd(bare.keys.log("job"), {"token": b'{"text":"x"}'}, f"1-{seq}")
    for _ in range(5):
        number = await bare.commands.call("CLIENT", "ID")
        answer = asyncio.create_task(log.answer("job", 0))
        await turn()
        await redis.client_kill_filter(_id=number)
        assert len((await answer).text) == 1000
