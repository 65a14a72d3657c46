"""What goes on, for those who operate it: who waits, who works, at what, how fast. Never what anybody has written."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import orjson

from shared.backlog import Backlog
from shared.clock import iso
from shared.keys import Keys
from shared.redis import ConnectionError, Scripts

LISTED: Final = 200
"""Running jobs that are shown, the oldest ones; of the others there is a number."""

LOOKED_AT: Final = 2_000
"""Jobs among which those are looked for: 2 µs of Redis for each."""

WORKERS: Final = 100
SCOPES: Final = 50
STARTED: Final = 7
"""Which field of a running job is the moment of its first start."""

LONGEST_NAME: Final = 120
"""Of a model, an owner or a worker: a screen has no room for more, and an answer is to stay small."""

_ID: Final = re.compile(r"job_[0-9a-f]{32}")


class Report(NamedTuple):
    """What a worker says of itself with each renewal of its lease."""

    slots: int
    resting: int
    """Jobs that wait to ask their provider again, without a slot."""
    up_s: int
    rates: dict[str, float]
    """Tokens a second of each job that has begun to answer, since the last report: four characters count as one."""

    def dump(self) -> bytes:
        return orjson.dumps(self._asdict())

    @classmethod
    def parse(cls, raw: bytes) -> "Report | None":
        try:
            said = orjson.loads(raw)
            rates = {str(id): float(rate) for id, rate in said["rates"].items()}
            return cls(int(said["slots"]), int(said["resting"]), int(said["up_s"]), rates)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None


class Overview:
    """Reads it with one script. Who may ask is decided in `api.access`."""

    def __init__(self, scripts: Scripts, keys: Keys, backlog: Backlog) -> None:
        self._scripts = scripts
        self._keys = keys
        self._backlog = backlog

    async def look(self) -> dict[str, Any]:
        """Return what an operator sees. Bounded, whatever there is. Raises one of REDIS_FAULTS when it is away."""
        if (waiting := await self._backlog.read()) is None:
            raise ConnectionError("what waits could not be read")
        names, bounds = self._keys, [LISTED, LOOKED_AT, WORKERS, SCOPES]
        keys = [names.leases, names.lines, names.pauses]
        found = await self._scripts.run("overview", keys, [names.prefix, *bounds])
        now_ms, lines, pauses, all_workers, workers, in_hands, running = found
        reports = [Report.parse(said) for *_, said in workers]
        shown = [
            _worker(name, lease_end, held, report, now_ms)
            for (name, lease_end, held, _), report in zip(workers, reports, strict=True)
        ]
        # (Those whose lease ends first stand in another order every second.)
        in_order = sorted(shown, key=lambda worker: (worker["state"] == "alive", worker["name"]))
        running.sort(key=lambda job: (_whole(job[STARTED]), job[0]))
        slots = [report.slots for report in reports if report is not None]
        return {
            "at": iso(now_ms),
            "queue": {
                "waiting": waiting.depth,
                "blocked": waiting.blocked,
                "oldest_age_s": None if waiting.oldest_ms < 0 else round(waiting.oldest_ms / 1000, 1),
                "lines": [{"scope": _name(scope), "waiting": jobs} for scope, jobs in lines],
                "pauses": [{"scope": _name(scope), "left_s": -_age_s(now_ms, end)} for scope, end in pauses],
            },
            "workers": {"count": all_workers, "slots": sum(slots), "data": in_order},
            "running": {"count": in_hands, "data": list(_jobs(running, shown, reports, now_ms))},
        }


def _worker(name: bytes, lease_end: bytes, held: int, report: Report | None, now_ms: int) -> dict[str, Any]:
    left_s = max(0.0, -_age_s(now_ms, lease_end))
    return {
        "name": _name(name),
        "state": "alive" if left_s > 0 else "lost",
        "lease_left_s": left_s,
        "running": held,
        "slots": None if report is None else report.slots,
        "resting": None if report is None else report.resting,
        "up_s": None if report is None else report.up_s,
    }


def _jobs(
    running: Iterable[list[Any]], workers: list[dict[str, Any]], reports: list[Report | None], now_ms: int
) -> Iterable[dict[str, Any]]:
    for raw_id, place, owner, provider, model, attempt, created, started, first_token, cancel in running:
        id = raw_id.decode("utf-8", "replace")
        if not _ID.fullmatch(id):
            continue
        report = reports[place] if place >= 0 else None
        yield {
            "id": id,
            "owner": _name(owner),
            "model": _name(provider + b"/" + model),
            "worker": workers[place]["name"] if place >= 0 else None,
            "attempt": _whole(attempt),
            "age_s": _age_s(now_ms, created),
            "running_s": _age_s(now_ms, started),
            "answering": first_token != b"",
            "tokens_per_s": None if report is None else report.rates.get(id),
            "cancelling": cancel != b"",
        }


def _name(raw: bytes) -> str:
    name = raw.decode("utf-8", "replace")
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def _whole(raw: bytes) -> int:
    return int(raw) if raw.isdigit() and len(raw) < 16 else 0


def _age_s(now_ms: int, since: int | bytes) -> float:
    """Return how long ago a moment of Redis' clock is, in tenths; below 0 for one that is to come."""
    try:
        since_ms = float(since)
    except ValueError:
        return 0.0
    return round((now_ms - since_ms) / 1000, 1) if abs(since_ms) < 1e16 else 0.0
