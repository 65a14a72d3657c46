"""Several chats in one browser: kept, named, deleted, bounded; and answers that go on while another one is open."""

import pytest
from playwright.async_api import expect

from tests.page.chat import MODEL, Chat
from tests.page.conftest import OpenChat
from tests.provider import Silence, Text, Wait
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_answer_goes_on_while_another_chat_is_open(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("First question")
    await chat.shows("Hel")
    await chat.new.click()
    await expect(chat.answers).to_have_count(0)
    stack.provider.script(MODEL, Text("Second answer"))
    await chat.say("Second question")
    await chat.shows("Second answer", "Completed")
    assert stack.provider.calls[1].body["messages"] == [{"role": "user", "content": "Second question"}]
    gate.open()
    await chat.open_chat("First question")
    await chat.reads("Hello", "Completed")
    assert len(stack.provider.calls) == 2
    await chat.page.reload()
    await chat.reads("Hello", "Completed")
    await expect(chat.list.get_by_role("link")).to_have_text(["Second question", "First question"])


async def test_a_chat_is_renamed_and_deleted_for_all_tabs(stack: Stack, chat: Chat, open_chat: OpenChat) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("A question")
    await chat.shows("Hel")
    other = await open_chat(stack)
    await other.shows("Hel")
    await chat.page.get_by_role("button", name="Rename chat").click()
    field = chat.page.get_by_label("Title of this chat")
    await field.fill("  About\tgreetings ")
    await field.press("Enter")
    await expect(chat.list.get_by_role("link")).to_have_text("About greetings")
    await expect(other.list.get_by_role("link")).to_have_text("About greetings")
    await expect(chat.page).to_have_title("About greetings – Rejoin")
    await chat.page.get_by_role("button", name="Rename chat").click()
    await field.press("Escape")
    await expect(chat.stop).to_be_enabled()
    await chat.page.get_by_role("button", name="Delete chat").click()
    await chat.page.get_by_role("button", name="Really delete?").click()
    await stack.provider.calls[0].closed()
    for tab in (chat, other):
        await expect(tab.list.get_by_role("link")).to_have_count(0)
        await expect(tab.answers).to_have_count(0)


async def test_a_chat_has_an_address_of_its_own(stack: Stack, chat: Chat, open_chat: OpenChat) -> None:
    await chat.say("One")
    await chat.shows("Completed")
    first = chat.page.url
    await chat.new.click()
    await chat.say("Two")
    await chat.shows("Completed")
    other = await open_chat(stack)
    await expect(other.log.get_by_role("article", name="You")).to_have_text("Two")
    await other.page.goto(first)
    await expect(other.log.get_by_role("article", name="You")).to_have_text("One")
    await chat.page.go_back()
    await expect(chat.log.get_by_role("article", name="You")).to_have_text("One")


async def test_what_is_kept_is_bounded(chat: Chat) -> None:
    """By number, and by what the browser has room for: the chats that were not used for longest go."""
    kept = await chat.page.evaluate(
        """async () => {
            const { saveTurns, listChats, loadTurns } = await import('/page/store.js');
            const save = (id, text) => saveTurns(id, [{ id: 'q', role: 'user', text }], true);
            for (let n = 0; n < 55; n++) save(`${n}`, `question ${n}`);
            const many = [listChats().length, listChats()[0].title, Object.keys(localStorage).length];
            for (let n = 0; n < 5; n++) save(`large ${n}`, 'x'.repeat(1_500_000));
            const left = listChats().map(({ id }) => id);
            return [...many, left.slice(0, 2), loadTurns('large 4')[0].text.length];
        }"""
    )
    assert kept == [50, "question 54", 51, ["large 4", "large 3"], 1_500_000]
