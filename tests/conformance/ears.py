"""What a provider was asked, read back from its own words into those of the client."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from tests.provider import Call

Heard = dict[str, Any]

PIXEL: Final = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def heard(call: Call) -> Heard:
    """Return the request in neutral words: system, turns, tools, tool_choice, images, schema and plain parameters."""
    return {name: value for name, value in EARS[call.dialect](call.body).items() if value is not None}


def _chat(body: dict[str, Any]) -> Heard:
    said = [message for message in body["messages"] if message["role"] != "system"]
    system = [message["content"] for message in body["messages"] if message["role"] == "system"]
    parts = [part for message in said for part in _parts(message["content"])]
    choice = body.get("tool_choice")
    format = body.get("response_format") or {}
    return {
        "system": system[0] if system else None,
        "turns": [(message["role"], _text(message["content"])) for message in said],
        "images": [part["image_url"]["url"] for part in parts if part["type"] == "image_url"],
        "calls": [
            (call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
            for message in said
            for call in message.get("tool_calls") or ()
        ],
        "results": [
            (message["tool_call_id"], _text(message["content"])) for message in said if message["role"] == "tool"
        ],
        "thoughts": [],
        "max_tokens": body.get("max_completion_tokens") or body.get("max_tokens"),
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "stop": body.get("stop"),
        "seed": body.get("seed"),
        "tools": [
            (tool["function"]["name"], tool["function"].get("description"), tool["function"]["parameters"])
            for tool in body.get("tools") or ()
        ],
        "tool_choice": choice["function"]["name"] if isinstance(choice, dict) else choice,
        "schema": (format.get("json_schema") or {}).get("schema"),
        "effort": body.get("reasoning_effort"),
    }


def _messages(body: dict[str, Any]) -> Heard:
    blocks = [block for message in body["messages"] for block in _parts(message["content"])]
    choice = body.get("tool_choice") or {}
    thinking = body.get("thinking") or {}
    output = body.get("output_config") or {}
    return {
        "system": body.get("system"),
        "turns": [(message["role"], _text(message["content"])) for message in body["messages"]],
        "images": [_image(block["source"]) for block in blocks if block["type"] == "image"],
        "calls": [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"],
        "results": [
            (block["tool_use_id"], _text(block["content"])) for block in blocks if block["type"] == "tool_result"
        ],
        "thoughts": [block["type"] for block in blocks if block["type"] in ("thinking", "redacted_thinking")],
        "max_tokens": body["max_tokens"],
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "stop": body.get("stop_sequences"),
        "tools": [(tool["name"], tool.get("description"), tool["input_schema"]) for tool in body.get("tools") or ()],
        "tool_choice": {"tool": choice.get("name"), "any": "required"}.get(choice.get("type", ""), choice.get("type")),
        "schema": (output.get("format") or {}).get("schema"),
        "effort": output.get("effort") if thinking.get("type") == "adaptive" else thinking.get("budget_tokens"),
    }


def _responses(body: dict[str, Any]) -> Heard:
    items = body["input"]
    said = [item for item in items if "role" in item and item["role"] != "system"]
    system = [item["content"] for item in items if item.get("role") == "system"]
    parts = [part for item in said for part in _parts(item["content"])]
    choice = body.get("tool_choice")
    format = (body.get("text") or {}).get("format") or {}

    def of(kind: str) -> list[dict[str, Any]]:
        return [item for item in items if item.get("type") == kind]

    return {
        "system": system[0] if system else None,
        "turns": [(item["role"], _text(item["content"])) for item in said],
        "images": [part["image_url"] for part in parts if part["type"] == "input_image"],
        "calls": [(item["call_id"], item["name"], json.loads(item["arguments"])) for item in of("function_call")],
        "results": [(item["call_id"], item["output"]) for item in of("function_call_output")],
        "thoughts": ["thinking" if item["summary"] else "redacted_thinking" for item in of("reasoning")],
        "max_tokens": body.get("max_output_tokens"),
        "temperature": body.get("temperature"),
        "top_p": body.get("top_p"),
        "tools": [(tool["name"], tool.get("description"), tool["parameters"]) for tool in body.get("tools") or ()],
        "tool_choice": choice["name"] if isinstance(choice, dict) else choice,
        "schema": format.get("schema"),
        "effort": (body.get("reasoning") or {}).get("effort"),
    }


def _parts(content: Any) -> list[dict[str, Any]]:
    return content if isinstance(content, list) else [{"type": "text", "text": content or ""}]


def _text(content: Any) -> str:
    return "".join(part.get("text", "") for part in _parts(content))


def _image(source: Mapping[str, str]) -> str:
    if source["type"] == "url":
        return source["url"]
    return f"data:{source['media_type']};base64,{source['data']}"


EARS: Final[Mapping[str, Callable[[dict[str, Any]], Heard]]] = {
    "openai": _chat,
    "responses": _responses,
    "anthropic": _messages,
}
