"""Which media type a client gets."""

import pytest

from api.negotiation import JSON, NDJSON, SSE, choose
from api.problems import Problem

EVENTS = (SSE, NDJSON, JSON)


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, SSE),
        ("", SSE),
        ("*/*", SSE),
        ("text/event-stream", SSE),
        ("application/json", JSON),
        ("application/*", NDJSON),
        ("Application/X-NDJSON", NDJSON),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", SSE),
        ("application/json;q=0.5, application/x-ndjson", NDJSON),
        ("text/event-stream;q=0, */*", NDJSON),
        ("application/json; charset=utf-8", JSON),
        ("*/*;q=0.1, application/json;q=0.2", JSON),
    ],
)
def test_the_best_offer_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose(accept, EVENTS) == chosen


@pytest.mark.parametrize("accept", ["text/html", "*/*;q=0", "text/event-stream;q=nonsense", "json"])
def test_no_offer_is_a_406(accept: str) -> None:
    with pytest.raises(Problem) as raised:
        choose(accept, EVENTS)
    assert raised.value.status == 406
