"""The scripted provider takes the requests that Anthropic takes, and refuses those that it refuses."""

from collections.abc import AsyncIterator
from typing import Any, get_args, get_type_hints

import anthropic
import anthropic.types as types
import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel

from tests.provider import Reasoning, RedactedThinking, ScriptedProvider, Text, ToolCall, Usage, messages_checks
from tests.provider.clients import anthropic_client

USER: dict[str, Any] = {"role": "user", "content": "Hi there"}
ASK: dict[str, Any] = {"model": "m", "max_tokens": 4096, "messages": [USER]}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}
USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
CALL = {"role": "assistant", "content": [USE]}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "20"}
ANSWER = {"role": "user", "content": [RESULT]}
THINK: Any = {"type": "enabled", "budget_tokens": 1024}
PIXEL = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
CLOSED = {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}


@pytest.fixture
async def claude(provider: ScriptedProvider) -> AsyncIterator[AsyncAnthropic]:
    async with anthropic_client(provider) as client:
        yield client


def user(*blocks: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(blocks)}]}


@pytest.mark.parametrize(
    ("shape", "param"),
    [
        (messages_checks.CUSTOM_TOOL, types.ToolParam),
        (messages_checks.TEXT, types.TextBlockParam),
        (messages_checks.IMAGE, types.ImageBlockParam),
        (messages_checks.SOURCES["base64"], types.Base64ImageSourceParam),
        (messages_checks.RESULT, types.ToolResultBlockParam),
        (messages_checks.TOOL_USE, types.ToolUseBlockParam),
        (messages_checks.THINKING, types.ThinkingBlockParam),
        (messages_checks.REDACTED, types.RedactedThinkingBlockParam),
        (messages_checks.CHOICES["tool"], types.ToolChoiceToolParam),
        (messages_checks.CHOICES["none"], types.ToolChoiceNoneParam),
        (messages_checks.THINKING_CONFIGS["enabled"], types.ThinkingConfigEnabledParam),
        (messages_checks.THINKING_CONFIGS["adaptive"], types.ThinkingConfigAdaptiveParam),
    ],
)
def test_the_known_fields_are_those_of_the_sdk(shape: Any, param: Any):
    assert shape.names == get_type_hints(param).keys()


def test_the_known_kinds_are_those_of_the_sdk():
    assert get_type_hints(types.OutputConfigParam).keys() == messages_checks.OUTPUT_CONFIG.keys()
    kinds = {word for block in get_args(types.ContentBlockParam) for word in get_args(get_type_hints(block)["type"])}
    assert kinds == {*messages_checks.USER_BLOCKS, *messages_checks.ASSISTANT_BLOCKS}
    thinking = {get_args(get_type_hints(one)["type"])[0] for one in get_args(types.ThinkingConfigParam)}
    assert thinking == messages_checks.THINKING_CONFIGS.keys()


