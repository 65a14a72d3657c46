"""The page in a real browser, against API, worker and a scripted provider: what a user sees, what the provider gets."""

import asyncio
import json
import re
import signal
from typing import Any

import pytest
from playwright.async_api import Route, expect

from tests.client import Client
from tests.page.chat import MODEL, TARGET, Chat
from tests.page.conftest import OpenChat
from tests.provider import HttpError, Reasoning, Silence, Text, Tokens, Usage, Wait
from tests.stack import Stack, eventually

pytestmark = pytest.mark.asyncio(loop_scope="session")

JOBS = "**/v1/jobs"
BEGUN: list[tuple[str, str, dict[str, Any]]] = [
    ("0-1", "queued", {"position": 1}),
    ("1-0", "started", {"attempt": 1, "provider": "openai", "model": MODEL}),
]
FIGURES = re.compile(
    r"queued\s\d\.\d\d\ss · first\stoken\s\d\.\d\d\ss · 2\stokens (· [\d.]+\stokens/s )?· total\s\d.* · 1\sattempt"
)
HOSTILE = '<img src=x onerror="window.hacked = 1"><script>window.hacked = 1</script><b>&amp;</b>'
HOSTILE_ELEMENTS = "img, script, b"


# --- Send ---


async def test_tokens_are_shown_as_they_arrive(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"), Usage(input=9, output=2))
    await chat.say("Hi")
    await chat.shows("Hel", "Answering…")
    await chat.lacks("Hello")
    await expect(chat.send).to_be_disabled()
    gate.open()
    await chat.shows("Hello", "Completed", FIGURES)
    await chat.is_idle()


async def test_the_conversation_so_far_goes_with_the_next_message(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hello"))
    await chat.say("Hi")
    await chat.shows("Completed")
    await chat.say("And you?")
    await expect(chat.answers).to_have_count(2)
    await chat.shows("Completed")
    assert stack.provider.calls[1].body["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And you?"},
    ]


async def test_enter_sends_and_shift_enter_is_a_new_line(stack: Stack, chat: Chat) -> None:
    await chat.model.select_option(TARGET)
    await chat.prompt.press_sequentially("one")
    await chat.prompt.press("Shift+Enter")
    await chat.prompt.press_sequentially("two")
    await chat.prompt.press("Enter")
    await chat.shows("Completed")
    assert stack.provider.calls[0].body["messages"] == [{"role": "user", "content": "one\ntwo"}]
    await expect(chat.prompt).to_have_value("")
    await expect(chat.prompt).to_be_focused()


async def test_clicking_twice_asks_once(stack: Stack, chat: Chat) -> None:
    await chat.model.select_option(TARGET)
    await chat.prompt.fill("Hi")
    await chat.send.dblclick()
    await chat.shows("Completed")
    assert len(chat.posts) == len(stack.provider.calls) == 1


async def test_a_draft_waits_until_the_answer_is_there(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.prompt.fill("And")
    await chat.prompt.press("Enter")
    await expect(chat.prompt).to_have_value("And")
    gate.open()
    await chat.reads("Hello", "Completed")
    assert len(chat.posts) == 1


async def test_models_name_the_provider_first_and_the_choice_is_kept(bare: Stack, open_chat: OpenChat) -> None:
    router = {"kind": "openai", "base_url": bare.provider.openai_url, "api_key": "x", "models": ["meta/llama-3"]}
    bare.configure(more_providers={"router": router})
    await bare.worker()
    await bare.api()
    chat = await open_chat(bare)
    await expect(chat.model).to_have_value("demo/tour")
    for option in await chat.model.get_by_role("option").all_text_contents():
        assert re.fullmatch(r"(demo|openai|openai-responses|anthropic|router)/.+", option)
    await chat.say("Hi", "router/meta/llama-3")
    await chat.shows("Completed", "router/meta/llama-3")
    assert bare.provider.calls[0].model == "meta/llama-3"
    await chat.page.reload()
    await expect(chat.model).to_have_value("router/meta/llama-3")


# --- Stop ---


async def test_stop_closes_the_providers_connection(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.stop.click()
    await stack.provider.calls[0].closed()
    await chat.shows("Hel", "Stopped", "1 token".replace(" ", "\u00a0"))
    await chat.is_idle()


async def test_stop_before_the_api_has_answered_stops_the_job(stack: Stack, chat: Chat, client: Client) -> None:
    stack.provider.script(MODEL, Silence())
    stopped = asyncio.Event()

    async def hold(route: Route) -> None:
        await stopped.wait()
        await route.continue_()

    await chat.page.route(JOBS, hold)
    await chat.say("Hi")
    await chat.stop.click()
    await chat.shows("Stopping…")
    stopped.set()
    await chat.shows("Stopped")
    await chat.is_idle()
    (job,) = (await client.http.get("/v1/jobs")).json()["data"]
    assert job["status"] == "cancelled"
    for call in stack.provider.calls:
        await call.closed()


async def test_stop_by_keyboard_leaves_the_focus_in_the_prompt(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.stop.press("Enter")
    await chat.shows("Stopped")
    await expect(chat.prompt).to_be_focused()


# --- Reload ---


async def test_a_reload_in_mid_answer_shows_the_whole_answer_and_goes_on(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Tokens("one two three"), Wait(gate), Tokens(" four five"))
    await chat.say("Count")
    await chat.shows("one two three")
    await chat.page.reload()
    await chat.reads("one two three", "Rejoined")
    await expect(chat.log).to_contain_text("Count")
    gate.open()
    await chat.reads("one two three four five", "Completed")
    await chat.page.reload()
    await chat.reads("one two three four five", "Completed")
    await chat.is_idle()
    assert len(stack.provider.calls) == 1


async def test_stop_works_after_a_reload(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.page.reload()
    await chat.stop.click()
    await stack.provider.calls[0].closed()
    await chat.reads("Hel", "Stopped")
    await chat.is_idle()


async def test_an_answer_that_ended_meanwhile_is_shown_whole(stack: Stack, chat: Chat, client: Client) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.page.goto("about:blank")
    gate.open()
    (job,) = (await client.http.get("/v1/jobs")).json()["data"]
    await client.until(job["id"], "completed")
    await chat.open()
    await chat.reads("Hello", "Completed")
    await chat.is_idle()


async def test_a_reload_before_the_api_has_answered_asks_again_with_the_same_key(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hello"))
    accepted = asyncio.Event()

    async def hold_the_first_answer(route: Route) -> None:
        if accepted.is_set():
            await route.continue_()
        else:
            await route.fetch()
            accepted.set()

    await chat.page.route(JOBS, hold_the_first_answer)
    await chat.say("Hi")
    await accepted.wait()
    await chat.page.reload()
    await chat.shows("Hello", "Completed")
    first, second = chat.posts
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.post_data == second.post_data


async def test_a_job_that_is_no_longer_kept_leaves_what_had_arrived(stack: Stack, chat: Chat, client: Client) -> None:
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await chat.page.goto("about:blank")
    (job,) = (await client.http.get("/v1/jobs")).json()["data"]
    await client.cancel(job["id"])
    await client.http.delete(f"/v1/jobs/{job['id']}")
    await chat.open()
    await chat.shows("Hel", "No longer available")
    chat.forgive("status of 404")
    await chat.is_idle()
    stack.provider.script(MODEL, Text("Still here"))
    await chat.say("Hi")
    await chat.shows("Still here", "Completed")


async def test_a_memory_that_makes_no_sense_is_put_aside(stack: Stack, chat: Chat) -> None:
    await chat.say("Hi")
    await chat.shows("Completed")
    await chat.page.evaluate(
        "() => Object.keys(localStorage).forEach((key) => localStorage.setItem(key, '[{\"turns\": [null]}, null, 1]'))"
    )
    await chat.page.reload()
    await expect(chat.answers).to_have_count(0)
    await chat.say("Hi")
    await chat.shows("Completed")


async def test_a_second_tab_watches_and_may_stop(stack: Stack, chat: Chat, open_chat: OpenChat) -> None:
    other = await open_chat(stack)
    stack.provider.script(MODEL, Text("Hel"), Silence())
    await chat.say("Hi")
    await chat.shows("Hel")
    await other.shows("Hel")
    await other.stop.click()
    await stack.provider.calls[0].closed()
    await other.shows("Stopped")
    await chat.shows("Stopped")
    assert len(stack.provider.calls) == 1


async def test_a_tab_too_many_waits_for_its_turn(bare: Stack, open_chat: OpenChat) -> None:
    """429 ends an EventSource for good: the page asks again, and has the whole answer in the end."""
    bare.configure(max_streams=1)
    await bare.worker()
    await bare.api()
    gate = bare.provider.gate()
    bare.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    chat = await open_chat(bare)
    await chat.say("Hi")
    await chat.shows("Hel")
    # Opened only now: two tabs that are there would race for the one stream.
    other = await open_chat(bare)
    await other.shows("Connection lost")
    await chat.page.close()
    await other.shows("Hel", "answering")
    gate.open()
    await other.reads("Hello", "Completed")
    other.forgive("status of 429")


# --- What else a job may tell ---


async def test_a_restart_drops_what_the_lost_attempt_wrote(bare: Stack, open_chat: OpenChat) -> None:
    leaving = await bare.worker_process()
    await bare.api()
    chat = await open_chat(bare)
    gate = bare.provider.gate()
    bare.provider.script(MODEL, Text("half an ans"), Silence())
    bare.provider.then(MODEL, Wait(gate), Tokens("a whole answer"))
    await chat.say("Hi")
    await chat.shows("half an ans")
    await bare.worker()
    leaving.signal(signal.SIGTERM)
    await chat.shows("begins it anew")
    await chat.lacks("half an ans")
    gate.open()
    await chat.shows("a whole answer", "Completed", "2 attempts".replace(" ", "\u00a0"))
    await chat.page.reload()
    await chat.shows("begins it anew.a whole answerCompleted")


async def test_a_failure_is_told_in_plain_words_and_can_be_tried_again(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, HttpError(401, message="secret words of the provider"))
    await chat.say("Hi")
    await chat.shows("The provider refused the server's credentials.", "another try would fail too")
    await expect(chat.again).to_have_count(0)
    await expect(chat.log).not_to_contain_text("secret words")
    await chat.is_idle()


async def test_a_post_without_an_answer_is_tried_again_with_the_same_key(stack: Stack, chat: Chat) -> None:
    async def lose_the_answer(route: Route) -> None:
        await route.fetch()
        await route.abort()

    await chat.page.route(JOBS, lose_the_answer, times=1)
    await chat.say("Hi")
    await chat.shows("The server cannot be reached.")
    chat.forgive("ERR_FAILED")
    await chat.again.click()
    await chat.shows("Completed")
    await expect(chat.answers).to_have_count(1)
    first, second = chat.posts
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.post_data == second.post_data
    assert len(stack.provider.calls) == 1, "and bills once"


async def test_reasoning_is_folded(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Reasoning("Let me "), Reasoning("think."), Text("So."))
    await chat.say("Why?")
    await chat.shows("So.", "Completed")
    thought = chat.answer.get_by_text("Let me think.")
    await expect(thought).to_be_hidden()
    await chat.answer.get_by_text("Reasoning", exact=True).click()
    await expect(thought).to_be_visible()


async def test_tool_calls_are_shown_plainly(chat: Chat) -> None:
    end = {"provider": "openai", "model": MODEL, "usage": None, "cost_usd": None, "ttft_ms": 1, "duration_ms": 2}
    await chat.stream(
        [
            *BEGUN,
            ("1-1", "tool_call", {"index": 0, "id": "a", "name": "get_weather", "arguments": '{"city": '}),
            ("1-2", "tool_call", {"index": 1, "id": "b", "name": HOSTILE, "arguments": json.dumps(HOSTILE)}),
            ("1-3", "tool_call", {"index": 0, "arguments": '"Lisbon"}'}),
            ("1-4", "completed", {**end, "finish_reason": "tool_calls", "parsed": None}),
        ]
    )
    await chat.say("Weather?")
    await chat.shows("Tool call: get_weather", '{"city": "Lisbon"}', "the model asks for a tool")
    await chat.shows(f"Tool call: {HOSTILE}", json.dumps(HOSTILE))
    assert await chat.log.locator(HOSTILE_ELEMENTS).count() == 0


async def test_a_snapshot_replaces_everything_before_it(chat: Chat) -> None:
    await chat.stream(
        [
            *BEGUN,
            ("1-1", "token", {"text": "a wrong text"}),
            ("1-5", "snapshot", {"attempt": 1, "text": "the right text", "reasoning": "", "tool_calls": []}),
            ("1-6", "token", {"text": " and more"}),
            ("1-7", "failed", {"code": "x", "message": "Enough.", "retryable": True, "usage": None}),
        ]
    )
    await chat.say("Hi")
    await chat.reads("the right text and more", "Enough.")
    await chat.shows("another try may work")


# --- The network ---


async def test_a_refused_stream_is_opened_again_behind_the_last_event(stack: Stack, chat: Chat) -> None:
    """Here a proxy's 503 after a cut connection."""
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Wait(gate), Text("Hello"))
    await chat.stream(BEGUN, 503, 503, 503)
    reading = chat.page.expect_request(lambda request: request.headers.get("last-event-id") == "1-0")
    async with reading:
        await chat.say("Hi")
        await chat.shows("Connection lost")
    await chat.shows("Waiting for the first token")
    gate.open()
    await chat.reads("Hello", "Completed")
    chat.forgive("status of 503")


async def test_a_stream_that_has_nothing_more_to_say_gives_way_to_the_job(stack: Stack, chat: Chat) -> None:
    stack.provider.script(MODEL, Text("Hello"))
    job = asyncio.Event()

    async def nothing_more(route: Route) -> None:
        await job.wait()
        await route.fulfill(status=204)

    await chat.page.route("**/v1/jobs/*/events*", nothing_more)
    await chat.say("Hi")
    client = stack.client()
    await eventually(lambda: stack.provider.calls)
    (listed,) = (await client.http.get("/v1/jobs")).json()["data"]
    await client.until(listed["id"], "completed")
    job.set()
    await chat.shows("Hello", "Completed", "1\u00a0attempt")
    await chat.is_idle()


# --- Rendering ---


async def test_the_log_follows_its_end_only_for_those_who_are_there(stack: Stack, chat: Chat) -> None:
    first, second = stack.provider.gate(), stack.provider.gate()
    lines = [f"line {i}\n" for i in range(300)]
    stack.provider.script(
        MODEL, Tokens(lines[:100]), Wait(first), Tokens(lines[100:200]), Wait(second), Tokens(lines[200:])
    )
    from_end = "log => log.scrollHeight - log.clientHeight - log.scrollTop"
    await chat.say("Hi")
    await chat.shows("line 99")
    await eventually_near_zero(chat, from_end)
    await chat.log.evaluate("log => { log.scrollTop = 0 }")
    first.open()
    await chat.shows("line 199")
    assert await chat.log.evaluate("log => log.scrollTop") == 0
    await chat.log.evaluate("log => { log.scrollTop = log.scrollHeight }")
    second.open()
    await chat.shows("line 299", "Completed")
    await eventually_near_zero(chat, from_end)


async def eventually_near_zero(chat: Chat, expression: str) -> None:
    async def near_zero() -> bool:
        return abs(await chat.log.evaluate(expression)) <= 2

    await eventually(near_zero)


async def test_a_screen_reader_hears_what_happens_and_not_each_token(stack: Stack, chat: Chat) -> None:
    gate = stack.provider.gate()
    stack.provider.script(MODEL, Text("Hel"), Wait(gate), Text("lo"))
    status = chat.page.get_by_role("status")
    await expect(chat.log).to_have_attribute("aria-live", "off")
    await chat.say("Hi")
    await expect(status).to_have_text(f"{TARGET} is answering.")
    gate.open()
    await expect(status).to_have_text("Answer complete.")
