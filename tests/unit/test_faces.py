"""What a log is told as, entry by entry, where that is hard to provoke from outside."""

import json
from typing import Any

import pytest

from api.dialect import Translation
from api.faces.ai_sdk_stream import UIChunks
from api.faces.anthropic_messages_answer import Content, Events
from api.faces.anthropic_thoughts import parted
from api.faces.openai_chat import Chunks
from api.faces.target import Target
from shared.events import Answer, Entry, EventId, dump, merge

JOB = f"job_{'0' * 32}"
STARTED = ("started", {"attempt": 1, "provider": "openai", "model": "m"})
USAGE = {"input_tokens": 9, "cached_input_tokens": 4, "output_tokens": 3, "estimated": False}
COMPLETED = ("completed", {"finish_reason": "stop", "usage": USAGE})
TEXTS = ["plain", 'quoted "\\', "\r\n\n", "\x00\u2028", "🌍", "\ud83d", "event: error\n\ndata: {}", "", "\\u0000"]


def entries(*events: tuple[str, dict[str, Any]]) -> list[Entry]:
    return [Entry(EventId(1, number), event, dump(data)) for number, (event, data) in enumerate(events)]


def chunks() -> Chunks:
    return Chunks(JOB, 0, Target("openai", "m"), shows_usage=True)


def events() -> Events:
    return Events(JOB, Target("openai", "m"), 5, thinks=False, shows_thinking=True)


def frames(translation: Translation, log: list[Entry]) -> list[Any]:
    """Return the data of all frames."""
    told = b"".join([translation.body([entry]) for entry in log])
    lines = [line.removeprefix(b"data: ") for line in told.split(b"\n") if line.startswith(b"data: ")]
    assert told.count(b"\n\n") == len(lines)
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def calls(*pieces: tuple[int, str]) -> list[tuple[str, dict[str, Any]]]:
    """Return the events of calls, by their index, in this order."""
    begun: set[int] = set()
    found = []
    for index, piece in pieces:
        named = {} if index in begun else {"id": f"call_{index}", "name": "tool"}
        begun.add(index)
        found.append(("tool_call", {"index": index, **named, "arguments": piece}))
    return found


@pytest.mark.parametrize("merged", [False, True])
def test_text_is_exact_in_chunks(merged: bool) -> None:
    log = entries(STARTED, *[("token", {"text": text}) for text in TEXTS], COMPLETED)
    found = frames(chunks(), list(merge(log)) if merged else log)
    told = [frame["choices"][0]["delta"].get("content") or "" for frame in found if frame["choices"]]
    assert "".join(told) == "".join(TEXTS)
    assert {(frame["id"], frame["model"], frame["object"]) for frame in found} == {
        ("chatcmpl-" + "0" * 32, "openai/m", "chat.completion.chunk")
    }
    assert [frame["usage"] is None for frame in found] == [True] * (len(found) - 1) + [False]


@pytest.mark.parametrize("merged", [False, True])
def test_text_and_thoughts_are_exact_in_blocks(merged: bool) -> None:
    thoughts = [("reasoning", {"text": text}) for text in TEXTS]
    log = entries(STARTED, *thoughts, *[("token", {"text": text}) for text in TEXTS], COMPLETED)
    found = frames(events(), list(merge(log)) if merged else log)
    for kind, index in (("thinking", 0), ("text", 1)):
        deltas = [frame["delta"] for frame in found if frame["type"] == "content_block_delta"]
        told = [delta[kind] for delta in deltas if delta["type"] == f"{kind}_delta"]
        assert "".join(told) == "".join(TEXTS)
        assert {"type": "content_block_stop", "index": index} in found


@pytest.mark.parametrize("translation", [chunks, events])
def test_a_snapshot_in_mid_answer_makes_what_was_told_void(translation: Any) -> None:
    """Of a log that has lost its last writes."""
    state = {"attempt": 1, "text": "another", "reasoning": "", "tool_calls": []}
    told = translation()
    found = frames(told, entries(STARTED, ("token", {"text": "one"}), ("snapshot", state), COMPLETED))
    assert "error" in found[-1]
    assert told.over
    assert "another" not in json.dumps(found)


def told_of(found: list[Any]) -> list[str]:
    """Return the text, the thinking and each call's arguments that chunks or blocks add up to."""
    sums = ["", "", "", ""]
    for frame in found:
        delta = frame["choices"][0]["delta"] if frame.get("choices") else frame.get("delta", {})
        (called,) = delta.get("tool_calls", [{}])
        sums[0] += delta.get("content") or delta.get("text") or ""
        sums[1] += delta.get("reasoning_content") or delta.get("thinking") or ""
        number = called.get("index", frame.get("index", 0) - 2 if "partial_json" in delta else 0)
        sums[2 + number] += called.get("function", {}).get("arguments") or delta.get("partial_json") or ""
    return sums


@pytest.mark.parametrize("translation", [chunks, events])
def test_a_log_that_becomes_compact_under_its_reader_is_told_to_its_end(translation: Any) -> None:
    thoughts = [("reasoning", {"text": text}) for text in TEXTS]
    texts = [("token", {"text": text}) for text in TEXTS]
    called = calls((0, '{"a":'), (0, '"b"}'), (1, "{"), (1, "}"))
    log = entries(STARTED, *thoughts, *texts, *called, COMPLETED)
    whole = told_of(frames(translation(), log))
    assert whole == ["".join(TEXTS), "".join(TEXTS), '{"a":"b"}', "{}"]
    snapshot = Answer.of(log[:-1]).snapshot(log[-2].id)
    for cut in range(1, len(log) - 1):
        found = frames(translation(), [*log[:cut], snapshot, log[-1]])
        assert told_of(found) == whole, cut
        assert "error" not in found[-1]


