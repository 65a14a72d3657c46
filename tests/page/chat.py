"""The page as its user sees it: by role and name, never by id or class."""

import json
import re
from collections.abc import Sequence
from typing import Any

from playwright.async_api import Locator, Page, Request, Route, expect

from tests.stack import Stack

expect.set_options(timeout=10_000)

MODEL = "gpt-4o-mini"
TARGET = f"openai/{MODEL}"
"""Offered by every stack, and answered by its scripted provider."""


class Chat:
    """One tab."""

    def __init__(self, page: Page, stack: Stack) -> None:
        self.page = page
        self.url = stack.url
        self.errors: list[str] = []
        """What the browser complains about: a faulty script, a breach of the policy, a failed request."""
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.posts: list[Request] = []
        """Every request that asked for a job."""
        page.on("request", lambda request: self.posts.append(request) if _asks(request) else None)
        self.log = page.get_by_role("log")
        self.prompt = page.get_by_role("textbox")
        self.send = page.get_by_role("button", name="Send", exact=True)
        self.stop = page.get_by_role("button", name="Stop", exact=True)
        self.again = page.get_by_role("button", name="Try again")
        self.new = page.get_by_role("button", name="New chat")
        self.model = page.get_by_role("combobox", name="Model", exact=True)
        self.list = page.get_by_role("navigation", name="Chats")
        self.answers = self.log.get_by_role("article", name="Answer from")

    @property
    def answer(self) -> Locator:
        """The newest answer."""
        return self.answers.last

    async def open(self) -> None:
        await self.page.goto(self.url)

    async def open_chat(self, title: str) -> None:
        await self.list.get_by_role("link", name=title, exact=True).click()

    async def say(self, text: str, target: str = TARGET) -> None:
        await self.model.select_option(target)
        await self.prompt.fill(text)
        await self.send.click()

    async def shows(self, *texts: str | re.Pattern[str], timeout_s: float = 10) -> None:
        """Wait until the newest answer has all of `texts`."""
        for text in texts:
            await expect(self.answer).to_contain_text(text, timeout=timeout_s * 1000)

    async def reads(self, text: str, status: str, target: str = TARGET) -> None:
        """Wait until `text` is all that the newest answer says, between its model's name and its status."""
        await self.shows(f"{target}{text}{status}")

    async def lacks(self, text: str) -> None:
        await expect(self.answer).not_to_contain_text(text)

    async def is_idle(self) -> None:
        """Wait until a message can be sent and nothing can be stopped."""
        await expect(self.send).to_be_enabled()
        await expect(self.stop).to_be_disabled()

    async def stream(self, *streams: Sequence[tuple[str, str, dict[str, Any]]] | int) -> None:
        """Answer the next requests for events with these (id, event, data), or this status; then let all pass."""
        left = list(streams)

        async def answer(route: Route) -> None:
            if not left:
                await route.continue_()
            elif isinstance(stream := left.pop(0), int):
                await route.fulfill(status=stream)
            else:
                lines = [f"event: {event}\ndata: {json.dumps(data)}\nid: {id}\n\n" for id, event, data in stream]
                await route.fulfill(body="retry: 1\n" + "".join(lines), content_type="text/event-stream")

        await self.page.route("**/v1/jobs/*/events*", answer)

    def forgive(self, text: str) -> None:
        """Drop complaints with `text`, which the test itself has caused; there must be one."""
        rest = [error for error in self.errors if text not in error]
        assert len(rest) < len(self.errors), f"no {text!r} in {self.errors}"
        self.errors = rest


def _asks(request: Request) -> bool:
    return request.method == "POST" and request.url.endswith("/v1/jobs")
