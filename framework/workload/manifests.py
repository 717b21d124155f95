"""What a DaemonSet Service is made of: pure data.

A pod of the ``adopted`` mode is what the DaemonSet controller of Kubernetes 1.37 would create
(``CreatePodTemplate`` in pkg/controller/daemon/util/daemonset_util.go) and the scheduler would bind, except
for its name, which here carries the node's index, and for the label of the revision, whose hash only the
controller can compute. Its status is what kwok's Stage ``pod-ready`` would give it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from framework.cluster import Call
from framework.fleet import INDEX_LABEL, node_address, node_name, zone
from framework.spec import ServiceSpec

NAMESPACE: Final = "default"
PODS_PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/pods"
SLICES_PATH: Final = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
SLICE_ENDPOINTS_MAX: Final = 100
"""kube-controller-manager's default of --max-endpoints-per-slice."""
REPLACEMENT_OFFSET: Final = 500_000
"""Between an endpoint's first and second address: half of the range of fake addresses."""
_IMAGE: Final = "registry.k8s.io/pause:3.10"


def port_name(port: int) -> str:
    return f"p{port}"


def service_manifest(spec: ServiceSpec) -> dict[str, Any]:
    """The Service; without selector in ``endpointslices`` mode."""
    selector = {} if spec.mode == "endpointslices" else {"selector": {"app": spec.workload}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": spec.name},
        "spec": {
            "ports": [
                {"name": port_name(port), "port": port, "targetPort": port, "protocol": "TCP"}
                for port in spec.ports
            ],
            **selector,
        },
    }


def daemonset_manifest(spec: ServiceSpec) -> dict[str, Any]:
    """A DaemonSet on the fakes with an index below ``spec.endpoints``.

    ``OnDelete``, because another number of endpoints changes the template, and the pods that stay must not be
    replaced for it.
    """
    expressions = [
        {"key": "kwok.x-k8s.io/node", "operator": "In", "values": ["fake"]},
        {"key": INDEX_LABEL, "operator": "Lt", "values": [str(spec.endpoints)]},
    ]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": spec.workload},
        "spec": {
            "selector": {"matchLabels": {"app": spec.workload}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": {"app": spec.workload}},
                "spec": _pod_spec(spec, {"matchExpressions": expressions}),
            },
        },
    }


def pod_calls(spec: ServiceSpec, *, daemonset_uid: str, indexes: Iterable[int]) -> Iterator[Call]:
    """The requests that create the DaemonSet's pods on the fakes with these indexes."""
    for index in indexes:
        yield Call("POST", PODS_PATH, msgspec.json.encode(_pod_manifest(spec, daemonset_uid, index)))


def pod_status_calls(spec: ServiceSpec, *, daemonset_uid: str, indexes: Iterable[int]) -> Iterator[Call]:
    """The requests that make these pods Ready: kwok's patch costs the API server twice as much."""
    for index in indexes:
        pod = _pod_manifest(spec, daemonset_uid, index)
        body = {"metadata": pod["metadata"], "status": _ready_status(pod["spec"], node_address(index))}
        yield Call("PUT", f"{PODS_PATH}/{pod_name(spec, index)}/status", msgspec.json.encode(body))


def pod_name(spec: ServiceSpec, index: int) -> str:
    return f"{spec.workload}-{index:06d}"


def slice_calls(spec: ServiceSpec) -> Iterator[Call]:
    """The requests that create the Service's EndpointSlices."""
    for first in range(0, spec.endpoints, SLICE_ENDPOINTS_MAX):
        yield Call("POST", SLICES_PATH, msgspec.json.encode(_slice_manifest(spec, first)))


def replacement_calls(spec: ServiceSpec, replaced: Set[int], indexes: Iterable[int]) -> Iterator[Call]:
    """The requests that change the slices of ``indexes``; those in ``replaced`` have their second address."""
    for first in sorted({index - index % SLICE_ENDPOINTS_MAX for index in indexes}):
        body = _slice_manifest(spec, first, replaced)
        yield Call("PUT", f"{SLICES_PATH}/{body['metadata']['name']}", msgspec.json.encode(body))


def endpoint_address(index: int, replaced: Set[int] = frozenset()) -> str:
    """Where the endpoint of node ``index`` is; a replaced one is where no other was before."""
    return node_address(index + (REPLACEMENT_OFFSET if index in replaced else 0))


def _pod_manifest(spec: ServiceSpec, daemonset_uid: str, index: int) -> dict[str, Any]:
    name = node_name(index)
    on_this_node = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(spec, index),
            "generateName": f"{spec.workload}-",
            "labels": {"app": spec.workload, "pod-template-generation": "1"},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "DaemonSet",
                    "name": spec.workload,
                    "uid": daemonset_uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {**_pod_spec(spec, on_this_node), "nodeName": name},
    }


def _pod_spec(spec: ServiceSpec, term: dict[str, Any]) -> dict[str, Any]:
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    container = {
        "name": "app",
        "image": _IMAGE,
        "ports": [{"name": port_name(port), "containerPort": port, "protocol": "TCP"} for port in spec.ports],
    }
    return {
        "hostNetwork": True,
        "affinity": {"nodeAffinity": required},
        "automountServiceAccountToken": False,
        "containers": [container],
        "terminationGracePeriodSeconds": 1,
        "tolerations": [{"operator": "Exists"}],
    }


def _ready_status(pod_spec: dict[str, Any], address: str) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("Initialized", "Ready", "ContainersReady")
        ],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "ready": True,
                "restartCount": 0,
                "state": {"running": {"startedAt": now}},
            }
            for container in pod_spec["containers"]
        ],
        "hostIP": address,
        "hostIPs": [{"ip": address}],
        "podIP": address,
        "podIPs": [{"ip": address}],
    }


def _slice_manifest(spec: ServiceSpec, first: int, replaced: Set[int] = frozenset()) -> dict[str, Any]:
    indexes = range(first, min(first + SLICE_ENDPOINTS_MAX, spec.endpoints))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{spec.name}-{first:06d}",
            "labels": {
                "kubernetes.io/service-name": spec.name,
                "endpointslice.kubernetes.io/managed-by": "kilonode.dev",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": port_name(port), "port": port, "protocol": "TCP"} for port in spec.ports],
        "endpoints": [
            {
                "addresses": [endpoint_address(index, replaced)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": node_name(index),
                "zone": zone(index),
            }
            for index in indexes
        ],
    }
