"""The manifests of deploy/kubernetes are what Kubernetes' own schemas allow, and tell Plait only what it knows."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from plait.serve import planned
from plait.settings import Settings, fields, load

ROOT = Path(__file__).resolve().parents[3]
MANIFESTS = [
    document
    for file in sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(file.read_text())
    if document is not None
]
VERSIONS = ("1.28", "1.31", "1.34", "1.36")
"""Versions of Kubernetes."""
LABELS = {"app.kubernetes.io/name": "plait"}


def named(kind: str, name: str = "plait") -> dict[str, Any]:
    (found,) = [each for each in MANIFESTS if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return dict(found)


POD = named("StatefulSet")["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def arguments(pod: int) -> list[str]:
    """As a pod's broker gets them."""
    known = {"$(POD_NAME)": f"plait-{pod}", "$(POD_NAMESPACE)": "shop"}
    told = list(CONTAINER["args"])
    for variable, value in known.items():
        told = [argument.replace(variable, value) for argument in told]
    return [argument for argument in told if not argument.startswith("--cluster-secret-file")]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda each: f"{each['kind']}-{each['metadata']['name']}")
def test_a_manifest_is_what_the_schema_allows(manifest: dict[str, Any], version: str) -> None:
    assert kubernetes_validate.validate(manifest, version, strict=True) == version


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "replicas"), "three"),
        (("spec", "podManagmentPolicy"), "Parallel"),
        (("spec", "serviceName"), 7),
        (("spec", "template", "spec", "containers"), {}),
        (("spec", "template", "spec", "securityContext", "runAsUsr"), 1),
    ],
)
def test_a_mistake_would_be_found(path: tuple[str, ...], value: Any) -> None:
    broken = deepcopy(named("StatefulSet"))
    at = broken
    for name in path[:-1]:
        at = at[name]
    at[path[-1]] = value
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_every_argument_is_a_setting() -> None:
    flags = {field.flag for field in fields()}
    assert {argument.partition("=")[0] for argument in CONTAINER["args"]} <= flags
    assert "--cluster-secret-file=/etc/plait/secret" in CONTAINER["args"]
    for variable in CONTAINER["env"]:
        assert not variable["name"].startswith("PLAIT_")


def test_each_pod_is_one_of_the_founders_and_later_ones_join() -> None:
    for pod in range(3):
        found = planned(load(arguments(pod), {})).addresses
        assert found.node_id == pod + 1
        assert found.initial == {node: (f"plait-{node - 1}.plait-nodes.shop.svc", 4151) for node in (1, 2, 3)}
        assert found.native_told == (f"plait-{pod}.plait-nodes.shop.svc", 4150)
    later = planned(load(arguments(3), {})).addresses
    assert later.initial is None
    assert len(later.join) == 3


def test_ports_are_those_that_plait_listens_on_and_services_and_probes_use() -> None:
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert ports == {"native": 4150, "peer": 4151, "http": 4152}
    told = dict(argument.removeprefix("--").split("=", 1) for argument in CONTAINER["args"] if "=" in argument)
    for name, port in ports.items():
        assert told[name] == f"0.0.0.0:{port}"
    assert Settings().native.endswith(f":{ports['native']}")
    for service in ("plait", "plait-nodes"):
        for port in named("Service", service)["spec"]["ports"]:
            assert ports[port["targetPort"]] == port["port"]
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert probes["readiness"]["path"] == "/readyz"
    assert probes["liveness"]["path"] == probes["startup"]["path"] == "/healthz"


def test_everything_is_about_the_same_pods() -> None:
    assert named("StatefulSet")["spec"]["template"]["metadata"]["labels"] == LABELS
    assert named("StatefulSet")["spec"]["selector"]["matchLabels"] == LABELS
    assert named("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == LABELS
    assert named("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == LABELS
    assert named("Service")["spec"]["selector"] == named("Service", "plait-nodes")["spec"]["selector"] == LABELS
    assert named("StatefulSet")["spec"]["serviceName"] == "plait-nodes"
    assert named("Service", "plait-nodes")["spec"]["clusterIP"] == "None"


def test_only_pods_of_the_set_reach_the_nodes_port() -> None:
    anyone, nodes = named("NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in anyone["ports"]] == ["native", "http"]
    assert [port["port"] for port in nodes["ports"]] == ["peer"]
    assert nodes["from"] == [{"podSelector": {"matchLabels": LABELS}}]


def test_a_pod_may_do_little_and_runs_as_the_images_user() -> None:
    assert POD["securityContext"]["runAsNonRoot"]
    assert f"USER {POD['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    assert CONTAINER["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {mount["name"]: mount["mountPath"] for mount in CONTAINER["volumeMounts"]}
    (volume,) = POD["volumes"]
    assert volume["secret"]["secretName"] == named("Secret", "plait-cluster")["metadata"]["name"]
    (claim,) = named("StatefulSet")["spec"]["volumeClaimTemplates"]
    assert mounts == {claim["metadata"]["name"]: "/data", volume["name"]: "/etc/plait"}


def test_the_secret_has_to_be_filled_in() -> None:
    assert named("Secret", "plait-cluster")["stringData"] == {"secret": ""}
