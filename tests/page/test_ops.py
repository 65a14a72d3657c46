"""The operators' page in a real browser: what they see, and how they end a job."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import BrowserContext, Locator, Page, Route, expect

from shared.hour import Hour
from shared.redis import Scripts
from tests import keys
from tests.client import Client
from tests.provider import Silence, Text
from tests.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="session")

HOSTILE = "<img/src=x/onerror=hacked=1><script>hacked=1</script>"


class Screen:
    """One operator's tab."""

    def __init__(self, page: Page, stack: Stack) -> None:
        self.page = page
        self.url = f"{stack.url}/ops"
        self.errors: list[str] = []
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.jobs = page.get_by_role("table", name="Running jobs")
        self.key = page.get_by_role("textbox", name="key")

    def row(self, job_id: str) -> Locator:
        return self.jobs.get_by_role("row").filter(has_text=job_id)

    def figure(self, name: str) -> Locator:
        return self.page.locator("dl > div").filter(has=self.page.get_by_text(name, exact=True))

    async def enter(self, key: str) -> None:
        await self.key.fill(key)
        await self.page.keyboard.press("Enter")

    def forgive(self, text: str) -> None:
        """Drop complaints with `text`, which the test itself has caused; there must be one."""
        rest = [error for error in self.errors if text not in error]
        assert len(rest) < len(self.errors), f"no {text!r} in {self.errors}"
        self.errors = rest


@pytest_asyncio.fixture(loop_scope="session")
async def screen(stack: Stack, browser: BrowserContext) -> AsyncIterator[Screen]:
    screen = Screen(await browser.new_page(), stack)
    yield screen
    assert screen.errors == []


@pytest_asyncio.fixture(loop_scope="session")
async def client(stack: Stack) -> Client:
    return stack.client()


async def silent_job(stack: Stack, client: Client, model: str = "silent") -> str:
    stack.provider.script(model, Text("words of its own"), Silence())
    job_id = await client.submit(model)
    await client.until(job_id, "token")
    return job_id


