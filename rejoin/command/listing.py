"""`rejoin jobs`, `rejoin cancel` and `rejoin models`."""

import sys

from rejoin.command.manners import client_of
from rejoin.command.showing import harmless, json_line
from rejoin.records import Job

COLUMNS = ("job", "status", "model", "created", "tokens", "cost")
_COLOURS = {"completed": "green", "failed": "red", "cancelled": "yellow", "running": "cyan"}


def jobs(status: str | None, limit: int, as_json: bool, url: str | None, key: str | None) -> None:
    """List jobs: a table on a terminal; else a line each, its fields between tabs, below a line of their names."""
    with client_of(url, key) as client:
        found = client.jobs(status=status, limit=limit)
        if as_json:
            for job in found:
                print(json_line(job.raw))
        elif sys.stdout.isatty():
            _table(list(found))
        else:
            for row in (COLUMNS, *map(_row, found)):
                print("\t".join(row))


def _row(job: Job) -> tuple[str, ...]:
    tokens = "" if job.usage is None else f"{job.usage.input_tokens} + {job.usage.output_tokens}"
    cost = "" if job.cost_usd is None else f"${job.cost_usd:.6f}"
    status = job.status if job.error is None else f"{job.status} ({job.error.code})"
    created = "" if job.created_at is None else job.created_at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
    return (job.id, status, harmless(f"{job.provider}/{job.model}"), created, tokens, cost)


def _table(found: list[Job]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*COLUMNS, box=None, pad_edge=False, header_style="bold")
    table.columns[0].no_wrap = True
    for job in found:
        id, status, *rest = _row(job)
        table.add_row(id, Text(status, style=_COLOURS.get(job.status, "")), *map(Text, rest))
    Console().print(table)


def cancel(job: str, url: str | None, key: str | None) -> None:
    with client_of(url, key) as client:
        outcome = client.cancel(job).outcome or "cancelled"
        print(f"{job}: {outcome.replace('_', ' ')}")


def models(url: str | None, key: str | None) -> None:
    with client_of(url, key) as client:
        for name in client.models():
            print(harmless(name))
