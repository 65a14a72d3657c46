"""The AI SDK's `useChat` against both providers: pages that are reloaded, cut off, stopped and asked anew."""

import json
from typing import Any

import httpx2
import pytest

from tests import keys
from tests.faces.conftest import PROVIDERS
from tests.faces.pages import Browser, Page, text
from tests.provider import Finish, HttpError, Reasoning, Silence, StreamError, Text, ToolCall, Usage, Wait
from tests.stack import Stack

WEATHER: Any = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
PNG = "data:image/png;base64,iVBORw0KGgo="


@pytest.fixture(autouse=True)
def pages_that_name_no_model_get_this_one(bare: Stack) -> None:
    bare.configure(default_model="openai/m")


async def job_of(stack: Stack, page: Page) -> dict[str, Any]:
    return await stack.client().job(page.messages[-1]["metadata"]["jobId"])


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_answer_is_shown_as_it_comes(stack: Stack, browser: Browser, name: str) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Hel"), Wait(gate), Text("lo 🌍\n\ndata: x"), Usage(input=9, output=3))
    page = await browser.open(stack.url, body={"model": f"{name}/m"})
    page.send()
    await page.shows("Hel")
    await page.until(lambda page: page.status == "streaming")
    gate.open()
    await page.ended()
    assert (page.text, page.status, page.error) == ("Hello 🌍\n\ndata: x", "ready", None)
    assert [message["role"] for message in page.messages] == ["user", "assistant"]
    assert page.finishes == [{"finishReason": "stop", "isAbort": False, "isDisconnect": False, "isError": False}]
    told = page.messages[-1]["metadata"]
    job = await job_of(stack, page)
    assert (job["status"], job["text"]) == ("completed", page.text)
    assert (told["provider"], told["model"], told["usage"]["totalTokens"]) == (name, "m", 12)


async def test_thinking_comes_in_parts_of_its_own(stack: Stack, browser: Browser) -> None:
    stack.provider.script("m", Reasoning("Hm."), Text("Yes."))
    page = await browser.open(stack.url, body={"model": "anthropic/m", "reasoning": {"effort": "low"}})
    page.send()
    await page.ended()
    assert page.parts == ["step-start", "reasoning", "text"]
    assert [part.get("text") for part in page.messages[-1]["parts"]] == [None, "Hm.", "Yes."]
    assert {part.get("state") for part in page.messages[-1]["parts"][1:]} == {"done"}


