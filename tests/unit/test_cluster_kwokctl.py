"""What kwokctl is told: closed to the host, exact binaries, and no nodes but the fakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from framework.binaries import Binary
from framework.cluster import RenewalCost, lease_budget
from framework.cluster.kwokctl import configuration

VERSIONS = {
    "etcd": "3.6.6",
    "kube-apiserver": "1.37.2",
    "kube-controller-manager": "1.37.2",
    "kube-scheduler": "1.37.2",
    "kwok": "0.8.0",
    "kwokctl": "0.8.0",
    "kubectl": "1.37.2",
}
BINARIES = {
    name: Binary(name, version, Path("/cache", name), "download", "go1.26", "0" * 64)
    for name, version in VERSIONS.items()
}


COST = RenewalCost(cpu_s=0.002, cpus=2)
ALL = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")


def documents(
    nodes: int | None = 100, components: tuple[str, ...] = ALL, **envs: dict[str, str]
) -> list[dict[str, Any]]:
    text = configuration(
        binaries=BINARIES,
        components=components,
        budget=lease_budget(nodes, COST) if nodes is not None else None,
        envs={name.replace("_", "-"): variables for name, variables in envs.items()},
        address="198.18.3.1",
        cache=Path("/state/cache"),
        pki=Path("/state/pki"),
    )
    return list(yaml.safe_load_all(text))


def options(nodes: int = 100) -> dict[str, Any]:
    found: dict[str, Any] = documents(nodes)[0]["options"]
    return found


def arguments(component: str) -> dict[str, str]:
    (patch,) = [patch for patch in documents()[0]["componentsPatches"] if patch["name"] == component]
    return {argument["key"]: argument["value"] for argument in patch["extraArgs"]}


def test_is_kwokctls_document_kwoks_and_the_stages() -> None:
    kinds = [document["kind"] for document in documents()]
    assert kinds == ["KwokctlConfiguration", "KwokConfiguration", "Stage", "Stage", "Stage"]


def test_everything_but_the_api_server_listens_on_loopback() -> None:
    assert options()["bindAddress"] == "127.0.0.1"
    bound = {
        patch["name"]: argument["value"]
        for patch in documents()[0]["componentsPatches"]
        for argument in patch["extraArgs"]
        if "bind" in argument["key"] or "listen" in argument["key"]
    }
    assert bound == {"kube-apiserver": "0.0.0.0"}  # noqa: S104 - what is asserted


def test_the_api_server_is_valid_on_the_bridge() -> None:
    assert options()["kubeApiserverCertSANs"] == ["198.18.3.1"]
    assert arguments("kube-apiserver")["advertise-address"] == "198.18.3.1"


def test_kwok_manages_the_fakes_only() -> None:
    assert arguments("kwok-controller")["manage-all-nodes"] == "false"
    assert arguments("kwok-controller")["manage-nodes-with-label-selector"] == "kwok.x-k8s.io/node=fake"
    kwok_options = documents()[1]["options"]
    assert kwok_options["manageAllNodes"] is False
    assert kwok_options["manageNodesWithLabelSelector"] == "kwok.x-k8s.io/node=fake"


def test_nothing_is_left_to_download() -> None:
    found = options()
    paths = {key: value for key, value in found.items() if key.endswith("Binary")}
    assert set(paths.values()) == {f"/cache/{name}" for name in VERSIONS if name != "kwokctl"}
    versions = (found["kubeVersion"], found["etcdVersion"], found["kwokVersion"])
    assert versions == ("v1.37.2", "3.6.6", "v0.8.0")


@pytest.mark.parametrize(("nodes", "lease_s", "grace_ms"), [(100, 40, 50_000), (10_000, 150, 113_000)])
def test_the_budget_is_not_multiplied(nodes: int, lease_s: int, grace_ms: int) -> None:
    found = options(nodes)
    assert found["heartbeatFactor"] == 1
    assert found["nodeLeaseDurationSeconds"] == lease_s
    assert found["kubeControllerManagerNodeMonitorGracePeriodMilliseconds"] == grace_ms


def test_kwok_keeps_its_share_of_requests() -> None:
    kwok_options = documents(10_000)[1]["options"]
    assert kwok_options["nodeLeaseParallelism"] == 32
    assert kwok_options["podPlayStageParallelism"] == 32


def test_storage_runs_alone_before_there_is_a_budget() -> None:
    document, kwok_document, *_ = documents(None, ("etcd", "kube-apiserver"))
    assert document["options"]["components"] == ["etcd", "kube-apiserver"]
    assert "nodeLeaseDurationSeconds" not in document["options"]
    assert "nodeLeaseParallelism" not in kwok_document["options"]
    assert documents()[0]["options"]["components"] == [*ALL[:-1], "kwok-controller"]


def test_the_controllers_metrics_are_served_with_the_clusters_own_certificate() -> None:
    assert arguments("kube-controller-manager")["tls-cert-file"] == "/state/pki/admin.crt"


def test_environment_variables_reach_their_component() -> None:
    patches = {
        patch["name"]: patch
        for patch in documents(
            kube_apiserver={"GOGC": "400"}, kwok={"GOGC": "50"}, etcd={"A": "1", "B": "2"}
        )[0]["componentsPatches"]
    }
    assert patches["kube-apiserver"]["extraEnvs"] == [{"name": "GOGC", "value": "400"}]
    assert patches["kube-apiserver"]["extraArgs"]
    assert patches["kwok-controller"]["extraEnvs"] == [{"name": "GOGC", "value": "50"}]
    assert [env["name"] for env in patches["etcd"]["extraEnvs"]] == ["A", "B"]
    assert "extraEnvs" not in patches["kube-scheduler"]


def test_one_call_leaves_nothing_for_the_next() -> None:
    documents(kube_scheduler={"GOGC": "1"})
    assert not any("extraEnvs" in patch for patch in documents()[0]["componentsPatches"])
