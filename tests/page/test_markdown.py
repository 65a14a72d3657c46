"""Markdown in the page: what is drawn, that it never flashes, costs little, and that nothing in it ever runs."""

import itertools
import json
import random
import re
from pathlib import Path

import pytest
from playwright.async_api import Dialog, Request

from tests.page.chat import MODEL, Chat
from tests.page.renderer import Renderer
from tests.provider import Reasoning, Text
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

SAMPLE = (Path(__file__).parent / "sample.md").read_text()
HOSTILE = (Path(__file__).parent / "hostile.md").read_text()
DRAWN: dict[str, str] = {
    case["text"]: case["html"] for case in json.loads((Path(__file__).parent / "drawn.json").read_text())
}

MARKERS = [
    *("*", "**", "_", "`", "```", "\n", "\n\n", "- ", "1. ", "> ", "|", "|-|\n"),
    *("[a", "](", "https://x.org", ")", " ", "a", "b c"),
]
"""A text of these, at random, makes little sense, and has to be drawn all the same."""

ACTIVE = {"img", "script", "svg", "iframe", "style", "object", "embed", "form", "base", "video", "math"}


def plain(html: str) -> str:
    """Leave out what stands on every element of its kind."""
    return re.sub(r' (dir="auto"|disabled=""|tabindex="0"|role="group"|aria-label="Table")', "", html)


async def test_each_construct_is_drawn_as_what_it_is(chat: Chat) -> None:
    renderer = await Renderer.of(chat)
    assert {text: plain(await renderer.html(text)) for text in DRAWN} == DRAWN


async def test_code_has_its_language_and_is_kept_to_the_last_space(chat: Chat) -> None:
    renderer = await Renderer.of(chat)
    html = await renderer.html("```js\n\tif (a <b) {\n\n  `x`\n```\n~~~\n```\n")
    assert '<span class="language">js</span>' in html
    assert ">\tif (a &lt;b) {\n\n  `x`\n</span></code>" in html
    assert ">```\n</span></code>" in html


async def test_a_text_is_drawn_the_same_in_whatever_pieces_it_comes(chat: Chat) -> None:
    renderer = await Renderer.of(chat)
    dice = random.Random(7)
    nonsense = ["".join(dice.choices(MARKERS, k=60)) for _ in range(60)]
    for text in (SAMPLE, HOSTILE, *nonsense):
        length = await chat.page.evaluate("(text) => text.length", text)
        cuts = sorted(dice.sample(range(1, length), 40))
        assert await renderer.html_in_pieces(text, cuts) == await renderer.html(text), (text, cuts)


async def test_no_marker_flashes_while_the_text_is_written(chat: Chat) -> None:
    """What can be read after any character is the beginning of what can be read in the end."""
    renderer = await Renderer.of(chat)
    *seen, last = await renderer.texts(SAMPLE)
    assert [text for text in seen if not last.startswith(text)] == []
    waits = max(len(later) - len(text) for text, later in itertools.pairwise(seen))
    assert waits < 90, "nothing is held back for long"


async def test_finished_blocks_are_left_alone(chat: Chat) -> None:
    """A selection, a focus or a scrolled table is not lost when more of the text comes."""
    await Renderer.of(chat)
    changed = await chat.page.evaluate(
        """async (text) => {
            const { box, view } = fresh();
            let changed = [];
            const finished = new Set();
            new MutationObserver((records) => changed.push(...records)).observe(
                box, { childList: true, characterData: true, subtree: true });
            const wrong = [];
            for (let end = 1; end <= text.length; end++) {
                whole(view, text.slice(0, end), true);
                await null;
                for (const { target, removedNodes } of changed) {
                    const touched = [...finished].some((block) => block.contains(target));
                    if (touched || [...removedNodes].some((node) => finished.has(node))) wrong.push(text.slice(0, end));
                }
                changed = [];
                for (const block of [...box.children].slice(0, -2)) finished.add(block);
            }
            return wrong;
        }""",
        SAMPLE,
    )
    assert changed == []


