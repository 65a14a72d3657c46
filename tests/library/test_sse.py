"""Frames as the HTML standard reads them, wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rejoin.sse import Frame, Frames

STREAM = (
    b"\xef\xbb\xbfretry: 1200\n: ping\nevent: queued\ndata: {}\nid: 0-1\n\n"
    b": ping\n"
    b'event: token\ndata: {"text":"\xe2\x82\xac \xf0\x9f\x91\x8d"}\nid: 1-1\n\n'
    b": ping\n: ping\n"
    b"event:token\r\ndata:  two spaces\r\ndata\r\nid: 1-2\r\n\r\n"
    b"data: by CR\rid: 1-3\r\revent: dropped\n\nid: a\0b\ndata: \xff\xe2\x80\xa8x\n\n"
    b"data: never ended\n"
)
FRAMES = [
    Frame("queued", "{}", "0-1"),
    Frame("token", '{"text":"€ 👍"}', "1-1"),
    Frame("token", " two spaces\n", "1-2"),
    Frame("message", "by CR", "1-3"),
    Frame("message", "\ufffd\u2028x", "1-3"),
]


def frames(*chunks: bytes) -> list[Frame]:
    parser = Frames()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


def test_a_stream_in_one_piece() -> None:
    assert frames(STREAM) == FRAMES


@pytest.mark.parametrize("at", range(len(STREAM) + 1))
def test_a_stream_cut_at_each_byte(at: int) -> None:
    assert frames(STREAM[:at], STREAM[at:]) == FRAMES


def test_a_stream_byte_by_byte() -> None:
    assert frames(*[STREAM[at : at + 1] for at in range(len(STREAM))]) == FRAMES


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_a_stream_cut_anywhere_any_number_of_times(cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(STREAM)]
    assert frames(*[STREAM[a:b] for a, b in pairwise(bounds)]) == FRAMES


def test_a_frame_is_there_with_its_last_byte() -> None:
    parser = Frames()
    assert list(parser.feed(b"data: x\nid: 1-1\n")) == []
    assert list(parser.feed(b"\n")) == [Frame("message", "x", "1-1")]


def test_a_line_in_many_pieces_costs_no_more_than_it_is_long() -> None:
    parser = Frames()
    assert [frame for _ in range(20_000) for frame in parser.feed(b"data: " + b"x" * 500)] == []
    (frame,) = parser.feed(b"\n\n")
    assert len(frame.data) == 20_000 * 506 - 6