@pytest.mark.parametrize(
    "more",
    [
        {"messages": [USER, CALL, ANSWER], "tools": [TOOL], "tool_choice": {"type": "auto"}},
        {"messages": [USER, CALL, {"role": "user", "content": [RESULT, {"type": "text", "text": "Well?"}]}]},
        {"messages": [USER, CALL, ANSWER, USER]},  # two of one role are one turn
        {"tools": [TOOL, {"type": "web_search_20250305", "name": "web_search"}], "tool_choice": {"type": "any"}},
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f", "disable_parallel_tool_use": True}},
        user({"type": "text", "text": "?"}, {"type": "image", "source": PIXEL}),
        user({"type": "image", "source": {"type": "url", "url": "https://x.test/a.png"}}),
        {"system": [{"type": "text", "text": "Be brief", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
        {"thinking": THINK, "extra_body": {"temperature": 1, "top_p": 0.95}},
        {"thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "low"}},
        # By the documentation it is manual thinking only that forced tools do not go with.
        {"thinking": {"type": "adaptive"}, "tools": [TOOL], "tool_choice": {"type": "any"}},
        {"output_config": {"format": {"type": "json_schema", "schema": CLOSED}}},
    ],
)
async def test_it_takes(provider: ScriptedProvider, claude: AsyncAnthropic, more: Any):
    await claude.messages.create(**{**ASK, **more})
    assert provider.calls[0].rejected is None


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"tools": [{**TOOL, "colour": "red"}]}, "tools.0.custom.colour: Extra inputs are not permitted"),
        ({"tools": [{**TOOL, "name": "a.b"}]}, "tools.0.custom.name: String should match pattern"),
        ({"tools": [{"name": "f", "input_schema": {}}]}, "tools.0.custom.input_schema.type"),
        ({"tools": [TOOL, TOOL]}, "tools: Tool names must be unique"),
        ({"tools": [TOOL], "tool_choice": {"type": "required"}}, "tool_choice.type: Input tag 'required'"),
        ({"tools": [TOOL], "tool_choice": {"type": "tool", "name": "g"}}, "Tool 'g' not found"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "none", "disable_parallel_tool_use": True}},
            "tool_choice.none.disable_parallel_tool_use: Extra inputs",
        ),
        ({"messages": [USER, CALL]}, "messages.1: `tool_use` ids were found without `tool_result`"),
        ({"messages": [USER, CALL, USER]}, "messages.1: `tool_use` ids were found without `tool_result`"),
        ({"messages": [USER, CALL, USER, ANSWER]}, "messages.1: `tool_use` ids were found without `tool_result`"),
        ({"messages": [ANSWER]}, "messages.0.content.0: unexpected `tool_use_id`"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{**USE, "input": "{}"}]}, ANSWER]},
            "messages.1.content.0.tool_use.input: Input should be a valid dictionary",
        ),
        (
            {"messages": [USER, {"role": "assistant", "content": [{**USE, "id": "call 1"}]}, ANSWER]},
            "messages.1.content.0.tool_use.id: String should match pattern",
        ),
        (user({"type": "image", "source": {**PIXEL, "data": "?"}}), "image.source.base64.data"),
        (user({"type": "image", "source": {**PIXEL, "media_type": "image/bmp"}}), "base64.media_type"),
        (user({"type": "image", "source": {"type": "url", "url": "http://x.test/a.png"}}), "source.url.url"),
        (user({"type": "image_url", "image_url": {"url": "x"}}), "Input tag 'image_url'"),
        (user({"type": "text", "text": ""}), "text content blocks must be non-empty"),
        (user({"type": "thinking", "thinking": "x", "signature": "y"}), "Input tag 'thinking'"),
        (
            {"thinking": {"type": "enabled", "budget_tokens": 1000}},
            "thinking.enabled.budget_tokens: Input should be gr",
        ),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "`max_tokens` must be greater than"),
        ({"thinking": THINK, "temperature": 0.5}, "`temperature` may only be set to 1"),
        ({"thinking": {"type": "adaptive"}, "temperature": 0.5}, "`temperature` may only be set to 1"),
        ({"thinking": THINK, "top_p": 0.9}, "`top_p` must be"),
        ({"thinking": THINK, "top_k": 5}, "`top_k` must be unset"),
        ({"thinking": THINK, "tools": [TOOL], "tool_choice": {"type": "any"}}, "tool_choice forces tool use"),
        ({"thinking": THINK, "messages": [USER, CALL, ANSWER]}, "Expected `thinking` or `redacted_thinking`, but"),
        ({"thinking": THINK, "messages": [USER, {"role": "assistant", "content": "Hel"}]}, "Expected `thinking`"),
        ({"messages": [USER, {"role": "assistant", "content": "Hel "}]}, "cannot end with trailing whitespace"),
        ({"output_format": {"type": "json_schema", "schema": CLOSED}}, "output_format: Extra inputs"),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}},
            "'additionalProperties' must be explicitly set to false",
        ),
        ({"output_config": {"effort": "none"}}, "output_config.effort: Input should be 'low'"),
    ],
)
async def test_it_refuses(provider: ScriptedProvider, claude: AsyncAnthropic, more: Any, complaint: str):
    with pytest.raises(anthropic.BadRequestError) as caught:
        await claude.messages.create(**ASK, extra_body=more)
    assert complaint in str(caught.value)
    assert caught.value.type == "invalid_request_error"
    assert provider.calls[0].rejected is not None


async def test_structured_output_is_part_of_the_sdk(provider: ScriptedProvider, claude: AsyncAnthropic):
    class Answer(BaseModel):
        x: int

    provider.script("m", Text('{"x":1}'))
    answer = await claude.messages.parse(**ASK, output_format=Answer)
    assert answer.parsed_output == Answer(x=1)
    assert provider.calls[0].body["output_config"]["format"]["type"] == "json_schema"


