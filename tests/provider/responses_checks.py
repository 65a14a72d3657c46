"""What `POST /v1/responses` refuses, as far as a client is likely to get it wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.provider.chat_checks import EFFORTS, IMAGE_URL, NAME
from tests.provider.complaints import Complaint
from tests.provider.json_schemas import strict_fault
from tests.provider.openai_words import first_fault
from tests.provider.runs import Run
from tests.provider.seals import is_sealed
from tests.provider.shapes import (
    Path,
    Record,
    Shape,
    anything,
    array,
    boolean,
    by_type,
    choice,
    integer,
    mapping,
    number,
    string,
    tagged,
)

_BREAKPOINT = {"prompt_cache_breakpoint": mapping}
IMAGE = Record(
    {"type": string},
    {"image_url": IMAGE_URL, "file_id": string, "detail": choice("low", "high", "auto", "original"), **_BREAKPOINT},
)
_INPUT_PARTS: Mapping[str, Shape] = {
    "input_text": Record({"type": string, "text": string}, _BREAKPOINT),
    "input_image": IMAGE,
    "input_file": Record(
        {"type": string},
        {"detail": string, "file_data": string, "file_id": string, "file_url": string, "filename": string}
        | _BREAKPOINT,
    ),
}
_OUTPUT_PARTS: Mapping[str, Shape] = {
    "output_text": Record(
        {"type": string, "text": string}, {"annotations": array(mapping), "logprobs": array(mapping)}
    ),
    "refusal": Record({"type": string, "refusal": string}, {}),
}
_STATUS = choice("in_progress", "completed", "incomplete")


def _content(parts: Mapping[str, Shape]) -> Shape:
    return by_type({str: string, list: array(tagged(parts))})


def _message(parts: Mapping[str, Shape]) -> Shape:
    optional = {"type": string, "id": string, "status": _STATUS, "phase": choice("commentary", "final_answer")}
    return Record({"role": string, "content": _content(parts)}, optional)


_MESSAGES = {
    "user": _message(_INPUT_PARTS),
    "system": _message(_INPUT_PARTS),
    "developer": _message(_INPUT_PARTS),
    "assistant": _message(_OUTPUT_PARTS),
}
ITEMS: Mapping[str, Shape] = {
    "message": tagged(_MESSAGES, field="role"),
    "function_call": Record(
        {"type": string, "call_id": string, "name": NAME, "arguments": string},
        {"id": string, "status": _STATUS, "namespace": string, "caller": mapping, "async": boolean},
    ),
    "function_call_output": Record(
        {"type": string, "output": _content(_INPUT_PARTS)},
        {"call_id": string, "id": string, "status": _STATUS, "namespace": string, "caller": mapping, "name": string},
    ),
    "reasoning": Record(
        {"type": string, "id": string, "summary": array(Record({"type": string, "text": string}, {}))},
        {"content": array(mapping), "encrypted_content": string, "status": _STATUS},
    ),
    "item_reference": Record({"id": string}, {"type": string}),
}
# Known to the API, looked into by nobody here.
_OTHER_ITEMS = """
    additional_tools apply_patch_call apply_patch_call_output code_interpreter_call compaction compaction_trigger
    computer_call computer_call_output configuration_update custom_tool_call custom_tool_call_output file_search_call
    image_generation_call local_shell_call local_shell_call_output mcp_approval_request mcp_approval_response mcp_call
    mcp_list_tools program program_output shell_call shell_call_output tool_search_call tool_search_output
    web_search_call
"""
_OTHER_TOOLS = """
    apply_patch code_interpreter computer computer_use_preview custom file_search image_generation local_shell mcp
    namespace programmatic_tool_calling shell tool_search web_search web_search_2025_08_26 web_search_preview
    web_search_preview_2025_03_11
