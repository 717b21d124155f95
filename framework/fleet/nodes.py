"""What a fake node looks like: pure data, one node and one lease for each index.

A fake node is registered Ready, with an InternalIP of its own, so that hostNetwork pods on it have
distinct addresses (kwok's default pod CIDR is a /24 and would repeat them). It carries the label by which
kwok knows its own nodes, and its index, by which a DaemonSet's node affinity picks an exact number of nodes.

It also carries what the controllers would add to a node that joins, so that they leave it alone: at 100,000
nodes the beta labels and the TTL annotation are a PATCH for each. Fakes are spread over zones, as in a real
cluster; with all in one kube-scheduler would look through the whole zone for each node that it adds
(``addNode`` in pkg/scheduler/backend/cache/node_tree.go: a minute of CPU at 100,000).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from framework.cluster import PRODUCTION_LEASE_S
from framework.run_objects import LEASE_NAMESPACE

FAKE_SELECTOR: Final = "kwok.x-k8s.io/node=fake"
INDEX_LABEL: Final = "kilonode.dev/index"
FAKE_RANGE: Final = ipaddress.IPv4Network("10.64.0.0/12")
"""A million addresses, apart from the service range 10.96.0.0/12 and from the node bridge."""
ENDPOINTS_V6: Final = ipaddress.IPv6Network("fd00:10:64::/64")
"""Where IPv6 endpoints are. Fake nodes have no IPv6 address."""
REGION: Final = "region-1"
ZONES: Final = 16
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
"""The only label whose change lets kube-proxy sync everything (NodeTopologyConfig in pkg/proxy/config)."""
REAL_NODE_ZONE: Final = "zone-0"
"""A real node shares a zone with fakes. Alone in one, its death would be a full disruption of the zone, in
which the node controller evicts nobody."""
_TTLS_S: Final = ((100, 0), (500, 15), (1000, 30), (2000, 60))
_TTL_S_MAX: Final = 300
"""Largest cluster and what the TTL controller annotates its nodes with (``ttlBoundaries`` in
pkg/controller/ttl/ttl_controller.go)."""
_CAPACITY: Final = {"cpu": "32", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi"}
_HEALTHY: Final = (
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
)


FAKE_PREFIX: Final = "fake-"


def node_name(index: int) -> str:
    """``fake-000042``: sorts by index up to a million."""
    return f"{FAKE_PREFIX}{index:06d}"


def node_address(index: int) -> str:
    """The node's InternalIP, distinct for each index from 0 to a million."""
    return str(FAKE_RANGE[index + 1])


def zone(index: int) -> str:
    return f"zone-{index % ZONES}"


def _no_labels(_index: int) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Belonging:
    """What fakes carry in a cluster that is not the run's own, where they stand among its nodes.

    ``node_labels`` are of a Node by its index, ``lease_labels`` of every Lease. ``is_guest``: others schedule
    pods here, which a taint keeps off, and others' DaemonSets tolerate every taint. Nearly all of those
    choose nodes by their operating system, so a guest does not say which it has.
    """

    node_labels: Callable[[int], Mapping[str, str]] = _no_labels
    lease_labels: Mapping[str, str] = field(default_factory=dict)
    is_guest: bool = False


OWN: Final = Belonging()
_TAINT: Final = {"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}
_OS_LABELS: Final = ("beta.kubernetes.io/os", "kubernetes.io/os")


def node_body(index: int, *, fleet: int, version: str, now: datetime, belonging: Belonging = OWN) -> bytes:
    """The JSON of a Ready Node in a ``fleet`` of so many. ``version`` is the kubelet version it claims."""
    name = node_name(index)
    ttl_s = next((ttl_s for nodes, ttl_s in _TTLS_S if fleet <= nodes), _TTL_S_MAX)
    stamp = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions = [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastHeartbeatTime": stamp,
            "lastTransitionTime": stamp,
        }
        for kind, status, reason, message in _HEALTHY
    ]
    node: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": str(ttl_s)},
            "labels": {
                "kwok.x-k8s.io/node": "fake",
                INDEX_LABEL: str(index),
                "beta.kubernetes.io/arch": "amd64",
                "beta.kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "node.kubernetes.io/instance-type": "fake",
                "topology.kubernetes.io/region": REGION,
                ZONE_LABEL: zone(index),
            },
        },
        "spec": {"taints": [_TAINT]} if belonging.is_guest else {},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": node_address(index)},
                {"type": "Hostname", "address": name},
            ],
            "allocatable": _CAPACITY,
            "capacity": _CAPACITY,
            "conditions": conditions,
            "nodeInfo": {
                "architecture": "amd64",
                "bootID": "",
                "containerRuntimeVersion": "kwok",
                "kernelVersion": "fake",
                "kubeProxyVersion": "",
                "kubeletVersion": f"v{version}",
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": "fake",
                "systemUUID": "",
            },
        },
    }
    labels: dict[str, str] = node["metadata"]["labels"]
    labels.update(belonging.node_labels(index))
    if belonging.is_guest:
        for label in _OS_LABELS:
            del labels[label]
    return msgspec.json.encode(node)


def lease_body(index: int, *, now: datetime, belonging: Belonging = OWN) -> bytes:
    """The JSON of the node's Lease, without a holder: kwok takes it over at its first renewal.

    With that kwok also writes its own duration into it.
    """
    lease: dict[str, Any] = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node_name(index), "namespace": LEASE_NAMESPACE},
        "spec": {
            "leaseDurationSeconds": PRODUCTION_LEASE_S,
            "renewTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        },
    }
    if belonging.lease_labels:
        lease["metadata"]["labels"] = dict(belonging.lease_labels)
    return msgspec.json.encode(lease)
