"""What one owner may take, and where it stands: judged by the scripts (`lua/_quota.lua`), told in headers."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from shared.keyring import Limits
from shared.settings import Settings

MINUTE_S: Final = 60
DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of one owner."""

    posts_per_minute: int = 600
    live_jobs: int = 100
    """Queued and running."""
    streams: int = 100
    """Open at once, over all API processes."""
    daily_usd: Decimal | None = None
    """What settled calls may cost a day (UTC); None for any amount."""

    @property
    def daily_cost(self) -> int | None:
        """`daily_usd` as the ledger counts: in 10^-12 dollars."""
        return None if self.daily_usd is None else int(self.daily_usd.scaleb(12))


def quota_of(settings: Settings, own: Limits) -> Quota:
    """Return the limits that count when a key asks: its own, else the settings'."""
    return Quota(
        own.rate_limit or settings.rate_limit,
        own.max_active_jobs or settings.max_active_jobs,
        own.max_streams or settings.max_streams,
        settings.daily_usd if own.daily_usd is None else own.daily_usd,
    )


class Standing(NamedTuple):
    """One limit, and how much of it is left."""

    name: str
    most: int
    left: int
    window_s: int | None = None
    """For what time `most` is; None for a limit of what may be there at once."""
    more_in_ms: int | None = None
    """When there will be more; None where nobody knows, or nothing is taken."""
    unit: str | None = None
    """What is counted, where it is not requests."""


def posts(quota: Quota, taken: int, more_in_ms: int) -> Standing:
    left = max(0, quota.posts_per_minute - taken)
    return Standing("posts", quota.posts_per_minute, left, MINUTE_S, more_in_ms or None)


def live_jobs(quota: Quota, taken: int) -> Standing:
    return Standing("jobs", quota.live_jobs, max(0, quota.live_jobs - taken), unit="concurrent-requests")


def streams(quota: Quota, left: int = 0) -> Standing:
    return Standing("streams", quota.streams, left, unit="concurrent-requests")


def spend(quota: Quota, more_in_ms: int) -> Standing:
    """Return a day's budget that is used up."""
    cents = int((quota.daily_usd or Decimal(0)) * 100)
    return Standing("budget", cents, 0, DAY_S, more_in_ms, unit="cents")


Standings = Sequence[Standing]
