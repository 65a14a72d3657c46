"""`python -m bench [measure …]`: run the measures, write the table and the plots to `bench/results/`."""

import argparse
import sys

import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import plots, report
from bench.measures import ALL
from bench.report import RESULTS, Figure, Measured
from bench.rig import ROOT


async def run(names: list[str], console: Console) -> dict[str, Measured]:
    """Run measures one after another, each with a bar of its own."""
    measured: dict[str, Measured] = {}
    columns = (TextColumn("{task.fields[name]:<9}"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bars:
        for name in names:
            bar = bars.add_task("", total=1.0, name=name)

            def progress(share: float, what: str, bar: object = bar) -> None:
                bars.update(bar, completed=share, description=what)  # type: ignore[arg-type]

            measured[name] = await ALL[name](progress)
            bars.update(bar, completed=1.0, description="")
            around = report.surroundings()
            report.write({name: measured[name]}, around)
    return measured


def table(figures: list[Figure]) -> Table:
    shown = Table("what", "goal", "measured", "", box=None)
    for figure in figures:
        mark = {True: "[green]met", False: "[red]missed", None: ""}[figure.met]
        shown.add_row(
            figure.what,
            figure.goal_text,
            f"[bold]{figure.value_text}",
            f"{mark}[/] {figure.note}" if mark else figure.note,
        )
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description="Measure Rejoin beside direct streaming.")
    parser.add_argument("measures", nargs="*", metavar="measure", help=f"some of: {', '.join(ALL)} (default: all)")
    names = parser.parse_args().measures or list(ALL)
    if unknown := [name for name in names if name not in ALL]:
        parser.error(f"no such measure: {', '.join(unknown)}")
    if not sys.platform.startswith("linux"):
        parser.error("CPU is read from Linux' process clocks: run it on Linux")
    console = Console()
    measured = uvloop.run(run(names, console))
    plots.draw()
    console.print(table([figure for result in measured.values() for figure in result.figures]))
    console.print(f"written to {RESULTS.relative_to(ROOT)}/")


main()
