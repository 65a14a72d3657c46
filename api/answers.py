"""What the routes answer with, as models for the OpenAPI document. (Answers themselves are put together by hand.)"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.jobs import CancelOutcome, Status

JOB_ID: Final = "^job_[0-9a-f]{32}$"
EVENT_ID: Final = "^(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})$"

JobIdText = Annotated[str, Field(pattern=JOB_ID)]
EventIdText = Annotated[str, Field(pattern=EVENT_ID)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
EventName = Literal[
    "queued", "started", "token", "reasoning", "tool_call", "restarted", "snapshot", "completed", "failed", "cancelled"
]


class Shown(BaseModel):
    """Says all that there is: a field more in an answer is a mistake, here or there."""

    model_config = ConfigDict(extra="forbid")


class FieldError(Shown):
    field: str
    message: str


class ProblemBody(Shown):
    """RFC 9457. `code` is stable; `errors` is there where fields are wrong."""

    type: Annotated[str, Field(pattern="^urn:rejoin:problem:[a-z_]+$")]
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    code: Annotated[str, Field(pattern="^[a-z_]+$")]
    errors: list[FieldError] = []
    error: dict[str, Any] = {}
    """The same as OpenAI's clients know it, where they and ours ask for one resource."""


class Submitted(Shown):
    id: JobIdText
    status: Literal["queued"]
    url: str
    events_url: str
    cancel_url: str
    created_at: Moment


class UsageShown(Shown):
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0
    """Where the provider tells of some."""
    estimated: bool


class JobError(Shown):
    code: str
    message: str
    retryable: bool


class ListedJob(Shown):
    """A job without its text."""

    id: JobIdText
    status: Status
    provider: str
    model: str
    finish_reason: str | None
    usage: UsageShown | None
    cost_usd: float | None
    attempts: int
    error: JobError | None
    created_at: Moment
    started_at: Moment | None
    first_token_at: Moment | None
    finished_at: Moment | None
    metadata: dict[str, str]
    events_url: str


class CalledTool(Shown):
    index: int
    id: str | None
    name: str | None
    arguments: str


class JobShown(ListedJob):
    """A job, with what has been written so far."""

    text: str
    reasoning: str
    tool_calls: list[CalledTool]
    reasoning_blocks: list[dict[str, Any]]
    parsed: Any


class CancelledJob(JobShown):
    outcome: CancelOutcome


class JobPage(Shown):
    object: Literal["list"]
    data: list[ListedJob]
    has_more: bool
    next_cursor: str | None


class EventShown(Shown):
    id: EventIdText
    event: EventName
    data: dict[str, Any]


class Polled(Shown):
    """The answer to a long-poll."""

    events: list[EventShown]
    last_event_id: EventIdText | None
    closed: bool


class UsageSum(Shown):
    jobs: int
    requests: int
    input_tokens: int
    cached_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    estimated_requests: int
    unpriced_requests: int
    cost_usd: float | None
    cost_usd_exact: str | None


class UsageRow(UsageSum):
    """One group; it has those of the four that were asked for."""

    day: str = ""
    model: str = ""
    owner: str = ""
    key: str | None = None


class UsageTable(Shown):
    object: Literal["list"]
    since: Annotated[str, Field(alias="from")]
    to: str
    group_by: list[Literal["day", "model", "owner", "key"]]
    data: list[UsageRow]
    total: UsageSum


class ModelShown(Shown):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    type: Literal["model"]
    display_name: str
    created_at: Moment
    lifecycle: Literal["active"]


class ModelPage(Shown):
    object: Literal["list"]
    data: list[ModelShown]
    has_more: Literal[False]
    first_id: str | None
    last_id: str | None


class OpsLine(Shown):
    """A provider, or a model, that has no room for all who ask."""

    scope: str
    waiting: int


class OpsPause(Shown):
    """A model that answered 429 and is not asked for a while."""

    scope: str
    left_s: float


class OpsQueue(Shown):
    waiting: int
    blocked: int
    """Those of them that wait for room at their provider."""
    oldest_age_s: float | None
    lines: list[OpsLine]
    pauses: list[OpsPause]


class OpsWorker(Shown):
    """What it says of itself is null where it has not said so lately."""

    name: str
    state: Literal["alive", "lost"]
    lease_left_s: float
    running: int
    slots: int | None
    resting: int | None
    up_s: int | None


class OpsWorkers(Shown):
    """At most 100 of them; `count` is that of all."""

    count: int
    slots: int
    data: list[OpsWorker]


class OpsJob(Shown):
    id: JobIdText
    owner: str
    model: str
    worker: str | None
    attempt: int
    age_s: float
    running_s: float
    answering: bool
    tokens_per_s: float | None
    cancelling: bool


class OpsRunning(Shown):
    """At most 200 jobs, those first that started first; `count` is that of all."""

    count: int
    data: list[OpsJob]


class OpsEventServer(Shown):
    """As this API process sees it."""

    name: str
    state: Literal["there", "away"]
    closed: bool
    """It takes no new jobs."""
    unsent: int
    """Jobs whose end has been decided and is not in their log there yet."""


class OpsSpread(Shown):
    count: int
    p50_s: float
    p99_s: float


class OpsMinute(Shown):
    """Null where nothing was measured."""

    at: Moment
    ttft: OpsSpread | None
    lag: OpsSpread | None


class OpsFailure(Shown):
    code: str
    count: int
    last_at: Moment
    """The last minute with one."""


class OpsHour(Shown):
    completed: int
    failed: int
    cancelled: int
    ttft: OpsSpread | None
    lag: OpsSpread | None
    failures: list[OpsFailure]
    minutes: list[OpsMinute]


class OpsView(Shown):
    object: Literal["ops"]
    at: Moment
    queue: OpsQueue
    workers: OpsWorkers
    running: OpsRunning
    event_servers: list[OpsEventServer]
    hour: OpsHour


class OpsCancelled(Shown):
    id: JobIdText
    status: Status
    outcome: CancelOutcome


class Probe(Shown):
    status: Literal["ok", "ready"]
