"""The series of the results, drawn."""

import json
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import matplotlib.pyplot as plt

from bench.report import RESULTS

OURS, DIRECT = "#2563eb", "#94a3b8"
PARTS: Final = {"api": "#2563eb", "worker": "#7c3aed", "valkey": "#db2777"}

mpl.use("svg")
mpl.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "rejoin",
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.figsize": (6.4, 3.6),
    "legend.frameon": False,
}


def draw(folder: Path = RESULTS) -> None:
    """Draw what `results.json` holds."""
    kept: dict[str, Any] = json.loads((folder / "results.json").read_text())
    for name, picture in {
        "cost": _cost,
        "parts": _parts,
        "lag": _lag,
        "growth": _growth,
        "capacity": _capacity,
    }.items():
        source = "cost" if name == "parts" else name
        if source in kept:
            figure, axes = plt.subplots(layout="constrained")
            picture(axes, kept[source]["series"])
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None, "Creator": None})
            plt.close(figure)


def _cost(axes: Any, series: dict[str, Any]) -> None:
    axes.plot(series["streams"], series["direct"], "o-", color=DIRECT, label="direct: FastAPI + SDK + sse-starlette")
    axes.plot(series["streams"], series["ours"], "o-", color=OURS, label="Rejoin: API + worker + Valkey")
    axes.set(xlabel="streams of 50 tokens/s", ylabel="CPU a token, µs", ylim=(0, None), xscale="log")
    axes.set_xticks(series["streams"], series["streams"])
    axes.set_title("CPU a token, all processes added up", loc="left")
    axes.legend()


def _parts(axes: Any, series: dict[str, Any]) -> None:
    places = range(len(series["streams"]))
    below = [0.0 for _ in places]
    for part, values in series["parts"].items():
        axes.bar(places, values, bottom=below, color=PARTS[part], label=part, width=0.6)
        below = [low + value for low, value in zip(below, values, strict=True)]
    axes.set_xticks(list(places), series["streams"])
    axes.set(xlabel="streams of 50 tokens/s", ylabel="CPU a token, µs")
    axes.set_title("Where it goes", loc="left")
    axes.legend()


def _lag(axes: Any, series: dict[str, Any]) -> None:
    for side, color in (("direct", DIRECT), ("ours", OURS)):
        points = series[side]
        streams = series["streams"][: len(points)]
        axes.plot(streams, [p50 for p50, _ in points], "o--", color=color, label=f"{side}, p50")
        axes.plot(streams, [p99 for _, p99 in points], "o-", color=color, label=f"{side}, p99")
    axes.set(xlabel="streams of 50 tokens/s", ylabel="ms", yscale="log")
    axes.set_title("Provider's token to reader's socket", loc="left")
    axes.legend()


def _growth(axes: Any, series: dict[str, Any]) -> None:
    axes.plot(series["streams"], series["us"], "o-", color=OURS)
    axes.set(xlabel="streams, 2,500 tokens/s in all", ylabel="CPU a token, µs", ylim=(0, None))
    axes.set_title("More streams, the same tokens", loc="left")


def _capacity(axes: Any, series: dict[str, Any]) -> None:
    for side, color in (("direct", DIRECT), ("ours", OURS)):
        axes.plot([n for n, _ in series[side]], [lag for _, lag in series[side]], "o-", color=color, label=side)
    axes.axhline(series["limit_ms"], color="#dc2626", linewidth=1)
    axes.set(xlabel="streams of 50 tokens/s on one core", ylabel="p99 lag, ms", yscale="log")
    axes.set_title("Streams held on one core", loc="left")
    axes.legend()
