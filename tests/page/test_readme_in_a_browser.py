"""The README's example for browsers, run in one as it stands."""

import pytest

from tests.documents import blocks
from tests.page.chat import Chat
from tests.provider import Text
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

(EXAMPLE,) = blocks("README.md", "From the shell", "js")


async def test_the_example_writes_the_answer_into_the_page(stack: Stack, chat: Chat) -> None:
    stack.provider.script("m", Text("It scatters "), Text("light."))
    # A module cannot be given to a page whose policy forbids inline scripts; a function may import one.
    code = EXAMPLE.replace(
        'import { Rejoin } from "/page/rejoin.js";', 'const { Rejoin } = await import("/page/rejoin.js");'
    )
    assert code != EXAMPLE
    code = code.replace('provider: "demo", model: "tour"', 'provider: "openai", model: "m"')
    # (`randomUUID` is there in secure contexts, which loopback is.)
    await chat.page.evaluate(f"async () => {{ const key = null;\n{code}\n}}")
    assert "It scatters light." in await chat.page.evaluate("document.body.innerText")
