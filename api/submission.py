"""From a checked request to a job that exists: what every face does alike, whatever its words are."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from api.access import Caller
from api.deadline import deadline
from api.idempotency import idempotency
from api.limits import limit_headers
from api.problems import refused
from api.relay import Reader
from api.state import State
from shared import logs, telemetry
from shared.capabilities import can_continue, generates_alone, refused_field, takes_max_tokens
from shared.errors import JobNotFound
from shared.events import CANCELLED, START
from shared.jobs import Created, Turn
from shared.plane import HOME
from shared.quotas import quota_of
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from shared.structured import is_usable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that has been accepted."""

    created: Created
    headers: dict[str, str]
    """Which job it is, and how the owner stands with its limits."""
    reader: Reader | None
    """Reads it from its beginning, where that was asked for. To be detached in the end."""


async def submit(
    request: Request,
    here: State,
    caller: Caller,
    asked: JobRequest,
    *,
    reads: bool,
    face: Mapping[str, Any] | None = None,
    numbered: bool = False,
    turn: Turn | None = None,
) -> Submission:
    """Accept a generation: the job and its queue entry exist when this returns. Raises the problem that it has.

    `reads`: attach a reader, which counts as one of the owner's streams. `face`: what another API wants to know of the
    job later. `numbered`: its readers count the events, so all of them are kept. `turn`: it answers a chat.
    """
    repeatable = idempotency(request, asked, face)
    job = _limited(asked, here)
    provider = _provider_of(job, caller, here)
    quota = quota_of(here.settings, caller.limits)
    seat = here.streams.seat(caller.owner, quota) if reads else None
    try:
        async with deadline():
            created = await here.jobs.create(
                caller.owner,
                job,
                here.settings.max_queue,
                quota=quota,
                idempotency=repeatable,
                stream=None if seat is None else seat.bid,
                can_continue=can_continue(provider, job),
                rates=here.prices.rates(job.provider, job.model),
                key=caller.key,
                usage_retention_d=here.settings.usage_retention_d,
                face=face,
                numbered=numbered,
                turn=turn,
                traceparent=telemetry.traceparent(),
                place=here.plane.choose if _may_be_elsewhere(job, here) else _at_home,
            )
        if seat is not None and not created.kept:
            raise JobNotFound
    except BaseException:
        if seat is not None:
            seat.leave()
        raise
    if not created.replayed:
        await here.courier.try_to(created.id, created.server, created.milestones)
        if created.interrupted is not None:
            await here.courier.try_to(*created.interrupted)
    logs.note(job_id=created.id)
    telemetry.tell("rejoin.job.id", created.id)
    logger.info("job is there already" if created.replayed else "job accepted")
    if not created.replayed:
        here.metrics.submitted.inc()
        if created.interrupted is not None:
            here.metrics.ended(CANCELLED)
    headers = {"X-Job-ID": created.id, **limit_headers(created.standings)}
    if created.replayed:
        headers["Idempotency-Replayed"] = "true"
    reader = None
    if seat is not None:
        seat.taken()
        grace_s = job.leave_grace_s if created.live else None
        reader = here.hub.attach(
            created.id,
            START,
            grace_s,
            key=caller.key,
            seat=seat,
            merges=not numbered,
            server=created.server,
            ended=not created.live,
        )
    return Submission(created, headers, reader)


def _at_home(job_id: str) -> str:
    return HOME


def _may_be_elsewhere(job: JobRequest, here: State) -> bool:
    """Say whether a job's log may be kept away from its record: not where both have to be written in one step."""
    asked = (job.provider, *(other.provider for other in job.fallbacks))
    return not any(name in here.providers and generates_alone(here.providers[name]) for name in asked)


def _limited(job: JobRequest, here: State) -> JobRequest:
    """Keep the answer to `REJOIN_MAX_TOKENS`, where anybody who may be asked can be told."""
    most = here.settings.max_tokens
    if most is None:
        return job
    asked = [here.providers.get(name) for name in (job.provider, *(other.provider for other in job.fallbacks))]
    if job.max_tokens is None and not any(config and takes_max_tokens(config) for config in asked):
        return job
    return job.at_most(most)


def _provider_of(job: JobRequest, caller: Caller, here: State) -> ProviderConfig:
    """Return who is asked; refuse what no worker could honour, before anything is queued."""
    config = here.providers.get(job.provider)
    if config is None:
        raise refused("unknown_provider", "provider", "there is no provider of this name")
    if not caller.may_ask(job.provider, job.model):
        raise refused("model_not_allowed", "model", "this key may not ask for it")
    if job.json_format is not None and not is_usable(job.json_format):
        raise refused("invalid_schema", "response_format", "not a JSON Schema that can be checked by itself")
    if (field := refused_field(config, job)) is not None:
        raise refused("unsupported_parameter", field, "this provider cannot honour it")
    for fallback in job.fallbacks:
        other = here.providers.get(fallback.provider)
        if other is None:
            raise refused("unknown_provider", "fallbacks", "there is no provider of this name")
        if not caller.may_ask(fallback.provider, fallback.model):
            raise refused("model_not_allowed", "fallbacks", "this key may not ask for one of them")
        if (field := refused_field(other, job.asked_of(fallback.provider, fallback.model))) is not None:
            raise refused("unsupported_parameter", "fallbacks", f"one of them cannot honour {field}")
    return config
