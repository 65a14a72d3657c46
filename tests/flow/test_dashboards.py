"""What Prometheus and Grafana are given names nothing that a real scrape does not have."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.flow.test_metrics import Place
from tests.provider import Delay, HttpError, Silence, Step, Text, Usage, Wait
from tests.scrape import Scrape
from tests.stack import Stack, eventually

ROOT = Path(__file__).parent.parent.parent
PROMETHEUS = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0][
    "rules"
]
DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))

OF_PROMETHEUS = {"job", "instance"}
"""Labels that the scraper adds."""

WORDS = re.compile(
    r"""(?P<string>"[^"]*") | (?P<duration>\[[^\]]*\]) | (?P<matchers>\{[^}]*\})
    | (?P<by>\b(sum|max|min)\s+by\s*\([^)]*\))
    | (?P<function>[a-z_]+)(?=\s*\() | (?P<metric>[a-z_:]+) | (?P<other>\S)""",
    re.VERBOSE,
)
FUNCTIONS = {"sum", "max", "min", "rate", "increase", "histogram_quantile"}


def uses(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Yield each metric of an expression with the labels that it is asked for; those of a `by` are asked of all."""
    assert expression.count("(") == expression.count(")")
    grouped: set[str] = set()
    found: list[tuple[str, set[str]]] = []
    for word in WORDS.finditer(expression):
        text = word.group()
        match word.lastgroup:
            case "function":
                assert text in FUNCTIONS, text
            case "by":
                grouped |= set(re.findall(r"\w+", text.partition("(")[2]))
            case "metric":
                found.append((text, set()))
            case "matchers":
                found[-1][1].update(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", text))
    assert found, expression
    for name, labels in found:
        yield name, (labels | grouped) - OF_PROMETHEUS


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    shown = [
        target["expr"]
        for path in DASHBOARDS
        for panel in panels(json.loads(path.read_text()))
        for target in panel["targets"]
    ]
    return [rule["expr"] for rule in RULES] + shown


@pytest.fixture
async def full(bare: Stack) -> Scrape:
    """A scrape after one of everything that has labels."""
    bare.event_servers = {"events-1": bare.valkey.url}
    place = await Place(bare).open()
    provider = bare.provider
    gate = provider.gate()
    pieces: list[Step] = [Text("one "), Delay(0.06), Text("two"), Usage(input=10, output=12, cached=2, reasoning=1)]
    provider.script("gpt-4o", Wait(gate), *pieces)
    provider.script("limited", HttpError(429, retry_after_s=30))
    provider.script("stopped", Text("a"), Silence())
    job_id = await place.client.submit("gpt-4o")
    reader = asyncio.create_task(place.client.all_events(job_id))
    await eventually(lambda: bare.apis[0].app.state.rejoin.hub.open_streams == 1)
    gate.open()
    await reader
    await place.run("limited", timeout_s=5)
    stopped = await place.client.submit("stopped")
    await place.client.until(stopped, "token")
    await place.client.cancel(stopped)
    await place.at_rest()
    return await place.scrape()


async def test_every_metric_and_label_of_alerts_and_dashboards_is_in_a_real_scrape(full: Scrape) -> None:
    for expression in expressions():
        for name, labels in uses(expression):
            if name == "up":
                continue
            assert name in full.names(), (name, expression)
            assert labels <= full.labels(name), (name, labels, expression)


def test_a_metric_or_label_that_is_not_there_is_found() -> None:
    expression = 'histogram_quantile(0.9, sum by (le, model) (rate(a_bucket{job="x", code=~"5.."}[5m]))) / max(b) > 1'
    assert list(uses(expression)) == [("a_bucket", {"le", "model", "code"}), ("b", {"le", "model"})]


def test_every_metric_of_the_contract_is_on_a_dashboard() -> None:
    shown = " ".join(expressions())
    for name in (
        "jobs_total",
        "queue_wait_seconds",
        "ttft_seconds",
        "relay_lag_seconds",
        "cancel_seconds",
        "tokens_total",
    ):
        assert f"rejoin_{name}" in shown
    for name in ("attempts_total", "streams_open", "queue_depth", "queue_oldest_seconds", "slots"):
        assert f"rejoin_{name}" in shown


def test_every_alert_has_its_paragraph_in_the_runbook_and_no_other_is_there() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs" / "RUNBOOK.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
    for rule in RULES:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"\d+[sm]", rule["for"])
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"]["runbook_url"] == f"docs/RUNBOOK.md#{rule['alert'].lower()}"
        assert rule["annotations"]["summary"].endswith(".")


def test_the_configuration_scrapes_what_compose_starts() -> None:
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    ports = {}
    for job in config["scrape_configs"]:
        (found,) = job["dns_sd_configs"]
        (service,) = found["names"]
        assert job["job_name"] == f"rejoin-{service}"
        assert service in compose["services"]
        ports[service] = found["port"]
    port = int(compose["services"]["worker"]["environment"]["REJOIN_WORKER_PORT"])
    assert ports == {"api": 8000, "worker": port}
    assert all((PROMETHEUS / file).exists() for file in config["rule_files"])


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")
def test_promtool_finds_nothing_wrong() -> None:
    subprocess.run(["promtool", "check", "config", str(PROMETHEUS / "prometheus.yml")], check=True)


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_can_be_imported_as_it_is(path: Path) -> None:
    dashboard = json.loads(path.read_text())
    assert dashboard["uid"]
    assert dashboard["schemaVersion"] >= 39
    assert [variable["type"] for variable in dashboard["templating"]["list"]] == ["datasource"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    for panel in panels(dashboard):
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(refs) == len(set(refs)) > 0
