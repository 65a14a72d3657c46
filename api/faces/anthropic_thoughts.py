"""Thinking that a client gives back: what its provider signed never leaves the server, a name for it does.

A provider's signature comes with the end of an answer and is part of the job's record. A face that has to sign a block
before that signs with the job and the block's number; when the block comes back, the job's own thoughts are put in its
place, as they are.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from api.access import Caller
from api.deadline import deadline
from api.faces.target import Target
from api.problems import Problem, refused
from api.state import State
from shared.errors import JobNotFound
from shared.events import dump

_OURS: Final = re.compile(r"rejoin\.([0-9a-f]{32})\.(?:0|[1-9][0-9]{0,5})")

MOST_RECALLED: Final = 200
"""Jobs that are looked up for one request, the newest: what came before is over for long."""

AT_ONCE: Final = 8

Blocks = list[dict[str, Any]]


class Thinking(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["thinking"]
    thinking: str
    signature: str


class Redacted(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["redacted_thinking"]
    data: str


Given = Thinking | Redacted


def signature(job_id: str, number: int) -> str:
    """Return what a client gives back to have this block of the job's thinking put in its place."""
    return f"rejoin.{job_id.removeprefix('job_')}.{number}"


def job_of(block: Given) -> str | None:
    """Return the job that a block was signed for; None for one that is not ours."""
    found = _OURS.fullmatch(block.signature) if isinstance(block, Thinking) else None
    return None if found is None else f"job_{found[1]}"


class Thoughts:
    """What was thought, for the blocks that a client gives back."""

    def __init__(self, kept: Mapping[str, Blocks], needed_from: int | None, *, wanted: bool) -> None:
        self._kept = kept
        self._given: set[str] = set()
        self._needed_from = needed_from
        self.wanted = wanted
        """Whether who is asked is one of Anthropic's kind."""

    def of(self, given: Mapping[int, Given], turn: int) -> dict[int, Blocks]:
        """Return what stands for each block of a turn: a provider's own as it is, a job's by its name.

        What is not there any more is left out of turns that are over, as Anthropic leaves them out; in the turn that
        goes on it is needed, and refused.
        """
        found: dict[int, Blocks] = {}
        of_jobs: dict[str, dict[int, str]] = {}
        for number, block in given.items():
            job_id = job_of(block)
            if job_id is None:
                found[number] = [_own(block)]
                continue
            if job_id not in self._kept and self._needed_from is not None and turn >= self._needed_from:
                path = f"messages.{turn}.content.{number}"
                raise refused("thinking_not_kept", path, "Invalid `signature` in `thinking` block: it is not kept")
            assert isinstance(block, Thinking)
            of_jobs.setdefault(job_id, {})[number] = block.thinking
        for job_id, told in of_jobs.items():
            # An answer stands in a conversation once.
            blocks = [] if job_id in self._given else self._kept.get(job_id, [])
            self._given.add(job_id)
            parts = parted(blocks, list(told.values()))
            found |= dict(zip(told, parts, strict=True))
        return found


NONE: Final = Thoughts({}, None, wanted=False)


async def recalled(
    here: State, caller: Caller, target: Target, given: Sequence[Given], needed_from: int | None
) -> Thoughts:
    """Look up the jobs that signed these blocks. Only the caller's own, and only what this very model has thought."""
    newest = [job_id for block in reversed(given) if (job_id := job_of(block)) is not None]
    ids = list(dict.fromkeys(newest))[:MOST_RECALLED]
    config = here.providers.get(target.provider)
    wanted = config is not None and config.kind == "anthropic"

    async def thoughts(job_id: str) -> Blocks | None:
        try:
            job = await here.access.job(caller, job_id)
        except JobNotFound:
            return None
        return None if job.live or (job.provider, job.model) != target else job.reasoning_blocks

    kept: dict[str, Blocks] = {}
    size, most = 0, here.settings.max_body_bytes
    async with deadline():
        for few in (ids[at : at + AT_ONCE] for at in range(0, len(ids), AT_ONCE)):
            found = await asyncio.gather(*map(thoughts, few))
            kept |= {job_id: blocks for job_id, blocks in zip(few, found, strict=True) if blocks is not None}
            # A name is short, and what it stands for is not.
            size += sum(len(dump(blocks)) for blocks in found)
            if size > most:
                raise Problem(413, "conversation_too_large", f"The thinking of a conversation may have {most} bytes.")
    return Thoughts(kept, needed_from if wanted else None, wanted=wanted)


def parted(blocks: Sequence[dict[str, Any]], told: Sequence[str]) -> list[Blocks]:
    """Return a job's blocks by the texts that they were told as: several in a row were told as one.

    What cannot be told apart stands where the first one stood.
    """
    left = list(blocks)
    parts: list[Blocks] = []
    for text in told:
        part: Blocks = []
        while left and _text(part) != text:
            part.append(left.pop(0))
        parts.append(part)
        if not text or _text(part) != text:
            return [list(blocks), *[[] for _ in told[1:]]]
    parts[-1] += left
    return parts


def _text(part: Blocks) -> str:
    return "".join(block.get("text", "") for block in part)


def _own(block: Given) -> dict[str, Any]:
    if isinstance(block, Redacted):
        return {"type": "redacted_thinking", "data": block.data}
    return {"type": "thinking", "text": block.thinking, "signature": block.signature}