"""
OTHER_ITEMS = dict.fromkeys(_OTHER_ITEMS.split(), anything)
OTHER_TOOLS = dict.fromkeys(_OTHER_TOOLS.split(), anything)


def _item(value: Any, path: Path) -> Any:
    default = "message" if isinstance(value, dict) and "role" in value else "item_reference"
    return tagged({**ITEMS, **OTHER_ITEMS}, default=default)(value, path)


FUNCTION = Record(
    {"type": string, "name": NAME},
    {
        "parameters": mapping,
        "strict": boolean,
        "description": string,
        "async": boolean,
        "allowed_callers": array(string),
        "defer_loading": boolean,
        "output_schema": mapping,
    },
)
_TOOL_CHOICES: Mapping[str, Shape] = {
    "function": Record({"type": string, "name": string}, {}),
    "allowed_tools": Record({"type": string, "mode": choice("auto", "required"), "tools": array(mapping)}, {}),
    **OTHER_TOOLS,
}
JSON_SCHEMA = Record({"type": string, "name": NAME, "schema": mapping}, {"description": string, "strict": boolean})
_FORMATS: Mapping[str, Shape] = {
    "text": Record({"type": string}, {}),
    "json_object": Record({"type": string}, {}),
    "json_schema": JSON_SCHEMA,
}
REASONING: Mapping[str, Shape] = {
    "context": choice("auto", "current_turn", "all_turns"),
    "effort": choice(*EFFORTS),
    "generate_summary": choice("auto", "concise", "detailed"),
    "mode": string,
    "summary": choice("auto", "concise", "detailed"),
}
INCLUDABLE = (
    "file_search_call.results",
    "web_search_call.results",
    "web_search_call.action.sources",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "code_interpreter_call.outputs",
    "reasoning.encrypted_content",
    "message.output_text.logprobs",
)
FIELDS: Mapping[str, Shape] = {
    "access_programs": mapping,
    "background": boolean,
    "context_management": array(mapping),
    "conversation": by_type({str: string, dict: mapping}),
    "image": mapping,
    "include": array(choice(*INCLUDABLE)),
    "input": by_type({str: string, list: array(_item)}),
    "instructions": string,
    "max_output_tokens": integer(16),
    "max_tool_calls": integer(1),
    "metadata": mapping,
    "model": string,
    "moderation": mapping,
    "parallel_tool_calls": boolean,
    "previous_response_id": string,
    "prompt": mapping,
    "prompt_cache_key": string,
    "prompt_cache_options": mapping,
    "prompt_cache_retention": choice("in_memory", "24h"),
    "reasoning": Record({}, REASONING),
    "safety_identifier": string,
    "service_tier": string,
    "store": boolean,
    "stream": boolean,
    "stream_options": Record({}, {"include_obfuscation": boolean}),
    "temperature": number(0, 2),
    "text": Record({}, {"format": tagged(_FORMATS), "verbosity": choice("low", "medium", "high")}),
    "tool_choice": by_type({str: choice("none", "auto", "required"), dict: tagged(_TOOL_CHOICES)}),
    "tools": array(tagged({"function": FUNCTION, **OTHER_TOOLS})),
    "top_logprobs": integer(0, 20),
    "top_p": number(0, 1),
    "truncation": choice("auto", "disabled"),
    "user": string,
}
_REQUEST = Record({}, FIELDS)
_MOVED = {
    "messages": "'input'",
    "max_tokens": "'max_output_tokens'",
    "max_completion_tokens": "'max_output_tokens'",
    "response_format": "'text.format'",
    "reasoning_effort": "'reasoning.effort'",
}


def responses_complaints(body: Any, runs: Mapping[str, Run]) -> Iterator[Complaint]:
    """Yield what the API would refuse in this body, the first thing first. `runs`: the responses that it has."""
    if not isinstance(body, dict):
        yield Complaint("We could not parse the JSON body of your request.")
        return
    for name, place in _MOVED.items():
        if name in body:
            message = f"Unsupported parameter: '{name}'. In the Responses API, this parameter has moved to {place}."
            yield Complaint(message, name, "unsupported_parameter")
    if not body.get("model"):
        yield Complaint("Missing required parameter: 'model'.", "model", "missing_required_parameter")
    if all(body.get(name) is None for name in ("input", "previous_response_id", "prompt", "conversation")):
        message = "One of 'input' or 'previous_response_id' or 'prompt' or 'conversation' must be provided."
        yield Complaint(message, "input", "missing_required_parameter")
    yield from first_fault(_REQUEST, body)
    if body.get("background") and body.get("store") is False:
        yield Complaint("Background mode requires 'store' to be true.", "background", "invalid_value")
    if body.get("stream_options") is not None and body.get("stream") is not True:
        yield Complaint("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    previous = runs.get(str(body.get("previous_response_id")))
    if body.get("previous_response_id") is not None and (previous is None or not previous.stored):
        message = f"Previous response with id '{body['previous_response_id']}' not found."
        yield Complaint(message, "previous_response_id", "previous_response_not_found")
    items = body["input"] if isinstance(body.get("input"), list) else []
    yield from _pairs(items, previous)
    yield from _reasoning(items, str(body["model"]), runs)
    yield from _tools(body)
    yield from _format(body)


def _pairs(items: list[dict[str, Any]], previous: Run | None) -> Iterator[Complaint]:
    """Every output answers a call, of this input or of the response before it, and every call is answered."""
    before = previous.response()["output"] if previous is not None else []
    calls = {item["call_id"] for item in [*before, *items] if item.get("type") == "function_call"}
    answered = {item.get("call_id") for item in items if item.get("type") == "function_call_output"}
    for item in items:
        if item.get("type") == "function_call_output" and item.get("call_id") not in calls:
            message = f"No tool call found for function call output with call_id {item.get('call_id')}."
            yield Complaint(message, "input")
    for item in [*before, *items]:
        if item.get("type") == "function_call" and item["call_id"] not in answered:
            yield Complaint(f"No tool output found for function call {item['call_id']}.", "input")


def _reasoning(items: list[dict[str, Any]], model: str, runs: Mapping[str, Run]) -> Iterator[Complaint]:
    """A reasoning item is one that the server has stored, or carries what it had sealed."""
    for item in items:
        if item.get("type") != "reasoning":
            continue
        secret = item.get("encrypted_content")
        if secret is not None and not is_sealed(secret, model):
            message = f"The encrypted content for item {item['id']} could not be verified."
            yield Complaint(message, None, "invalid_encrypted_content")
        stored = (o["id"] for run in runs.values() if run.stored for o in run.response()["output"])
        if secret is None and item["id"] not in stored:
            message = (
                f"Item with id '{item['id']}' not found. Items are not persisted when `store` is set to false. "
                "Try again with `store` set to true, or remove this item from your input."
            )
            yield Complaint(message, "input", None, 404)


def _tools(body: Mapping[str, Any]) -> Iterator[Complaint]:
    tools = body.get("tools") or []
    for i, tool in enumerate(tools):
        fault = strict_fault(tool.get("parameters")) if tool.get("strict") and tool["type"] == "function" else None
        if fault is not None:
            message = f"Invalid schema for function '{tool['name']}': {fault}"
            yield Complaint(message, f"tools[{i}].parameters", "invalid_function_parameters")
    chosen = body.get("tool_choice")
    if isinstance(chosen, dict) and chosen["type"] != "allowed_tools":
        same = [tool for tool in tools if tool["type"] == chosen["type"] and tool.get("name") == chosen.get("name")]
        if not same:
            name = chosen.get("name") or chosen["type"]
            yield Complaint(f"Tool choice '{name}' not found in 'tools' parameter.", "tool_choice")
    elif chosen == "required" and not tools:
        yield Complaint("Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")


def _format(body: Mapping[str, Any]) -> Iterator[Complaint]:
    wanted = (body.get("text") or {}).get("format") or {}
    if wanted.get("type") == "json_object" and "json" not in str(body.get("input")).lower():
        yield Complaint(
            "Response input messages must contain the word 'json' in some form to use 'text.format' of type "
            "'json_object'.",
            "input",
        )
    fault = strict_fault(wanted.get("schema")) if wanted.get("strict") else None
    if fault is not None:
        message = f"Invalid schema for response_format '{wanted['name']}': {fault}"
        yield Complaint(message, "text.format.schema", "invalid_json_schema")
