"""How the page looks and feels: for eyes, keyboards and screen readers, on a phone and on a desk; nothing jumps."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.page.chat import MODEL, Chat
from tests.provider import Reasoning, Silence, Text, Tokens, Wait
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

HERE = Path(__file__).parent
SAMPLE = (HERE / "sample.md").read_text()


async def test_axe_finds_nothing_to_complain_of(stack: Stack, chat: Chat, axe: str) -> None:
    stack.provider.script(MODEL, Reasoning("Let me think."), Text(SAMPLE))
    await chat.say("How does a reader come back?")
    await chat.shows("Completed")
    await chat.page.evaluate("() => (document.querySelector('#key-form').hidden = false)")
    await chat.page.evaluate(axe)
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 320), ("dark", 390)):
        await chat.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await chat.page.set_viewport_size({"width": width, "height": 800})
        if width == 390:
            await chat.page.get_by_role("button", name="Chats").click()
        found = await chat.page.evaluate("async () => (await axe.run()).violations")
        broken = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]
        assert broken == [], f"{scheme} at {width} px"


@pytest.mark.parametrize("width", [320, 390, 1280])
async def test_nothing_runs_out_of_the_window(stack: Stack, chat: Chat, width: int) -> None:
    await chat.page.set_viewport_size({"width": width, "height": 600})
    stack.provider.script(MODEL, Reasoning("deep" * 200), Text(SAMPLE + "long" * 400 + "\n\n> - `" + "code" * 99 + "`"))
    await chat.say("word" * 200)
    await chat.shows("Completed")
    assert await chat.page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert await chat.log.evaluate("log => log.scrollWidth - log.clientWidth") == 0
    for control in (chat.prompt, chat.model, chat.send, chat.stop, chat.new):
        box = await control.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= 600


async def test_what_is_finished_does_not_move_while_the_rest_is_written(stack: Stack, chat: Chat) -> None:
    """Frame by frame: where each finished block is in its answer, and where a reader is who has scrolled up."""
    stack.provider.script(MODEL, Tokens(SAMPLE * 3, delay_s=0.002))
    await chat.page.evaluate(
        """() => {
            const log = document.querySelector('#log');
            const places = new Map();
            window.moved = [];
            const look = () => {
                const text = log.querySelector('.answer .markdown');
                const blocks = text ? [...text.children].slice(0, -1) : [];
                for (const block of blocks) {
                    const { offsetTop, offsetHeight } = block;
                    const place = `${offsetTop - text.offsetTop} ${offsetHeight}`;
                    if ((places.get(block) ?? place) !== place) moved.push([block.textContent, place]);
                    places.set(block, place);
                }
                if ((window.reading ?? log.scrollTop) !== log.scrollTop) moved.push(['scroll', log.scrollTop]);
                requestAnimationFrame(look);
            };
            look();
        }"""
    )
    await chat.say("Hi")
    await chat.shows("Not even this quote")
    await chat.log.evaluate("log => { log.scrollTop = 40; window.reading = log.scrollTop }")
    await chat.shows("Completed")
    assert await chat.page.evaluate("() => window.moved") == []


async def test_everything_is_reached_by_keyboard_and_can_be_seen_to_be(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Reasoning("Let me think."), Text(SAMPLE))
    await chat.say("A question")
    await chat.shows("Completed")
    await chat.page.evaluate("() => document.activeElement.blur()")
    reached = []
    for _ in range(24):
        await chat.page.keyboard.press("Tab")
        name, outlined = await chat.page.evaluate(
            """() => {
                const { activeElement: at } = document;
                const style = getComputedStyle(at);
                const outlined = style.outlineStyle !== 'none' && style.outlineWidth !== '0px';
                return [at.id || at.className || at.localName, outlined];
            }"""
        )
        reached.append(name)
        assert outlined or name == "body", name
    wanted = ["new-chat", "a", "rename", "delete", "log", "summary", "small", "table", "job", "prompt", "model", "send"]
    assert [name for name in wanted if name not in reached] == []


async def test_escape_ends_the_answer(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.prompt.press("Escape")
    await stack.provider.calls[0].closed()
    await chat.shows("Stopped")
    await expect(chat.prompt).to_be_focused()


async def test_answers_and_code_are_copied_as_the_model_wrote_them(stack: Stack, chat: Chat) -> None:
    await chat.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    text = "  *So*:\n\n```py\n\tprint('👩‍👩‍👧')  \n```\n&amp;\n"
    stack.provider.script(MODEL, Text(text))
    await chat.say("Hi")
    await chat.shows("Completed")
    for name, copied in (("Copy answer", text), ("Copy code", "\tprint('👩‍👩‍👧')  \n")):
        await chat.answer.get_by_role("button", name=name).click()
        await expect(chat.answer.get_by_role("button", name="Copied")).to_be_visible()
        assert await chat.page.evaluate("() => navigator.clipboard.readText()") == copied
        await expect(chat.answer.get_by_role("button", name=name)).to_be_visible()


async def test_nothing_moves_for_those_who_want_nothing_to_move(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate))
    await chat.say("Hi")
    await chat.shows("Hel")
    animations = "() => document.getAnimations().length"
    assert await chat.page.evaluate(animations) == 1
    await chat.page.emulate_media(reduced_motion="reduce")
    assert await chat.page.evaluate(animations) == 0
    gate.open()
