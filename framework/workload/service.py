"""A Service with an endpoint on every node, made in one of two ways behind one face.

``native``: a real DaemonSet, whose pods the real DaemonSet controller creates and kwok makes Ready, and a
real Service, for which the real EndpointSlice controller writes the slices. The pods use the host network, so
each endpoint has its node's address and all are distinct. A node affinity on the fakes' index picks exactly
as many nodes as asked and keeps the DaemonSet off real nodes, whose kubelet has no image for it.

``endpointslices``: a Service without selector and slices written by the framework, 100 endpoints each as the
real controller would. No pods, seconds instead of minutes; what a node sees is the same kind of object.

Both separate *preparing* (pods) from *applying* (the Service, with the slices following): applying is the
moment at which nodes begin to pay.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import msgspec

from framework.cluster import ApiEndpoint, Bulk, Call, run_bulk
from framework.errors import KilonodeError
from framework.fleet import INDEX_LABEL, node_address, node_name
from framework.lazy import LazyModule
from framework.outcome import Record
from framework.spec import ServiceSpec
from framework.wait import wait_until

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

NAMESPACE: Final = "default"
SLICE_ENDPOINTS_MAX: Final = 100
"""kube-controller-manager's default of --max-endpoints-per-slice."""
PODS_STALL_S: Final = 120.0
PODS_TIMEOUT_S: Final = 3600.0
ENDPOINTS_TIMEOUT_S: Final = 300.0
DELETE_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.25
_IMAGE: Final = "registry.k8s.io/pause:3.10"


class Endpoints(Record, frozen=True, kw_only=True):
    """The Service's endpoints as the API server holds them."""

    slices: int
    ready: int
    distinct_addresses: int


class _Conditions(msgspec.Struct):
    ready: bool | None = None


class _Endpoint(msgspec.Struct):
    addresses: list[str]
    conditions: _Conditions = msgspec.field(default_factory=_Conditions)


