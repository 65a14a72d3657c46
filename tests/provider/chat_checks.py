"""What `POST /v1/chat/completions` refuses with a 400, as far as a client is likely to get it wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.provider.complaints import Complaint
from tests.provider.json_schemas import strict_fault
from tests.provider.openai_words import first_fault
from tests.provider.shapes import (
    Record,
    Shape,
    anything,
    array,
    boolean,
    by_type,
    choice,
    integer,
    mapping,
    matching,
    number,
    string,
    tagged,
)

EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
NAME = matching(r"[a-zA-Z0-9_-]{1,64}")
IMAGE_URL = matching(r"(?s)https?://\S+|data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/]+=*")

_BREAKPOINT = {"prompt_cache_breakpoint": mapping}
_TEXT = Record({"type": string, "text": string}, _BREAKPOINT)
_TEXTS = by_type({str: string, list: array(tagged({"text": _TEXT}), least=1)})
PARTS: Mapping[str, Shape] = {
    "text": _TEXT,
    "image_url": Record(
        {
            "type": string,
            "image_url": Record({"url": IMAGE_URL}, {"detail": choice("auto", "low", "high", "original")}),
        },
        _BREAKPOINT,
    ),
    "input_audio": Record({"type": string, "input_audio": mapping}, _BREAKPOINT),
    "file": Record({"type": string, "file": mapping}, _BREAKPOINT),
}
_REFUSAL = Record({"type": string, "refusal": string}, {})
TOOL_CALLS: Mapping[str, Shape] = {
    "function": Record({"id": string, "type": string, "function": Record({"name": NAME, "arguments": string}, {})}, {}),
    "custom": Record({"id": string, "type": string, "custom": Record({"name": NAME, "input": string}, {})}, {}),
}
MESSAGES: Mapping[str, Shape] = {
    "developer": Record({"role": string, "content": _TEXTS}, {"name": string}),
    "system": Record({"role": string, "content": _TEXTS}, {"name": string}),
    "user": Record(
        {"role": string, "content": by_type({str: string, list: array(tagged(PARTS), least=1)})}, {"name": string}
    ),
    "assistant": Record(
        {"role": string},
        {
            "content": by_type({str: string, list: array(tagged({"text": _TEXT, "refusal": _REFUSAL}), least=1)}),
            "refusal": string,
            "name": string,
            "audio": mapping,
            "function_call": mapping,
            "tool_calls": array(tagged(TOOL_CALLS), least=1),
            "annotations": array(mapping),  # the SDK has no such parameter, but its messages carry it back
        },
    ),
    "tool": Record({"role": string, "tool_call_id": string, "content": _TEXTS}, {}),
    "function": Record({"role": string, "name": string}, {"content": string}),
}
FUNCTION = Record({"name": NAME}, {"description": string, "parameters": mapping, "strict": boolean})
TOOLS: Mapping[str, Shape] = {
    "function": Record({"type": string, "function": FUNCTION}, {}),
    "custom": Record(
        {"type": string, "custom": Record({"name": NAME}, {"description": string, "format": mapping})}, {}
    ),
}
_TOOL_CHOICES: Mapping[str, Shape] = {
    "function": Record({"type": string, "function": Record({"name": string}, {})}, {}),
    "custom": Record({"type": string, "custom": Record({"name": string}, {})}, {}),
    "allowed_tools": Record({"type": string, "allowed_tools": mapping}, {}),
}
JSON_SCHEMA = Record({"name": NAME}, {"description": string, "schema": mapping, "strict": boolean})
_FORMATS: Mapping[str, Shape] = {
    "text": Record({"type": string}, {}),
    "json_object": Record({"type": string}, {}),
    "json_schema": Record({"type": string, "json_schema": JSON_SCHEMA}, {}),
}
FIELDS: Mapping[str, Shape] = {
    "audio": mapping,
    "frequency_penalty": number(-2, 2),
    "function_call": anything,
    "functions": array(mapping),
    "logit_bias": mapping,
    "logprobs": boolean,
    "max_completion_tokens": integer(1),
    "max_tokens": integer(1),
    "messages": array(tagged(MESSAGES, field="role")),
    "metadata": mapping,
    "modalities": array(choice("text", "audio")),
    "model": string,
    "moderation": anything,
    "n": integer(1, 128),
    "parallel_tool_calls": boolean,
    "prediction": mapping,
    "presence_penalty": number(-2, 2),
    "prompt_cache_key": string,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": choice("in_memory", "24h"),
    "reasoning_effort": choice(*EFFORTS),
    "response_format": tagged(_FORMATS),
    "safety_identifier": string,
    "seed": integer(),
    "service_tier": string,
    "stop": by_type({str: string, list: array(string, least=1)}),
    "store": boolean,
    "stream": boolean,
    "stream_options": Record({}, {"include_usage": boolean, "include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "tool_choice": by_type({str: choice("none", "auto", "required"), dict: tagged(_TOOL_CHOICES)}),
    "tools": array(tagged(TOOLS), least=1),
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "user": string,
    "verbosity": choice("low", "medium", "high"),
    "web_search_options": mapping,
}
_REQUEST = Record({}, FIELDS)


def chat_complaints(body: Any) -> Iterator[Complaint]:
    """Yield what the API would refuse in this body, the first thing first."""
    if not isinstance(body, dict):
        yield Complaint("We could not parse the JSON body of your request.")
        return
    if not body.get("model"):
        yield Complaint("you must provide a model parameter")
    if body.get("messages") in (None, []):
        yield Complaint("Invalid 'messages': expected an array with at least one message.", "messages", "empty_array")
    yield from first_fault(_REQUEST, body)
    for i, message in enumerate(body["messages"]):
        said = ("content", "tool_calls", "refusal", "audio", "function_call")
        if message["role"] == "assistant" and all(message.get(name) is None for name in said):
            path = f"messages.[{i}].content"
            yield Complaint("Invalid value for 'content': expected a string, got null.", path)
    yield from _pairs(body["messages"])
    yield from _tools(body)
    if body.get("stream_options") is not None and body.get("stream") is not True:
        yield Complaint("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        yield Complaint("Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
    if isinstance(body.get("stop"), list) and len(body["stop"]) > 4:
        yield Complaint("Invalid 'stop': array too long. Expected an array with maximum length 4.", "stop")
    yield from _format(body)


def _pairs(messages: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Every tool message answers a call of the assistant's message before it, and every call is answered."""
    calls: list[str] = []
    open_calls: list[str] = []
    for i, message in enumerate([*messages, {"role": "end"}]):
        if message["role"] == "tool":
            if not calls:
                yield Complaint(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"messages.[{i}].role",
                )
            elif message["tool_call_id"] not in calls:
                yield Complaint(
                    f"Invalid parameter: 'tool_call_id' of '{message['tool_call_id']}' not found in 'tool_calls' of "
                    "previous message.",
                    f"messages.[{i}].tool_call_id",
                )
            open_calls = [id for id in open_calls if id != message["tool_call_id"]]
            continue
        if open_calls:
            yield Complaint(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                "'tool_call_id'. The following tool_call_ids did not have response messages: " + ", ".join(open_calls),
                f"messages.[{i}].role",
            )
        calls = [call["id"] for call in message.get("tool_calls") or ()]
        open_calls = calls


