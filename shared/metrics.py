"""Every metric, by process; `docs/METRICS.md` says what each means. No label has more values than the operator named.

Each process has a registry of its own, so that nothing is counted twice in one process either (tests run several).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from shared.booked import Booked
from shared.exposition import prepare_files
from shared.prices import Prices, Rates, Usage, usd
from shared.settings import Settings

WAITS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
LAGS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 15)
FIRST_TOKENS: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120)
ANSWERS: Final = (0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 60)
GAPS: Final = (0.005, 0.01, 0.02, 0.035, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SPEEDS: Final = (1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1000)

OTHER: Final = "other"
"""Stands for all names that get no label of their own."""

MOST_MODELS: Final = 200
"""Labels of models in one process. Each is some 50 lines of a scrape."""

MOST_UNKNOWN: Final = 20
"""Of them, those that no setting and no price names."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,79}")

COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

FIRST: Final = "first"
LISTEN: Final = "listen"
REASONS: Final = (FIRST, "worker_lost", "worker_stopped", "provider_error", "fallback", LISTEN)
"""Why an attempt begins: `listen` goes on with a provider's own run, the others as `restarted` tells its readers."""

M = TypeVar("M", bound=MetricWrapperBase)


class By(dict[tuple[str, ...], M]):
    """The children of a metric by the values of its labels. (Its own `labels` checks and locks: 2 µs more.)"""

    def __init__(self, metric: M) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, values: tuple[str, ...]) -> M:
        child = self[values] = self._metric.labels(*values)
        return child


class Models:
    """Which models have labels of their own. A model is whatever a client asks for, so their number is bounded.

    Those that the operator names (providers' `models`, limits, prices, the default) always have one; others from their
    first answer on, a few of them: nobody gets a label by asking for what does not exist.
    """

    def __init__(self, settings: Settings, prices: Prices) -> None:
        providers = settings.providers()
        self._providers = frozenset(providers)
        priced = prices.models()
        named = {f"{name}/{model}" for name, config in providers.items() for model in config.models}
        named |= {scope for scope in settings.limits if "/" in scope} | set(priced)
        if settings.default_model is not None:
            named.add(settings.default_model)
        self._named = frozenset(named)
        self._unknown: set[tuple[str, str]] = set()
        self._labels: dict[tuple[str, str], tuple[str, str]] = {}

    def labels(self, provider: str, model: str, *, answered: bool = False) -> tuple[str, str]:
        """Return the labels of a model. `answered`: it exists, as it has just said something."""
        asked = (provider, model)
        labels = self._labels.get(asked)
        if labels is not None:
            return labels
        if provider not in self._providers:
            return OTHER, OTHER
        if len(self._labels) >= MOST_MODELS or not _PLAIN.fullmatch(model):
            return provider, OTHER
        if model not in self._named and f"{provider}/{model}" not in self._named:
            if not answered or len(self._unknown) >= MOST_UNKNOWN:
                return provider, OTHER
            self._unknown.add(asked)
        self._labels[asked] = asked
        return asked

    def provider(self, name: str) -> str:
        return name if name in self._providers else OTHER


class Metrics:
    """What both kinds of processes count."""

    def __init__(self) -> None:
        # (A line a series that says when this process began to count: as much again, and nobody asks for it.)
        disable_created_metrics()  # type: ignore[no-untyped-call]
        prepare_files()
        self.registry = CollectorRegistry()
        self._jobs = By(self._counter("jobs", "Jobs that have ended.", "status", "code"))
        self._announce(self._jobs, [(CANCELLED, "")])

    def ended(self, status: str, code: str = "") -> None:
        """Count a job whose last event has been written; `code` is that of one that failed."""
        self._jobs[status, code].inc()

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"rejoin_{name}", meaning, labels, registry=self.registry)

    def _histogram(self, name: str, meaning: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"rejoin_{name}", meaning, labels, buckets=buckets, registry=self.registry)

    def _ttft_parts(self) -> Histogram:
        """A first token waits in the queue and for its provider in a worker, for its relay in an API process."""
        return self._histogram("ttft_part_seconds", "Where a first token's time went.", FIRST_TOKENS, "part")

    @staticmethod
    def _announce(children: Mapping[tuple[str, ...], MetricWrapperBase], all_values: Iterable[tuple[str, ...]]) -> None:
        """Show these at 0: a rate sees a first time only if there was a 0 before it."""
        for values in all_values:
            children[values]


