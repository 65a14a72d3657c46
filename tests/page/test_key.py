"""A server that wants a key: asked for when it does, kept for the session, sent in a header and never in a URL."""

import pytest
from playwright.async_api import Request, expect

from tests.keys import SECRET
from tests.page.chat import MODEL, Chat
from tests.page.conftest import OpenChat
from tests.provider import Text, Wait
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "rejoin-of-the-page-0123456789abcdef"


@pytest.fixture
def locked(bare: Stack) -> Stack:
    bare.configure(auth="required", secret=SECRET, api_keys=f"alice:{KEY}")
    return bare


async def enter(chat: Chat, key: str) -> None:
    await chat.page.get_by_label("API key").fill(key)
    await chat.page.get_by_role("button", name="Use key").click()


async def test_a_key_is_asked_for_kept_for_the_session_and_forgotten(locked: Stack, open_chat: OpenChat) -> None:
    await locked.worker()
    await locked.api()
    chat = await open_chat(locked)
    requests: list[Request] = []
    chat.page.on("request", lambda request: requests.append(request))
    field = chat.page.get_by_label("API key")
    await expect(field).to_be_visible()
    await enter(chat, "a wrong one")
    await expect(chat.page.get_by_text("does not take this key")).to_be_visible()
    await enter(chat, KEY)
    await expect(field).to_be_hidden()
    gate = locked.provider.gate()
    locked.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.page.reload()
    await chat.shows("Hel", "Rejoined")
    gate.open()
    await chat.reads("Hello", "Completed")
    asked = [request for request in requests if "/v1/" in request.url]
    assert not [request.url for request in asked if KEY in request.url or "ticket" in request.url]
    assert asked[-1].headers["authorization"] == f"Bearer {KEY}"
    stored = await chat.page.evaluate(
        "() => [localStorage, sessionStorage, document.cookie].map((place) => JSON.stringify(place))"
    )
    assert [KEY in place for place in stored] == [False, True, False]
    await chat.page.get_by_role("button", name="Forget key").click()
    await expect(field).to_be_visible()
    assert await chat.page.evaluate("() => sessionStorage.length") == 0
    chat.forgive("status of 401")


async def test_an_answer_goes_on_with_another_key_when_one_has_ended(locked: Stack, open_chat: OpenChat) -> None:
    await locked.worker()
    await locked.api()
    chat = await open_chat(locked)
    await enter(chat, KEY)
    gate = locked.provider.gate()
    locked.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.page.evaluate("() => sessionStorage.setItem('rejoin.key', 'an old one')")
    await chat.page.reload()
    await chat.shows("Hel")
    gate.open()
    await enter(chat, KEY)
    await chat.reads("Hello", "Completed")
    chat.forgive("status of 401")
