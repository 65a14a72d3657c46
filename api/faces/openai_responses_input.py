"""The items of an input as messages in our neutral shape, and the responses that they name."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from api.access import Caller
from api.deadline import deadline
from api.faces.openai_responses_object import is_kept, job_id_of, story_of
from api.problems import Problem, refused
from api.state import State
from shared.errors import JobNotFound
from shared.events import dump
from shared.jobs import Job

Items = Sequence[dict[str, Any]]

_ITEM_ID: Final = re.compile(r"(msg|rs|fc)_([0-9a-f]{32})_[0-9]{1,6}")

MOST_NAMED: Final = 200
"""Responses that one input may name: each is read from Redis."""

AT_ONCE: Final = 8

_SPOKEN: Final = ("user", "assistant", "system", "developer")
_SAID_BEFORE: Final = frozenset(("id", "status", "type", "role", "content", "phase"))
"""What a message may have: an answer that is given back has more to it than its text."""

_TEXTS: Final = {"input_text": "text", "output_text": "text", "refusal": "refusal"}


class Named(NamedTuple):
    """A response of the caller's that an input names by an item of it."""

    job: Job
    items: Mapping[str, dict[str, Any]]
    """What it is asked for of its output, by the items' ids."""


def _wrong(place: str, why: str) -> Problem:
    return refused("invalid_request", place, why)


async def conversation(
    here: State, caller: Caller, previous_id: str | None, given: str | Items
) -> list[dict[str, Any]]:
    """Return all messages that the model is to see: those of the response before, its answer, and what is new."""
    before = [] if previous_id is None else await _before(here, caller, previous_id)
    items: Items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    async with deadline():
        # One bound for all of them: whoever names many long ones keeps others waiting.
        named = await _named(here, caller, items)
    messages = [*before, *_Reading(named, here.settings.max_body_bytes).messages(items)]
    # What was given before counts again: no conversation grows without bound by naming itself.
    if (before or named) and len(dump(messages)) > here.settings.max_body_bytes:
        raise _too_large(here.settings.max_body_bytes)
    return messages


def _too_large(most_bytes: int) -> Problem:
    return Problem(413, "conversation_too_large", f"A conversation may have {most_bytes} bytes.")


async def _job(here: State, caller: Caller, job_id: str) -> Job | None:
    """Return a job of the caller's that is kept; None for any other."""
    try:
        job = await here.access.job(caller, job_id)
    except JobNotFound:
        return None
    return job if is_kept(job) else None


async def _before(here: State, caller: Caller, id: str) -> list[dict[str, Any]]:
    """Return the conversation of an earlier response, its instructions excepted."""
    try:
        async with deadline():
            job = await _job(here, caller, job_id_of(id))
    except JobNotFound:
        job = None
    if job is None:
        raise refused("previous_response_not_found", "previous_response_id", "there is no such response")
    if job.live:
        raise _wrong("previous_response_id", "the response has not ended yet")
    async with deadline():
        request = await here.jobs.request(job.id)
    story = await story_of(here, job)
    messages = [message.model_dump(exclude_defaults=True) for message in request.messages]
    reading = _Reading({}, here.settings.max_body_bytes)
    return messages + reading.answer(story.response()["output"], job.reasoning_blocks)


async def _named(here: State, caller: Caller, items: Items) -> dict[str, Named]:
    """Return the caller's responses that items name, by their job's id. Raises the problem of too many, or too long."""
    wanted: dict[str, set[str]] = {}
    for item in items:
        kind = item.get("type")
        if kind in ("reasoning", "item_reference") and (match := _ITEM_ID.fullmatch(str(item.get("id")))):
            referred = wanted.setdefault(f"job_{match[2]}", set())
            if kind == "item_reference":
                referred.add(match[0])
    if len(wanted) > MOST_NAMED:
        raise _wrong("input", f"names items of more than {MOST_NAMED} responses")
    found: dict[str, Named] = {}
    asked, size = list(wanted.items()), 0
    for few in (asked[at : at + AT_ONCE] for at in range(0, len(asked), AT_ONCE)):
        for one in await asyncio.gather(*[_one_named(here, caller, *each) for each in few]):
            if one is not None:
                found[one.job.id] = one
                # A name is short, and what it stands for is not.
                size += sum(map(_least_size, one.items.values()))
        if size > here.settings.max_body_bytes:
            raise _too_large(here.settings.max_body_bytes)
    return found


async def _one_named(here: State, caller: Caller, job_id: str, referred: set[str]) -> Named | None:
    job = await _job(here, caller, job_id)
    if job is None:
        return None
    output = (await story_of(here, job)).response()["output"] if referred else []
    return Named(job, {item["id"]: item for item in output if item["id"] in referred})


def _least_size(item: Mapping[str, Any]) -> int:
    """Return how many bytes an item of ours has at least, as part of a conversation; thinking is told by its job."""
    if item["type"] == "message":
        return sum(len(part.get("text") or part.get("refusal") or "") for part in item["content"])
    return len(item.get("arguments", ""))


