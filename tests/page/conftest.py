"""Fixtures: one Chromium a test process, a profile without a past a test, and the page in it.

All of this lives in one event loop, the session's, where Chromium is: also the stack of each test.
"""

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Error, async_playwright

from tests.npm import NotInstalled, install
from tests.page.chat import Chat
from tests.provider import ScriptedProvider
from tests.stack import Stack
from tests.valkey import Valkey

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

FOLDER = Path(__file__).parent

OpenChat = Callable[[Stack], Awaitable[Chat]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chromium() -> AsyncIterator[Browser]:
    """The system's Chromium, or else Playwright's own."""
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, SYSTEM_BROWSERS)), None)
    async with async_playwright() as playwright:
        try:
            chromium = await playwright.chromium.launch(executable_path=path, headless=True, args=ARGS)
        except Error as error:
            if "Executable doesn't exist" not in error.message:
                raise
            pytest.skip("no Chromium: install the system's, or run `playwright install chromium`")
        yield chromium
        await chromium.close()


@pytest_asyncio.fixture(loop_scope="session")
async def browser(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """A profile without a past."""
    context = await chromium.new_context(viewport={"width": 1280, "height": 800})
    yield context
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def provider() -> AsyncIterator[ScriptedProvider]:
    async with ScriptedProvider() as scripted:
        yield scripted


@pytest_asyncio.fixture(loop_scope="session")
async def bare(shared_valkey: Valkey, prefix: str, provider: ScriptedProvider) -> AsyncIterator[Stack]:
    stack = Stack(shared_valkey, prefix, provider)
    try:
        yield stack
    finally:
        await stack.close()


@pytest_asyncio.fixture(loop_scope="session")
async def stack(bare: Stack) -> Stack:
    """One worker and one API process: a second one would be asked nothing."""
    await bare.worker()
    await bare.api()
    return bare


@pytest_asyncio.fixture(loop_scope="session")
async def open_chat(browser: BrowserContext) -> AsyncIterator[OpenChat]:
    """Opens tabs. In the end none of them may have anything to complain of."""
    chats: list[Chat] = []

    async def open_(stack: Stack) -> Chat:
        chats.append(Chat(await browser.new_page(), stack))
        await chats[-1].open()
        return chats[-1]

    yield open_
    assert [chat.errors for chat in chats if chat.errors] == []


@pytest_asyncio.fixture(loop_scope="session")
async def chat(stack: Stack, open_chat: OpenChat) -> Chat:
    return await open_chat(stack)


@pytest.fixture(scope="session")
def axe() -> str:
    """Deque's axe-core, as npm has it: a script that looks for what keeps people out."""
    try:
        install(FOLDER)
    except NotInstalled as error:
        pytest.skip(str(error))
    return (FOLDER / "node_modules" / "axe-core" / "axe.min.js").read_text()
