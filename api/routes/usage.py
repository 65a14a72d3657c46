"""`GET /v1/usage`: what the caller's jobs have taken and cost, by day, model, owner or key."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, timedelta
from itertools import chain
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from api.answers import UsageTable
from api.asking import Asking
from api.deadline import deadline
from api.direct import Direct
from api.document import problems
from api.negotiation import JSON, accepted
from api.problems import refused
from api.routes.jobs import json_response
from api.state import state
from shared.ledger import Row
from shared.prices import usd
from shared.spent import Spent

router = APIRouter(route_class=Direct)

DAYS: Final = 30
"""What is told when no `from` is given, today included."""

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

GROUPS: Final[dict[str, Callable[[Row], str | None]]] = {
    "day": lambda row: row.day.isoformat(),
    "model": lambda row: row.model,
    "key": lambda row: row.key,
}
"""`owner` is always the caller."""


@router.get("/v1/usage", responses={200: {"model": UsageTable}, **problems(401, 406, 422, 503)})
async def usage(
    request: Request,
    caller: Asking,
    since: Annotated[str | None, Query(alias="from", description="First day, `2026-11-01`, in UTC.")] = None,
    to: Annotated[str | None, Query(description="Last day, included; today if not given.")] = None,
    group_by: Annotated[str, Query(description="One or more of `day`, `model`, `owner`, `key`, with commas.")] = "day",
) -> Response:
    """Add up what the caller's jobs have taken, also those that are gone."""
    here = state(request)
    accepted(request, JSON)
    owner = caller.owner
    first, last, groups = _day("from", since), _day("to", to), _groups(group_by)
    found: dict[tuple[str | None, ...], list[Row]] = defaultdict(list)
    async with deadline():
        today = await here.ledger.today()
        last = last or today
        first = first or date.fromordinal(max(1, last.toordinal() - DAYS + 1))
        if first > last:
            raise refused("invalid_request", "from", "is after `to`")
        oldest = today - timedelta(here.settings.usage_retention_d)
        async for row in here.ledger.rows(owner, max(first, oldest), min(last, today)):
            group = tuple(owner if name == "owner" else GROUPS[name](row) for name in groups)
            found[group].append(row)
    return json_response(
        {
            "object": "list",
            "from": first.isoformat(),
            "to": last.isoformat(),
            "group_by": groups,
            "data": [
                {**dict(zip(groups, group, strict=True)), **_sum(found[group])} for group in sorted(found, key=_order)
            ],
            "total": _sum(chain.from_iterable(found.values())),
        }
    )


def _sum(some: Iterable[Row]) -> dict[str, Any]:
    rows = list(some)
    spent = Spent.total(row.spent for row in rows)
    # What has no price is not in the sum; where nothing else is, there is no sum.
    cost_usd = None if spent.unpriced and not spent.cost else usd(spent.cost).normalize()
    return {
        "jobs": sum(row.jobs for row in rows),
        "requests": spent.requests,
        "input_tokens": spent.input_tokens,
        "cached_input_tokens": spent.cached_input_tokens,
        "output_tokens": spent.output_tokens,
        "reasoning_tokens": spent.reasoning_tokens,
        "estimated_requests": spent.estimated,
        "unpriced_requests": spent.unpriced,
        "cost_usd": None if cost_usd is None else float(cost_usd),
        "cost_usd_exact": None if cost_usd is None else format(cost_usd, "f"),
    }


def _order(group: Iterable[str | None]) -> list[str]:
    return [name or "" for name in group]


def _day(name: str, text: str | None) -> date | None:
    if text is None:
        return None
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise refused("invalid_request", name, "expected a day such as 2026-11-21")


def _groups(text: str) -> list[str]:
    names = text.split(",")
    if len(set(names)) < len(names) or not set(names) <= {*GROUPS, "owner"}:
        raise refused("invalid_request", "group_by", "expected day, model, owner or key, or several with commas")
    return names
