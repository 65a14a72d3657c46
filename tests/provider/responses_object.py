"""OpenAI's Response object, but for what the script fills in."""

import time
from typing import Any

from tests.provider.calls import Call
from tests.provider.steps import Usage


def response_object(call: Call) -> dict[str, Any]:
    """Return the Response to a request as it starts out: what was asked, with OpenAI's defaults."""
    body = call.body

    def asked(name: str, default: Any = None) -> Any:
        value = body.get(name)
        return default if value is None else value

    return {
        "id": f"resp_{call.number:08x}",
        "object": "response",
        "created_at": int(time.time()),
        "status": None,
        "background": asked("background", False),
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked("instructions"),
        "max_output_tokens": asked("max_output_tokens"),
        "max_tool_calls": asked("max_tool_calls"),
        "model": call.model,
        "output": [],
        "parallel_tool_calls": asked("parallel_tool_calls", True),
        "previous_response_id": asked("previous_response_id"),
        "prompt_cache_key": asked("prompt_cache_key"),
        "reasoning": {"effort": None, "summary": None, **asked("reasoning", {})},
        "safety_identifier": asked("safety_identifier"),
        "service_tier": "default",
        "store": asked("store", True),
        "temperature": asked("temperature", 1.0),
        "text": {"format": {"type": "text"}, "verbosity": "medium", **asked("text", {})},
        "tool_choice": asked("tool_choice", "auto"),
        "tools": [_tool(tool) for tool in asked("tools", [])],
        "top_logprobs": asked("top_logprobs", 0),
        "top_p": asked("top_p", 1.0),
        "truncation": asked("truncation", "disabled"),
        "usage": None,
        "user": asked("user"),
        "metadata": asked("metadata", {}),
    }


def usage_object(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input,
        "input_tokens_details": {"cached_tokens": usage.cached, "cache_write_tokens": usage.cache_written},
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input + usage.output,
    }


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool as it is echoed: functions are strict unless they say otherwise."""
    if tool.get("type") != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}
