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

Speaks `POST /v1/chat/completions`, `POST /v1/messages` (stream or not) and `GET /v1/models`, on loopback, in the test's
own loop; `python -m tests.provider` is the same as a process. Refuses requests that the real ones refuse (checks.py).
"""

from tests.provider.calls import Call
from tests.provider.gate import Gate
from tests.provider.server import ScriptedProvider
from tests.provider.steps import (
    Arguments,
    Begin,
    Cut,
    Delay,
    Dribble,
    Eof,
    Finish,
    Headers,
    HttpError,
    NoUsage,
    Ping,
    RawBytes,
    Reasoning,
    Refusal,
    Silence,
    Stamps,
    Step,
    StreamError,
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
    "Delay",
    "Dribble",
    "Eof",
    "Finish",
    "Gate",
    "Headers",
    "HttpError",
    "NoUsage",
    "Ping",
    "RawBytes",
    "Reasoning",
    "Refusal",
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