class _Reading:
    """Reads items one behind the other: what an assistant thought, said and called is one turn of it."""

    def __init__(self, named: Mapping[str, Named], most_bytes: int) -> None:
        self._named = named
        self._most_bytes = most_bytes
        self._referred_bytes = 0
        """What has been put in the place of references; at least."""
        self._messages: list[dict[str, Any]] = []
        self._turn: dict[str, Any] | None = None
        """The assistant's, while it goes on."""
        self._thoughts: list[dict[str, str]] = []
        """Wait for the turn that they belong to."""
        self._thought: set[str] = set()
        """The jobs whose thoughts are in: theirs come once, whatever items they were told as."""

    def messages(self, items: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        for number, item in enumerate(items):
            self._read(item, f"input.{number}")
        return self._messages

    def answer(self, output: Items, thoughts: list[dict[str, str]]) -> list[dict[str, Any]]:
        """Return an answer of ours with the thinking behind it, shown or not; without calls that nobody can answer."""
        self._thoughts = thoughts
        return self.messages(
            item
            for item in output
            if item["type"] == "message" or (item["type"] == "function_call" and item["status"] == "completed")
        )

    def _read(self, item: dict[str, Any], place: str) -> None:
        match item.get("type", "message" if "role" in item else None):
            case "message":
                self._message(item, place)
            case "function_call":
                self._call(item, place)
            case "function_call_output":
                self._output(item, place)
            case "reasoning":
                self._reasoning(item)
            case "item_reference":
                self._read(self._referred(item, place), place)
            case _:
                raise refused("unsupported_parameter", place, "items of this type are not taken")

    def _message(self, item: dict[str, Any], place: str) -> None:
        role = item.get("role")
        if role not in _SPOKEN:
            raise _wrong(f"{place}.role", f"expected one of {', '.join(_SPOKEN)}")
        if unknown := [name for name in item.keys() - _SAID_BEFORE if item[name] is not None]:
            raise _wrong(f"{place}.{min(unknown)}", "is not taken")
        content = _content(item.get("content"), place, of_user=role == "user")
        if role == "assistant":
            self._assistant(content)
        else:
            self._turn, self._thoughts = None, []
            self._messages.append({"role": "system" if role == "developer" else role, "content": content})

    def _assistant(self, content: Any = None) -> dict[str, Any]:
        """Return the assistant's turn that goes on; a new one where it has spoken already, and speaks again."""
        begun = self._turn is not None and (self._turn["content"] is not None or "tool_calls" in self._turn)
        if self._turn is None or (content is not None and begun) or self._thoughts:
            self._turn = {"role": "assistant", "content": None}
            if self._thoughts:
                self._turn["reasoning_blocks"] = self._thoughts
                self._thoughts = []
            self._messages.append(self._turn)
        if content is not None:
            self._turn["content"] = content
        return self._turn

    def _call(self, item: dict[str, Any], place: str) -> None:
        id, name, arguments = item.get("call_id"), item.get("name"), item.get("arguments")
        if not (isinstance(id, str) and isinstance(name, str) and isinstance(arguments, str)):
            raise _wrong(place, "expected call_id, name and arguments")
        call = {"id": id, "name": name, "arguments": arguments}
        self._assistant().setdefault("tool_calls", []).append(call)

    def _output(self, item: dict[str, Any], place: str) -> None:
        if not isinstance(item.get("call_id"), str):
            raise _wrong(f"{place}.call_id", "expected a text")
        self._turn, self._thoughts = None, []
        content = _content(item.get("output"), place, of_user=False)
        self._messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})

    def _reasoning(self, item: dict[str, Any]) -> None:
        """Take the caller's own thinking back, its signatures from where they have stayed; pass over any other."""
        match = _ITEM_ID.fullmatch(str(item.get("id")))
        named = None if match is None else self._named.get(f"job_{match[2]}")
        if named is not None and named.job.id not in self._thought:
            self._thought.add(named.job.id)
            self._thoughts += named.job.reasoning_blocks

    def _referred(self, item: dict[str, Any], place: str) -> dict[str, Any]:
        id = str(item.get("id"))
        match = _ITEM_ID.fullmatch(id)
        named = None if match is None else self._named.get(f"job_{match[2]}")
        found = None if named is None else named.items.get(id)
        if found is None:
            raise _wrong(f"{place}.id", "there is no such item")
        # Each time anew: one long answer can be named as often as a body has room for its id.
        self._referred_bytes += _least_size(found)
        if self._referred_bytes > self._most_bytes:
            raise _too_large(self._most_bytes)
        return found


def _content(content: Any, place: str, *, of_user: bool) -> Any:
    """Return a message's content as text, or as parts where there are images among them."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise _wrong(f"{place}.content", "expected a text or a list of parts")
    parts = [_part(part, f"{place}.content.{number}", of_user=of_user) for number, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, place: str, *, of_user: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if isinstance(kind, str) and (name := _TEXTS.get(kind)) is not None:
        if not isinstance(part.get(name), str):
            raise _wrong(f"{place}.{name}", "expected a text")
        return {"type": "text", "text": part[name]}
    if kind == "input_image" and of_user:
        if not isinstance(part.get("image_url"), str):
            raise _wrong(f"{place}.image_url", "expected a URL; files are not kept here")
        detail = {"detail": part["detail"]} if part.get("detail") is not None else {}
        return {"type": "image_url", "image_url": {"url": part["image_url"], **detail}}
    raise refused("unsupported_parameter", place, "parts of this type are not taken here")
