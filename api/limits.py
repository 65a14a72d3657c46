"""Limits as clients see them: the fields of draft-ietf-httpapi-ratelimit-headers, and what a refusal says."""

from typing import Final

from shared.errors import LimitReached
from shared.quotas import Standing, Standings

RETRY_AFTER_S: Final = 1
"""Where nobody knows when there will be room."""

DETAILS: Final = {
    "rate_limited": "Too many jobs were asked for within a minute.",
    "too_many_jobs": "Too many jobs are queued or running already.",
    "too_many_streams": "Too many streams are open already.",
    "budget_spent": "What a day may cost is spent; the next day begins at midnight UTC.",
}


def limit_headers(standings: Standings) -> dict[str, str]:
    """Return how an owner stands with its limits, as two structured fields."""
    return {
        "RateLimit-Policy": ", ".join(map(_policy, standings)),
        "RateLimit": ", ".join(map(_left, standings)),
    }


def refusal_headers(error: LimitReached) -> dict[str, str]:
    """Return when to come back, and what stood in the way."""
    retry_after_s = RETRY_AFTER_S if error.retry_in_ms is None else _seconds(error.retry_in_ms)
    return {"Retry-After": str(retry_after_s), **limit_headers(error.standings)}


def _policy(standing: Standing) -> str:
    unit = f';qu="{standing.unit}"' if standing.unit else ""
    window = f";w={standing.window_s}" if standing.window_s else ""
    return f'"{standing.name}";q={standing.most}{unit}{window}'


def _left(standing: Standing) -> str:
    more_in = "" if standing.more_in_ms is None else f";t={_seconds(standing.more_in_ms)}"
    return f'"{standing.name}";r={standing.left}{more_in}'


def _seconds(ms: int) -> int:
    """Round up: who comes then is not too early."""
    return max(1, -(-ms // 1000))
