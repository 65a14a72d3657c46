"""Fixtures: a browser a test, and the page in it."""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from playwright.async_api import BrowserContext, Error, async_playwright

from tests.page.chat import Chat
from tests.stack import Stack

SYSTEM_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

OpenChat = Callable[[Stack], Awaitable[Chat]]


@pytest.fixture
async def browser() -> AsyncIterator[BrowserContext]:
    """A profile without a past, in the system's Chromium or else in Playwright's own."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, SYSTEM_BROWSERS)), None)
    async with async_playwright() as playwright:
        try:
            chromium = await playwright.chromium.launch(executable_path=path, headless=True, args=ARGS)
        except Error as error:
            if "Executable doesn't exist" not in error.message:
                raise
            pytest.skip("no Chromium: install the system's, or run `playwright install chromium`")
        context = await chromium.new_context(viewport={"width": 1280, "height": 800})
        yield context
        await chromium.close()


@pytest.fixture
async def open_chat(browser: BrowserContext) -> AsyncIterator[OpenChat]:
    """Opens tabs. In the end none of them may have anything to complain of."""
    chats: list[Chat] = []

    async def open_(stack: Stack) -> Chat:
        chats.append(Chat(await browser.new_page(), stack))
        await chats[-1].open()
        return chats[-1]

    yield open_
    assert [chat.errors for chat in chats if chat.errors] == []


@pytest.fixture
async def chat(stack: Stack, open_chat: OpenChat) -> Chat:
    return await open_chat(stack)
