"""compose.yaml: every name in it is known to the product, and nothing in it is a secret or has a default one."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from shared.settings import Settings
from tests.deploy.files import (
    API_PORT,
    API_STOPS_S,
    DEPLOY,
    KEEP_ALIVE_S,
    ROOT,
    SETTINGS,
    WORKER_PORT,
    WORKER_STOPS_S,
    ours,
    seconds,
)

FILE = ROOT / "compose.yaml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
TLS: dict[str, Any] = yaml.safe_load((DEPLOY / "nginx" / "compose.tls.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
EVENTS: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.events.yaml").read_text())
TEMPLATE = (DEPLOY / "nginx" / "rejoin.conf.template").read_text()


def test_every_setting_that_is_named_is_one() -> None:
    for name in ("api", "worker"):
        environment = SERVICES[name]["environment"]
        assert ours(set(environment)) <= SETTINGS
        assert environment["REDIS_URL"].startswith("redis://valkey:")
    assert int(SERVICES["worker"]["environment"]["REJOIN_WORKER_PORT"]) == WORKER_PORT


def test_secrets_come_from_the_environment_and_have_no_default() -> None:
    overrides = (DEPLOY / "nginx" / "compose.tls.yaml", DEPLOY / "compose.events.yaml")
    text = "".join(path.read_text() for path in (FILE, *overrides))
    secret = SERVICES["api"]["environment"]["REJOIN_SECRET"]
    assert re.fullmatch(r"\$\{REJOIN_SECRET:\?[^}]+\}", secret), "compose refuses to start without it, with these words"
    assert SERVICES["api"]["environment"]["REJOIN_AUTH"] == "required"
    for name, default in re.findall(r"\$\{(\w+):?-([^}]*)\}", text):
        assert name in ("PORT", "GRAFANA_PORT"), name
        assert default.isdigit()
    for service in SERVICES.values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("KEY|SECRET|PASSWORD|TOKEN", name):
                assert value is None or str(value).startswith(("${REJOIN_SECRET:?", "/run/secrets/")), name
    assert COMPOSE["secrets"] == {"grafana_password": {"environment": "GRAFANA_PASSWORD"}}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_bounded_restarted_checked_and_without_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert service["healthcheck"]["retries"] > 0
    assert "no-new-privileges:true" in service["security_opt"]
    assert service.get("read_only") or name == "grafana"
    assert not {"privileged", "network_mode", "pid"} & set(service)
    for network in service["networks"]:
        assert network in COMPOSE["networks"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "what is without TLS is for this host"
    for volume in service.get("volumes", []):
        source, _, _ = volume.partition(":")
        assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], source
    for needed in service.get("depends_on", {}):
        assert needed in SERVICES


def test_services_are_given_longer_to_stop_than_they_take() -> None:
    assert seconds(SERVICES["api"]["stop_grace_period"]) > API_STOPS_S + 1
    assert seconds(SERVICES["worker"]["stop_grace_period"]) > WORKER_STOPS_S + 1
    frame = (DEPLOY / "nginx" / "nginx.conf").read_text()
    shutdown = re.search(r"worker_shutdown_timeout (\w+);", frame)
    assert shutdown is not None
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) > seconds(shutdown[1])


def test_only_the_proxy_is_published_and_valkey_is_reached_from_behind_alone() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"nginx", "grafana"}
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert SERVICES["valkey"]["networks"] == ["back"]
    assert "back" not in SERVICES["nginx"]["networks"]


def test_valkey_keeps_everything_and_forgets_nothing() -> None:
    words = SERVICES["valkey"]["command"]
    options = dict(zip(words[1::2], words[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--maxmemory"], SERVICES["valkey"]["deploy"]["resources"]["limits"]["memory"]) == ("1gb", "2g")


def test_event_servers_are_told_to_all_and_are_kept_like_the_first_one() -> None:
    named = {name for name, service in EVENTS["services"].items() if "image" in service}
    for name in ("api", "worker"):
        (setting,) = EVENTS["services"][name].items()
        told = Settings(_env_file=None, **setting[1])
        assert setting[0] == "environment"
        assert told.stream_urls == {server: f"redis://{server}:6379/0" for server in named}
    assert len(named) == 2
    for name in named:
        service = EVENTS["services"][name]
        assert service["volumes"] == [f"{name}:/data"]
        assert name in EVENTS["volumes"]
        assert {**service, "volumes": 0} == {**SERVICES["valkey"], "volumes": 0}
    assert not named & set(SERVICES)


def test_nginx_is_given_what_its_template_asks_for() -> None:
    environment = SERVICES["nginx"]["environment"]
    assert set(re.findall(r"\$\{(\w+)\}", TEMPLATE)) == set(environment)
    assert f"server api:{API_PORT} resolve" in environment["NGINX_UPSTREAM"]
    (published,) = SERVICES["nginx"]["ports"]
    assert f"listen {published.rpartition(':')[2]};" in environment["NGINX_LISTEN"]
    secure = TLS["services"]["nginx"]
    assert set(secure["environment"]) <= set(environment)
    assert environment["NGINX_LISTEN"] in secure["environment"]["NGINX_LISTEN"], "the health check's stays"
    kept = re.search(r"keepalive_timeout (\w+);", TEMPLATE)
    assert kept is not None
    assert seconds(kept[1]) < KEEP_ALIVE_S, "else nginx sends a POST on a connection that the API has just closed"


def test_prometheus_finds_all_replicas_by_their_services_names() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    found = {(tuple(where["names"]), where["port"]) for job in jobs for where in job["dns_sd_configs"]}
    assert found == {(("api",), API_PORT), (("worker",), WORKER_PORT)}
    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yaml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/rejoin.yaml").read_text())["providers"]
    assert any(
        volume.split(":")[1].startswith(provider["options"]["path"]) for volume in SERVICES["grafana"]["volumes"]
    )


def test_compose_itself_takes_the_files_and_refuses_without_the_secret(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode:
        pytest.skip("there is no docker compose")
    overrides = (DEPLOY / "nginx" / "compose.tls.yaml", DEPLOY / "compose.events.yaml")
    files = ["-f", str(FILE), *(word for path in overrides for word in ("-f", str(path)))]
    command = [docker, "compose", *files, "--profile", "metrics", "config", "--quiet"]
    environment = {**os.environ, "TLS_DIR": str(tmp_path), "GRAFANA_PASSWORD": "x"}
    environment.pop("REJOIN_SECRET", None)
    without = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert without.returncode != 0
    assert "set REJOIN_SECRET" in without.stderr
    subprocess.run(command, env={**environment, "REJOIN_SECRET": "s" * 32}, check=True, cwd=tmp_path)
