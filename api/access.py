"""Who asks, and for which job: the one door to a job."""

import base64
import hmac
from collections.abc import Callable
from typing import Final, NamedTuple

from starlette.requests import Request

from api.known_keys import KnownKeys
from api.loopback import is_local
from api.problems import Problem, nothing_here
from shared import logs, telemetry
from shared.clock import wall_ms
from shared.errors import JobNotFound
from shared.jobs import Job, Jobs
from shared.keyring import ApiKey, Limits, covers
from shared.settings import Settings

LOCAL_OWNER: Final = "local"
"""Everybody, when auth is off."""

TICKET_S: Final = 600
"""Long enough to open a stream with, short enough to leak; reading the job gives a new one."""


ANTHROPIC_PATHS: Final = ("/v1/messages", "/v1/models")
"""What Anthropic's clients ask for. Some of them send the key in a header of their own."""


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, {"WWW-Authenticate": "Bearer"})


class Caller(NamedTuple):
    """On whose behalf somebody asks, by which key, and what that key may do."""

    owner: str
    key: str | None = None
    """What the key is called (`key_…`), in the ledger too; None where none is needed."""
    limits: Limits = Limits()
    models: tuple[str, ...] = ()
    """Patterns of `provider/model`; none is all."""
    ops: bool = False
    """Whether the operators' view is shown to it."""

    @classmethod
    def by(cls, key: ApiKey) -> "Caller":
        return cls(key.terms.owner, key.id, key.terms.limits, key.terms.models, key.terms.ops)

    def may_ask(self, provider: str, model: str) -> bool:
        return covers(self.models, provider, model)


class Access:
    def __init__(
        self, settings: Settings, jobs: Jobs, known_keys: KnownKeys, now_ms: Callable[[], int] = wall_ms
    ) -> None:
        self._required = settings.auth == "required"
        self._known_keys = known_keys
        self._secrets = settings.ticket_secrets()
        self._jobs = jobs
        self._now_ms = now_ms

    async def caller(self, request: Request) -> Caller:
        """Return who asks, or raise a 401 problem."""
        if not self._required:
            if not is_local(request):
                raise _unauthorized("loopback_only", "Without keys this server answers its own machine only.")
            return Caller(LOCAL_OWNER, ops=True)
        key = _key_of(request)
        found = None if key is None else await self._known_keys.holder(key)
        if found is None:
            raise _unauthorized("unauthorized", "A valid key is needed: Authorization: Bearer <key>.")
        return Caller.by(found)

    async def operator(self, request: Request) -> Caller:
        """Return who asks with the right to operate; to all others there is nothing here. Or raise a 401 problem."""
        caller = await self.caller(request)
        if not caller.ops:
            raise nothing_here()
        return caller

    async def reader(self, request: Request, job_id: str) -> Caller:
        """Return who wants to read a job's events: by key, or by a ticket for this one job. Or raise a 401 problem."""
        ticket = request.query_params.get("ticket")
        if not self._required or ticket is None or "authorization" in request.headers:
            return await self.caller(request)
        caller = await self._by_ticket(ticket, job_id)
        if caller is None:
            raise _unauthorized("invalid_ticket", "The ticket is not valid for this job, or has expired.")
        return caller

    async def job(self, caller: Caller, job_id: str) -> Job:
        """Return the job when it is the caller's; a foreign one is the same as none."""
        job = await self._jobs.get(job_id)
        if job.owner != caller.owner:
            raise JobNotFound
        logs.note(job_id=job.id)
        telemetry.about(job.id, job.traceparent)
        return job

    def events_url(self, caller: Caller, job_id: str) -> str:
        """Return where to read the job's events without a header: for a while, and while the caller's key holds."""
        expires, key = str(self._now_ms() // 1000 + TICKET_S), caller.key or ""
        signature = _sign(self._secrets[0], job_id, key, expires)
        return f"/v1/jobs/{job_id}/events?ticket={expires}.{key}.{signature}"

    async def _by_ticket(self, ticket: str, job_id: str) -> Caller | None:
        """Return who was given the ticket; None when it is not for this job, not ours, or has had its time."""
        expires, _, rest = ticket.partition(".")
        id, _, signature = rest.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16):
            return None
        signed = [_sign(secret, job_id, id, expires) for secret in self._secrets]
        if not any(hmac.compare_digest(signature.encode(), good.encode()) for good in signed):
            return None
        if int(expires) * 1000 <= self._now_ms():
            return None
        found = await self._known_keys.find(id)
        return None if found is None else Caller.by(found)


def _key_of(request: Request) -> str | None:
    """Return the key that was sent, as a bearer's or, by Anthropic's clients, as `x-api-key`; None without just one."""
    given = request.headers.getlist("authorization")
    if not given and request.scope["path"].startswith(ANTHROPIC_PATHS):
        bare = request.headers.getlist("x-api-key")
        return bare[0].strip(" ") if len(bare) == 1 else None
    scheme, _, key = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return key.strip(" ") if scheme.lower() == "bearer" else None


def _sign(secret: bytes, job_id: str, key: str, expires: str) -> str:
    """Return the signature of what a ticket says, as it is written: a number has more than one way to be."""
    mac = hmac.digest(secret, f"events:{job_id}:{key}:{expires}".encode(), "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