@pytest.mark.parametrize("name", PROVIDERS)
async def test_tools_run_on_the_page_and_their_results_go_back(stack: Stack, browser: Browser, name: str) -> None:
    stack.provider.script("m", Text("Look: "), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    stack.provider.then("m", Text("Sunny."))
    tools = {"get_weather": {"output": {"celsius": 20}}}
    page = await browser.open(stack.url, body={"model": f"{name}/m", "tools": [WEATHER]}, tools=tools)
    page.send()
    await page.until(lambda page: page.text.endswith("Sunny.") and page.status == "ready")
    assert page.tools == [("get_weather", {"city": "Paris"})]
    # One message, of two steps: nothing twice, nothing lost.
    assert len(page.messages) == 2
    assert page.parts == ["step-start", "text", "tool-get_weather", "step-start", "text"]
    assert page.messages[-1]["parts"][2]["output"] == {"celsius": 20}
    assert [call.rejected for call in stack.provider.calls] == [None, None]
    assert "celsius" in json.dumps(stack.provider.calls[-1].body)


async def test_signed_thoughts_go_back_with_the_call_that_they_led_to(stack: Stack, browser: Browser) -> None:
    """The provider refuses a follow-up without them; the page has never seen a signature."""
    stack.provider.script("m", Reasoning("Hm."), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    stack.provider.then("m", Reasoning("Ah."), Text("Sunny."))
    asked = {"model": "anthropic/m", "tools": [WEATHER], "reasoning": {"effort": "low"}}
    page = await browser.open(stack.url, body=asked, tools={"get_weather": {"output": "20 °C"}})
    page.send()
    await page.until(lambda page: page.status == "error" or page.text == "Sunny.")
    assert (page.error, page.text) == (None, "Sunny.")
    (thought,) = [block for block in stack.provider.calls[-1].body["messages"][1]["content"] if "thinking" in block]
    assert thought["signature"]


async def test_a_tool_that_fails_and_one_whose_input_is_no_json(stack: Stack, browser: Browser) -> None:
    """The model is told of both, and goes on."""
    stack.provider.script("m", ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    stack.provider.then("m", ToolCall("call_2", "get_weather", '{"city":'), Finish("length"))
    stack.provider.then("m", Text("Sorry."))
    tools = {"get_weather": {"errorText": "no such city"}}
    page = await browser.open(stack.url, body={"model": "openai/m", "tools": [WEATHER]}, tools=tools)
    page.send()
    await page.until(lambda page: page.status == "error" or page.text == "Sorry.")
    assert page.error is None
    calls = [part for part in page.messages[-1]["parts"] if part["type"] == "tool-get_weather"]
    assert [part["errorText"] for part in calls] == ["no such city", "The tool's input is not JSON."]
    assert page.tools == [("get_weather", {"city": "Paris"})]
    asked = stack.provider.calls[-1].body["messages"]
    assert [message["content"] for message in asked if message["role"] == "tool"] == [
        "Error: no such city",
        "Error: The tool's input is not JSON.",
    ]
    assert json.loads(asked[-2]["tool_calls"][0]["function"]["arguments"]) == {"invalid": '{"city":'}


@pytest.mark.parametrize("name", PROVIDERS)
async def test_an_image_of_the_page_is_seen(stack: Stack, browser: Browser, name: str) -> None:
    stack.provider.script("m", Text("A dot."))
    page = await browser.open(stack.url, body={"model": f"{name}/m"})
    page.send("What is it?", files=[{"type": "file", "mediaType": "image/png", "url": PNG}])
    await page.ended()
    assert page.text == "A dot."
    assert "iVBORw0KGgo=" in json.dumps(stack.provider.calls[-1].body)


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_page_that_is_reloaded_in_mid_answer_goes_on_on_another_server(
    stack: Stack, browser: Browser, name: str
) -> None:
    gate = stack.provider.gate()
    stack.provider.script(
        "m", Reasoning("Hm.") if name == "anthropic" else Text(""), Text("Hel"), Wait(gate), Text("lo")
    )
    body = {"model": f"{name}/m", **({"reasoning": {"effort": "low"}} if name == "anthropic" else {})}
    page = await browser.open(stack.apis[0].url, body=body)
    page.send()
    await page.shows("Hel")
    kept = page.messages
    page.close()
    # As a page that has kept nothing, and as one that has kept what it had.
    bare = await browser.open(stack.apis[1].url, resume=True)
    await bare.shows("Hel")
    full = await browser.open(stack.apis[1].url, resume=True, messages=kept)
    await full.until(lambda page: page.status == "streaming")
    assert full.text == "Hel"
    gate.open()
    for again in (bare, full):
        await again.ended()
        assert (again.text, again.status, again.asked) == ("Hello", "ready", [("GET", 200)])
    assert [message["role"] for message in full.messages] == ["user", "assistant"]
    assert full.messages[-1]["id"] == bare.messages[-1]["id"] == kept[-1]["id"]
    assert len(stack.provider.calls) == 1


async def test_a_page_that_is_reloaded_among_tools_shows_all_of_the_message_and_runs_none_again(
    stack: Stack, browser: Browser
) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Look: "), ToolCall("call_1", "get_weather", '{"city":"Paris"}'))
    stack.provider.then("m", Text("Sun"), Wait(gate), Text("ny."))
    body, tools = {"model": "openai/m", "tools": [WEATHER]}, {"get_weather": {"output": "20 °C"}}
    page = await browser.open(stack.url, body=body, tools=tools)
    page.send()
    await page.shows("Look: Sun")
    page.close()
    again = await browser.open(stack.url, resume=True, messages=page.messages, body=body, tools=tools)
    await again.until(lambda page: page.status == "streaming")
    gate.open()
    await again.shows("Look: Sunny.")
    assert again.parts == ["step-start", "text", "tool-get_weather", "step-start", "text"]
    call = again.messages[-1]["parts"][2]
    assert (call["state"], call["input"], call["output"]) == ("output-available", {"city": "Paris"}, "20 °C")
    assert call["callProviderMetadata"] == page.messages[-1]["parts"][2]["callProviderMetadata"]
    assert again.tools == []
    assert len(again.messages) == 2


async def test_a_reload_after_the_end_finds_nothing_live(stack: Stack, browser: Browser) -> None:
    stack.provider.script("m", Text("Hello"))
    page = await browser.open(stack.url)
    page.send()
    await page.ended()
    again = await browser.open(stack.url, resume=True, messages=page.messages)
    await again.until(lambda page: page.asked)
    assert again.asked == [("GET", 204)]
    assert {state["status"] for state in again.states} == {"ready"}
    assert again.text == "Hello"


@pytest.mark.parametrize("name", PROVIDERS)
async def test_stop_ends_the_work_and_the_page_is_ready(stack: Stack, browser: Browser, name: str) -> None:
    stack.provider.script("m", Text("Hel"), Silence())
    page = await browser.open(stack.url, body={"model": f"{name}/m"})
    page.send()
    await page.shows("Hel")
    answer = await stack.client().http.post("/api/chat/chat/stop")
    assert (answer.status_code, answer.json()["outcome"]) == (200, "cancelled")
    await page.ended()
    assert (page.text, page.status, page.error) == ("Hel", "ready", None)
    assert page.finishes[-1]["finishReason"] == "interrupted"
    (call,) = stack.provider.calls
    await call.closed()
    assert (await job_of(stack, page))["status"] == "cancelled"
    assert (await stack.client().http.post("/api/chat/chat/stop")).status_code == 204
    assert (await stack.client().http.get("/api/chat/chat/stream")).status_code == 204


async def test_the_page_s_own_stop_lets_the_answer_go_on(stack: Stack, browser: Browser) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    page = await browser.open(stack.url)
    page.send()
    await page.shows("Hel")
    page.stop()
    await page.ended()
    gate.open()
    job_id = page.messages[-1]["metadata"]["jobId"]
    assert (await stack.client().all_events(job_id))[-1].event == "completed"


async def test_a_second_message_in_mid_answer_interrupts_the_first(stack: Stack, browser: Browser) -> None:
    stack.provider.script("m", Text("Hel"), Silence())
    page = await browser.open(stack.url)
    page.send("first")
    await page.shows("Hel")
    page.stop()
    await page.ended()
    stack.provider.script("m", Text("Again."))
    page.send("second")
    await page.until(lambda page: page.text == "Again." and page.status == "ready")
    assert [message["role"] for message in page.messages] == ["user", "assistant", "user", "assistant"]
    assert [text(message) for message in page.messages] == ["first", "Hel", "second", "Again."]
    await stack.provider.calls[0].closed()
    jobs = (await stack.client().http.get("/v1/jobs")).json()["data"]
    assert sorted(job["status"] for job in jobs) == ["cancelled", "completed"]


@pytest.mark.parametrize("setting", [True, False])
async def test_a_second_message_in_mid_answer_is_refused_where_it_should_be(
    bare: Stack, browser: Browser, setting: bool
) -> None:
    if setting:
        bare.configure(chat_policy="reject")
    await bare.worker()
    await bare.api()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    body = {} if setting else {"chat_policy": "reject"}
    page, other = await browser.open(bare.url, body=body), await browser.open(bare.url, body=body)
    page.send()
    await page.shows("Hel")
    other.send()
    await other.ended()
    assert (other.status, other.asked) == ("error", [("POST", 409)])
    assert other.error == "The chat is still being answered: wait for the end, or stop it."
    gate.open()
    await page.ended()
    assert page.text == "Hello"
    other.send()
    await other.ended()
    assert other.text == "Hello"


async def test_an_answer_is_generated_anew(stack: Stack, browser: Browser) -> None:
    stack.provider.script("m", Text("one"))
    page = await browser.open(stack.url)
    page.send()
    await page.ended()
    first = page.messages[-1]["id"]
    stack.provider.script("m", Text("two"))
    page.regenerate()
    await page.ended()
    assert [text(message) for message in page.messages] == ["Hi", "two"]
    assert page.messages[-1]["id"] != first
    assert len(stack.provider.calls[-1].body["messages"]) == 1


@pytest.mark.parametrize("name", PROVIDERS)
async def test_a_failure_is_a_sentence_on_the_page(stack: Stack, browser: Browser, name: str) -> None:
    stack.provider.script("m", HttpError(400, "invalid_request_error", "sk-secret of a host"))
    page = await browser.open(stack.url, body={"model": f"{name}/m"})
    page.send()
    await page.ended()
    assert page.status == "error"
    assert page.error == "The provider refused the request as invalid."
    stack.provider.script("m", Text("half"), StreamError("overloaded_error"))
    page.send()
    await page.ended()
    assert (page.status, page.text) == ("error", "half")
    assert "provider" in (page.error or "")


async def test_what_cannot_be_is_refused_in_a_sentence(stack: Stack, browser: Browser) -> None:
    page = await browser.open(stack.url, body={"model": "openai/m", "nonsense": 1})
    page.send()
    await page.ended()
    assert (page.status, page.asked, page.error) == (
        "error",
        [("POST", 422)],
        "nonsense: Extra inputs are not permitted",
    )


async def test_a_key_is_sent_with_each_request(bare: Stack, browser: Browser) -> None:
    bare.configure(auth="required", secret=keys.SECRET)
    await bare.worker()
    await bare.api()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    alice, bob = [{"Authorization": f"Bearer {await keys.new_key(bare, owner)}"} for owner in ("alice", "bob")]
    page = await browser.open(bare.url, headers=alice)
    page.send()
    await page.shows("Hel")
    # The same chat id is another chat of another owner's.
    other = await browser.open(bare.url, headers=bob, resume=True)
    await other.until(lambda page: page.asked == [("GET", 204)])
    stranger = await browser.open(bare.url, resume=True)
    await stranger.until(lambda page: page.status == "error")
    assert stranger.asked == [("GET", 401)]
    async with httpx2.AsyncClient(base_url=bare.url, trust_env=False, verify=False) as http:
        assert (await http.post("/api/chat/chat/stop", headers=bob)).status_code == 204
    bare.provider.script("m", Text("Bob's."))
    other.send()
    await other.ended()
    assert other.text == "Bob's."
    gate.open()
    await page.ended()
    assert page.text == "Hello"


async def test_an_attempt_that_is_lost_behind_its_first_word_is_taken_back(bare: Stack, browser: Browser) -> None:
    """The page of the answer, and one that was reloaded, show the next attempt alone."""
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    gate = bare.provider.gate()
    bare.provider.script("m", Text("half an ans"), Silence())
    page = await browser.open(bare.url)
    page.send()
    await page.shows("half an ans")
    bare.provider.script("m", Text("another"), Wait(gate), Text(" answer"))
    await bare.worker()
    await doomed.stop()
    await page.shows("another")
    again = await browser.open(bare.url, resume=True)
    await again.shows("another")
    gate.open()
    for each in (page, again):
        await each.ended()
        assert (each.status, each.error, each.parts) == ("ready", None, ["step-start", "text"])
        assert each.text == "another answer"
    assert "half" not in str(again.states)


async def test_an_attempt_that_is_lost_before_its_first_word_goes_unnoticed(bare: Stack, browser: Browser) -> None:
    bare.configure(lease_s=0.5)
    doomed = await bare.worker_process(REJOIN_LEASE_S="0.5")
    await bare.api()
    bare.provider.script("m", Silence())
    page = await browser.open(bare.url)
    page.send()
    await bare.provider.next_call()
    bare.provider.script("m", Text("an answer"))
    await bare.worker()
    await doomed.stop()
    await page.ended()
    assert (page.text, page.status) == ("an answer", "ready")


async def test_who_waits_is_told(bare: Stack, browser: Browser) -> None:
    await bare.api()
    page = await browser.open(bare.url)
    page.send()
    await page.until(lambda page: page.data)
    assert page.data[0]["data"] == {"position": 1}
    bare.provider.script("m", Text("x"))
    await bare.worker()
    await page.ended()
    assert [part["data"]["position"] for part in page.data] == [1, 0]
    assert page.parts == ["step-start", "text"]


async def test_a_server_that_ends_in_mid_answer_is_no_end_of_the_answer(stack: Stack, browser: Browser) -> None:
    gate = stack.provider.gate()
    stack.provider.script("m", Text("Hel"), Wait(gate), Text("lo"))
    page = await browser.open(stack.apis[0].url)
    page.send()
    await page.shows("Hel")
    await stack.apis[0].stop()
    await page.ended()
    assert (page.status, page.text) == ("error", "Hel")
    again = await browser.open(stack.apis[1].url, resume=True, messages=page.messages)
    await again.until(lambda page: page.status == "streaming")
    gate.open()
    await again.ended()
    assert (again.text, len(again.messages)) == ("Hello", 2)
