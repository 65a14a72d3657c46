"""What the real providers refuse with a 400, as far as a client of theirs is likely to get it wrong."""

from collections.abc import Iterator, Mapping
from typing import Any

_OPENAI = """
    audio frequency_penalty function_call functions logit_bias logprobs max_completion_tokens max_tokens messages
    metadata modalities model moderation n parallel_tool_calls prediction presence_penalty prompt_cache_key
    prompt_cache_options prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier
    stop store stream stream_options temperature tool_choice tools top_logprobs top_p user verbosity web_search_options
"""
_ANTHROPIC = """
    cache_control container diagnostics inference_geo max_tokens messages metadata model output_config service_tier
    speed stop_sequences stream system temperature thinking tool_choice tools top_k top_p user_profile_id workspace_id
"""
OPENAI_FIELDS = frozenset(_OPENAI.split())
ANTHROPIC_FIELDS = frozenset(_ANTHROPIC.split())
"""What a request may say. (The SDK has dropped the sampling parameters from its signature, the API has not.)"""


def openai_complaint(body: Any) -> str | None:
    """Return what `POST /v1/chat/completions` would refuse first in this body."""
    try:
        return next(_openai_complaints(body), None)
    except (AttributeError, TypeError):
        return "Invalid type in the JSON body of your request."


def anthropic_complaint(headers: Mapping[str, str], body: Any) -> str | None:
    """Return what `POST /v1/messages` would refuse first in this request."""
    try:
        return next(_anthropic_complaints(headers, body), None)
    except (AttributeError, TypeError):
        return "The request body has a value of the wrong type"


def _openai_complaints(body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        yield "We could not parse the JSON body of your request."
        return
    for name in sorted(body.keys() - OPENAI_FIELDS):
        yield f"Unrecognized request argument supplied: {name}"
    if not isinstance(body.get("model"), str) or not body["model"]:
        yield "you must provide a model parameter"
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        yield "Invalid 'messages': expected an array with at least one message."
        return
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("developer", "system", "user", "assistant", "tool", "function"):
            yield f"Invalid value: '{role}'. (messages[{i}].role)"
        elif message.get("content") is None and not (role == "assistant" and message.get("tool_calls")):
            yield f"Invalid value for 'content': expected a string, got null. (messages[{i}].content)"
        elif role == "tool" and not message.get("tool_call_id"):
            yield f"Missing parameter 'tool_call_id' (messages[{i}].tool_call_id)"
    if not isinstance(body.get("stream_options") or {}, dict):
        yield "Invalid type for 'stream_options': expected an object."
    if body.get("stream_options") is not None and body.get("stream") is not True:
        yield "The 'stream_options' parameter is only allowed when 'stream' is enabled."
    if body.get("max_tokens") is not None and body.get("max_completion_tokens") is not None:
        yield "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."
    tools = body.get("tools")
    if tools == []:
        yield "Invalid 'tools': empty array. Expected an array with minimum length 1, but got an empty array instead."
    for i, tool in enumerate(tools or ()):
        if tool.get("type") == "function" and not tool.get("function", {}).get("name"):
            yield f"Missing required parameter: 'tools[{i}].function.name'."
    if body.get("tool_choice") is not None and not tools:
        yield "Invalid value for 'tool_choice': 'tool_choice' is only allowed when 'tools' are specified."
    yield from _range(body, "temperature", 2)
    yield from _range(body, "top_p", 1)


def _anthropic_complaints(headers: Mapping[str, str], body: Any) -> Iterator[str]:
    if "anthropic-version" not in headers:
        yield "anthropic-version: header is required"
    if not isinstance(body, dict):
        yield "The request body is not valid JSON"
        return
    for name in sorted(body.keys() - ANTHROPIC_FIELDS):
        yield f"{name}: Extra inputs are not permitted"
    for name in ("model", "max_tokens", "messages"):
        if body.get(name) is None:
            yield f"{name}: Field required"
            return
    if not isinstance(body["max_tokens"], int) or body["max_tokens"] < 0:
        yield "max_tokens: Input should be greater than or equal to 0"
    messages = body["messages"]
    if not isinstance(messages, list) or not messages:
        yield "messages: at least one message is required"
        return
    roles = [message.get("role") if isinstance(message, dict) else None for message in messages]
    for i, (role, message) in enumerate(zip(roles, messages, strict=True)):
        if role not in ("user", "assistant", "system"):
            yield f"messages.{i}.role: Input should be 'user', 'assistant' or 'system'"
        elif role == "system" and (roles[i - 1 : i] != ["user"] or roles[i + 1 : i + 2] not in ([], ["assistant"])):
            yield (
                f"messages.{i}: role 'system' must follow a user turn, and precede an assistant turn or be the last; "
                "instructions from the start belong in the top-level `system` parameter"
            )
        elif not message.get("content") and not (role == "assistant" and i == len(messages) - 1):
            yield f"messages.{i}: all messages must have non-empty content except for a final assistant message"
    for i, tool in enumerate(body.get("tools") or ()):
        if tool.get("type") == "function":
            yield f"tools.{i}: Input tag 'function' found using 'type' does not match any of the expected tags"
        elif tool.get("type", "custom") == "custom" and ("name" not in tool or "input_schema" not in tool):
            yield f"tools.{i}.custom.{'input_schema' if 'name' in tool else 'name'}: Field required"
    choice = body.get("tool_choice")
    if choice is not None and not (isinstance(choice, dict) and choice.get("type") in ("auto", "any", "tool", "none")):
        yield "tool_choice: Input should be an object of type 'auto', 'any', 'tool' or 'none'"
    elif choice is not None and not body.get("tools"):
        yield "tool_choice may only be specified while providing tools."
    budget = (body.get("thinking") or {}).get("budget_tokens")
    if budget is not None and not 1024 <= budget < body["max_tokens"]:
        yield "`max_tokens` must be greater than `thinking.budget_tokens`, which must be at least 1024."
    yield from _range(body, "temperature", 1)
    yield from _range(body, "top_p", 1)


def _range(body: Mapping[str, Any], name: str, most: float) -> Iterator[str]:
    value = body.get(name)
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= most):
        yield f"{name}: must be between 0 and {most}"
