"""The scripted provider takes the requests that OpenAI takes, and refuses those that it refuses."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args, get_type_hints

import httpx2
import openai
import openai.types.chat as chat
import openai.types.responses as responses
import pytest
from openai import AsyncOpenAI
from openai.types.chat import chat_completion_content_part_image_param as image_param
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from openai.types.shared_params import FunctionDefinition, Reasoning
from openai.types.shared_params.response_format_json_schema import JSONSchema

from tests.provider import ScriptedProvider, Text, ToolCall, chat_checks, responses_checks
from tests.provider.checks import RESPONSES_FIELDS
from tests.provider.clients import openai_client

USER: Any = {"role": "user", "content": "Hi there"}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
OPEN = {"type": "object", "properties": {"a": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "f", "description": "d", "parameters": CLOSED, "strict": True}}
FLAT_TOOL = {"type": "function", "name": "f", "description": "d", "parameters": CLOSED, "strict": True}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "20"}
FLAT_CALL = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "20"}


@pytest.fixture
async def gpt(provider: ScriptedProvider) -> AsyncIterator[AsyncOpenAI]:
    async with openai_client(provider) as client:
        yield client


@pytest.fixture
async def http(provider: ScriptedProvider) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=provider.openai_url, timeout=5, verify=False) as client:
        yield client


def tags(union: Any) -> Iterator[str]:
    """Yield what the members of a union of parameters may have as their type."""
    for member in get_args(union):
        yield from (word for word in _words(get_type_hints(member)["type"]) if isinstance(word, str))


def _words(hint: Any) -> Iterator[Any]:
    for word in get_args(hint):
        yield from _words(word) if get_args(word) else [word]


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        (chat_checks.TOOLS["function"], chat.ChatCompletionFunctionToolParam),
        (chat_checks.FUNCTION, FunctionDefinition),
        (chat_checks.JSON_SCHEMA, JSONSchema),
        (chat_checks.PARTS["text"], chat.ChatCompletionContentPartTextParam),
        (chat_checks.PARTS["image_url"], chat.ChatCompletionContentPartImageParam),
        (chat_checks.MESSAGES["user"], chat.ChatCompletionUserMessageParam),
        (chat_checks.MESSAGES["tool"], chat.ChatCompletionToolMessageParam),
        (chat_checks.TOOL_CALLS["function"], chat.ChatCompletionMessageFunctionToolCallParam),
        (responses_checks.FUNCTION, responses.FunctionToolParam),
        (responses_checks.IMAGE, responses.ResponseInputImageParam),
        (responses_checks.JSON_SCHEMA, responses.ResponseFormatTextJSONSchemaConfigParam),
        (responses_checks.ITEMS["reasoning"], responses.ResponseReasoningItemParam),
        (responses_checks.ITEMS["function_call"], responses.ResponseFunctionToolCallParam),
    ],
)
def test_the_known_fields_are_those_of_the_sdk(shape: Any, param: Any):
    assert shape.names == get_type_hints(param).keys()


def test_the_known_kinds_are_those_of_the_sdk():
    assert get_type_hints(ResponseCreateParamsStreaming).keys() == RESPONSES_FIELDS
    assert get_type_hints(Reasoning).keys() == responses_checks.REASONING.keys()
    known = {*responses_checks.ITEMS, *responses_checks.OTHER_ITEMS}
    assert set(tags(responses.ResponseInputItemParam)) == known
    assert set(tags(responses.ToolParam)) == {"function", *responses_checks.OTHER_TOOLS}
    assistant_shape: Any = chat_checks.MESSAGES["assistant"]
    # The messages of an answer carry these back, though they are no parameter.
    assistant = get_type_hints(chat.ChatCompletionAssistantMessageParam).keys() | {"annotations"}
    assert assistant_shape.names == assistant
    assert set(get_type_hints(image_param.ImageURL)) == {"url", "detail"}


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [USER, CALLS, RESULT], "tools": [TOOL], "tool_choice": "auto", "parallel_tool_calls": False},
        {"messages": [USER], "tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief"}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is it?"},
                        {"type": "image_url", "image_url": {"url": "https://x.test/a.png", "detail": "low"}},
                    ],
                },
            ]
        },
        {"messages": [{"role": "user", "content": "in JSON"}], "response_format": {"type": "json_object"}},
        {
            "messages": [USER],
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": CLOSED, "strict": True}},
        },
        {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OPEN}}},
        {"messages": [USER], "reasoning_effort": "high", "verbosity": "low", "stop": ["a", "b"], "seed": 1},
    ],
)
async def test_chat_takes(provider: ScriptedProvider, gpt: AsyncOpenAI, more: Any):
    await gpt.chat.completions.create(model="m", **more)
    assert provider.calls[0].rejected is None


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"tools": [{**TOOL, "colour": "red"}]}, "tools[0].colour", "unknown_parameter"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "x": 1}}]},
            "tools[0].function.x",
            "unknown_parameter",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [FLAT_TOOL]}, "tools[0].function", "missing_required_parameter"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": OPEN, "strict": True}}]},
            "tools[0].function.parameters",
            "invalid_function_parameters",
        ),
        ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}},
            "tool_choice.function",
            "missing_required_parameter",
        ),
        ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "g"}}}, "tool_choice", None),
        ({"parallel_tool_calls": True}, "parallel_tool_calls", None),
        ({"messages": [USER, RESULT]}, "messages.[1].role", None),
        ({"messages": [USER, CALLS, {**RESULT, "tool_call_id": "c2"}]}, "messages.[2].tool_call_id", None),
        ({"messages": [USER, CALLS, USER]}, "messages.[2].role", None),
        ({"messages": [USER, CALLS]}, "messages.[2].role", None),
        ({"messages": [USER, {**CALLS, "tool_calls": []}]}, "messages[1].tool_calls", "empty_array"),
        (
            {"messages": [USER, {**CALLS, "tool_calls": [{**CALL, "index": 0}]}, RESULT]},
            "messages[1].tool_calls[0].index",
            "unknown_parameter",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": "x", "reasoning_content": "y"}]},
            "messages[1].reasoning_content",
            "unknown_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]},
            "messages[0].content[0].image_url.url",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        ({"response_format": {"type": "json_object"}}, "messages", None),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": OPEN, "strict": True}}},
            "response_format",
            None,
        ),
        (
            {"response_format": {"type": "json_schema", "schema": OPEN}},
            "response_format.json_schema",
            "missing_required_parameter",
        ),
        ({"reasoning_effort": "some"}, "reasoning_effort", "invalid_value"),
        ({"reasoning": {"effort": "low"}}, "reasoning", "unknown_parameter"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "integer_below_min_value"),
        ({"stop": ["a"] * 5}, "stop", None),
    ],
)
async def test_chat_refuses(provider: ScriptedProvider, http: httpx2.AsyncClient, more: Any, param: str, code: Any):
    answer = await http.post("/chat/completions", json={"model": "m", "messages": [USER], **more})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)
    assert provider.calls[0].rejected == error["message"]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [FLAT_TOOL, {"type": "web_search"}], "tool_choice": {"type": "function", "name": "f"}},
        {"input": [USER, FLAT_CALL, OUTPUT], "tools": [FLAT_TOOL]},
        {
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is it?"},
                        {"type": "input_image", "image_url": PIXEL, "detail": "auto"},
                    ],
                },
                {"role": "assistant", "content": "A pixel"},
                {"role": "assistant", "content": [{"type": "output_text", "text": "A pixel"}]},
                USER,
            ]
        },
        {"reasoning": {"effort": "low", "summary": "auto"}, "max_output_tokens": 16, "include": []},
        {"input": "in json", "text": {"format": {"type": "json_object"}, "verbosity": "low"}},
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": CLOSED, "strict": True}}},
        {"stream_options": {"include_obfuscation": False}, "stream": True, "truncation": "auto"},
    ],
)
async def test_responses_take(provider: ScriptedProvider, gpt: AsyncOpenAI, more: Any):
    await gpt.responses.create(**{"model": "m", "input": "Hi", **more})
    assert provider.calls[0].rejected is None


@pytest.mark.parametrize(
    ("more", "param", "code"),
    [
        ({"tools": [TOOL]}, "tools[0].name", "missing_required_parameter"),
        ({"tools": [{**FLAT_TOOL, "parameters": OPEN}]}, "tools[0].parameters", "invalid_function_parameters"),
        ({"tools": [{"type": "hammer"}]}, "tools[0].type", "invalid_value"),
        ({"tools": [FLAT_TOOL], "tool_choice": {"type": "function", "name": "g"}}, "tool_choice", None),
        ({"tool_choice": "required"}, "tool_choice", None),
        ({"input": [USER, OUTPUT]}, "input", None),
        ({"input": [USER, FLAT_CALL]}, "input", None),
        (
            {"input": [USER, {**FLAT_CALL, "parsed_arguments": {}}, OUTPUT]},
            "input[1].parsed_arguments",
            "unknown_parameter",
        ),
        (
            {"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": {"url": PIXEL}}]}]},
            "input[0].content[0].image_url",
            "invalid_type",
        ),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": None}, "input", "missing_required_parameter"),
        ({"messages": [USER]}, "messages", "unsupported_parameter"),
        ({"max_tokens": 64}, "max_tokens", "unsupported_parameter"),
        ({"response_format": {"type": "text"}}, "response_format", "unsupported_parameter"),
        ({"max_output_tokens": 10}, "max_output_tokens", "integer_below_min_value"),
        ({"text": {"format": {"type": "json_object"}}}, "input", None),
        (
            {"text": {"format": {"type": "json_schema", "schema": CLOSED}}},
            "text.format.name",
            "missing_required_parameter",
        ),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": OPEN, "strict": True}}},
            "text.format.schema",
            "invalid_json_schema",
        ),
        ({"reasoning": {"effort": "huge"}}, "reasoning.effort", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        (
            {"stream": True, "stream_options": {"include_usage": True}},
            "stream_options.include_usage",
            "unknown_parameter",
        ),
    ],
)
async def test_responses_refuse(provider: ScriptedProvider, http: httpx2.AsyncClient, more: Any, param: str, code: Any):
    answer = await http.post("/responses", json={"model": "m", "input": "Hi", **more})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code)


async def test_a_chat_with_tools_goes_round(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", ToolCall("c1", "f", "{}"))
    provider.then("m", Text("20 degrees"))
    tools: Any = [TOOL]
    first = await gpt.chat.completions.create(model="m", messages=[USER], tools=tools)
    history: Any = [USER, first.choices[0].message, RESULT]  # the message goes back as it came
    second = await gpt.chat.completions.create(model="m", messages=history, tools=tools)
    assert second.choices[0].message.content == "20 degrees"


async def test_responses_with_tools_go_round(provider: ScriptedProvider, gpt: AsyncOpenAI):
    provider.script("m", ToolCall("c1", "f", "{}"))
    provider.then("m", ToolCall("c1", "f", "{}"))
    provider.then("m", Text("20 degrees"))
    tools: Any = [FLAT_TOOL]
    first = await gpt.responses.create(model="m", input="Hi", tools=tools)
    history: Any = [USER, *first.output, OUTPUT]  # the items go back as they came
    second = await gpt.responses.create(model="m", input=history, tools=tools)
    output: Any = [OUTPUT]
    third = await gpt.responses.create(model="m", input=output, previous_response_id=second.id, tools=tools)
    assert third.output_text == "20 degrees"
    with pytest.raises(openai.BadRequestError, match="No tool output found for function call c1"):
        await gpt.responses.create(model="m", input="Well?", previous_response_id=second.id)


async def test_reasoning_that_was_not_stored_needs_its_seal(provider: ScriptedProvider, gpt: AsyncOpenAI):
    item: Any = {"type": "reasoning", "id": "rs_1", "summary": []}
    with pytest.raises(openai.NotFoundError, match="'rs_1' not found"):
        await gpt.responses.create(model="m", input=[item, USER])
