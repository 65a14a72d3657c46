"""What the client asks of the server: one function a question, the same for `Client` and `AsyncClient`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from uuid import uuid4

import httpx2

from rejoin.errors import Misuse, Problem, Unexpected, problem_of
from rejoin.records import Job, UsageTable

T = TypeVar("T")

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One question, and how to read its answer. Each may be repeated: it is then still one."""

    method: str
    path: str
    read: Callable[[httpx2.Response], T]
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    gone_is_done: bool = False
    """Whether 404 is what a repeat is answered when the first one got through and its answer got lost."""

    def answer(self, response: httpx2.Response, *, repeated: bool) -> T:
        """Return what was asked for. Raises Problem, and Unexpected where this is not Rejoin."""
        if not response.is_success and not (self.gone_is_done and repeated and response.status_code == 404):
            raise refusal(response)
        try:
            return self.read(response)
        except (ValueError, KeyError, TypeError) as error:
            raise Unexpected(f"{self.method} {self.path}: the answer is not Rejoin's") from error


def refusal(response: httpx2.Response) -> Problem:
    """Return the refusal of a response that has been read."""
    try:
        told = response.json()
    except ValueError:
        told = None
    return problem_of(response.status_code, told, response.headers.get("retry-after"))


def new_key() -> str:
    """Return an Idempotency-Key: what is asked under it is one job, however often it is sent."""
    return str(uuid4())


def path_of(job_id: str) -> str:
    """Return a job's path; Misuse for what can be no id and might lead elsewhere."""
    if not _ID.fullmatch(job_id):
        raise Misuse("not the id of a job")
    return f"/v1/jobs/{job_id}"


def _job(response: httpx2.Response) -> Job:
    return Job.of(response.json(), replayed=response.headers.get("idempotency-replayed") == "true")


def submit(body: Mapping[str, Any], idempotency_key: str) -> Call[Job]:
    return Call("POST", "/v1/jobs", _job, headers={"Idempotency-Key": idempotency_key}, json=body)


def job(job_id: str) -> Call[Job]:
    return Call("GET", path_of(job_id), _job)


def page(status: str | None, limit: int, cursor: str | None) -> Call[tuple[list[Job], str | None]]:
    def read(response: httpx2.Response) -> tuple[list[Job], str | None]:
        told = response.json()
        return [Job.of(listed) for listed in told["data"]], told["next_cursor"]

    params = {"status": status, "limit": str(limit), "cursor": cursor}
    return Call("GET", "/v1/jobs", read, {name: value for name, value in params.items() if value is not None})


def cancel(job_id: str) -> Call[Job]:
    return Call("POST", f"{path_of(job_id)}/cancel", _job)


def delete(job_id: str) -> Call[None]:
    return Call("DELETE", path_of(job_id), lambda _: None, gone_is_done=True)


def usage(since: str | None, to: str | None, group_by: str) -> Call[UsageTable]:
    given = {"from": since, "to": to, "group_by": group_by}
    params = {name: value for name, value in given.items() if value is not None}
    return Call("GET", "/v1/usage", lambda response: UsageTable.of(response.json()), params)


def alive() -> Call[None]:
    return Call("GET", "/livez", lambda _: None)


def models() -> Call[list[str]]:
    return Call("GET", "/v1/models", lambda response: [model["id"] for model in response.json()["data"]])