class _Slice(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None


class DaemonSetService:
    """One Service; ``prepare`` it, ``apply`` it, ``delete`` it."""

    def __init__(self, spec: ServiceSpec, endpoint: ApiEndpoint) -> None:
        self.spec = spec
        self._endpoint = endpoint
        self._client = endpoint.client()
        self._core = kubernetes.client.CoreV1Api(self._client)
        self._applied_s: float | None = None
        self._apps = kubernetes.client.AppsV1Api(self._client)

    @property
    def full_name(self) -> str:
        """``namespace/name``, as kube-proxy names it in its rules."""
        return f"{NAMESPACE}/{self.spec.name}"

    def prepare(self, on_done: Callable[[int], object] = int) -> None:
        """Have the pods Ready (native mode). ``on_done`` hears how many are.

        Raises KilonodeError when no further pod turns Ready for two minutes.
        """
        if self.spec.mode == "native":
            self._put_daemonset()
            self._wait_for_pods(on_done)

    def apply(self) -> float:
        """Create the Service; its endpoints follow. Returns before they are complete.

        Gives the moment of creation (CLOCK_BOOTTIME, seconds). One that is there stays, so that several nodes
        can be measured under it.
        """
        if self._applied_s is None:
            self._applied_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            self._create()
        return self._applied_s

    def _create(self) -> None:
        self._core.create_namespaced_service(NAMESPACE, service_manifest(self.spec))
        if self.spec.mode == "endpointslices":
            run_bulk(lambda bulk: bulk.each(slice_calls(self.spec)), self._endpoint)

    def wait_for_endpoints(self) -> Endpoints:
        """Wait until the API server holds exactly the asked endpoints, all Ready and distinct."""
        last: list[Endpoints] = []

        def complete() -> Endpoints | None:
            last[:] = [self.endpoints()]
            found = last[0]
            good = found.ready == found.distinct_addresses == self.spec.endpoints
            return found if good else None

        return wait_until(
            complete,
            what=f"{self.spec.endpoints} endpoints of {self.full_name}",
            timeout_s=ENDPOINTS_TIMEOUT_S,
            interval_s=_POLL_S,
            describe=lambda: str(last),
            remedy="look at kube-controller-manager.log",
        )

    def endpoints(self) -> Endpoints:
        """Read the Service's slices, in pages."""
        path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"

        async def read(bulk: Bulk) -> Endpoints:
            slices = ready = 0
            addresses: set[str] = set()
            selector = f"kubernetes.io/service-name={self.spec.name}"
            async for page in bulk.pages(path, _Slice, selector=selector):
                slices += len(page)
                for entry in (entry for piece in page for entry in piece.endpoints or ()):
                    ready += entry.conditions.ready is not False
                    addresses.update(entry.addresses)
            return Endpoints(slices=slices, ready=ready, distinct_addresses=len(addresses))

        found: Endpoints = run_bulk(read, self._endpoint)
        return found

    def withdraw(self) -> None:
        """Delete the Service and its slices, and keep the pods."""
        self._applied_s = None
        self._ignore_missing(self._core.delete_namespaced_service, self.spec.name, NAMESPACE)
        if self.spec.mode == "endpointslices":
            discovery = kubernetes.client.DiscoveryV1Api(self._client)
            discovery.delete_collection_namespaced_endpoint_slice(
                NAMESPACE, label_selector=f"kubernetes.io/service-name={self.spec.name}"
            )
        wait_until(
            lambda: True if self.endpoints().slices == 0 else None,
            what=f"the slices of {self.full_name} gone",
            timeout_s=ENDPOINTS_TIMEOUT_S,
            interval_s=_POLL_S,
        )

    def delete(self) -> None:
        """Delete everything; the pods go with the DaemonSet, by the garbage collector."""
        self.withdraw()
        self._ignore_missing(self._apps.delete_namespaced_daemon_set, self.spec.name, NAMESPACE)

    def close(self) -> None:
        """Close the client; what it made stays."""
        self._client.close()

    def _put_daemonset(self) -> None:
        body = daemonset_manifest(self.spec)
        try:
            self._apps.create_namespaced_daemon_set(NAMESPACE, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            self._apps.patch_namespaced_daemon_set(self.spec.name, NAMESPACE, body)

    def _wait_for_pods(self, on_done: Callable[[int], object]) -> None:
        best = -1
        progress_at_s = time.monotonic()

        def settled() -> bool | None:
            nonlocal best, progress_at_s
            daemonset = self._apps.read_namespaced_daemon_set_status(self.spec.name, NAMESPACE)
            status = daemonset.status
            ready = int(status.number_ready or 0)
            if ready != best:
                best, progress_at_s = ready, time.monotonic()
                on_done(ready)
            if time.monotonic() - progress_at_s > PODS_STALL_S:
                raise KilonodeError(
                    f"{ready} of {self.spec.endpoints} pods are Ready, and no more in {PODS_STALL_S:g} s",
                    where=self.full_name,
                    remedy="look at kube-controller-manager.log and kwok-controller.log",
                )
            observed = status.observed_generation == daemonset.metadata.generation
            exact = status.desired_number_scheduled == ready == self.spec.endpoints
            return True if observed and exact and status.current_number_scheduled == ready else None

        wait_until(settled, what="the DaemonSet's pods Ready", timeout_s=PODS_TIMEOUT_S, interval_s=_POLL_S)

    @staticmethod
    def _ignore_missing(call: Callable[..., Any], *arguments: str) -> None:
        try:
            call(*arguments)
        except kubernetes.client.ApiException as error:
            if error.status != 404:
                raise


def port_name(port: int) -> str:
    return f"p{port}"


def service_manifest(spec: ServiceSpec) -> dict[str, Any]:
    """The Service; without selector in ``endpointslices`` mode."""
    selector = {"selector": {"app": spec.name}} if spec.mode == "native" else {}
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
    affinity = {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": expressions}]
            }
        }
    }
    container = {
        "name": "app",
        "image": _IMAGE,
        "ports": [{"name": port_name(port), "containerPort": port, "protocol": "TCP"} for port in spec.ports],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": spec.name},
        "spec": {
            "selector": {"matchLabels": {"app": spec.name}},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": {"app": spec.name}},
                "spec": {
                    "hostNetwork": True,
                    "affinity": affinity,
                    "containers": [container],
                    "terminationGracePeriodSeconds": 1,
                    "tolerations": [{"operator": "Exists"}],
                },
            },
        },
    }


def slice_calls(spec: ServiceSpec) -> Iterator[Call]:
    """The requests that create the Service's EndpointSlices."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    for first in range(0, spec.endpoints, SLICE_ENDPOINTS_MAX):
        indexes = range(first, min(first + SLICE_ENDPOINTS_MAX, spec.endpoints))
        yield Call("POST", path, msgspec.json.encode(_slice_manifest(spec, indexes)))


def _slice_manifest(spec: ServiceSpec, indexes: range) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{spec.name}-{indexes.start:06d}",
            "labels": {
                "kubernetes.io/service-name": spec.name,
                "endpointslice.kubernetes.io/managed-by": "kilonode.dev",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": port_name(port), "port": port, "protocol": "TCP"} for port in spec.ports],
        "endpoints": [
            {
                "addresses": [node_address(index)],
                "conditions": {"ready": True, "serving": True, "terminating": False},
                "nodeName": node_name(index),
            }
            for index in indexes
        ],
    }
