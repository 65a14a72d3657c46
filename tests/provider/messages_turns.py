"""What Anthropic's API asks of a conversation as a whole: who follows whom, which block answers which, who thought."""

from collections.abc import Iterator, Mapping
from typing import Any

from tests.provider.complaints import Complaint
from tests.provider.seals import is_sealed, is_signature


def turn_complaints(messages: list[dict[str, Any]], model: str) -> Iterator[Complaint]:
    """Yield what is wrong with these turns."""
    roles = [message["role"] for message in messages]
    for i, (role, message) in enumerate(zip(roles, messages, strict=True)):
        if role == "system" and (roles[i - 1 : i] != ["user"] or roles[i + 1 : i + 2] not in ([], ["assistant"])):
            yield Complaint(
                f"messages.{i}: role 'system' must follow a user turn, and precede an assistant turn or be the last; "
                "instructions from the start belong in the top-level `system` parameter"
            )
        elif not message.get("content") and not (role == "assistant" and i == len(messages) - 1):
            yield Complaint(
                f"messages.{i}: all messages must have non-empty content except for a final assistant message"
            )
        for j, block in enumerate(_blocks(message)):
            yield from _block_complaints(block, f"messages.{i}.content.{j}", model)
    last = (_blocks(messages[-1]) or [{}])[-1]
    if roles[-1] == "assistant" and last.get("type") == "text" and last["text"] != last["text"].rstrip():
        yield Complaint("messages: final assistant content cannot end with trailing whitespace")
    yield from _pairs(messages)


def thinking_complaints(body: Mapping[str, Any]) -> Iterator[Complaint]:
    """Yield what does not go together with thinking."""
    thinking = body.get("thinking") or {}
    if thinking.get("type") not in ("enabled", "adaptive"):
        return
    if body.get("temperature") not in (None, 1):
        yield Complaint("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
    if body.get("top_k") is not None:
        yield Complaint("`top_k` must be unset when thinking is enabled or in adaptive mode.")
    if body.get("top_p") is not None and body["top_p"] < 0.95:
        yield Complaint(
            "`top_p` must be greater than or equal to 0.95 or unset when thinking is enabled or in adaptive mode."
        )
    if thinking["type"] == "adaptive":
        return
    if thinking["budget_tokens"] >= body["max_tokens"]:
        yield Complaint("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        yield Complaint("Thinking may not be enabled when tool_choice forces tool use.")
    yield from _unthought(body["messages"])


def _unthought(messages: list[dict[str, Any]]) -> Iterator[Complaint]:
    """The turn that goes on (after tools, or from a prefill) has to begin with its thinking."""
    i = len(messages) - 1
    while i >= 0 and messages[i]["role"] == "user" and _answers_tools(messages[i]):
        i -= 1
    if i < 0 or messages[i]["role"] != "assistant":
        return
    while i > 0 and (messages[i - 1]["role"] == "assistant" or _answers_tools(messages[i - 1])):
        i -= 1
    first = next(iter(_blocks(messages[i])), {"type": "text"})["type"]
    if first not in ("thinking", "redacted_thinking"):
        yield Complaint(
            f"messages.{i}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When "
            "`thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the "
            "lastmost set of `tool_use` and `tool_result` blocks)."
        )


def _answers_tools(message: dict[str, Any]) -> bool:
    blocks = _blocks(message)
    return message["role"] == "user" and bool(blocks) and all(block["type"] == "tool_result" for block in blocks)


def _block_complaints(block: dict[str, Any], path: str, model: str) -> Iterator[Complaint]:
    match block["type"]:
        case "text" if not block["text"]:
            yield Complaint("messages: text content blocks must be non-empty")
        case "thinking" if not is_signature(block["signature"], model, block["thinking"]):
            yield Complaint(f"{path}: Invalid `signature` in `thinking` block")
        case "redacted_thinking" if not is_sealed(block["data"], model):
            yield Complaint(f"{path}: Invalid `data` in `redacted_thinking` block")


def _pairs(messages: list[dict[str, Any]]) -> Iterator[Complaint]:
    """Each call of a tool is answered at the beginning of the very next turn, and nothing else is."""
    called: list[str] = []
    caller = 0
    for i, turn in _turns(messages):
        results = [block["tool_use_id"] for block in turn if block["type"] == "tool_result"]
        leading = [block["tool_use_id"] for block in turn[: len(results)] if block["type"] == "tool_result"]
        missing = [id for id in called if id not in leading]
        if missing:
            yield _unanswered(caller, missing)
        for j, block in enumerate(turn):
            if block["type"] == "tool_result" and block["tool_use_id"] not in called:
                yield Complaint(
                    f"messages.{i}.content.{j}: unexpected `tool_use_id` found in `tool_result` blocks: "
                    f"{block['tool_use_id']}. Each `tool_result` block must have a corresponding `tool_use` block in "
                    "the previous message."
                )
        called = [block["id"] for block in turn if block["type"] == "tool_use"]
        caller = i
        if len(set(called)) < len(called):
            yield Complaint(f"messages.{i}: `tool_use` ids must be unique")
    if called:
        yield _unanswered(caller, called)


def _unanswered(i: int, ids: list[str]) -> Complaint:
    return Complaint(
        f"messages.{i}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(ids)}. "
        "Each `tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _turns(messages: list[dict[str, Any]]) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the blocks of each turn: messages of one role in a row are one."""
    start, role, turn = 0, None, list[dict[str, Any]]()
    for i, message in enumerate(messages):
        if message["role"] == role:
            turn += _blocks(message)
            continue
        if role is not None:
            yield start, turn
        start, role, turn = i, message["role"], _blocks(message)
    yield start, turn


def _blocks(message: dict[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content") or []
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
