"""`docs/METRICS.md` and the code name the same metrics."""

import re
from pathlib import Path
from typing import Any

from shared.backlog import Reading, _families
from shared.courier import Courier
from shared.keys import Keys
from shared.metrics import ApiMetrics, Models, WorkerMetrics
from shared.plane import HOME, Place, Plane
from shared.prices import Prices
from shared.redis import connect
from shared.settings import Settings

TABLE = Path(__file__).parent.parent.parent / "docs" / "METRICS.md"

ROW = re.compile(r"\| \**`(rejoin_\w+)`\** \| (\w+) \|([^|]*)\| ([AWRedis ]+) \|")


class Nothing:
    """A server on which nothing waits."""

    async def read(self, *command: str) -> int:
        return 0


def home() -> Place:
    nothing: Any = Nothing()
    return Place(HOME, nothing, Keys("x"))


async def test_every_metric_is_in_the_table_with_its_type_and_labels_and_no_other() -> None:
    settings = Settings(_env_file=None)
    in_code: dict[str, tuple[str, tuple[str, ...]]] = {}
    for metrics in (ApiMetrics(), WorkerMetrics(Models(settings, Prices.read(None)), ())):
        for collector in metrics.registry._collector_to_names:
            name = collector._name + ("_total" if collector._type == "counter" else "")  # type: ignore[attr-defined]
            in_code[name] = (collector._type, collector._labelnames)  # type: ignore[attr-defined]
    for family in _families(Reading(0, 0, 0, 0, 0, 0)):
        in_code[family.name] = (family.type, ())
    plane = Plane(settings.model_copy(update={"stream_urls": {"a": "redis://127.0.0.1:1"}}), home(), connect)
    for family in await Courier(plane).metrics():
        in_code[family.name] = (family.type, ("server",))
    rows = ROW.findall(TABLE.read_text(encoding="utf-8"))
    in_table = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert in_table == in_code