def _tools(body: Mapping[str, Any]) -> Iterator[Complaint]:
    tools = body.get("tools") or []
    for name in ("tool_choice", "parallel_tool_calls"):
        if body.get(name) is not None and not tools:
            yield Complaint(f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name)
    for i, tool in enumerate(tools):
        function = tool.get("function") or {}
        fault = strict_fault(function.get("parameters")) if function.get("strict") else None
        if fault is not None:
            message = f"Invalid schema for function '{function['name']}': {fault}"
            yield Complaint(message, f"tools[{i}].function.parameters", "invalid_function_parameters")
    chosen = body.get("tool_choice")
    if isinstance(chosen, dict) and chosen["type"] != "allowed_tools":
        name = chosen[chosen["type"]]["name"]
        if name not in [(tool.get("function") or tool["custom"])["name"] for tool in tools]:
            yield Complaint(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")


def _format(body: Mapping[str, Any]) -> Iterator[Complaint]:
    wanted = body.get("response_format") or {}
    if wanted.get("type") == "json_object" and "json" not in str(body["messages"]).lower():
        yield Complaint(
            "'messages' must contain the word 'json' in some form, to use 'response_format' of type 'json_object'.",
            "messages",
        )
    schema = wanted.get("json_schema") or {}
    fault = strict_fault(schema.get("schema")) if schema.get("strict") else None
    if fault is not None:
        yield Complaint(f"Invalid schema for response_format '{schema['name']}': {fault}", "response_format")
