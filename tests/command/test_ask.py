"""`rejoin ask` and `rejoin tail`, as processes, against a real stack."""

import json
import re
import signal

import pytest

from tests.client import Client, Event
from tests.command.terminal import Running, rejoin
from tests.faults.proxy import Proxy
from tests.library.wire import Cutter
from tests.oracle import Reading, Record, judge
from tests.provider import HttpError, Reasoning, Silence, Text, Usage, Wait
from tests.stack import Stack, eventually

MODEL = ("--model", "openai/m")


async def test_an_answer_comes_through_a_pipe_as_it_is_written(stack: Stack) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Reasoning("Hm."), Text("one "), Wait(gate), Text("two 👍"), Usage(input=9, output=2))
    async with Running("ask", "Hi", *MODEL, REJOIN_URL=stack.url) as command:
        await command.until("one ")
        gate.open()
        done = await command.done()
    assert (done.code, done.out) == (0, "one two 👍\n")
    assert re.fullmatch(r"rejoin: openai/m, 9 \+ 2 tokens, first after \d+ ms, \d\.\d s, job_[0-9a-f]{32}\n", done.err)
    assert [message["content"] for message in stack.provider.calls[0].body["messages"]] == ["Hi"]


async def test_a_question_is_read_from_the_standard_input(stack: Stack) -> None:
    stack.provider.script("m", Text("Bonjour"))
    given = {"REJOIN_URL": stack.url, "REJOIN_MODEL": "openai/m"}
    done = await rejoin("ask", "-", "--quiet", "--system", "In French.", stdin="Hi,\nyou", **given)
    assert (done.code, done.out, done.err) == (0, "Bonjour\n", "")
    assert [message["content"] for message in stack.provider.calls[0].body["messages"]] == ["In French.", "Hi,\nyou"]
    done = await rejoin("ask", "-", stdin=" \n", **given)
    assert (done.code, done.out, done.err) == (1, "", "rejoin: nothing was asked\n")


async def test_events_are_told_as_they_are(stack: Stack) -> None:
    stack.provider.script("m", Text('a "quote"\n'), Text("b"))
    done = await rejoin("ask", "Hi", "--json", *MODEL, REJOIN_URL=stack.url)
    told = [json.loads(line) for line in done.out.splitlines()]
    assert [event["event"] for event in told if event["event"] != "token"] == ["queued", "started", "completed"]
    assert "".join(event["data"]["text"] for event in told if event["event"] == "token") == 'a "quote"\nb'
    job_id = done.err.rpartition(", ")[2].strip()
    record = Record({job_id}, [Reading(job_id, [Event(**event) for event in told])])
    record.calls[job_id] = stack.provider.calls
    assert judge(record) == []


async def test_one_ctrl_c_cancels_the_job_and_says_so(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Text("half an ans"), Silence())
    async with Running("ask", "Hi", *MODEL, REJOIN_URL=stack.url) as command:
        await command.until("half an ans")
        command.interrupt()
        done = await command.done()
    assert (done.code, done.out) == (130, "half an ans\n")
    said = re.fullmatch(r"rejoin: cancelled (job_[0-9a-f]{32})\n", done.err)
    assert said, done.err
    assert stack.provider.calls[0].closed_by_client
    job = await client.job(said[1])
    assert (job["status"], job["text"]) == ("cancelled", "half an ans")


async def test_a_second_ctrl_c_does_not_wait_for_the_confirmation(stack: Stack) -> None:
    stack.provider.script("m", Text("half an ans"), Silence())
    async with (
        Proxy(int(stack.url.rpartition(":")[2])) as proxy,
        Running("ask", "Hi", *MODEL, REJOIN_URL=f"http://127.0.0.1:{proxy.port}") as command,
    ):
        await command.until("half an ans")
        proxy.black_hole()
        command.interrupt()
        await command.until("half an ans\n")
        command.interrupt()
        done = await command.done()
    assert done.code == 130
    assert re.fullmatch(r"rejoin: not confirmed: rejoin cancel job_[0-9a-f]{32}\n", done.err)


