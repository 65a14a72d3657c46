"""Ended logs become small, and no reader can tell but by the number of events."""

import json

from shared.events import EventId
from tests.client import Client, Event, text
from tests.paced import Paced
from tests.provider import HttpError, Reasoning, Silence, Tokens
from tests.stack import Stack

ANSWER = [f"token{i} " for i in range(2_000)]


async def compact(stack: Stack) -> int:
    """Do now what a worker does some seconds after the end."""
    compactor = stack.workers[0].worker.workshop.compactor
    compactor._age_s = -1
    return await compactor.run_once()


async def test_a_finished_answer_takes_at_most_twice_its_text(stack: Stack, client: Client) -> None:
    paced = Paced(stack, ANSWER[:60])
    stack.provider.script("m", *paced.steps, Tokens(ANSWER[60:], delay_s=0.0005))
    job_id = await client.submit()
    live = await paced.read(client, job_id)
    log = stack.keys.log(job_id)
    before = await stack.redis.memory_usage(log, samples=0)
    assert await compact(stack) == 1
    after = await stack.redis.memory_usage(log, samples=0)
    assert after is not None
    assert before is not None
    assert after < before
    assert after <= 2 * len("".join(ANSWER))
    late = await client.all_events(job_id, api=1)
    assert [event.event for event in late] == ["snapshot", "completed"]
    assert text(late) == text(live)
    assert late[-1] == live[-1]
    assert (await client.job(job_id))["text"] == "".join(ANSWER)
    assert 0 < await stack.redis.pttl(log) <= 3_600_000


async def test_resume_stays_exact_from_every_cursor(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Reasoning("Hm."), Tokens(ANSWER[:30], delay_s=0.01))
    job_id = await client.submit()
    live = await client.all_events(job_id)
    assert await compact(stack) == 1
    assert await compact(stack) == 0, "once is enough"
    for at, event in enumerate(live[:-1]):
        rest = await client.all_events(job_id, event.id)
        assert text([*live[: at + 1], *rest]) == text(live)
        assert rest[-1] == live[-1]
        if at == len(live) - 2:
            assert rest == live[-1:], "who had everything gets the end only"
    assert await client.all_events(job_id, live[-1].id) == []
    job = await client.job(job_id)
    assert (job["text"], job["reasoning"]) == ("".join(ANSWER[:30]), "Hm.")


async def test_a_reader_in_the_middle_of_its_replay_goes_on_with_the_snapshot(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens(ANSWER[:30], delay_s=0.005))
    job_id = await client.submit()
    live = await client.all_events(job_id)
    hub = stack.apis[0].app.state.rejoin.hub
    reader = hub.attach(job_id, EventId(*live[10].key))
    await compact(stack)
    seen: list[Event] = list(live[:11])
    async for batch in reader.batches():
        seen += [Event(str(entry.id), entry.event, json.loads(entry.data)) for entry in batch]
    hub.detach(reader)
    assert text(seen) == "".join(ANSWER[:30])


async def test_a_cancelled_log_is_compacted_too(stack: Stack, client: Client) -> None:
    stack.provider.script("m", Tokens(ANSWER[:30], delay_s=0.01), Silence())
    job_id = await client.submit()
    live = client.events(job_id)
    seen = [await anext(live) for _ in range(12)]
    await client.cancel(job_id)
    seen += [event async for event in live]
    assert await compact(stack) == 1
    late = await client.all_events(job_id)
    assert [event.event for event in late] == ["snapshot", "cancelled"]
    assert text(late) == text(seen)


async def test_short_logs_stay_as_they_are(bare: Stack) -> None:
    await bare.api()
    client = bare.client()
    cancelled = await client.submit()
    await client.cancel(cancelled)
    await bare.worker()
    bare.provider.script("m", HttpError(400))
    failed = await client.submit()
    events = await client.all_events(failed)
    await compact(bare)
    assert await client.all_events(failed) == events, "nothing to gain here"
    assert [e.event for e in await client.all_events(cancelled)] == ["queued", "cancelled"], "nor here"
    assert await bare.redis.zcard(bare.keys.ended) == 0
