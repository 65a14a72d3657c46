"""`docs/METRICS.md` and the code name the same metrics."""

import re
from pathlib import Path

from shared.backlog import Reading, _families
from shared.metrics import ApiMetrics, Models, WorkerMetrics
from shared.prices import Prices
from shared.settings import Settings

TABLE = Path(__file__).parent.parent.parent / "docs" / "METRICS.md"

ROW = re.compile(r"\| \**`(rejoin_\w+)`\** \| (\w+) \|([^|]*)\| ([AWRedis ]+) \|")


def test_every_metric_is_in_the_table_with_its_type_and_labels_and_no_other() -> None:
    settings = Settings(_env_file=None)
    in_code: dict[str, tuple[str, tuple[str, ...]]] = {}
    for metrics in (ApiMetrics(), WorkerMetrics(Models(settings, Prices.read(None)), ())):
        for collector in metrics.registry._collector_to_names:
            name = collector._name + ("_total" if collector._type == "counter" else "")  # type: ignore[attr-defined]
            in_code[name] = (collector._type, collector._labelnames)  # type: ignore[attr-defined]
    for family in _families(Reading(0, 0, 0, 0, 0, 0)):
        in_code[family.name] = (family.type, ())
    rows = ROW.findall(TABLE.read_text(encoding="utf-8"))
    in_table = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}
    assert in_table == in_code
