"""The manifests: every setting, port, route, secret, label and metric in them exists; stops take less than they may."""

import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from bench.sizing import Load
from shared.settings import Settings
from tests.deploy.files import (
    API_PORT,
    API_STOPS_S,
    DEPLOY,
    METRICS,
    PROBES,
    SETTINGS,
    WORKER_PORT,
    WORKER_STOPS_S,
    documents,
    ours,
)

FOLDER = DEPLOY / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
ALL = [document for name in KUSTOMIZATION["resources"] for document in documents(FOLDER / name)]
(SCALED,) = documents(FOLDER / "keda.yaml")
(SCALED_API,) = documents(FOLDER / "hpa.yaml")
WORKLOADS = {found["metadata"]["name"]: found for found in ALL if found["kind"] in ("Deployment", "StatefulSet")}
OURS = ["rejoin-api", "rejoin-worker"]


def of(kind: str) -> dict[str, dict[str, Any]]:
    return {found["metadata"]["name"]: found for found in ALL if found["kind"] == kind}


def container(name: str) -> dict[str, Any]:
    (only,) = WORKLOADS[name]["spec"]["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def test_every_file_is_applied_or_left_to_choose() -> None:
    named = {*KUSTOMIZATION["resources"], "kustomization.yaml", "keda.yaml", "hpa.yaml", "events.yaml"}
    assert {path.name for path in FOLDER.iterdir()} == named
    assert {found["kind"] for found in ALL}.isdisjoint({"Secret", "Namespace"}), "secrets are by reference only"


def test_every_setting_is_one_and_what_it_says_is_taken() -> None:
    data = of("ConfigMap")["rejoin"]["data"]
    assert ours(set(data)) == set(data) <= SETTINGS
    assert Settings(_env_file=None, **data).auth == "required"
    for name in OURS:
        assert ours({variable["name"] for variable in container(name).get("env", [])}) <= SETTINGS
    commented = set(
        re.findall(r"# ([A-Z_]+)[:,]", "".join((FOLDER / f"{n}.yaml").read_text() for n in ("settings", "api")))
    )
    assert ours(commented) <= SETTINGS


@pytest.mark.parametrize("name", WORKLOADS)
def test_workloads_need_no_root_no_rights_and_no_writable_disk(name: str) -> None:
    pod, only = WORKLOADS[name]["spec"]["template"]["spec"], container(name)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(only["resources"]["requests"])
    assert only["resources"]["limits"]["memory"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(only)


@pytest.mark.parametrize("name", OURS)
def test_variables_for_services_do_not_stop_a_process(name: str) -> None:
    """Kubernetes would set REJOIN_API_SERVICE_HOST for the service rejoin-api; what is no setting ends the start."""
    assert any(service.upper().replace("-", "_").startswith("REJOIN_") for service in of("Service"))
    assert WORKLOADS[name]["spec"]["template"]["spec"]["enableServiceLinks"] is False


@pytest.mark.parametrize(("name", "port"), [("rejoin-api", API_PORT), ("rejoin-worker", WORKER_PORT)])
def test_probes_ask_what_is_served_where_it_is(name: str, port: int) -> None:
    only = container(name)
    (listens,) = only["ports"]
    assert listens["containerPort"] == port
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = only[probe]["httpGet"]
        assert asked["port"] == listens["name"]
        assert asked["path"] in PROBES
    assert only["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert only["livenessProbe"]["httpGet"]["path"] == "/livez", "Redis' absence is no reason to restart"
    scraped = WORKLOADS[name]["spec"]["template"]["metadata"]["annotations"]
    assert scraped["prometheus.io/port"] == str(port)
    if name == "rejoin-worker":
        assert {"name": "REJOIN_WORKER_PORT", "value": str(port)} in only["env"]


def test_pods_are_given_longer_to_stop_than_they_take() -> None:
    api, worker = (WORKLOADS[name]["spec"]["template"]["spec"] for name in OURS)
    word, pause = container("rejoin-api")["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    assert api["terminationGracePeriodSeconds"] > int(pause) + API_STOPS_S + 1
    assert worker["terminationGracePeriodSeconds"] > WORKER_STOPS_S + 1


@pytest.mark.parametrize("name", OURS)
def test_a_rollout_takes_nothing_away_before_the_new_is_there(name: str) -> None:
    rolling = WORKLOADS[name]["spec"]["strategy"]["rollingUpdate"]
    assert rolling["maxUnavailable"] == 0
    assert rolling["maxSurge"] in (1, "100%")
    assert of("PodDisruptionBudget")[name]["spec"]["maxUnavailable"] == 1
    assert WORKLOADS[name]["spec"]["replicas"] >= 2


def test_labels_select_what_they_mean() -> None:
    labels = {name: found["spec"]["template"]["metadata"]["labels"] for name, found in WORKLOADS.items()}
    for name, found in WORKLOADS.items():
        assert found["spec"]["selector"]["matchLabels"] == labels[name]
    for kind in ("Service", "PodDisruptionBudget"):
        for name, found in of(kind).items():
            selector = found["spec"]["selector"]
            assert selector.get("matchLabels", selector) == labels[name]
    for name, policy in of("NetworkPolicy").items():
        chosen = policy["spec"]["podSelector"]["matchLabels"]
        assert [who for who, has in labels.items() if chosen.items() <= has.items()] == (
            list(WORKLOADS) if name == "rejoin-default" else [name]
        )
    (path,) = of("Ingress")["rejoin"]["spec"]["rules"][0]["http"]["paths"]
    service = of("Service")[path["backend"]["service"]["name"]]
    assert path["backend"]["service"]["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
    assert service["spec"]["ports"][0]["targetPort"] == container("rejoin-api")["ports"][0]["name"]


def test_secrets_are_named_where_they_are_needed_and_nowhere_else() -> None:
    def secrets(name: str) -> set[str]:
        return {source["secretRef"]["name"] for source in container(name)["envFrom"] if "secretRef" in source}

    assert secrets("rejoin-api") == {"rejoin"}, "providers' keys are for workers"
    assert secrets("rejoin-worker") == {"rejoin", "rejoin-providers"}
    guide = (DEPLOY.parent / "docs" / "DEPLOYING.md").read_text()
    for name in ("rejoin", "rejoin-providers"):
        assert f"create secret generic {name} " in guide


def test_the_ingress_waits_for_as_long_as_an_answer_may_take_and_holds_nothing_back() -> None:
    annotations = of("Ingress")["rejoin"]["metadata"]["annotations"]
    said = {name.rpartition("/")[2]: value for name, value in annotations.items()}
    assert said["proxy-buffering"] == "off"
    assert int(said["proxy-read-timeout"]) > Settings(_env_file=None).job_timeout_s
    template = (DEPLOY / "nginx" / "rejoin.conf.template").read_text()
    assert f"proxy_read_timeout {said['proxy-read-timeout']}s;" in template
    assert f"client_max_body_size {said['proxy-body-size']};" in template
    assert Settings(_env_file=None).max_body_bytes == 1024 * 1024
    assert f"proxy_next_upstream {said['proxy-next-upstream']};" in template


def test_keda_asks_for_metrics_that_there_are_and_reckons_with_the_slots_that_there_are() -> None:
    assert SCALED["spec"]["scaleTargetRef"]["name"] in WORKLOADS
    slots = int(of("ConfigMap")["rejoin"]["data"]["REJOIN_MAX_JOBS"])
    triggers = {trigger["name"]: trigger for trigger in SCALED["spec"]["triggers"]}
    for trigger in triggers.values():
        named = set(re.findall(r"rejoin_\w+", trigger["metadata"]["query"]))
        assert named
        assert named <= METRICS
    assert int(triggers["used-slots"]["metadata"]["threshold"]) == int(0.7 * slots)
    assert triggers["used-slots"]["metricType"] == "AverageValue"
    assert triggers["oldest-job"]["metricType"] == "Value"


def test_api_processes_are_scaled_by_the_share_of_a_core_that_is_planned_with_and_never_to_one() -> None:
    target = SCALED_API["spec"]["scaleTargetRef"]
    assert WORKLOADS[target["name"]]["kind"] == target["kind"]
    (metric,) = SCALED_API["spec"]["metrics"]
    assert metric["resource"]["target"] == {"type": "AverageValue", "averageValue": f"{Load().busy * 1000:.0f}m"}
    for scaled, least in ((SCALED_API["spec"], "minReplicas"), (SCALED["spec"], "minReplicaCount")):
        assert scaled[least] == WORKLOADS[scaled["scaleTargetRef"]["name"]]["spec"]["replicas"] == 2
    down = SCALED_API["spec"]["behavior"]["scaleDown"]["policies"]
    assert down == [{"type": "Pods", "value": 1, "periodSeconds": 60}]


def test_event_servers_are_kept_like_the_first_one_and_reached_by_whom_they_serve() -> None:
    servers, service, inward, outward = documents(FOLDER / "events.yaml")
    pod, first = servers["spec"]["template"], WORKLOADS["rejoin-valkey"]["spec"]["template"]
    (only,), (valkey,) = pod["spec"]["containers"], first["spec"]["containers"]
    assert {**only, "resources": 0} == {**valkey, "resources": 0}
    assert servers["spec"]["volumeClaimTemplates"] == WORKLOADS["rejoin-valkey"]["spec"]["volumeClaimTemplates"]
    assert pod["spec"]["securityContext"] == first["spec"]["securityContext"]
    labels = pod["metadata"]["labels"]
    assert servers["spec"]["selector"]["matchLabels"] == labels == service["spec"]["selector"]
    assert service["spec"]["clusterIP"] == "None", "each pod has a name of its own"
    assert service["metadata"]["name"] == servers["spec"]["serviceName"]
    assert not of("Service")["rejoin-valkey"]["spec"]["selector"].items() <= labels.items()
    assert inward["spec"]["podSelector"]["matchLabels"] == labels
    assert inward["spec"]["ingress"] == of("NetworkPolicy")["rejoin-valkey"]["spec"]["ingress"]
    (who,) = outward["spec"]["podSelector"]["matchExpressions"]
    components = {WORKLOADS[name]["metadata"]["labels"]["app.kubernetes.io/component"] for name in OURS}
    assert set(who["values"]) == components
    (way,) = outward["spec"]["egress"]
    assert way["to"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    guide = (DEPLOY.parent / "docs" / "DEPLOYING.md").read_text()
    for pod_number in range(servers["spec"]["replicas"]):
        host = f"rejoin-events-{pod_number}.rejoin-events:6379"
        assert host in guide, "in REJOIN_STREAM_URLS of the secret"


def test_kustomize_builds_it() -> None:
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("there is no kubectl")
    built = subprocess.run([kubectl, "kustomize", str(FOLDER)], capture_output=True, text=True, check=True).stdout
    found = list(yaml.safe_load_all(built))
    assert len(found) == len(ALL)
    assert {document["metadata"]["namespace"] for document in found} == {"rejoin"}
    if kubeconform := shutil.which("kubeconform"):
        subprocess.run([kubeconform, "-strict", "-ignore-missing-schemas"], input=built, text=True, check=True)
