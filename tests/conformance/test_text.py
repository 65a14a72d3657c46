"""The answer as it comes: every character, in order, however the wire cuts it."""

import pytest

from tests.conformance.bench import Bench
from tests.provider import Begin, Delay, Dribble, Finish, Ping, Text, Tokens, Wait

pytestmark = pytest.mark.asyncio(loop_scope="module")

ODD = "Grüße, 🌍! \u2028 „fin“ \r\n\0 event: completed\ndata: {}\n\n"


async def test_the_text_is_what_was_sent(bench: Bench) -> None:
    bench.script(Tokens("One two three four five."))
    answer = await bench.answer()
    assert answer.text == answer.job["text"] == bench.calls[0].sent_text == "One two three four five."
    assert answer.names == ["queued", "started", "token", "completed"]
    assert answer.end == ("completed", "stop")


async def test_it_is_told_while_it_comes(bench: Bench) -> None:
    gate = bench.provider.gate()
    bench.script(Text("Hel"), Wait(gate), Text("lo"))
    job_id = await bench.submit()
    assert (await bench.client.until(job_id, "token")).data == {"text": "Hel"}
    assert (await bench.client.job(job_id))["text"] == "Hel"
    gate.open()
    assert (await bench.ended(job_id)).text == "Hello"


async def test_characters_may_be_cut_at_every_byte(bench: Bench) -> None:
    bench.script(Dribble([Text(ODD, utf8=True)], size=7, gap_s=0), Ping(), Text(ODD, utf8=True), Text(ODD))
    assert (await bench.answer()).text == ODD * 3


async def test_a_pair_of_surrogates_split_over_two_deltas_is_one_character(bench: Bench) -> None:
    bench.script(Text("a\ud83c"), Delay(0.02), Text("\udf0db"))
    answer = await bench.answer()
    assert answer.text == answer.job["text"] == "a🌍b"


async def test_half_a_pair_crashes_nothing(bench: Bench) -> None:
    bench.script(Text("a\ud83d"), Delay(0.01), Text("b"), Text("\ude00c"))
    answer = await bench.answer()
    assert answer.text == answer.job["text"] == "a\ud83db\ude00c"


async def test_a_megabyte_in_one_delta_arrives(bench: Bench) -> None:
    bench.script(Text("x" * 1_000_000), Text("end"))
    assert (await bench.answer()).text == "x" * 1_000_000 + "end"


async def test_empty_deltas_are_nothing(bench: Bench) -> None:
    bench.script(Begin(), Text(""), Ping(), Text("ok"), Text(""))
    answer = await bench.answer()
    assert answer.names == ["queued", "started", "token", "completed"]
    assert answer.text == "ok"


async def test_an_answer_may_be_empty(bench: Bench) -> None:
    bench.script(Begin(), Finish("stop"))
    answer = await bench.answer()
    assert answer.names == ["queued", "started", "completed"]
    assert (answer.end, answer.job["text"]) == (("completed", "stop"), "")


async def test_the_end_may_come_long_after_the_reason(bench: Bench) -> None:
    bench.script(Text("done"), Finish("stop"), Delay(0.03))
    answer = await bench.answer()
    assert (answer.text, answer.end) == ("done", ("completed", "stop"))


async def test_the_last_piece_may_come_with_the_reason(bench: Bench) -> None:
    bench.script(Text("do"), Finish("stop", text="ne"))
    answer = await bench.answer()
    assert (answer.text, answer.end) == ("done", ("completed", "stop"))
