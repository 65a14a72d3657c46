"""The page's Markdown by itself: fed in a real Chromium, under the page's own policy."""

from typing import Any

from playwright.async_api import Page

from tests.page.chat import Chat

PREPARE = """async () => {
    const { MarkdownView } = await import('/page/markdown/markdown.js');
    window.fresh = () => {
        document.querySelector('#box')?.remove();
        const box = document.createElement('div');
        box.id = 'box';
        box.className = 'markdown';
        document.querySelector('#log').append(box);
        return { box, view: new MarkdownView(box) };
    };
    window.whole = (view, text, live) => { while (!view.show(text, live)); };
}"""


class Renderer:
    def __init__(self, page: Page) -> None:
        self.page = page

    @classmethod
    async def of(cls, chat: Chat) -> "Renderer":
        await chat.page.evaluate(PREPARE)
        return cls(chat.page)

    async def html(self, text: str) -> str:
        """Return what a finished text is drawn as."""
        return await self._run(
            "(text) => { const {box, view} = fresh(); whole(view, text, false); return box.innerHTML }", text
        )

    async def html_in_pieces(self, text: str, cuts: list[int]) -> str:
        """Return what it is drawn as when it came in pieces."""
        return await self._run(
            """([text, cuts]) => {
                const { box, view } = fresh();
                for (const cut of cuts) whole(view, text.slice(0, cut), true);
                whole(view, text, false);
                return box.innerHTML;
            }""",
            [text, cuts],
        )

    async def texts(self, text: str) -> list[str]:
        """Return what is to be read after each character, without white space, and in the end."""
        return await self._run(
            """(text) => {
                const { box, view } = fresh();
                const seen = [];
                for (let end = 1; end <= text.length; end++) {
                    whole(view, text.slice(0, end), true);
                    seen.push(box.textContent.replace(/\\s/g, ''));
                }
                whole(view, text, false);
                return [...seen, box.textContent.replace(/\\s/g, '')];
            }""",
            text,
        )

    async def longest_ms(self, text: str, steps: int) -> float:
        """Return what the dearest of so many steps takes, with the layout that it causes."""
        return await self._run(
            """([text, steps]) => {
                const { box, view } = fresh();
                let longest = 0;
                for (let step = 1; step <= steps; step++) {
                    const start = performance.now();
                    view.show(text.slice(0, Math.round(text.length * step / steps)), step < steps);
                    box.getBoundingClientRect();
                    longest = Math.max(longest, performance.now() - start);
                }
                whole(view, text, false);
                return longest;
            }""",
            [text, steps],
        )

    async def _run(self, script: str, argument: Any) -> Any:
        return await self.page.evaluate(script, argument)
