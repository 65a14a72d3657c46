"""The messages of `useChat`, which are made for pages, as a conversation for models.

A page's message is a list of parts: an answer's steps, each with its text and tool calls, stand in one message, and a
call's result in the call's own part.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, Field, ValidationError

from api.problems import Problem, refused
from shared.events import dump
from shared.messages import ImageUrl

Part = dict[str, Any]

OURS: Final = "rejoin"
"""Under this name a tool call's part says which job made it (`providerMetadata`)."""

NOT_EXECUTED: Final = "The tool was not executed."
"""The result of a call that has none: no provider takes a call without, and the model has to know."""

DENIED: Final = "The user denied the execution of the tool."

_SHOWN: Final = ("reasoning", "source-url", "source-document")
"""What a page shows and a model is not told: signed thoughts come from the job that had them."""


class UIMessage(BaseModel):
    """A message as the page has it. What else it says of it (`metadata`, a date) is the page's own."""

    role: str = Field(json_schema_extra={"enum": ["system", "user", "assistant"]})
    parts: list[Part]
    id: str = ""


def job_of(part: Part) -> str | None:
    """Return which job made a tool call, as its part says: the word of a client."""
    metadata = part.get("callProviderMetadata")
    ours = metadata.get(OURS) if isinstance(metadata, dict) else None
    job_id = ours.get("jobId") if isinstance(ours, dict) else None
    return job_id if isinstance(job_id, str) else None


def current_jobs(messages: Sequence[UIMessage]) -> list[str]:
    """Return the jobs that made the tool calls behind the last word of the user, each once."""
    found: dict[str, None] = {}
    for message in reversed(messages):
        if message.role == "user":
            break
        found |= dict.fromkeys(job_id for part in message.parts if (job_id := job_of(part)) is not None)
    return list(found)


def conversation(messages: Sequence[UIMessage], thoughts: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Return the messages in the neutral shape. `thoughts`: signed blocks, by job. Raises a problem."""
    told: list[dict[str, Any]] = []
    for number, message in enumerate(messages):
        where = f"messages.{number}.parts"
        if message.role == "system":
            texts = [_text(part, f"{where}.{n}") for n, part in enumerate(message.parts) if not _is_data(part)]
            told.append({"role": "system", "content": "".join(texts)})
        elif message.role == "user":
            told.append(_said(message.parts, where))
        elif message.role == "assistant":
            told += _answered(message.parts, where, thoughts)
        else:
            raise refused("invalid_request", f"messages.{number}.role", "expected system, user or assistant")
    return told


def _wrong(where: str, why: str) -> Problem:
    return refused("invalid_request", where, why)


def _unknown(where: str) -> Problem:
    return _wrong(f"{where}.type", "no part of this type can be told to a model here")


def _is_data(part: Part) -> bool:
    return isinstance(part.get("type"), str) and part["type"].startswith("data-")


def _string(part: Part, name: str, where: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise _wrong(f"{where}.{name}", "expected a string")
    return value


def _text(part: Part, where: str) -> str:
    if part.get("type") != "text":
        raise _unknown(where)
    return _string(part, "text", where)


def _said(parts: Sequence[Part], where: str) -> dict[str, Any]:
    """Return a message of the user: texts and images."""
    content: list[dict[str, Any]] = []
    for number, part in enumerate(parts):
        here = f"{where}.{number}"
        if part.get("type") == "file":
            content.append({"type": "image_url", "image_url": {"url": _image(part, here)}})
        elif not _is_data(part):
            content.append({"type": "text", "text": _text(part, here)})
    if not content:
        raise _wrong(where, "nothing in it can be told to a model")
    if [part["type"] for part in content] == ["text"]:
        return {"role": "user", "content": content[0]["text"]}
    return {"role": "user", "content": content}


def _image(part: Part, where: str) -> str:
    if not _string(part, "mediaType", where).startswith("image"):
        raise _wrong(f"{where}.mediaType", "only images can be told to a model here")
    if part.get("providerReference") is not None:
        raise _wrong(f"{where}.providerReference", "files of a provider's own store cannot be told to another")
    try:
        return ImageUrl(url=_string(part, "url", where)).url
    except ValidationError as error:
        raise _wrong(f"{where}.url", error.errors()[0]["msg"]) from None


def _answered(parts: Sequence[Part], where: str, thoughts: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield the steps of an answer: each one's text and calls, then the calls' results."""
    step = _Step()
    for number, part in enumerate(parts):
        here, type = f"{where}.{number}", part.get("type")
        if type == "step-start":
            yield from step.messages(thoughts)
            step = _Step()
        elif type == "steering-message":
            yield from step.messages(thoughts)
            step = _Step()
            said = part.get("parts")
            if not (isinstance(said, list) and all(isinstance(each, dict) for each in said)):
                raise _wrong(f"{here}.parts", "expected a list of parts")
            yield _said(said, f"{here}.parts")
        elif type == "text":
            step.text += _text(part, here)
        elif type == "dynamic-tool" or (isinstance(type, str) and type.startswith("tool-")):
            step.add(part, here)
        elif not (type in _SHOWN or _is_data(part)):
            raise _unknown(here)
    yield from step.messages(thoughts)


def tool_name(part: Part, where: str) -> str:
    return _string(part, "toolName", where) if part["type"] == "dynamic-tool" else part["type"].removeprefix("tool-")


class _Step:
    """One step of an answer, as far as it has been read."""

    def __init__(self) -> None:
        self.text = ""
        self._calls: list[dict[str, Any]] = []
        self._results: list[dict[str, Any]] = []
        self._job: str | None = None

    def add(self, part: Part, where: str) -> None:
        """Take a tool call with its result. One that was never finished was never made."""
        id, name, state = _string(part, "toolCallId", where), tool_name(part, where), part.get("state")
        if state == "input-streaming":
            return
        self._job = self._job or job_of(part)
        self._calls.append({"id": id, "name": name, "arguments": arguments(part)})
        failed = {"is_error": True} if state == "output-error" else {}
        self._results.append({"role": "tool", "tool_call_id": id, "content": _result(part, where), **failed})

    def messages(self, thoughts: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
        if self._calls:
            blocks = list(thoughts.get(self._job or "", ()))
            calls = {"tool_calls": self._calls, **({"reasoning_blocks": blocks} if blocks else {})}
            yield {"role": "assistant", "content": self.text or None, **calls}
            yield from self._results
        elif self.text:
            yield {"role": "assistant", "content": self.text}


def arguments(part: Part) -> str:
    """Return what a call was made with, as JSON: an object, as no provider takes anything else back."""
    given = part.get("input")
    if given is None:
        given = part.get("rawInput")
    if not isinstance(given, dict):
        given = {} if given is None else {"invalid": given}
    return dump(given).decode()


def _result(part: Part, where: str) -> str:
    approval = part.get("approval")
    reason = approval.get("reason") if isinstance(approval, dict) else None
    match part.get("state"):
        case "output-available":
            output = part.get("output")
            return output if isinstance(output, str) else dump(output).decode()
        case "output-error":
            return _string(part, "errorText", where)
        case "output-denied":
            return reason if isinstance(reason, str) else DENIED
        case "approval-responded" if isinstance(approval, dict) and approval.get("approved") is False:
            return reason if isinstance(reason, str) else DENIED
        case "input-available" | "approval-requested" | "approval-responded":
            return NOT_EXECUTED
    raise _wrong(f"{where}.state", "there is no such state of a tool's part")
