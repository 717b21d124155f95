"""What a DaemonSet Service is made of: pure data.

A pod of the ``adopted`` mode is what the DaemonSet controller of Kubernetes 1.37 would create
(``CreatePodTemplate`` in pkg/controller/daemon/util/daemonset_util.go) and the scheduler would bind, except
for its name, which here carries the node's index, and for the label of the revision, whose hash only the
controller can compute. Its status is what kwok's Stage ``pod-ready`` would give it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from datetime import UTC, datetime
from itertools import product
from typing import Any, Final

import msgspec

from framework.cluster import OWN_CLUSTER, Call, Home
from framework.fleet import ENDPOINTS_V6, INDEX_LABEL, node_address, node_name, zone
from framework.outcome import Family
from framework.spec import ManyServicesSpec, ServiceSpec

NAMESPACE: Final = OWN_CLUSTER.namespace
"""Where workloads are in a cluster of the run's own."""
SLICE_ENDPOINTS_MAX: Final = 100
"""kube-controller-manager's default of --max-endpoints-per-slice."""
REPLACEMENT_OFFSET: Final = 500_000
"""Between an endpoint's first and second address: half of the range of fake addresses."""
SENTINEL_ENDPOINTS: Final = 2
"""One more than ``default/kubernetes`` has, which kube-proxy's log counts as well."""
MANAGED_BY_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
MANAGED_BY: Final = "kilonode.dev"
GROUP_LABEL: Final = "kilonode.dev/workload"
"""What belongs to one workload and is withdrawn with it."""
_IMAGE: Final = "registry.k8s.io/pause:3.10"


def port_name(port: int) -> str:
    return f"p{port}"


def service_manifests(spec: ServiceSpec, *, home: Home = OWN_CLUSTER) -> tuple[dict[str, Any], ...]:
    """The measured Service, and those that share its endpoints."""
    return tuple(_service_manifest(spec, name, group=spec.name, home=home) for name in spec.names)


def sentinel(spec: ServiceSpec) -> ServiceSpec:
    """The Service that is created after headless ones and their slices.

    kube-proxy's watches leave those out, so it makes no sync for them. When the sentinel is programmed,
    kube-proxy has got past them and passed them over.
    """
    return ServiceSpec(name=f"{spec.name}-sentinel", endpoints=SENTINEL_ENDPOINTS, mode="endpointslices")


def sentinel_calls(spec: ServiceSpec, *, home: Home = OWN_CLUSTER) -> Iterator[Call]:
    """The requests that create the sentinel of a headless Service."""
    one = sentinel(spec)
    yield from slice_calls(one, group=spec.name, home=home)
    body = _service_manifest(one, one.name, group=spec.name, home=home)
    yield Call("POST", home.services_path, msgspec.json.encode(body))


def _service_manifest(spec: ServiceSpec, name: str, *, group: str, home: Home) -> dict[str, Any]:
    """One Service; without selector in ``endpointslices`` mode.

    The EndpointSlice controller copies a Service's labels to its slices.
    """
    selector = {} if spec.mode == "endpointslices" else {"selector": {"app": spec.workload}}
    both = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": list(families(spec))}
    distribution = {"trafficDistribution": spec.traffic_distribution}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": {**home.labels, GROUP_LABEL: group}},
        "spec": {
            "ports": [
                {"name": port_name(port), "port": port, "targetPort": port, "protocol": spec.protocol}
                for port in spec.ports
            ],
            "sessionAffinity": spec.session_affinity,
            "internalTrafficPolicy": spec.internal_traffic_policy,
            **(both if spec.dual_stack else {}),
            **(distribution if spec.traffic_distribution else {}),
            **({"clusterIP": "None"} if spec.headless else {}),
            **selector,
        },
    }


def many_services_calls(spec: ManyServicesSpec, *, home: Home = OWN_CLUSTER) -> Iterator[Call]:
    """The requests that create many small Services, each after its slices."""
    for number, name in enumerate(spec.names):
        one = ServiceSpec(name=name, endpoints=spec.endpoints_each, mode=spec.mode, ports=spec.ports)
        first = number * spec.endpoints_each
        yield from slice_calls(one, group=spec.name, first_index=first, home=home)
        body = _service_manifest(one, name, group=spec.name, home=home)
        yield Call("POST", home.services_path, msgspec.json.encode(body))


def daemonset_manifest(spec: ServiceSpec, *, home: Home = OWN_CLUSTER) -> dict[str, Any]:
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
        "metadata": {"name": spec.workload, "labels": dict(home.labels)},
        "spec": {
            "selector": {"matchLabels": {"app": spec.workload}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": {**home.labels, "app": spec.workload}},
                "spec": _pod_spec(spec, {"matchExpressions": expressions}),
            },
        },
    }


