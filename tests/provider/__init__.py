"""A scripted provider: what OpenAI and Anthropic put on the wire, when and as the test says.

    async with ScriptedProvider() as provider:
        gate = provider.gate()
        provider.script("m", Text("Hel"), Wait(gate), Text("lo"), Usage(input=9, output=2))
        ...                                 # the code under test calls provider.openai_url or provider.anthropic_url
        call = await provider.next_call()
        await gate.reached()                # "Hel" is out, the stream is held: no sleep was needed
        gate.open()
        await call.ended()
        assert call.sent_text == "Hello"

Speaks `POST /v1/chat/completions`, `POST /v1/responses`, `POST /v1/messages` (stream or not) and `GET /v1/models`, on
loopback, in the test's own loop; `python -m tests.provider` is the same as a process. Refuses requests that the real
ones refuse (checks.py). A background response (`"background": true`) goes on whoever reads it:

    provider.script("m", Text("Hel"), CutReader(), Text("lo"))
    ...                                     # POST, cut behind "Hel"; GET ?stream=true&starting_after=5
    (run,) = provider.runs                  # paid once
    assert [(read.method, read.end) for read in run.reads] == [("POST", "cut"), ("GET", "finished")]
"""

from tests.provider.breaks import Cut, CutReader, Eof, Failure, HttpError, Silence, StreamError
from tests.provider.calls import Call
from tests.provider.gate import Gate
from tests.provider.quirks import EmptyChunk, Quirks
from tests.provider.runs import Read, Run
from tests.provider.server import ScriptedProvider
from tests.provider.steps import (
    Arguments,
    Begin,
    Delay,
    Dribble,
    Finish,
    Headers,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    RedactedThinking,
    Refusal,
    Stamps,
    Step,
    Text,
    Tokens,
    ToolCall,
    Usage,
    Wait,
)

__all__ = [
    "Arguments",
    "Begin",
    "Call",
    "Cut",
    "CutReader",
    "Delay",
    "Dribble",
    "EmptyChunk",
    "Eof",
    "Failure",
    "Finish",
    "Gate",
    "Headers",
    "HttpError",
    "NoUsage",
    "Ping",
    "Quirks",
    "RawBytes",
    "Read",
    "Reasoning",
    "RedactedThinking",
    "Refusal",
    "Run",
    "ScriptedProvider",
    "Silence",
    "Stamps",
    "Step",
    "StreamError",
    "Text",
    "Tokens",
    "ToolCall",
    "Usage",
    "Wait",
]