LONG = {
    "all sorts": SAMPLE * 70,
    "one paragraph": "Some *words* and a `bit` of code, [a link](https://x.org) too. " * 1600,
    "one word": "x" * 100_000,
    "code": "```\n" + "let answer = 42; // and so on\n" * 3300,
    "a list": "- an item with **some** text\n" * 3500,
    "a table": "| a | b |\n|---|---|\n" + "| some *text* | and more |\n" * 1000,
    "an open star": "*a " * 33_000,
}
DEEP = {
    "quotes": ">" * 100_000,
    "quotes in lines": (">" * 300 + "\n") * 333,
    "lists": "- " * 50_000,
    "brackets": "[" * 100_000,
    "brackets closed": "[" * 50_000 + "]" * 50_000,
    "links begun": "[a](" * 25_000,
    "links in links": "[" * 30_000 + "a" + "](https://x.org)" * 4_000,
    "titles": '[a](b "' * 14_000,
    "stars": "*" * 100_000,
    "stars opened and closed": "*a " * 17_000 + "b* " * 17_000,
    "markers that never meet": "*a _b ~~c " * 10_000,
    "backticks": " ".join("`" * n for n in range(1, 440)),
    "angles": "<" * 100_000,
    "addresses": "https://" * 12_500,
    "entities": "&#" * 50_000,
    "columns": "|" * 50_000 + "\n" + "|-" * 25_000,
    "rows": "a|b\n-|-\n" + "|" * 90_000,
    "tildes": "~~a" * 33_000,
    "hashes": "# " + "#" * 99_990 + "a",
    "lines": "\n" * 100_000,
    "tabs": "\t" * 100_000,
}


@pytest.mark.alone
async def test_a_hundred_thousand_characters_stream_without_a_long_task(chat: Chat) -> None:
    """The bound is generous, for machines that do other things too; docs/PERFORMANCE.md has what was measured."""
    renderer = await Renderer.of(chat)
    longest = {name: await renderer.longest_ms(text, 100) for name, text in LONG.items()}
    print({name: round(ms) for name, ms in longest.items()})
    assert {name: ms for name, ms in longest.items() if ms > 250} == {}


@pytest.mark.alone
async def test_nothing_is_deep_enough_to_take_long(chat: Chat) -> None:
    renderer = await Renderer.of(chat)
    dear = {name: await renderer.longest_ms(text, 4) for name, text in DEEP.items()}
    print({name: round(ms) for name, ms in dear.items()})
    assert {name: ms for name, ms in dear.items() if ms > 1500} == {}
    depth = await chat.page.evaluate(
        """() => {
            const above = (node) => (node ? 1 + above(node.parentElement) : 0);
            return Math.max(...[...document.querySelectorAll('#box *')].map(above));
        }"""
    )
    assert depth < 100


async def test_nothing_in_an_answer_ever_runs_or_is_fetched(stack: Stack, chat: Chat) -> None:
    """As an answer, as thoughts and as a question; while it comes, when it is there, and after a reload."""
    traps: list[str] = []
    asked: list[str] = []

    async def trapped(dialog: Dialog) -> None:
        traps.append(dialog.message)
        await dialog.dismiss()

    def request(request: Request) -> None:
        if not request.url.startswith(stack.url):
            asked.append(request.url)

    chat.page.on("dialog", trapped)
    chat.page.on("request", request)
    await chat.page.add_init_script(
        "addEventListener('securitypolicyviolation', ({ violatedDirective }) => (window.broken = violatedDirective))"
    )
    await chat.page.reload()
    stack.provider.script(MODEL, Reasoning(HOSTILE), *[Text(HOSTILE[at : at + 7]) for at in range(0, len(HOSTILE), 7)])
    await chat.say(HOSTILE)
    await chat.shows("THE END", "Completed")
    await chat.answer.get_by_text("Reasoning", exact=True).click()
    for _ in range(2):
        elements, attributes = await chat.log.evaluate(
            """(log) => {
                const all = [...log.querySelectorAll('*')];
                return [all.map((node) => node.localName), all.flatMap((node) => node.getAttributeNames())];
            }"""
        )
        assert not ACTIVE & set(elements)
        assert [name for name in attributes if re.match("on|style|src", name)] == []
        links = await chat.answer.locator(".markdown a").evaluate_all(
            "links => links.map(({ protocol, rel }) => `${protocol} ${rel}`)"
        )
        assert links
        assert set(links) <= {f"{protocol}: noopener noreferrer nofollow" for protocol in ("http", "https", "mailto")}
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", await chat.answer.locator(".markdown").inner_text())
        assert await chat.page.evaluate("() => window.hacked ?? window.broken ?? null") is None
        await chat.page.reload()
        await chat.shows("THE END", "Completed")
    assert (traps, asked) == ([], [])
