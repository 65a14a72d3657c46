"""Pages with the AI SDK's own `useChat` (npm `ai`, `@ai-sdk/react`), in one process of Node.js for all tests."""

import asyncio
import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.npm import NotInstalled, find_node, install

HERE: Final = Path(__file__).parent / "ai_sdk"
OLDEST_NODE: Final = (22, 15)

WAIT_S: Final = 10


def node() -> str:
    """Return a Node.js that runs the AI SDK, and install that. Raises NotInstalled."""
    path = find_node(OLDEST_NODE)
    if path is None:
        raise NotInstalled("no Node.js 22 or later")
    install(HERE)
    return path


class Page:
    """One page, from its opening to its closing: what React has rendered there, and what the page was told."""

    def __init__(self, browser: "Browser", name: str) -> None:
        self._browser = browser
        self.name = name
        self._news = asyncio.Event()
        self._ended = 0
        self._since = 0
        """How many states there were when it last asked for something."""
        self.states: list[dict[str, Any]] = []
        """`{status, messages, error}`, oldest first."""
        self.shown: list[str] = []
        """What an example's page shows: its messages, and what it says of itself."""
        self.finishes: list[dict[str, Any]] = []
        self.data: list[dict[str, Any]] = []
        """Data parts, the transient ones too."""
        self.tools: list[tuple[str, Any]] = []
        """Tools that the page was to run, with their input."""
        self.asked: list[tuple[str, int]] = []
        """Methods and statuses of its requests that were answered."""

    def told(self, news: dict[str, Any]) -> None:
        if "state" in news:
            self.states.append(news["state"])
        elif "shown" in news:
            self.shown = news["shown"]
        elif "finish" in news:
            self.finishes.append(news["finish"])
        elif "data" in news:
            self.data.append(news["data"])
        elif "tool" in news:
            self.tools.append((news["tool"], news["input"]))
        elif "asked" in news:
            method, status = news["asked"]
            self.asked.append((method, status))
        self._news.set()

    async def until(self, is_so: Callable[["Page"], Any]) -> "Page":
        """Return as soon as it is so; the page's state is in the error else."""
        try:
            async with asyncio.timeout(WAIT_S):
                while not ((self.states or self.shown) and is_so(self)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            had = (self.states[-1:], self.shown, self.finishes, self.asked)
            raise AssertionError(f"it never came to that: {had}") from None
        return self

    async def ended(self) -> "Page":
        """Wait until the next answer is over, or was refused; each is waited for once."""
        self._ended += 1

        def over(page: Page) -> bool:
            if len(page.finishes) < self._ended or len(page.states) <= self._since:
                return False
            if page.status == "ready":
                # React draws later than it calls: at first it is ready with the question alone.
                well = not any(page.finishes[-1][why] for why in ("isAbort", "isDisconnect", "isError"))
                return not well or page.role == "assistant"
            return page.status == "error"

        return await self.until(over)

    async def shows(self, text: str) -> "Page":
        """Wait until the last message is an answer with this text."""
        return await self.until(lambda page: page.role == "assistant" and page.text == text)

    @property
    def status(self) -> str:
        return str(self.states[-1]["status"])

    @property
    def error(self) -> str | None:
        found: str | None = self.states[-1]["error"]
        return found

    @property
    def messages(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.states[-1]["messages"]
        return found

    @property
    def role(self) -> str | None:
        return str(self.messages[-1]["role"]) if self.messages else None

    @property
    def text(self) -> str:
        """The text of the last message."""
        return text(self.messages[-1]) if self.messages else ""

    @property
    def parts(self) -> list[str]:
        """What the last message is made of."""
        return [part["type"] for part in self.messages[-1]["parts"]]

    def send(self, text: str = "Hi", **options: Any) -> None:
        self._since = len(self.states)
        self._browser.say("send", page=self.name, text=text, **options)

    def regenerate(self) -> None:
        self._since = len(self.states)
        self._browser.say("regenerate", page=self.name)

    def stop(self) -> None:
        """`useChat`'s own."""
        self._browser.say("stop", page=self.name)

    def submit(self, text: str) -> None:
        """Send what an example's form sends."""
        self._browser.say("submit", page=self.name, text=text)

    def click(self, button: str) -> None:
        self._browser.say("click", page=self.name, button=button)

    def close(self) -> None:
        self._browser.say("close", page=self.name)


def text(message: dict[str, Any]) -> str:
    return "".join(part["text"] for part in message["parts"] if part["type"] == "text")


class Browser:
    """The process that all pages of a test process are in; tests have event loops of their own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._pages: dict[str, tuple[Page, asyncio.AbstractEventLoop]] = {}
        self._opened = 0
        threading.Thread(target=self._listen, daemon=True).start()

    async def open(self, url: str, id: str = "chat", **options: Any) -> Page:
        """Open a page whose `useChat` asks the API there; it is rendered when this returns."""
        page = self._new()
        self.say("open", page=page.name, url=url, id=id, **options)
        return await page.until(lambda page: page.states)

    async def example(self, url: str, file: Path, **props: Any) -> Page:
        """Open an example's page as it stands, served by the API that it asks."""
        page = self._new()
        self.say("example", page=page.name, url=url, file=str(file), **props)
        return await page.until(lambda page: page.shown)

    def _new(self) -> Page:
        self._opened += 1
        page = Page(self, f"page-{self._opened}")
        self._pages[page.name] = page, asyncio.get_running_loop()
        return page

    def close(self) -> None:
        """Close all pages."""
        for name in self._pages:
            self.say("close", page=name)
        self._pages.clear()

    def say(self, what: str, **command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": what, **command}) + "\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            news = json.loads(line)
            page, loop = self._pages.get(news.pop("page"), (None, None))
            # A test that has ended is told nothing.
            if page is not None and loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(page.told, news)


@contextmanager
def browser(node: str) -> Iterator[Browser]:
    environ = {name: value for name, value in os.environ.items() if not name.upper().endswith("_PROXY")}
    with subprocess.Popen(
        [node, str(HERE / "driver.mjs")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**environ, "NODE_ENV": "production"},
    ) as process:  # fmt: skip
        try:
            yield Browser(process)
        finally:
            process.kill()
