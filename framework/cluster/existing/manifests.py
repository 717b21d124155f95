"""What a run puts into a cluster that is not its own, apart from fakes and workloads: pure data.

kwok runs in the cluster, one Deployment for each shard of the fleet. A shard is a range of indexes, as large
as one kwok is known to carry, and its number is a label of its fakes, by which its kwok knows them. So the
number of shards is a function of the fleet's size alone, and no fake ever changes its shard.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from framework.cluster.existing.rights import KWOK_RULES
from framework.cluster.home import Home
from framework.cluster.kwokctl import kwok_documents
from framework.cluster.lease_budget import PRODUCTION_INTERVAL_S, LeaseBudget
from framework.run_objects import KWOK_PART, PART_LABEL, RUN_LABEL
from framework.units import KIB, MIB

SHARD_LABEL: Final = "kilonode.dev/shard"
FAKES_LABEL: Final = "kwok.x-k8s.io/node"
KWOK_RENEWALS_PER_S: Final = 712
"""The most that one kwok did on 2 CPUs beside everything else (docs/scaling.md, 25 November 2026)."""
NODES_PER_SHARD: Final = KWOK_RENEWALS_PER_S * PRODUCTION_INTERVAL_S
KWOK_IMAGE: Final = "registry.k8s.io/kwok/kwok:v{version}"
KWOK_CPU_S_PER_RENEWAL: Final = 0.000_56
KWOK_BYTES_PER_NODE: Final = 18 * KIB
KWOK_BYTES: Final = 49 * MIB
"""Costs of one kwok, by the same page."""
KWOK_CPU_MIN: Final = 0.05
CONFIG_FOLDER: Final = "/etc/kwok"
CONFIG_FILE: Final = "kwok.yaml"
KWOK_PORT: Final = 10247
_NAME: Final = "kwok"


@dataclass(frozen=True)
class Sharding:
    """Which kwok a fake belongs to."""

    nodes_per_shard: int = NODES_PER_SHARD

    def of(self, index: int) -> int:
        """The shard of the fake with this index."""
        return index // self.nodes_per_shard

    def shards(self, nodes: int) -> int:
        """How many a fleet of ``nodes`` has."""
        return math.ceil(nodes / self.nodes_per_shard)


def fake_labels(home: Home, sharding: Sharding, index: int) -> dict[str, str]:
    """What a fake's Node has beyond its usual labels."""
    return {**home.labels, SHARD_LABEL: str(sharding.of(index))}


def manage_selector(run: str, shard: int) -> str:
    """By which a shard's kwok knows its nodes."""
    return f"{FAKES_LABEL}=fake,{RUN_LABEL}={run},{SHARD_LABEL}={shard}"


def base_objects(home: Home, budget: LeaseBudget) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Path and body of what all shards share, in the order of creation."""
    core, rbac = "/api/v1/namespaces", "/apis/rbac.authorization.k8s.io/v1"
    space = home.namespace
    return (
        (core, _object("v1", "Namespace", home, space, cluster_wide=True)),
        (f"{core}/{space}/serviceaccounts", _object("v1", "ServiceAccount", home, _NAME)),
        (f"{rbac}/clusterroles", _cluster_role(home)),
        (f"{rbac}/clusterrolebindings", _cluster_role_binding(home)),
        (f"{core}/{space}/configmaps", _config_map(home, budget)),
    )


def _object(version: str, kind: str, home: Home, name: str, *, cluster_wide: bool = False) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {**home.labels, PART_LABEL: KWOK_PART}}
    if not cluster_wide:
        metadata["namespace"] = home.namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata}


def _cluster_role(home: Home) -> dict[str, Any]:
    made = _object("rbac.authorization.k8s.io/v1", "ClusterRole", home, home.namespace, cluster_wide=True)
    rules = [
        {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
        for group, resources, verbs in KWOK_RULES
    ]
    return made | {"rules": rules}


def _cluster_role_binding(home: Home) -> dict[str, Any]:
    version = "rbac.authorization.k8s.io/v1"
    made = _object(version, "ClusterRoleBinding", home, home.namespace, cluster_wide=True)
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": home.namespace}
    subject = {"kind": "ServiceAccount", "name": _NAME, "namespace": home.namespace}
    return made | {"roleRef": role, "subjects": [subject]}


def _config_map(home: Home, budget: LeaseBudget) -> dict[str, Any]:
    documents = kwok_documents(budget)
    # Each shard's flag says it instead.
    documents[0]["options"].pop("manageNodesWithLabelSelector")
    text = yaml.safe_dump_all(documents, sort_keys=False)
    return _object("v1", "ConfigMap", home, _NAME) | {"data": {CONFIG_FILE: text}}


def shard_name(shard: int) -> str:
    return f"{_NAME}-{shard}"


def deployments_path(home: Home) -> str:
    return f"/apis/apps/v1/namespaces/{home.namespace}/deployments"


def kwok_deployment(
    home: Home, shard: int, *, run: str, version: str, budget: LeaseBudget, sharding: Sharding
) -> dict[str, Any]:
    """The kwok of one shard."""
    labels = {**home.labels, PART_LABEL: KWOK_PART, SHARD_LABEL: str(shard)}
    made = _object("apps/v1", "Deployment", home, shard_name(shard))
    made["metadata"]["labels"] = labels
    made["spec"] = {
        "replicas": 1,
        # Two would renew the same leases.
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": _kwok_pod(shard, run=run, version=version, budget=budget, sharding=sharding),
        },
    }
    return made


def _kwok_pod(
    shard: int, *, run: str, version: str, budget: LeaseBudget, sharding: Sharding
) -> dict[str, Any]:
    off_fakes = {"key": FAKES_LABEL, "operator": "DoesNotExist"}
    terms = {"nodeSelectorTerms": [{"matchExpressions": [off_fakes]}]}
    container = {
        "name": _NAME,
        "image": KWOK_IMAGE.format(version=version),
        "imagePullPolicy": "IfNotPresent",
        "args": [
            f"--config={CONFIG_FOLDER}/{CONFIG_FILE}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-label-selector={manage_selector(run, shard)}",
            f"--node-lease-duration-seconds={budget.lease_s}",
            f"--server-address=0.0.0.0:{KWOK_PORT}",
            "--v=4",
        ],
        "ports": [{"name": "http", "containerPort": KWOK_PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 2},
        "resources": {"requests": kwok_requests(sharding.nodes_per_shard)},
        "volumeMounts": [{"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True}],
    }
    return {
        "serviceAccountName": _NAME,
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}},
        "tolerations": [
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
        ],
        "terminationGracePeriodSeconds": 2,
        "containers": [container],
        "volumes": [{"name": "config", "configMap": {"name": _NAME}}],
    }


def kwok_requests(nodes: int) -> Mapping[str, str]:
    """What one kwok for ``nodes`` fakes with production's leases needs, by what was measured."""
    cpus = max(KWOK_CPU_MIN, nodes / PRODUCTION_INTERVAL_S * KWOK_CPU_S_PER_RENEWAL)
    memory_bytes = KWOK_BYTES + nodes * KWOK_BYTES_PER_NODE
    return {"cpu": f"{math.ceil(cpus * 1000)}m", "memory": f"{math.ceil(memory_bytes / MIB)}Mi"}