def pod_calls(spec: ServiceSpec, *, daemonset_uid: str, indexes: Iterable[int]) -> Iterator[Call]:
    """The requests that create the DaemonSet's pods on the fakes with these indexes."""
    for index in indexes:
        yield Call(
            "POST", OWN_CLUSTER.pods_path, msgspec.json.encode(_pod_manifest(spec, daemonset_uid, index))
        )


def pod_status_calls(spec: ServiceSpec, *, daemonset_uid: str, indexes: Iterable[int]) -> Iterator[Call]:
    """The requests that make these pods Ready: kwok's patch costs the API server twice as much."""
    for index in indexes:
        pod = _pod_manifest(spec, daemonset_uid, index)
        body = {"metadata": pod["metadata"], "status": _ready_status(pod["spec"], node_address(index))}
        yield Call(
            "PUT", f"{OWN_CLUSTER.pods_path}/{pod_name(spec, index)}/status", msgspec.json.encode(body)
        )


def pod_name(spec: ServiceSpec, index: int) -> str:
    return f"{spec.workload}-{index:06d}"


def slice_calls(
    spec: ServiceSpec, *, group: str | None = None, first_index: int = 0, home: Home = OWN_CLUSTER
) -> Iterator[Call]:
    """The requests that create the EndpointSlices of every Service, on fakes from ``first_index`` on.

    They are labelled as the group's, by default the Service's own.
    """
    end = first_index + spec.endpoints
    for name, family in product(spec.names, families(spec)):
        for first in range(first_index, end, SLICE_ENDPOINTS_MAX):
            indexes = range(first, min(first + SLICE_ENDPOINTS_MAX, end))
            body = _slice_manifest(spec, name, family, indexes, group=group or spec.name, home=home)
            yield Call("POST", home.slices_path, msgspec.json.encode(body))


def replacement_calls(
    spec: ServiceSpec, replaced: Set[int], indexes: Iterable[int], *, home: Home = OWN_CLUSTER
) -> Iterator[Call]:
    """The requests that change the slices of ``indexes``; those in ``replaced`` have their second address."""
    for first in sorted({index - index % SLICE_ENDPOINTS_MAX for index in indexes}):
        part = range(first, min(first + SLICE_ENDPOINTS_MAX, spec.endpoints))
        for name, family in product(spec.names, families(spec)):
            body = _slice_manifest(spec, name, family, part, group=spec.name, home=home, replaced=replaced)
            yield Call("PUT", f"{home.slices_path}/{body['metadata']['name']}", msgspec.json.encode(body))


def families(spec: ServiceSpec) -> tuple[Family, ...]:
    """The IP families in which a Service has addresses, and its endpoints too."""
    return ("IPv4", "IPv6") if spec.dual_stack else ("IPv4",)


def endpoint_address(index: int, replaced: Set[int] = frozenset(), family: Family = "IPv4") -> str:
    """Where the endpoint of node ``index`` is; a replaced one is where no other was before.

    Fake nodes have no IPv6 address: that of an endpoint has the same number in a range of its own.
    """
    at = index + (REPLACEMENT_OFFSET if index in replaced else 0)
    return node_address(at) if family == "IPv4" else str(ENDPOINTS_V6[at + 1])


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
        "ports": [
            {"name": port_name(port), "containerPort": port, "protocol": spec.protocol} for port in spec.ports
        ],
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


def _slice_manifest(
    spec: ServiceSpec,
    name: str,
    family: Family,
    indexes: range,
    *,
    group: str,
    home: Home,
    replaced: Set[int] = frozenset(),
) -> dict[str, Any]:
    """A slice as the EndpointSlice controller would write it, but for its manager.

    Its hints are those of ``ReconcileHints`` (k8s.io/endpointslice/trafficdist): each endpoint is for its own
    zone. Slices of a headless Service carry the label by which kube-proxy leaves them out.
    """
    suffix = "" if family == "IPv4" else "-v6"
    headless = {"service.kubernetes.io/headless": ""} if spec.headless else {}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{indexes.start:06d}{suffix}",
            "labels": {
                **home.labels,
                "kubernetes.io/service-name": name,
                MANAGED_BY_LABEL: MANAGED_BY,
                GROUP_LABEL: group,
                **headless,
            },
        },
        "addressType": family,
        "ports": [{"name": port_name(port), "port": port, "protocol": spec.protocol} for port in spec.ports],
        "endpoints": [
            {
                "addresses": [endpoint_address(index, replaced, family)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": node_name(index),
                "zone": zone(index),
                **({"hints": {"forZones": [{"name": zone(index)}]}} if spec.traffic_distribution else {}),
            }
            for index in indexes
        ],
    }
