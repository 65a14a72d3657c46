"""LangChain runnables: which can be used, and what of their chunks becomes of an answer."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda

from shared.prices import Usage
from shared.requests import JobRequest
from shared.settings import ProviderConfig, Settings
from worker.failures import explain
from worker.providers.base import Truncated
from worker.providers.langchain import LangChainProvider
from worker.providers.langchain_messages import messages
from worker.providers.registry import Providers
from worker.providers.run import Run

HERE = "tests.unit.test_langchain"

no_runnable = object()
plain: Runnable[Any, Any] = RunnableLambda(lambda said: f"You said {said[-1].content}.")
chat_model = FakeListChatModel(responses=["Hello there."])


class Recorder:
    """A sink that keeps what it is given."""

    run: Run | None = None
    full = False

    def __init__(self) -> None:
        self.took: list[Any] = []

    def running(self, run: Run) -> None:
        raise AssertionError("nothing runs in the background")

    async def room(self) -> None:
        raise AssertionError("it was never full")

    def text(self, text: str) -> None:
        self.took.append(text)

    def refusal(self, text: str) -> None:
        self.took.append(("refusal", text))

    def reasoning(self, text: str) -> None:
        self.took.append(("reasoning", text))

    def tool_call(self, index: int, arguments: str, id: str | None = None, name: str | None = None) -> None:
        self.took.append((index, id, name, arguments))

    def usage(self, usage: Usage) -> None:
        self.took.append(usage)


def config(attribute: str, **fields: Any) -> ProviderConfig:
    return ProviderConfig(kind="langchain", runnable=f"{HERE}:{attribute}", **fields)


def streaming(monkeypatch: pytest.MonkeyPatch, *chunks: Any, **fields: Any) -> LangChainProvider:
    """Return a provider whose runnable streams these chunks; an exception among them is raised."""

    async def stream(_: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for chunk in chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    monkeypatch.setattr(sys.modules[HERE], "scripted", RunnableGenerator(stream), raising=False)
    return LangChainProvider("mine", config("scripted", **fields))


def request(**fields: Any) -> JobRequest:
    return JobRequest.model_validate(
        {"provider": "mine", "model": "m", "messages": [{"role": "user", "content": "Hi"}], **fields}
    )


@pytest.mark.parametrize(
    ("runnable", "honours", "said"),
    [
        (f"{HERE}:nobody", [], "has no attribute 'nobody'"),
        (f"{HERE}:no_runnable", [], "is no Runnable"),
        ("tests.unit.nowhere:x", [], "No module named 'tests.unit.nowhere'"),
        (f"{HERE}:plain", ["temperature"], "honours temperature, but is no chat model"),
    ],
)
def test_what_cannot_be_used_ends_the_worker_with_one_line(runnable: str, honours: list[str], said: str) -> None:
    row = {"kind": "langchain", "runnable": runnable, "honours": honours}
    settings = Settings.model_validate({"more_providers": {"mine": row}, "_env_file": None})
    with pytest.raises(SystemExit) as exit:
        Providers(settings)
    line = str(exit.value)
    assert line.startswith("rejoin: REJOIN_PROVIDERS: 'mine'")
    assert said in line
    assert "\n" not in line


def test_without_langchain_a_worker_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_core", None)
    monkeypatch.delitem(sys.modules, "worker.providers.langchain")
    for name in [name for name in sys.modules if name.startswith("langchain_core.")]:
        monkeypatch.delitem(sys.modules, name)
    settings = Settings.model_validate({"more_providers": {"mine": {"kind": "langchain", "runnable": "a:b"}}})
    with pytest.raises(SystemExit, match=r"^rejoin: .*'mine' needs langchain_core.*pip install langchain-core$"):
        Providers(settings)


def test_who_does_not_use_it_does_not_import_it() -> None:
    code = "import sys, api.main, worker.workshop; sys.exit('langchain_core' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_runnable_that_has_no_stream_answers_at_once() -> None:
    sink = Recorder()
    finish = await LangChainProvider("mine", config("plain")).generate(request(), sink)
    assert (sink.took, finish.reason, finish.usage) == (["You said Hi."], "stop", None)


async def test_a_chat_model_without_reasons_and_figures_is_whole_at_its_clean_end() -> None:
    sink = Recorder()
    finish = await LangChainProvider("mine", config("chat_model")).generate(request(), sink)
    assert ("".join(sink.took), finish.reason, finish.usage) == ("Hello there.", "stop", None)


async def test_one_that_promises_a_reason_is_truncated_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Truncated):
        await streaming(monkeypatch, "half", honours=["finish_reason"]).generate(request(), Recorder())


async def test_thoughts_text_calls_and_figures_of_anthropic_s_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = {"model_provider": "anthropic"}

    def chunk(content: Any, **fields: Any) -> AIMessageChunk:
        told = {**provider, **fields.pop("told", {})}
        return AIMessageChunk(content=content, response_metadata=told, **fields)

    def piece(id: str | None, name: str | None, args: str, index: int) -> Any:
        return {"type": "tool_call_chunk", "id": id, "name": name, "args": args, "index": index}

    sink = Recorder()
    finish = await streaming(
        monkeypatch,
        chunk([], usage_metadata={"input_tokens": 10, "output_tokens": 1, "total_tokens": 11,
                                  "input_token_details": {"cache_read": 4}}),
        chunk([{"type": "thinking", "thinking": "Hm. ", "index": 0}]),
        chunk([{"type": "thinking", "thinking": "Yes.", "index": 0}]),
        chunk([{"type": "thinking", "signature": "sig", "index": 0}]),
        chunk([{"type": "redacted_thinking", "data": "sealed", "index": 1}]),
        chunk([{"type": "text", "text": "Let me look.", "index": 2}]),
        chunk([], tool_call_chunks=[piece("toolu_1", "look", "", 3)]),
        chunk([], tool_call_chunks=[piece(None, None, '{"a":', 3)]),
        chunk([], tool_call_chunks=[piece(None, None, "1}", 3)]),
        chunk([], tool_call_chunks=[piece("toolu_2", "look", "{}", 4)]),
        chunk([], told={"stop_reason": "tool_use"},
              usage_metadata={"input_tokens": 0, "output_tokens": 19, "total_tokens": 19}),
        honours=["finish_reason"],
    ).generate(request(), sink)  # fmt: skip
    assert sink.took == [
        ("reasoning", "Hm. "), ("reasoning", "Yes."), "Let me look.",
        (0, "toolu_1", "look", ""), (0, None, None, '{"a":'), (0, None, None, "1}"), (1, "toolu_2", "look", "{}"),
    ]  # fmt: skip
    assert finish.reason == "tool_calls"
    assert finish.usage is not None
    assert finish.usage.model_dump() == Usage(input_tokens=10, cached_input_tokens=4, output_tokens=20).model_dump()
    assert finish.reasoning_blocks == [
        {"type": "thinking", "text": "Hm. Yes.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "sealed"},
    ]
    blocks = [dict(block) for block in finish.reasoning_blocks]
    calls = [{"id": "toolu_1", "name": "look", "arguments": '{"a":1}'}]
    turn = {"role": "assistant", "content": "Let me look.", "tool_calls": calls, "reasoning_blocks": blocks}
    answer = {"role": "tool", "tool_call_id": "toolu_1", "content": "seen"}
    said = messages(request(system="Be brief.", messages=[{"role": "user", "content": "Hi"}, turn, answer]))
    assert [message.type for message in said] == ["system", "human", "ai", "tool"]
    assert said[2].content == [
        {"type": "thinking", "thinking": "Hm. Yes.", "signature": "sig"},
        {"type": "redacted_thinking", "data": "sealed"},
        {"type": "text", "text": "Let me look."},
    ]
    assert isinstance(said[2], AIMessage)
    assert said[2].tool_calls == [{"type": "tool_call", "id": "toolu_1", "name": "look", "args": {"a": 1}}]


async def test_a_sealed_thought_of_openai_goes_back_as_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    thought = {"type": "reasoning", "id": "rs_1", "encrypted_content": "sealed", "summary": [
        {"type": "summary_text", "text": "Hm.", "index": 0}], "index": 0}  # fmt: skip
    sink = Recorder()
    chunk = AIMessageChunk(content=[thought], response_metadata={"model_provider": "openai"})
    finish = await streaming(monkeypatch, chunk, AIMessageChunk(content="42")).generate(request(), sink)
    assert sink.took == [("reasoning", "Hm."), "42"]
    turn = {"role": "assistant", "content": "42", "reasoning_blocks": [dict(finish.reasoning_blocks[0])]}
    (said,) = messages(request(messages=[turn]))
    assert said.content == [
        {"type": "reasoning", "id": "rs_1", "encrypted_content": "sealed",
         "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "text", "text": "42"},
    ]  # fmt: skip


async def test_a_message_that_comes_whole_is_taken_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = Recorder()
    whole = AIMessage("So.", tool_calls=[{"id": "a", "name": "look", "args": {"x": 1}}])
    finish = await streaming(monkeypatch, whole).generate(request(), sink)
    assert (sink.took, finish.reason) == (["So.", (0, "a", "look", '{"x":1}')], "tool_calls")


class Graph(Runnable[Any, Any]):
    """What LangGraph's compiled graphs look like from outside."""

    stream_mode = "updates"

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        assert kwargs == {"stream_mode": "messages"}
        told = {"langgraph_node": "agent"}
        (asked,) = input["messages"]
        assert isinstance(asked, HumanMessage)
        call: Any = {"type": "tool_call_chunk", "id": "a", "name": "look", "args": "{}", "index": 0}
        yield AIMessageChunk(content="", tool_call_chunks=[call]), told
        yield AIMessageChunk(content="", response_metadata={"finish_reason": "tool_calls"}), told
        yield ToolMessage("sunny", tool_call_id="a"), told
        yield AIMessageChunk(content="It is "), told
        yield AIMessageChunk(content="sunny.", response_metadata={"finish_reason": "stop"}), told


