"""Two clocks with two names: one to store, one to measure."""

import time
from datetime import UTC, datetime


def wall_ms() -> int:
    """Return the wall clock in milliseconds since 1970: to store and to show, never to measure."""
    return time.time_ns() // 1_000_000


def mono_s() -> float:
    """Return a clock in seconds that never jumps: to measure and to wait, meaningless elsewhere."""
    return time.monotonic()


def iso(ms: int | None) -> str | None:
    """Show stored milliseconds as RFC 3339 in UTC, e.g. ``2026-11-21T07:07:00.000Z``; None stays None."""
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
