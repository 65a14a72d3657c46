"""The seam between two attempts of one text."""

import time

import pytest

from worker.continuation import Continuation


@pytest.mark.parametrize(
    ("text", "prefix", "pieces", "new"),
    [
        ("Half an ", "Half an", [" answer"], "answer"),
        ("Half an ", "Half an", ["answer"], "answer"),
        ("Half an ", "Half an", [" ", " answer"], " answer"),
        ("One.\n\n", "One.", ["\n", "\nTwo."], "Two."),
        ("One.\n\n", "One.", ["\nTwo. \n"], "Two. \n"),
        ("Half an ans", "Half an ans", ["wer ", " x"], "wer  x"),
        ("", "", [" x"], " x"),
        ("  \n", "", ["  \n", "x"], "x"),
    ],
)
def test_white_space_at_the_seam_comes_once(text: str, prefix: str, pieces: list[str], new: str) -> None:
    continuation = Continuation(text)
    assert continuation.prefix == prefix
    assert "".join(map(continuation.feed, pieces)) == new


def test_a_seam_of_a_million_blanks_takes_no_longer_than_its_length() -> None:
    """CWE-407: it took the square of it, in which the worker did nothing else: 0.8 s for a fifth of them."""
    continuation, began = Continuation("x" + " " * 1_000_000), time.process_time()
    assert continuation.feed(" " * 1_000_000 + "y") == "y"
    assert time.process_time() - began < 1