async def test_thinking_with_tools_goes_round(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Reasoning("H"), Reasoning("m"), RedactedThinking(), ToolCall("t1", "f", "{}"))
    provider.then("m", Text("20 degrees"))
    tools: Any = [TOOL]
    async with claude.messages.stream(**ASK, thinking=THINK, tools=tools) as stream:
        first = await stream.get_final_message()
    assert [block.type for block in first.content] == ["thinking", "redacted_thinking", "tool_use"]
    history: Any = [USER, {"role": "assistant", "content": first.content}, ANSWER]  # the blocks go back as they came
    second = await claude.messages.create(**{**ASK, "messages": history}, thinking=THINK, tools=tools)
    assert second.content[0].to_dict() == {"type": "text", "text": "20 degrees"}


async def test_whole_and_streamed_thinking_are_the_same(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Reasoning("Hm"), RedactedThinking("a"), RedactedThinking("b"), Reasoning("Yes"), Text("42"))
    async with claude.messages.stream(**ASK) as stream:
        streamed = await stream.get_final_message()
    whole = await claude.messages.create(**ASK)
    assert [block.to_dict() for block in whole.content] == [block.to_dict() for block in streamed.content]
    blocks = [block.type for block in whole.content]
    assert blocks == ["thinking", "redacted_thinking", "redacted_thinking", "thinking", "text"]
    assert provider.calls[0].sent_reasoning == "HmYes"


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"thinking": "Hmm"}),
        (0, {"signature": "c2lnbmF0dXJl"}),
        (0, {"signature": ""}),
        (1, {"data": "c2lnbmF0dXJl"}),
        (1, {"data": "no base64"}),
    ],
)
async def test_only_the_servers_own_thinking_is_taken_back(
    provider: ScriptedProvider, claude: AsyncAnthropic, index: int, change: Any
):
    provider.script("m", Reasoning("Hm"), RedactedThinking(), Text("42"))
    first = await claude.messages.create(**ASK)
    blocks: Any = [block.to_dict() for block in first.content]
    history: Any = [USER, {"role": "assistant", "content": blocks}, USER]
    await claude.messages.create(**{**ASK, "messages": history})
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.1\.content\.0: Invalid `signature`"):
        await claude.messages.create(**{**ASK, "model": "m2", "messages": history})
    blocks[index].update(change)
    with pytest.raises(anthropic.BadRequestError, match=rf"messages\.1\.content\.{index}: Invalid `"):
        await claude.messages.create(**{**ASK, "messages": history})


async def test_the_signature_comes_as_a_delta_of_its_own(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Reasoning("Hm"), RedactedThinking(), Text("42"))
    stream = await claude.messages.create(**ASK, stream=True)
    outline = [
        (event.type, getattr(getattr(event, "delta", None) or getattr(event, "content_block", None), "type", None))
        async for event in stream
        if event.type.startswith("content_block")
    ]
    assert outline[:6] == [
        ("content_block_start", "thinking"),
        ("content_block_delta", "thinking_delta"),
        ("content_block_delta", "signature_delta"),
        ("content_block_stop", None),
        ("content_block_start", "redacted_thinking"),
        ("content_block_stop", None),
    ]


async def test_usage_tells_the_cache_from_the_rest(provider: ScriptedProvider, claude: AsyncAnthropic):
    provider.script("m", Text("x"), Usage(input=10, cached=4, cache_written=3, output=5, reasoning=2))
    async with claude.messages.stream(**ASK) as stream:
        streamed = await stream.get_final_message()
    whole = await claude.messages.create(**ASK)
    for usage in (streamed.usage, whole.usage):
        assert (usage.input_tokens, usage.cache_read_input_tokens, usage.cache_creation_input_tokens) == (3, 4, 3)
        assert usage.cache_creation is not None
        assert usage.cache_creation.ephemeral_5m_input_tokens == 3
        assert usage.output_tokens_details is not None
        assert (usage.output_tokens, usage.output_tokens_details.thinking_tokens) == (5, 2)


async def test_thinking_that_is_not_displayed_is_signed_all_the_same(
    provider: ScriptedProvider, claude: AsyncAnthropic
):
    provider.script("m", Reasoning(""), Text("42"))
    async with claude.messages.stream(**ASK, thinking={"type": "adaptive", "display": "omitted"}) as stream:
        deltas = [event.delta.type async for event in stream if event.type == "content_block_delta"]
        first = await stream.get_final_message()
    assert deltas == ["signature_delta", "text_delta"]
    history: Any = [USER, {"role": "assistant", "content": first.content}, USER]
    await claude.messages.create(**{**ASK, "messages": history})