def blocks(log: list[Entry]) -> list[tuple[str, str]]:
    """Put the events together as a client does that has one block open at a time."""
    found: list[list[str]] = []
    is_open = False
    for frame in frames(events(), log):
        match frame:
            case {"type": "content_block_start", "index": index, "content_block": block}:
                assert not is_open
                assert index == len(found)
                is_open = True
                found.append([block.get("id", block["type"]), ""])
            case {"type": "content_block_delta", "index": index, "delta": delta}:
                assert is_open
                assert index == len(found) - 1
                found[-1][1] += delta.get("partial_json") or delta.get("text") or ""
            case {"type": "content_block_stop"}:
                assert is_open
                is_open = False
            case {"type": "error"}:
                found.append(["error", ""])
    return [(kind, text) for kind, text in found]


A, B, C = '{"a":"}"}', '{"b":2}', '{"c":3}'


@pytest.mark.parametrize(
    "pieces",
    [
        [(0, A), (1, B), (2, C)],
        [(0, ""), (2, ""), (5, ""), (0, A), (2, B), (5, C)],
        [(0, A[:6]), (1, B[:2]), (0, A[6:]), (2, C), (1, B[2:])],
        [(3, A[:8]), (1, B), (9, C), (3, A[8:])],
        [(0, A[:3]), (1, B[:3]), (2, C[:3]), (2, C[3:]), (1, B[3:]), (0, A[3:])],
    ],
    ids=["one after the other", "all begun at first", "in turns", "the first one last", "nested"],
)
def test_calls_that_come_in_turns_are_told_one_after_the_other(pieces: list[tuple[int, str]]) -> None:
    log = entries(STARTED, ("token", {"text": "Hm."}), *calls(*pieces), COMPLETED)
    told = blocks(log)
    assert told[0] == ("text", "Hm.")
    assert [text for _, text in told[1:]] == [A, B, C]
    content = Content(JOB, thinks=False, shows_thinking=True)
    for entry in log:
        content.add(entry)
    assert [block["input"] for block in content.blocks(cut=False)[1:]] == [json.loads(text) for text in (A, B, C)]


def test_calls_without_arguments_wait_for_nothing() -> None:
    log = entries(STARTED, *calls((0, ""), (1, ""), (2, B)), ("token", {"text": "Hm."}), COMPLETED)
    assert blocks(log) == [("call_0", ""), ("call_1", ""), ("call_2", B), ("text", "Hm.")]


def test_a_call_that_goes_on_after_its_end_is_an_error() -> None:
    log = entries(
        STARTED, *calls((0, A[:3])), ("token", {"text": "Hm."}), ("tool_call", {"index": 0, "arguments": "x"})
    )
    assert [kind for kind, _ in blocks(log)] == ["call_0", "text", "error"]


def thought(text: str) -> dict[str, str]:
    return {"type": "thinking", "text": text, "signature": "s"}


SEALED = {"type": "redacted_thinking", "data": "x"}


@pytest.mark.parametrize(
    ("kept", "told", "parts"),
    [
        ([thought("a"), thought("b")], ["ab"], [2]),
        ([thought("a"), SEALED, thought("b")], ["a", "b"], [1, 2]),
        ([thought("a"), thought("b"), SEALED], ["a", "b"], [1, 2]),
        ([SEALED], [""], [1]),
        ([thought("a"), thought("b")], ["", ""], [2, 0]),
        ([thought("a"), thought("b")], ["edited", "b"], [2, 0]),
        ([], ["a"], [0]),
    ],
)
def test_thoughts_go_back_to_where_they_were_told(kept: list[Any], told: list[str], parts: list[int]) -> None:
    found = parted(kept, told)
    assert [len(part) for part in found] == parts
    assert [block for part in found for block in part] == kept


def page(found: list[Any]) -> list[tuple[str, str]]:
    """Return the texts of a page's message, as `useChat` puts them together."""
    parts: dict[str, tuple[str, str]] = {}
    for frame in found:
        kind, _, what = frame["type"].partition("-")
        if frame["type"] == "reset-step":
            parts = {}
        elif kind in ("text", "reasoning") and what == "start":
            assert frame["id"] not in parts
            parts[frame["id"]] = kind, ""
        elif kind in ("text", "reasoning") and what == "delta":
            parts[frame["id"]] = kind, parts[frame["id"]][1] + frame["delta"]
    return list(parts.values())


@pytest.mark.parametrize("merged", [False, True])
def test_text_is_exact_on_a_page(merged: bool) -> None:
    thoughts = [("reasoning", {"text": text}) for text in TEXTS]
    log = entries(STARTED, *thoughts, *[("token", {"text": text}) for text in TEXTS], thoughts[0], COMPLETED)
    found = frames(UIChunks(JOB, "msg"), list(merge(log)) if merged else log)
    told = "".join(TEXTS)
    assert page(found) == [("reasoning", told), ("text", told), ("reasoning", TEXTS[0])]


def test_a_log_that_has_lost_its_end_is_told_anew_on_a_page() -> None:
    state = {"attempt": 1, "text": "whole", "reasoning": "Hm.", "tool_calls": []}
    log = entries(STARTED, ("token", {"text": "half"}), ("snapshot", state), ("token", {"text": "!"}), COMPLETED)
    assert page(frames(UIChunks(JOB, "msg"), log)) == [("reasoning", "Hm."), ("text", "whole!")]