async def test_what_runs_is_shown_and_can_be_cancelled(stack: Stack, client: Client, screen: Screen) -> None:
    """By keyboard alone; the question can be declined."""
    job_id = await silent_job(stack, client)
    call = await stack.provider.next_call()
    page = screen.page
    await page.goto(screen.url)
    await expect(screen.row(job_id)).to_contain_text("openai/silent")
    await expect(screen.row(job_id)).to_contain_text("local")
    await expect(screen.figure("Running")).to_contain_text(re.compile(r"1of \d+ slots"))
    await expect(page.get_by_role("table", name="Workers").get_by_role("row")).to_have_count(2)
    await expect(page).to_have_title("0 wait, 1 run – Rejoin")
    cancel = page.get_by_role("button", name=f"Cancel {job_id}")
    await cancel.focus()
    await page.keyboard.press("Enter")
    question = page.get_by_role("dialog", name="Cancel this job?")
    await expect(question).to_contain_text(job_id)
    await expect(question.get_by_role("button", name="Let it run")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(question).to_be_hidden()
    await expect(cancel).to_be_focused()
    assert (await client.job(job_id))["status"] == "running"
    await page.keyboard.press("Enter")
    await page.keyboard.press("Tab")
    await page.keyboard.press("Enter")
    await call.closed()
    await expect(page.get_by_role("status")).to_have_text(f"{job_id} is cancelled.")
    assert (await client.job(job_id))["status"] == "cancelled"
    assert "words of its own" not in await page.content()


async def test_a_row_that_is_read_stays_where_it_is(stack: Stack, client: Client, screen: Screen) -> None:
    first, second = await silent_job(stack, client), await silent_job(stack, client)
    await screen.page.goto(screen.url)
    await screen.row(second).hover()
    box = await screen.row(second).bounding_box()
    await client.cancel(first)
    await expect(screen.row(first)).to_have_class("gone")
    await expect(screen.page.get_by_role("button", name=f"Cancel {first}")).to_be_disabled()
    assert await screen.row(second).bounding_box() == box
    third = await silent_job(stack, client)
    await expect(screen.row(third)).to_be_visible()
    assert await screen.row(second).bounding_box() == box
    await screen.page.mouse.move(0, 0)
    await expect(screen.row(first)).to_have_count(0)
    assert [await row.text_content() for row in await screen.jobs.get_by_role("rowheader").all()] == [second, third]


async def test_what_comes_above_moves_nothing_that_is_read(stack: Stack, client: Client, screen: Screen) -> None:
    """By pointer, by focus, or in the middle of the window."""
    hour = Hour(stack.commands, Scripts(stack.commands), stack.keys)
    page, codes = screen.page, iter(("idle_timeout", "worker_lost", "provider_error"))
    job_id = await silent_job(stack, client)
    for _ in range(9):
        await silent_job(stack, client)
    await page.set_viewport_size({"width": 1280, "height": 500})
    await page.goto(screen.url)
    cancel = page.get_by_role("button", name=f"Cancel {job_id}")
    await cancel.scroll_into_view_if_needed()

    async def top(row: Locator) -> float:
        box = await row.bounding_box()
        assert box is not None
        return box["y"]

    async def stays(row: Locator) -> None:
        before, code = await top(row), next(codes)
        await hour.add({f"failed:{code}": 1})
        await expect(page.get_by_role("table", name="Failed jobs").get_by_role("row", name=code)).to_be_attached()
        # (Windows scroll by whole pixels.)
        assert abs(await top(row) - before) < 1

    await screen.row(job_id).hover()
    await stays(screen.row(job_id))
    await page.mouse.move(0, 0)
    await cancel.focus()
    await stays(screen.row(job_id))
    await page.evaluate("document.activeElement.blur()")
    await screen.jobs.get_by_role("row").nth(5).evaluate("row => row.scrollIntoView({ block: 'center' })")
    await stays(screen.jobs.get_by_role("row").nth(5))


async def test_the_hour_is_drawn_and_told_as_a_table(stack: Stack, screen: Screen) -> None:
    hour = Hour(stack.commands, Scripts(stack.commands), stack.keys)
    await hour.add(
        {"ttft:0.2:0.35": 98, "ttft:5:10": 2, "lag:0.005:0.01": 500, "completed": 97, "failed:rate_limited": 3}
    )
    page = screen.page
    await page.goto(screen.url)
    drawing = page.get_by_role("img", name="Time to first token")
    await expect(drawing).to_have_accessible_description(re.compile(r"p50 2\d\d ms, p99 7\.5 s, of 100"))
    await expect(page.get_by_role("img", name="Lag")).to_have_accessible_description(re.compile("of 500"))
    figure = page.get_by_role("figure").filter(has=drawing)
    await figure.get_by_text("As a table").click()
    row = figure.get_by_role("table").get_by_role("row").filter(has_text=":")
    await expect(row).to_have_text(re.compile(r"^\d\d:\d\d1002\d\d ms7\.5 s$"))
    await expect(page.get_by_role("table", name="Failed jobs").get_by_role("row").nth(1)).to_contain_text(
        "rate_limited3"
    )
    await expect(screen.figure("Failed in an hour")).to_contain_text("33.0 %")


async def test_names_are_text_whatever_is_in_them(stack: Stack, client: Client, screen: Screen) -> None:
    """CWE-79"""
    job_id = await silent_job(stack, client, HOSTILE)
    await screen.page.goto(screen.url)
    await expect(screen.row(job_id)).to_contain_text(f"openai/{HOSTILE}")
    await stack.redis.hset(stack.keys.job(job_id), "owner", HOSTILE)  # type: ignore[misc]
    await expect(screen.row(job_id)).to_contain_text(f"openai/{HOSTILE}{HOSTILE}1")
    await screen.page.get_by_role("button", name=f"Cancel {job_id}").click()
    await expect(screen.page.get_by_role("dialog")).to_contain_text(f"of {HOSTILE}, openai/{HOSTILE}")
    assert await screen.page.locator("table img, table script, dialog img").count() == 0
    assert await screen.page.evaluate("typeof hacked") == "undefined"


async def test_a_key_without_the_right_is_told_so(bare: Stack, browser: BrowserContext) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.api()
    plain, with_right = await keys.new_key(bare, "alice"), await keys.new_key(bare, "olga", "--ops")
    screen = Screen(await browser.new_page(), bare)
    page = screen.page
    await page.goto(screen.url)
    await expect(page.get_by_text("This view wants an operator’s key.").first).to_be_visible()
    await screen.enter(plain)
    await expect(page.get_by_text("This key may not operate").first).to_be_visible()
    await screen.enter(with_right)
    await expect(screen.figure("Workers")).to_contain_text("0")
    await page.reload()
    await expect(screen.figure("Workers")).to_contain_text("0")
    assert await page.evaluate("JSON.stringify(localStorage)") == "{}"
    await page.get_by_role("button", name="Forget key").click()
    await expect(screen.key).to_be_visible()
    await expect(screen.figure("Workers")).to_be_hidden()
    assert await page.evaluate("sessionStorage.length") == 0
    screen.forgive("status of 401")
    screen.forgive("status of 404")
    assert screen.errors == []


async def test_it_asks_while_it_is_seen_and_says_when_it_cannot(stack: Stack, screen: Screen) -> None:
    asked, answers = asyncio.Event(), True
    page = screen.page

    async def pass_on(route: Route) -> None:
        asked.set()
        await (route.continue_() if answers else route.abort())

    await page.route("**/v1/ops", pass_on)
    await page.clock.install()
    await page.goto(screen.url)
    await expect(page.get_by_text("As of")).to_be_visible()
    asked.clear()
    answers = False
    await page.clock.run_for(2_100)
    await expect(page.get_by_text(re.compile(r"^Nothing new since .*cannot be reached")).first).to_be_visible()
    await expect(screen.figure("Workers")).to_contain_text("1")
    answers = True
    await page.clock.run_for(10_000)
    await expect(page.get_by_text("As of")).to_be_visible()
    # Somewhere behind other tabs it asks nothing, and at once when it is seen again.
    seen = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true })"
    behind_all = "fetch('/livez').then((response) => response.status)"
    await page.evaluate(seen % "true")
    assert await page.evaluate(behind_all) == 200
    asked.clear()
    await page.clock.run_for(60_000)
    assert await page.evaluate(behind_all) == 200
    assert not asked.is_set()
    await page.evaluate(seen % "false")
    await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    await asyncio.wait_for(asked.wait(), 5)
    screen.forgive("ERR_FAILED")


