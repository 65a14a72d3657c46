"""Server-Sent Events from providers: the HTML standard's own examples, cut anywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.providers.sse import MAX_EVENT_BYTES, EventTooLarge, ServerSentEvent, SseDecoder


def decode(*chunks: bytes) -> list[ServerSentEvent]:
    decoder = SseDecoder()
    return [event for chunk in chunks for event in decoder.feed(chunk)]


@pytest.mark.parametrize(
    ("raw", "events"),
    [
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [(b"", b"YHOO\n+2\n10")]),
        (b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n",
         [(b"", b"first event"), (b"", b"second event")]),
        (b"data\n\ndata\ndata\n\ndata:", [(b"", b""), (b"", b"\n")]),
        (b"data:test\n\ndata: test\n\n", [(b"", b"test"), (b"", b"test")]),
        (b"event: add\ndata: 1\n\nevent: ping\n\ndata: 2\n\n", [(b"add", b"1"), (b"", b"2")]),
        (b"data: a\r\n\r\ndata: b\r\rdata: c\n\n", [(b"", b"a"), (b"", b"b"), (b"", b"c")]),
        (b"retry: 10\nunknown: x\ndata: a:b: c\n\n", [(b"", b"a:b: c")]),
    ],
)  # fmt: skip
def test_the_standards_examples(raw: bytes, events: list[tuple[bytes, bytes]]) -> None:
    assert decode(raw) == events


@given(st.data())
def test_where_the_bytes_are_cut_makes_no_difference(data: st.DataObject) -> None:
    lines = data.draw(st.lists(st.sampled_from([b"data: x", b"data: \xc3\xa9", b"", b": c", b"event: e", b"data"])))
    end = data.draw(st.sampled_from([b"\n", b"\r\n", b"\r"]))
    raw = b"".join(line + end for line in lines) + b"data: end\n\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=8)))
    chunks = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    assert decode(*chunks) == decode(raw)


def test_an_event_without_end_is_given_up() -> None:
    decoder = SseDecoder()
    decoder.feed(b"x" * MAX_EVENT_BYTES)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x")
