"""What `POST /v1/messages` refuses with a 400, as far as a client is likely to get it wrong."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tests.provider.anthropic_words import first_fault
from tests.provider.complaints import Complaint
from tests.provider.json_schemas import open_object
from tests.provider.messages_turns import thinking_complaints, turn_complaints
from tests.provider.shapes import (
    Fault,
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
    matching,
    number,
    string,
    tagged,
)

_CACHE = {"cache_control": Record({"type": choice("ephemeral")}, {"ttl": choice("5m", "1h")})}
_ID = matching(r"[a-zA-Z0-9_-]+")
TEXT = Record({"type": string, "text": string}, {"citations": array(mapping), **_CACHE})
SOURCES: Mapping[str, Shape] = {
    "base64": Record(
        {
            "type": string,
            "media_type": choice("image/jpeg", "image/png", "image/gif", "image/webp"),
            "data": matching(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
        },
        {},
    ),
    "url": Record({"type": string, "url": matching(r"https://\S+")}, {}),
    "file": Record({"type": string, "file_id": string}, {}),
}
IMAGE = Record({"type": string, "source": tagged(SOURCES)}, {"transformations": mapping, **_CACHE})
_OPEN: dict[str, Shape] = dict.fromkeys(("document", "search_result", "container_upload"), anything)
_OPEN_IN_RESULTS: dict[str, Shape] = {**_OPEN, "tool_reference": anything, "browser_state": anything}
RESULT = Record(
    {"type": string, "tool_use_id": _ID},
    {
        "content": by_type(
            {
                str: string,
                list: array(tagged({"text": TEXT, "image": IMAGE, **_OPEN_IN_RESULTS})),
            }
        ),
        "is_error": boolean,
        "toolset_name": string,
        **_CACHE,
    },
)
THINKING = Record({"type": string, "thinking": string, "signature": string}, {})
REDACTED = Record({"type": string, "data": string}, {})
TOOL_USE = Record(
    {"type": string, "id": _ID, "name": string, "input": mapping}, {"caller": mapping, "toolset_name": string, **_CACHE}
)
_SERVER_BLOCKS = dict.fromkeys(
    (
        "server_tool_use",
        "web_search_tool_result",
        "web_fetch_tool_result",
        "code_execution_tool_result",
        "bash_code_execution_tool_result",
        "text_editor_code_execution_tool_result",
        "tool_search_tool_result",
    ),
    anything,
)
USER_BLOCKS: Mapping[str, Shape] = {"text": TEXT, "image": IMAGE, "tool_result": RESULT, **_OPEN}
ASSISTANT_BLOCKS: Mapping[str, Shape] = {
    "text": TEXT,
    "thinking": THINKING,
    "redacted_thinking": REDACTED,
    "tool_use": TOOL_USE,
    **_SERVER_BLOCKS,
}


def _message(blocks: Mapping[str, Shape]) -> Shape:
    # Empty content is wrong in most places, but not as a shape.
    return Record({"role": string}, {"content": by_type({str: string, list: array(tagged(blocks))})})


_ROLES = {
    "user": _message(USER_BLOCKS),
    "assistant": _message(ASSISTANT_BLOCKS),
    "system": _message({"text": TEXT}),
}


def _turn(value: Any, path: Path) -> Iterator[Fault]:
    yield from mapping(value, path)
    role = value.get("role") if isinstance(value, dict) else None
    if isinstance(role, str) and role in _ROLES:
        yield from _ROLES[role](value, path)
    else:
        yield Fault((*path, "role"), "choice", tuple(_ROLES), role)


CUSTOM_TOOL = Record(
    {"name": matching(r"[a-zA-Z0-9_-]{1,128}"), "input_schema": mapping},
    {
        "type": string,
        "description": string,
        "strict": boolean,
        "allowed_callers": array(string),
        "defer_loading": boolean,
        "eager_input_streaming": boolean,
        "input_examples": array(mapping),
        **_CACHE,
    },
)


def _tool(value: Any, path: Path) -> Iterator[Fault]:
    type_ = value.get("type") if isinstance(value, dict) else None
    if isinstance(type_, str) and re.fullmatch(r"\w+_\d{8}|tool_search_tool_(bm25|regex)", type_):
        return iter(())  # one of the provider's own
    return tagged({"custom": CUSTOM_TOOL}, default="custom")(value, path)


_PARALLEL = {"disable_parallel_tool_use": boolean}
CHOICES: Mapping[str, Shape] = {
    "auto": Record({"type": string}, _PARALLEL),
    "any": Record({"type": string}, _PARALLEL),
    "tool": Record({"type": string, "name": string}, _PARALLEL),
    "none": Record({"type": string}, {}),
}
_DISPLAY = {"display": choice("summarized", "omitted")}
THINKING_CONFIGS: Mapping[str, Shape] = {
    "enabled": Record({"type": string, "budget_tokens": integer(1024)}, _DISPLAY),
    "adaptive": Record({"type": string}, _DISPLAY),
    "between_tools": Record({"type": string}, {}),
    "disabled": Record({"type": string}, {}),
}
OUTPUT_CONFIG: Mapping[str, Shape] = {
    "effort": choice("low", "medium", "high", "xhigh", "max"),
    "format": tagged({"json_schema": Record({"type": string, "schema": mapping}, {})}),
}
REQUIRED: Mapping[str, Shape] = {"model": string, "max_tokens": integer(0), "messages": array(_turn)}
OPTIONAL: Mapping[str, Shape] = {
    **_CACHE,
    "container": by_type({str: string, dict: mapping}),
    "diagnostics": mapping,
    "inference_geo": string,
    "metadata": Record({}, {"user_id": string}),
    "output_config": Record({}, OUTPUT_CONFIG),
    "service_tier": choice("auto", "standard_only"),
    "speed": choice("fast", "standard"),
    "stop_sequences": array(string),
    "stream": boolean,
    "system": by_type({str: string, list: array(tagged({"text": TEXT}))}),
    "temperature": number(0, 1),
    "thinking": tagged(THINKING_CONFIGS),
    "tool_choice": tagged(CHOICES),
    "tools": array(_tool),
    "top_k": integer(0),
    "top_p": number(0, 1),
    "user_profile_id": string,
    "workspace_id": string,
}
_REQUEST = Record(REQUIRED, OPTIONAL)


def messages_complaints(headers: Mapping[str, str], body: Any) -> Iterator[Complaint]:
    """Yield what the API would refuse in this request, the first thing first."""
    if "anthropic-version" not in headers:
        yield Complaint("anthropic-version: header is required")
    if not isinstance(body, dict):
        yield Complaint("The request body is not valid JSON")
        return
    if body.get("messages") == []:
        yield Complaint("messages: at least one message is required")
    yield from first_fault(_REQUEST, body)
    yield from turn_complaints(body["messages"], body["model"])
    yield from thinking_complaints(body)
    yield from _tools(body)
    schema = ((body.get("output_config") or {}).get("format") or {}).get("schema")
    if open_object(schema):
        yield Complaint(
            "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
        )


def _tools(body: Mapping[str, Any]) -> Iterator[Complaint]:
    tools = body.get("tools") or []
    names = [tool.get("name") for tool in tools]
    if any(names.count(name) > 1 for name in names):
        yield Complaint("tools: Tool names must be unique.")
    for i, tool in enumerate(tools):
        if "input_schema" in tool and tool["input_schema"].get("type") != "object":
            yield Complaint(f"tools.{i}.custom.input_schema.type: Input should be 'object'")
    chosen = body.get("tool_choice")
    if chosen is not None and not tools:
        yield Complaint("tool_choice may only be specified while providing tools.")
    elif chosen is not None and chosen["type"] == "tool" and chosen["name"] not in names:
        yield Complaint(f"tool_choice.tool: Tool '{chosen['name']}' not found in provided tools")
