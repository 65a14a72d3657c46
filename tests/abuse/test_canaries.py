"""Where a prompt, an answer and a key may be found afterwards, and where not."""

import asyncio
import logging

import pytest

from tests import keys
from tests.provider import HttpError, Text
from tests.stack import Stack


async def test_prompts_are_in_their_job_alone_and_keys_nowhere(bare: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """CWE-532, CWE-312: not in a log line of either process, at DEBUG too; in Redis only where they expire."""
    caplog.set_level(logging.DEBUG)
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    key = await keys.new_key(bare, "alice")
    alice = bare.client(key)
    bare.provider.script("m", Text("canary-answer"))
    bare.provider.script("bad", HttpError(400))
    tickets = []
    for model in ("m", "bad"):
        job_id = await alice.submit(model, messages=[{"role": "user", "content": "canary-prompt"}])
        await asyncio.wait_for(alice.all_events(job_id), 10)
        tickets.append((await alice.job(job_id))["events_url"].partition("ticket=")[2])
    secrets = [key, keys.SECRET, "sk-canary-openai", "sk-canary-anthropic", *tickets]
    ours = [
        record.getMessage() for record in caplog.records if record.name.split(".")[0] in ("api", "worker", "shared")
    ]
    logged = "\n".join(ours)
    for canary in ("canary-prompt", "canary-answer", *secrets):
        assert canary not in logged
    found = set()
    for name in await bare.redis.keys(f"{bare.prefix}:*"):
        dumped = await bare.redis.dump(name)
        # (A long string is compressed in a dump: hashes and streams are read as they are.)
        kind = await bare.redis.type(name)
        if kind == b"hash":
            dumped = repr(await bare.redis.hgetall(name)).encode()  # type: ignore[misc]
        elif kind == b"stream":
            dumped = repr(await bare.redis.xrange(name)).encode()
        for secret in secrets:
            assert secret.encode() not in name + dumped, name
        if b"canary-prompt" in dumped or b"canary-answer" in dumped:
            found.add(name.split(b":")[1])
            assert await bare.redis.pttl(name) > 0, name
    assert found == {b"job", b"log"}