graph = Graph()


async def test_a_graph_s_own_calls_are_its_own() -> None:
    sink = Recorder()
    finish = await LangChainProvider("mine", config("graph")).generate(request(), sink)
    assert (sink.took, finish.reason) == (["It is ", "sunny."], "stop")


async def test_what_is_neither_text_nor_a_message_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TypeError) as error:
        await streaming(monkeypatch, {"a": 1}).generate(request(), Recorder())
    assert explain(error.value).code == "provider_protocol"


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (ValueError("sk-canary"), "provider_error"),
        (RuntimeError("x"), "provider_error"),
        (KeyError("x"), "provider_error"),
        (httpx.ReadTimeout("x"), "provider_timeout"),
        (httpx.ConnectError("x"), "provider_unreachable"),
        (ConnectionResetError(), "provider_unreachable"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
async def test_what_it_raises_has_a_code_and_no_words(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, raised: Exception, code: str
) -> None:
    with pytest.raises(Exception) as error:  # noqa: PT011  (which one is what is asked)
        await streaming(monkeypatch, raised).generate(request(), Recorder())
    why = explain(error.value)
    assert why.code == code
    assert "canary" not in why.message + caplog.text


async def test_cancelling_closes_what_it_reads_from(monkeypatch: pytest.MonkeyPatch) -> None:
    began, closed = asyncio.Event(), asyncio.Event()

    async def stream(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        try:
            yield "Hel"
            began.set()
            await asyncio.Event().wait()
        finally:
            closed.set()

    monkeypatch.setattr(sys.modules[HERE], "endless", RunnableGenerator(stream), raising=False)
    sink = Recorder()
    task = asyncio.create_task(LangChainProvider("mine", config("endless")).generate(request(), sink))
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()
    assert sink.took == ["Hel"]


async def test_cancelling_while_there_is_no_room_closes_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runnable waits to be asked for its next chunk then: nobody but us would end it."""
    closed = asyncio.Event()

    class Stream(Runnable[Any, Any]):
        def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                while True:
                    yield "more"
            finally:
                closed.set()

    class Full(Recorder):
        full = True

        async def room(self) -> None:
            waits.set()
            await asyncio.Event().wait()

    waits = asyncio.Event()
    monkeypatch.setattr(sys.modules[HERE], "unread", Stream(), raising=False)
    task = asyncio.create_task(LangChainProvider("mine", config("unread")).generate(request(), Full()))
    await waits.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert closed.is_set()


async def test_it_reads_no_faster_than_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Recorder):
        rooms = 0

        @property
        def full(self) -> bool:  # type: ignore[override]
            return True

        async def room(self) -> None:
            self.rooms += 1

    sink = Full()
    await streaming(monkeypatch, "a", "b").generate(request(), sink)
    assert (sink.took, sink.rooms) == (["a", "b"], 2)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"kind": "langchain"}, "has no runnable"),
        ({"kind": "langchain", "runnable": "a:b", "base_url": "http://x"}, "has no base_url"),
        ({"kind": "openai", "base_url": "http://x", "runnable": "a:b"}, "only kind langchain"),
        ({"kind": "openai", "base_url": "http://x", "honours": []}, "only kind langchain"),
        ({"kind": "langchain", "runnable": "a"}, "should match pattern"),
        ({"kind": "langchain", "runnable": "os;x:y"}, "should match pattern"),
        ({"kind": "langchain", "runnable": "a:b", "honours": ["magic"]}, "Input should be"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(row: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Settings.model_validate({"more_providers": {"mine": row}})


def test_conversations_of_every_shape_become_messages() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
    said: list[BaseMessage] = messages(
        request(messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "What is it?"}, image]},
            {"role": "assistant", "content": "A cat."},
        ])
    )  # fmt: skip
    assert [(message.type, message.content) for message in said] == [
        ("system", "Be brief."),
        ("human", [{"type": "text", "text": "What is it?"}, image]),
        ("ai", "A cat."),
    ]