async def test_a_pipe_that_nobody_reads_any_more_cancels(stack: Stack) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("first line\n"), Wait(gate), Text("second line\n"), Silence())
    async with Running("ask", "Hi", *MODEL, REJOIN_URL=stack.url) as command:
        await command.until("first line")
        command.close_pipe()
        gate.open()
        done = await command.done()
    assert (done.code, done.err.partition(" job_")[0]) == (141, "rejoin: cancelled")
    assert stack.provider.calls[0].closed_by_client


async def test_a_terminal_sees_thinking_dimmed_and_no_controls(stack: Stack) -> None:
    """CWE-150, CWE-451: what a model writes does not move the cursor, set the title or turn text around."""
    stack.provider.script("m", Reasoning("Hm\x1b[2J."), Text("a\x1b]0;title\x07b\rc\x9b5n\u202ed"))
    async with Running("ask", "Hi", *MODEL, tty=True, REJOIN_URL=stack.url) as command:
        done = await command.done()
    shown = done.out.replace("\r\n", "\n")
    assert shown == "\x1b[2mHm\ufffd[2J.\x1b[0m\n\na\ufffd]0;title\ufffdb\ufffdc\ufffd5n\ufffdd\n"


@pytest.mark.parametrize("second", ["half an answer", "another one"])
async def test_an_attempt_that_is_lost_is_gone_on_from_or_begun_again(stack: Stack, second: str) -> None:
    """What a pipe has, it has: where the next attempt says the same it goes on, else a line says that it begins."""
    stack.provider.script("m", Text("half an ans"), Silence())
    gate = stack.provider.gate()
    stack.provider.then("m", Text(second[:4]), Text(second[4:]), Wait(gate), Text("!"))
    async with Running("ask", "Hi", *MODEL, REJOIN_URL=stack.url) as command:
        await command.until("half an ans")
        await stack.worker()
        stack.workers[0].worker.handle_sig(signal.SIGTERM)
        await command.until(second)
        gate.open()
        done = await command.done()
    again = second == "another one"
    assert (done.code, done.out) == (0, "half an ans\nanother one!\n" if again else "half an answer!\n")
    assert ("begins again" in done.err) is again


async def test_what_is_no_answer_is_no_success(stack: Stack) -> None:
    stack.provider.script("m", HttpError(401))
    done = await rejoin("ask", "Hi", *MODEL, REJOIN_URL=stack.url)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"rejoin: job_\w+ failed: .* \(provider_authentication\)\n", done.err)
    done = await rejoin("ask", "Hi", "--model", "nobody/m", REJOIN_URL=stack.url)
    assert (done.code, done.out) == (1, "")
    assert done.err.endswith("(unknown_provider)\n")


async def test_a_tail_goes_on_when_its_api_process_is_started_again(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("one "), Wait(gate), Text("two"))
    job_id = await client.submit()
    async with Cutter(stack.apis[0].url) as front, Running("tail", job_id, REJOIN_URL=front.url) as command:
        await command.until("one ")
        front.turn(stack.apis[1].url)
        gate.open()
        done = await command.done()
    assert (done.code, done.out) == (0, "one two\n")
    assert job_id in done.err
    assert front.connections >= 2


async def test_a_tail_begins_where_it_is_told_to_and_leaves_the_job_alone(stack: Stack, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("one "), Wait(gate), Text("two "), Silence())
    job_id = await client.submit()
    cursor = (await client.until(job_id, "token")).id
    gate.open()
    async with Running("tail", job_id, "--from", cursor, REJOIN_URL=stack.url) as command:
        await command.until("two ")
        command.interrupt()
        done = await command.done()
    assert (done.code, done.out) == (130, "two \n")
    assert re.search(rf"{job_id} goes on: rejoin tail {job_id} --from 1-\d+, or rejoin cancel {job_id}", done.err)
    assert (await client.job(job_id))["status"] == "running"


async def test_a_tail_of_what_has_ended_and_of_what_is_none(stack: Stack, client: Client) -> None:
    job_id = await client.submit()
    await eventually(lambda: stack.provider.calls)
    done = await rejoin("tail", job_id, "--json", REJOIN_URL=stack.url)
    assert done.code == 0
    assert json.loads(done.out.splitlines()[-1])["event"] == "completed"
    done = await rejoin("tail", "../models", REJOIN_URL=stack.url)
    assert (done.code, done.err) == (1, "rejoin: not the id of a job\n")
