"""A client of Rejoin: answers that outlive the connection, as plain iterators.

    from rejoin import Client

    with Client() as client:
        for event in client.stream("Why is the sky blue?", model="demo/tour"):
            ...

Nothing is imported before it is asked for: the command line starts in a fraction of what an HTTP client takes to load.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rejoin.answer import Answer, CalledTool
    from rejoin.client import Client, Stream
    from rejoin.client_async import AsyncClient, AsyncStream
    from rejoin.errors import (
        BudgetSpent,
        ClientError,
        IdempotencyMismatch,
        InvalidRequest,
        InvalidSchema,
        JobCancelled,
        JobFailed,
        JobLive,
        JobNotFound,
        LimitReached,
        Misuse,
        ModelNotAllowed,
        NotFound,
        Problem,
        QueueFull,
        RateLimited,
        TooManyJobs,
        TooManyStreams,
        Unauthorized,
        Unavailable,
        Unexpected,
        UnknownProvider,
        Unreachable,
        UnsupportedParameter,
    )
    from rejoin.events import (
        Cancelled,
        Completed,
        Event,
        Failed,
        Queued,
        Reasoning,
        Restarted,
        Snapshot,
        Started,
        Token,
        ToolCall,
        Unknown,
        Usage,
    )
    from rejoin.patience import Patience
    from rejoin.records import Job, JobError, UsageRow, UsageTable

_HOMES = {
    "answer": ("Answer", "CalledTool"),
    "client": ("Client", "Stream"),
    "client_async": ("AsyncClient", "AsyncStream"),
    "errors": (
        *("BudgetSpent", "ClientError", "IdempotencyMismatch", "InvalidRequest", "InvalidSchema", "JobCancelled"),
        *("JobFailed", "JobLive", "JobNotFound", "LimitReached", "Misuse", "ModelNotAllowed", "NotFound", "Problem"),
        *("QueueFull", "RateLimited", "TooManyJobs", "TooManyStreams", "Unauthorized", "Unavailable", "Unexpected"),
        *("UnknownProvider", "Unreachable", "UnsupportedParameter"),
    ),
    "events": (
        *("Cancelled", "Completed", "Event", "Failed", "Queued", "Reasoning", "Restarted", "Snapshot", "Started"),
        *("Token", "ToolCall", "Unknown", "Usage"),
    ),
    "patience": ("Patience",),
    "records": ("Job", "JobError", "UsageRow", "UsageTable"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "BudgetSpent",
    "CalledTool",
    "Cancelled",
    "Client",
    "ClientError",
    "Completed",
    "Event",
    "Failed",
    "IdempotencyMismatch",
    "InvalidRequest",
    "InvalidSchema",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobLive",
    "JobNotFound",
    "LimitReached",
    "Misuse",
    "ModelNotAllowed",
    "NotFound",
    "Patience",
    "Problem",
    "QueueFull",
    "Queued",
    "RateLimited",
    "Reasoning",
    "Restarted",
    "Snapshot",
    "Started",
    "Stream",
    "Token",
    "TooManyJobs",
    "TooManyStreams",
    "ToolCall",
    "Unauthorized",
    "Unavailable",
    "Unexpected",
    "Unknown",
    "UnknownProvider",
    "Unreachable",
    "UnsupportedParameter",
    "Usage",
    "UsageRow",
    "UsageTable",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value