class ApiMetrics(Metrics):
    """What an API process counts."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted = self._counter("jobs_submitted", "Jobs that were accepted; repeats are not.")
        self.streams_open = Gauge(
            "rejoin_streams_open", "Readers of logs.", registry=self.registry, multiprocess_mode="livesum"
        )
        self.relay_lag = self._histogram("relay_lag_seconds", "An append to its events in the readers' sockets.", LAGS)
        self.first_relay = self._ttft_parts().labels("relay")
        self.resumes = self._counter("resumes", "Streams that went on from a reader's cursor.")
        self.snapshots = self._counter("snapshots", "Readers whose cursor the log did not hold.")
        self.slow_readers = self._counter("slow_readers_cut", "Readers cut off as they took nothing.")
        self.requests = By(self._counter("http_requests", "Answers begun.", "method", "route", "status"))


class ModelMetrics(NamedTuple):
    """What is counted for one model."""

    tokens: Mapping[str, Counter]
    cost: Counter
    first_token: Histogram
    speed: Histogram
    gap: Histogram


class WorkerMetrics(Metrics):
    """What a worker counts."""

    def __init__(self, models: Models, codes: Iterable[str]) -> None:
        """`codes`: all that its jobs may fail with."""
        super().__init__()
        self._models = models
        self._announce(self._jobs, [(COMPLETED, ""), *((FAILED, code) for code in codes)])
        self.slots = Gauge("rejoin_slots", "Places for jobs in this worker.", ["state"], registry=self.registry)
        self._attempts = By(self._counter("attempts", "Attempts begun, by why.", "reason"))
        self._announce(self._attempts, [(reason,) for reason in REASONS])
        self._queue_wait = self._histogram("queue_wait_seconds", "POST to the first attempt.", WAITS)
        self.ttft = self._histogram("ttft_seconds", "POST to an attempt's first token.", FIRST_TOKENS)
        parts = self._ttft_parts()
        self._queue_part, self._provider_part = parts.labels("queue"), parts.labels("provider")
        self.cancel = self._histogram("cancel_seconds", "Cancel of a running job to its last event.", WAITS)
        self.takeovers = self._counter("takeovers", "Lost workers' jobs put back or ended here.")
        self.lease_losses = self._counter("lease_losses", "Times that others have taken this worker's jobs.")
        self.fenced = self._counter("fenced_writes", "Writes refused, as the job was not this worker's any more.")
        self._errors = By(self._counter("provider_errors", "Attempts that failed.", "provider", "code"))
        self._pauses = By(self._counter("provider_pauses", "Pauses begun by a provider's 429.", "provider"))
        self._tokens = self._counter("tokens", "Tokens of settled calls.", "provider", "model", "kind")
        self._cost = self._counter("cost_usd", "US dollars of settled calls.", "provider", "model")
        of_model = ("provider", "model")
        self._first_token = self._histogram("provider_ttft_seconds", "Call to first token.", ANSWERS, *of_model)
        self._speed = self._histogram("tokens_per_second", "Output of whole answers.", SPEEDS, *of_model)
        self._gap = self._histogram("inter_token_seconds", "Between pieces of text, sampled.", GAPS, *of_model)
        self._by_model: dict[tuple[str, str], ModelMetrics] = {}

    def waited(self, ms: int) -> None:
        """Note how long a job has waited for its first attempt."""
        self._queue_wait.observe(max(0, ms) / 1000)

    def attempt(self, reason: str) -> None:
        """Count an attempt that begins."""
        self._attempts[(reason if reason in REASONS else OTHER,)].inc()

    def first_token(self, provider: str, model: str, waited_s: float, answered_s: float) -> None:
        """Note an attempt's first token: what went by before its call, and from there."""
        waited_s = max(0.0, waited_s)
        self.ttft.observe(waited_s + answered_s)
        self._queue_part.observe(waited_s)
        self._provider_part.observe(answered_s)
        self._of(provider, model, answered=True).first_token.observe(answered_s)

    def answered(self, provider: str, model: str, per_second: float | None, gaps: Iterable[float]) -> None:
        """Note how an answer has come: tokens a second of a whole one, some of the times between its pieces."""
        of_model = self._of(provider, model)
        if per_second is not None:
            of_model.speed.observe(per_second)
        for gap_s in gaps:
            of_model.gap.observe(gap_s)

    def settled(self, provider: str, model: str, usage: Usage, cost: int) -> None:
        """Count what a call took, as the owner's ledger does; `cost` in 10^-12 dollars."""
        of_model = self._of(provider, model)
        for kind, amount in (
            ("input", usage.input_tokens),
            ("cached_input", min(usage.cached_input_tokens, usage.input_tokens)),
            ("output", usage.output_tokens),
            ("reasoning", usage.reasoning_tokens),
        ):
            # (What somebody else has written into a log may add up to less than nothing.)
            if amount > 0:
                of_model.tokens[kind].inc(amount)
        if cost > 0:
            of_model.cost.inc(float(usd(cost)))

    def settled_at(self, provider: str, model: str, usage: Usage, rates: Rates | None) -> None:
        self.settled(provider, model, usage, 0 if rates is None else rates.cost(usage))

    def failed(self, provider: str, code: str) -> None:
        """Count an attempt that failed."""
        self._errors[self._models.provider(provider), code].inc()

    def paused(self, provider: str) -> None:
        """Count a pause that this worker's call has begun."""
        self._pauses[(self._models.provider(provider),)].inc()

    def booked(self, booked: Booked) -> None:
        """Count what a script did by itself."""
        for end in booked.ended:
            self.ended(end.status, end.code)
            if end.cancel_ms is not None:
                self.cancel.observe(end.cancel_ms / 1000)
        for call in booked.settled:
            self.settled(*call)

    def _of(self, provider: str, model: str, *, answered: bool = False) -> ModelMetrics:
        labels = self._models.labels(provider, model, answered=answered)
        found = self._by_model.get(labels)
        if found is None:
            kinds = ("input", "cached_input", "output", "reasoning")
            found = self._by_model[labels] = ModelMetrics(
                {kind: self._tokens.labels(*labels, kind) for kind in kinds},
                self._cost.labels(*labels),
                self._first_token.labels(*labels),
                self._speed.labels(*labels),
                self._gap.labels(*labels),
            )
        return found
