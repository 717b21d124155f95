"""A Service with an endpoint on every node, made in one of three ways behind one face.

``native``: a real DaemonSet, whose pods the real DaemonSet controller creates and kwok makes Ready, and a
real Service, for which the real EndpointSlice controller writes the slices. The pods use the host network, so
each endpoint has its node's address and all are distinct. A node affinity on the fakes' index picks exactly
as many nodes as asked and keeps the DaemonSet off real nodes, whose kubelet has no image for it.

``adopted``: the same DaemonSet, but the framework creates the pods, as the controller would. The controller
walks all nodes for each 250 pods, 16 pods/s at 95,000 nodes; in bulk it is hundreds. It must not run
meanwhile, or it would create pods of its own. When it starts again it finds the pods that it wants, with
itself as their owner, adopts and counts them, and from there on everything is as in ``native``.

``endpointslices``: a Service without selector and slices written by the framework, 100 endpoints each as the
real controller would. No pods, seconds instead of minutes; what a node sees is the same kind of object.

All separate *preparing* (pods) from *applying* (the Service, with the slices following): applying is the
moment at which nodes begin to pay.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from framework.cluster import ApiEndpoint, Bulk, Call, PodLoading, run_bulk
from framework.errors import KilonodeError
from framework.lazy import LazyModule
from framework.outcome import Record
from framework.spec import ServiceSpec
from framework.wait import wait_until
from framework.workload.manifests import (
    NAMESPACE,
    PODS_PATH,
    SLICES_PATH,
    daemonset_manifest,
    pod_calls,
    pod_name,
    service_manifest,
    slice_calls,
)

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

PODS_STALL_S: Final = 120.0
PODS_STALL_S_PER_ENDPOINT: Final = 0.003
"""A controller manager that starts reads all nodes and pods before it counts any: of 100,000 two minutes."""
PODS_TIMEOUT_S: Final = 3600.0
ENDPOINTS_TIMEOUT_S: Final = 300.0
DELETE_TIMEOUT_S: Final = 600.0
_POLL_S: Final = 0.25
_POLL_PENDING_S: Final = 1.0
STALLED_SHARE: Final = 0.01
LAST_SHARE: Final = 0.1
"""Fewer pods than the first share of all turned Ready between two counts, and at most the second are left."""
PODS_COUNTED_PER_S: Final = 5_000
"""The API server looks through all pods for those that are Pending: of 100,000 each 20 s."""


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

    def __init__(
        self,
        spec: ServiceSpec,
        endpoint: ApiEndpoint,
        *,
        loading_pods: Callable[[], AbstractContextManager[PodLoading]],
    ) -> None:
        """``loading_pods`` surrounds the creation of adopted pods and keeps controllers away meanwhile."""
        self.spec = spec
        self._loading_pods = loading_pods
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
        """Have the pods Ready, where the mode has any. ``on_done`` hears how many are; an adopted
        one counts half when it is created.

        Raises KilonodeError when no further pod turns Ready for two minutes and 3 ms for each endpoint.
        """
        if self.spec.mode == "endpointslices":
            return
        if self.spec.mode == "adopted":
            with self._loading_pods() as loading:
                self._put_service_account()
                self._create_pods(self._put_daemonset(), on_done, loading)
        else:
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

        async def read(bulk: Bulk) -> Endpoints:
            slices = ready = 0
            addresses: set[str] = set()
            async for page in bulk.pages(SLICES_PATH, _Slice, selector=self._slice_selector):
                slices += len(page)
                for entry in (entry for piece in page for entry in piece.endpoints or ()):
                    ready += entry.conditions.ready is not False
                    addresses.update(entry.addresses)
            return Endpoints(slices=slices, ready=ready, distinct_addresses=len(addresses))

        found: Endpoints = run_bulk(read, self._endpoint)
        return found

    @property
    def _slice_selector(self) -> str:
        return f"kubernetes.io/service-name={self.spec.name}"

    def _slice_count(self) -> int:
        async def count(bulk: Bulk) -> int:
            rows = bulk.rows(SLICES_PATH, ("Name",), selector=self._slice_selector)
            return sum([len(page) async for page in rows])

        return int(run_bulk(count, self._endpoint))

    def withdraw(self) -> None:
        """Delete the Service and its slices, and keep the pods."""
        self._applied_s = None
        self._ignore_missing(self._core.delete_namespaced_service, self.spec.name, NAMESPACE)
        if self.spec.mode == "endpointslices":
            discovery = kubernetes.client.DiscoveryV1Api(self._client)
            discovery.delete_collection_namespaced_endpoint_slice(
                NAMESPACE, label_selector=self._slice_selector
            )
        wait_until(
            lambda: True if self._slice_count() == 0 else None,
            what=f"the slices of {self.full_name} gone",
            timeout_s=ENDPOINTS_TIMEOUT_S,
            interval_s=_POLL_S,
        )

    def delete(self) -> None:
        """Delete everything; the pods go with the DaemonSet, by the garbage collector."""
        self.withdraw()
        self._ignore_missing(self._apps.delete_namespaced_daemon_set, self.spec.workload, NAMESPACE)

    def close(self) -> None:
        """Close the client; what it made stays."""
        self._client.close()

    def _put_daemonset(self) -> str:
        """Create the DaemonSet, or change it to this spec; gives its uid."""
        body = daemonset_manifest(self.spec)
        try:
            made = self._apps.create_namespaced_daemon_set(NAMESPACE, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            made = self._apps.patch_namespaced_daemon_set(self.spec.workload, NAMESPACE, body)
        return str(made.metadata.uid)

    def _put_service_account(self) -> None:
        """The API server takes no pod without it; the controllers make it, where they run already."""
        try:
            self._core.create_namespaced_service_account(NAMESPACE, {"metadata": {"name": "default"}})
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise

    def _create_pods(self, daemonset_uid: str, on_done: Callable[[int], object], loading: PodLoading) -> None:
        async def create(bulk: Bulk) -> None:
            there = {name async for page in self._pods(bulk) for (name,) in page}
            missing = [i for i in range(self.spec.endpoints) if pod_name(self.spec, i) not in there]
            kept = self.spec.endpoints - len(missing)
            calls = pod_calls(self.spec, daemonset_uid=daemonset_uid, indexes=missing)
            await bulk.each(calls, lambda done: on_done((kept + done) // 2))

        before = self.spec.endpoints

        def ready() -> bool | None:
            nonlocal before
            pending = self._pending()
            on_done(self.spec.endpoints - (len(pending) + 1) // 2)
            turned = before - len(pending)
            if (
                turned < STALLED_SHARE * self.spec.endpoints
                and len(pending) < LAST_SHARE * self.spec.endpoints
            ):
                self._show_again(pending)
            before = len(pending)
            return None if pending else True

        run_bulk(create, self._endpoint, parallelism=loading.parallelism)
        loading.let_kwok_run()
        wait_until(
            ready,
            what="all pods made Ready by kwok",
            timeout_s=PODS_TIMEOUT_S,
            interval_s=max(_POLL_PENDING_S, self.spec.endpoints / PODS_COUNTED_PER_S),
            describe=lambda: f"{before:,} pods are Pending",
            remedy="look at kwok-controller.log",
        )

    def _pods(self, bulk: Bulk, *, phase: str | None = None) -> AsyncIterator[list[tuple[str, ...]]]:
        fields = "" if phase is None else f"status.phase={phase}"
        return bulk.rows(PODS_PATH, ("Name",), selector=f"app={self.spec.workload}", fields=fields)

    def _pending(self) -> list[str]:
        async def read(bulk: Bulk) -> list[str]:
            return [name async for page in self._pods(bulk, phase="Pending") for (name,) in page]

        found: list[str] = run_bulk(read, self._endpoint)
        return found

    def _show_again(self, pods: list[str]) -> None:
        """Make kwok look at pods that it passed over: it lists a node's pods when it takes the node over, and
        ignores them where its own watch has not told it of that yet (kwok 0.8.0)."""
        patch = msgspec.json.encode({"metadata": {"annotations": {"kilonode.dev/shown": str(time.time())}}})
        calls = [Call("PATCH", f"{PODS_PATH}/{name}", patch) for name in pods]
        run_bulk(lambda bulk: bulk.each(calls), self._endpoint)

    def _wait_for_pods(self, on_done: Callable[[int], object]) -> None:
        best = -1
        stall_s = PODS_STALL_S + PODS_STALL_S_PER_ENDPOINT * self.spec.endpoints
        progress_at_s = time.monotonic()

        def settled() -> bool | None:
            nonlocal best, progress_at_s
            daemonset = self._apps.read_namespaced_daemon_set_status(self.spec.workload, NAMESPACE)
            status = daemonset.status
            ready = int(status.number_ready or 0)
            if ready != best:
                best, progress_at_s = ready, time.monotonic()
                on_done(ready)
            if time.monotonic() - progress_at_s > stall_s:
                raise KilonodeError(
                    f"{ready} of {self.spec.endpoints} pods are Ready, and no more in {stall_s:g} s",
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
