"""Who asks, and for which job: the one door to a job."""

import base64
import hmac
import ipaddress
from collections.abc import Callable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from starlette.requests import Request

from api.problems import Problem
from shared.clock import wall_ms
from shared.errors import JobNotFound
from shared.jobs import Job, Jobs
from shared.settings import Settings, hash_key, key_id

LOCAL_OWNER: Final = "local"
"""Everybody, when auth is off."""

TICKET_S: Final = 600
"""Long enough to open a stream with, short enough to leak; reading the job gives a new one."""


def _unauthorized(code: str, detail: str) -> Problem:
    return Problem(401, code, detail, {"WWW-Authenticate": "Bearer"})


class Caller(NamedTuple):
    owner: str
    key: str | None
    """What the key is called in the ledger; None where none is needed."""


class Access:
    def __init__(self, settings: Settings, jobs: Jobs, now_ms: Callable[[], int] = wall_ms) -> None:
        self._required = settings.auth == "required"
        self._owners = settings.api_keys
        self._secret = settings.ticket_secret()
        self._jobs = jobs
        self._now_ms = now_ms

    def owner(self, request: Request) -> str:
        """Return on whose behalf somebody asks, or raise a 401 problem."""
        return self.caller(request).owner

    def caller(self, request: Request) -> Caller:
        """Return who asks, or raise a 401 problem."""
        if not self._required:
            if not _is_loopback(request) or _is_rebound(request):
                raise _unauthorized("loopback_only", "Without keys this server answers its own machine only.")
            return Caller(LOCAL_OWNER, None)
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        hashed = hash_key(key.strip())
        owner = self._owners.get(hashed) if scheme.lower() == "bearer" else None
        if owner is None:
            raise _unauthorized("unauthorized", "A valid key is needed: Authorization: Bearer <key>.")
        return Caller(owner, key_id(hashed))

    async def job(self, request: Request, job_id: str) -> Job:
        """Return the job when it is the caller's; a foreign one is the same as none."""
        return await self._owned(self.owner(request), job_id)

    async def job_by_ticket(self, request: Request, job_id: str) -> Job:
        """Return the job for reading its events: by key, or by a ticket for this one job."""
        ticket = request.query_params.get("ticket")
        if self._required and ticket is not None and "authorization" not in request.headers:
            if not self._admits(ticket, job_id):
                raise _unauthorized("invalid_ticket", "The ticket is not valid for this job, or has expired.")
            return await self._jobs.get(job_id)
        return await self.job(request, job_id)

    async def _owned(self, owner: str, job_id: str) -> Job:
        job = await self._jobs.get(job_id)
        if job.owner != owner:
            raise JobNotFound
        return job

    def events_url(self, job_id: str) -> str:
        """Return where to read the job's events without a header, for a while."""
        expires_s = self._now_ms() // 1000 + TICKET_S
        return f"/v1/jobs/{job_id}/events?ticket={expires_s}.{self._sign(job_id, expires_s)}"

    def _admits(self, ticket: str, job_id: str) -> bool:
        expires, _, signature = ticket.partition(".")
        if not (expires.isascii() and expires.isdigit() and len(expires) < 16):
            return False
        good = hmac.compare_digest(signature.encode(), self._sign(job_id, int(expires)).encode())
        return good and int(expires) * 1000 > self._now_ms()

    def _sign(self, job_id: str, expires_s: int) -> str:
        mac = hmac.digest(self._secret, f"events:{job_id}:{expires_s}".encode(), "sha256")
        return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()


def _is_rebound(request: Request) -> bool:
    """Say whether a page from elsewhere asks through its visitor's browser, whose address is loopback (CWE-350).

    Such a page is known by a public name in `Host`, to which it has bound this machine's address, or in `Origin`.
    """
    origin = urlsplit(request.headers.get("origin", "")).hostname
    return any(_is_public(name) for name in (request.url.hostname, origin))


def _is_public(name: str | None) -> bool:
    if not name or "." not in name or name.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(name).is_loopback
    except ValueError:
        return True


def _is_loopback(request: Request) -> bool:
    if request.client is None:
        # A unix socket has no address, and nobody from outside.
        return True
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False
