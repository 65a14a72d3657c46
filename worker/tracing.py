"""The spans of one attempt: its wait in the queue, itself, and each call to a provider. Never one a token."""

from collections.abc import Mapping
from time import time_ns
from typing import Final
from urllib.parse import urlsplit

from shared import logs, telemetry
from shared.queue import Claim
from shared.requests import JobRequest
from shared.settings import ProviderConfig
from shared.telemetry import Parent
from shared.traces import CLIENT, CONSUMER, INTERNAL, Span, Traces, fail, link
from worker.attempt import Cancelled, Completed, Failed, HandedOver, Lost, Outcome

NAMES: Final = {"openai-responses": "openai"}
"""What a provider of ours is called in the field, where that is another name."""

HOSTS: Final = {"openai": "api.openai.com", "openai-responses": "api.openai.com", "anthropic": "api.anthropic.com"}
"""Where a kind of provider is that was given no address."""

OUTCOMES: Final[Mapping[type, str]] = {
    Completed: "completed", Failed: "failed", Cancelled: "cancelled", HandedOver: "handed_over", Lost: "lost",
}  # fmt: skip


def address(config: ProviderConfig | None) -> dict[str, str | int]:
    """Return where a provider's server is, where it has one."""
    if config is None:
        return {}
    if config.base_url is None:
        return {"server.address": HOSTS[config.kind]} if config.kind in HOSTS else {}
    parts = urlsplit(config.base_url)
    port = {} if parts.port is None else {"server.port": parts.port}
    return {"server.address": parts.hostname or "", **port}


class AttemptTrace:
    """What one attempt tells of itself. Its span's id follows from job and number, so that the next one can name it."""

    def __init__(self, traces: Traces, claim: Claim, request: JobRequest, config: ProviderConfig | None) -> None:
        self._traces = traces
        self._request = request
        self._address = address(config)
        self._call: Span | None = None
        self._call_over_ns: int | None = None
        self._asked_ns = 0
        self._lost = False
        id, attempt = claim.job_id, claim.attempt
        about: dict[str, str | int] = {
            "rejoin.job.id": id,
            "rejoin.attempt": attempt,
            "rejoin.provider": claim.provider,
        }
        parent = telemetry.parse(claim.traceparent)
        now_ns = time_ns()
        if parent is not None and claim.claimed_ms == claim.started_ms and attempt == 1:
            # By Redis' clock how long it was, by ours when: no clock is compared with another.
            waited_ns = (claim.claimed_ms - claim.created_ms) * 1_000_000
            waited = traces.span("queue", INTERNAL, parent, {"rejoin.job.id": id}, start_ns=now_ns - waited_ns)
            waited.end(now_ns)
        trace_id = telemetry.trace_of(id) if parent is None else parent.trace_id
        before = Parent(trace_id, telemetry.span_of(id, attempt - 1), 1 if parent is None else parent.flags)
        self._span = traces.span(
            "attempt", CONSUMER, parent, about,
            links=[link(before)] if attempt > 1 else (),
            start_ns=now_ns, trace_id=trace_id, span_id=telemetry.span_of(id, attempt),
        )  # fmt: skip
        self.trace_id = f"{trace_id:032x}"

    def note(self) -> None:
        """Have the lines of this task name the trace."""
        logs.note(trace_id=self.trace_id)

    def ask(self) -> None:
        """A call to the provider begins."""
        self._end_call("provider_unreachable")
        request = self._request
        attributes: dict[str, str | int | float] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": NAMES.get(request.provider, request.provider),
            "gen_ai.request.model": request.model,
            **self._address,
        }
        asked = {"max_tokens": request.max_tokens, "temperature": request.temperature, "top_p": request.top_p}
        attributes |= {f"gen_ai.request.{name}": value for name, value in asked.items() if value is not None}
        self._call_over_ns, self._asked_ns = None, time_ns()
        self._call = self._traces.span(f"chat {request.model}", CLIENT, self._span, attributes)

    def over(self) -> None:
        """The call has ended; how, is still to be told."""
        self._call_over_ns = time_ns()

    def end_call(self, outcome: Outcome) -> None:
        """Tell how the last call ended."""
        if self._call is None:
            return
        match outcome:
            case Completed(finish):
                self._call.set_attribute("gen_ai.response.finish_reasons", [finish.reason])
                if finish.model is not None:
                    self._call.set_attribute("gen_ai.response.model", finish.model)
                if finish.usage is not None:
                    self._call.set_attribute("gen_ai.usage.input_tokens", finish.usage.input_tokens)
                    self._call.set_attribute("gen_ai.usage.output_tokens", finish.usage.output_tokens)
                self._end_call(None)
            case Failed(why):
                self._end_call(why.code)
            case _:
                self._call.set_attribute("rejoin.outcome", OUTCOMES[type(outcome)])
                self._end_call(None)

    def _end_call(self, code: str | None) -> None:
        if self._call is not None:
            if code is not None:
                fail(self._call, code)
            self._call.end(self._call_over_ns)
            self._call = None

    def lost(self) -> None:
        """Somebody else has the job: whatever was generated counts for nothing."""
        self._lost = True

    def end(self, outcome: Outcome | None) -> None:
        """The attempt is over; None: by a fault of ours. The second time does nothing."""
        if not self._span.is_recording():
            return
        self._end_call("internal_error")
        if outcome is None:
            fail(self._span, "internal_error")
        else:
            told = "lost" if self._lost else OUTCOMES[type(outcome)]
            self._span.set_attribute("rejoin.outcome", told)
            if isinstance(outcome, Failed) and not self._lost:
                fail(self._span, outcome.failure.code)
        self._span.end()
