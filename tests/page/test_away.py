"""A page that is left alone: reloaded at any moment, offline, frozen as on a phone in a pocket. Nothing is missing."""

import asyncio
import random

import pytest
from playwright.async_api import expect

from tests.page.chat import MODEL, TARGET, Chat
from tests.provider import Text, Tokens, Wait
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_reloads_at_any_moment_lose_no_character(stack: Stack, chat: Chat) -> None:
    words = " ".join(f"w{n}" for n in range(900))
    stack.provider.script(MODEL, Tokens(words, delay_s=0.004))
    dice = random.Random(11)
    await chat.say("Count")
    seen = 0
    while await chat.stop.is_enabled():
        await asyncio.sleep(dice.random() * 0.15)
        if dice.random() < 0.3:
            await chat.page.goto("about:blank")
            await chat.open()
        else:
            await chat.page.reload(wait_until="commit" if dice.random() < 0.5 else "load")
        shown = await chat.answer.locator(".markdown").text_content() or ""
        assert words.startswith(shown.rstrip()), "what is shown is the answer's beginning, at any time"
        seen += 0 < len(shown) < len(words)
    await chat.reads(words, "Completed")
    assert seen > 3
    assert len(stack.provider.calls) == 1


async def test_a_page_without_network_comes_back_by_itself(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("Hi")
    await chat.shows("Hel")
    context = chat.page.context
    await context.set_offline(True)  # new connections only: the one that is there is cut by the server
    stack.apis[0].app.state.rejoin.hub.end_all()
    await chat.shows("Connection lost")
    gate.open()
    await context.set_offline(False)
    await chat.reads("Hello", "Completed")
    chat.forgive("ERR_I")  # the connection that was cut, and tries without a network


async def test_a_frozen_page_catches_up_when_it_is_woken(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Tokens("lo and " * 50), Text("goodbye"))
    await chat.say("Hi")
    await chat.shows("Hel")
    devtools = await chat.page.context.new_cdp_session(chat.page)
    await devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    gate.open()
    await stack.provider.calls[0].ended()
    await devtools.send("Page.setWebLifecycleState", {"state": "active"})
    await chat.reads("Hel" + "lo and " * 50 + "goodbye", "Completed")
    await expect(chat.answers).to_have_count(1)


async def test_a_slow_page_that_hears_late_is_right_in_the_end(stack: Stack, chat: Chat) -> None:
    words = " ".join(f"w{n}" for n in range(400))
    stack.provider.script(MODEL, Tokens(words, delay_s=0.001))
    devtools = await chat.page.context.new_cdp_session(chat.page)
    await devtools.send("Emulation.setCPUThrottlingRate", {"rate": 6})
    await chat.say("Hi", TARGET)
    await chat.reads(words, "Completed")
    await devtools.send("Emulation.setCPUThrottlingRate", {"rate": 1})
