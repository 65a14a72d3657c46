"""What the deployment's files may name: the product's own settings, ports, routes, metrics and times."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml  # type: ignore[import-untyped]

from api.hub import EXIT_SPREAD_S
from shared.settings import ENV_NAMES
from tests.deploy.image import stages
from worker.dispatch import FINISH_S

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
SETTINGS: Final = set(ENV_NAMES.values())
METRICS: Final = set(re.findall(r"\| \**`(rejoin_\w+)`", (ROOT / "docs" / "METRICS.md").read_text()))
"""A test of its own holds that table and the code together."""

PROBES: Final = {"/livez", "/readyz"}
_COMMAND: Final = stages()[-1].words("CMD")
API_COMMAND: Final = _COMMAND
API_PORT: Final = int(_COMMAND[_COMMAND.index("--port") + 1])
API_STOPS_S: Final = float(_COMMAND[_COMMAND.index("--timeout-graceful-shutdown") + 1])
KEEP_ALIVE_S: Final = float(_COMMAND[_COMMAND.index("--timeout-keep-alive") + 1])
WORKER_PORT: Final = int(stages()[-1].environment["REJOIN_WORKER_PORT"])
WORKER_STOPS_S: Final = FINISH_S
assert API_STOPS_S > EXIT_SPREAD_S + 1, "streams end by themselves before they are cut"


def documents(path: Path) -> list[dict[str, Any]]:
    return [found for found in yaml.safe_load_all(path.read_text()) if found]


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def ours(names: Iterator[str] | set[str]) -> set[str]:
    """Return the names that would have to be settings."""
    return {name for name in names if name.startswith(("REJOIN_", "OPENAI_", "ANTHROPIC_", "REDIS_"))}