async def test_axe_finds_nothing_to_complain_of(stack: Stack, client: Client, screen: Screen, axe: str) -> None:
    job_id = await silent_job(stack, client)
    hour = Hour(stack.commands, Scripts(stack.commands), stack.keys)
    await hour.add({"ttft:0.2:0.35": 98, "completed": 97, "failed:rate_limited": 3})
    page = screen.page
    await page.goto(screen.url)
    await expect(screen.row(job_id)).to_be_visible()
    await page.get_by_text("As a table").first.click()
    await page.evaluate("() => (document.querySelector('#key-form').hidden = false)")
    await page.evaluate(axe)
    for scheme, width in (("light", 1280), ("dark", 1280), ("light", 320), ("dark", 320)):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.set_viewport_size({"width": width, "height": 800})
        if (scheme, width) == ("dark", 320):
            await page.get_by_role("button", name=f"Cancel {job_id}").click()
        found = await page.evaluate("async () => (await axe.run()).violations")
        broken = [(rule["id"], [node["html"][:200] for node in rule["nodes"]]) for rule in found]
        assert broken == [], f"{scheme} at {width} px"


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_any_width_in_light_and_dark(stack: Stack, client: Client, screen: Screen, scheme: Any) -> None:
    """WCAG 1.4.10, 1.4.3: tables scroll by themselves, the page never sideways."""
    await silent_job(stack, client)
    page = screen.page
    await page.emulate_media(color_scheme=scheme)
    for width in (320, 768, 1920):
        await page.set_viewport_size({"width": width, "height": 900})
        await page.goto(screen.url)
        await expect(screen.jobs).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= width


async def test_an_event_server_that_is_away_is_shown(stack: Stack, screen: Screen) -> None:
    servers: list[dict[str, Any]] = []

    async def spread(route: Route) -> None:
        view = await (await route.fetch()).json()
        await route.fulfill(json={**view, "event_servers": servers})

    await screen.page.route("**/v1/ops", spread)
    await screen.page.goto(screen.url)
    table = screen.page.get_by_role("table", name="Event servers")
    await expect(screen.figure("Workers")).to_be_visible()
    await expect(table).to_have_count(0)
    servers += [
        {"name": HOSTILE, "state": "away", "closed": False, "unsent": 3},
        {"name": "events-2", "state": "there", "closed": True, "unsent": 0},
    ]
    await expect(table.get_by_role("row").nth(1)).to_have_text(f"{HOSTILE}away: its answers stand still3")
    await expect(table.get_by_role("row").nth(2)).to_have_text("events-2there, closed0")
