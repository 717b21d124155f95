"""A Service with an endpoint on every node, made in one of three ways behind one face.

``native``: a real DaemonSet, whose pods the real DaemonSet controller creates and kwok makes Ready, and a
real Service, for which the real EndpointSlice controller writes the slices. The pods use the host network, so
each endpoint has its node's address and all are distinct. A node affinity on the fakes' index picks exactly
as many nodes as asked and keeps the DaemonSet off real nodes, whose kubelet has no image for it.

``adopted``: the same DaemonSet, but the framework creates the pods, as the controller would, and makes them
Ready, as kwok would. The controller walks all nodes for each 250 pods, 16 pods/s at 95,000 nodes; in bulk it
is hundreds. It must not run meanwhile, or it would create pods of its own. When it starts again it finds the
pods that it wants, with itself as their owner, adopts and counts them, and from there on everything is as in
``native``.

``endpointslices``: a Service without selector and slices written by the framework, 100 endpoints each as the
real controller would. No pods, seconds instead of minutes; what a node sees is the same kind of object.

All separate *preparing* (pods) from *applying* (the Service, with the slices following): applying is the
moment at which nodes begin to pay.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec

from framework.cluster import OWN_CLUSTER, ApiEndpoint, Bulk, Home, run_bulk
from framework.errors import BadInputError, KilonodeError
from framework.lazy import LazyModule
from framework.outcome import Record
from framework.spec import ServiceSpec
from framework.wait import wait_until
from framework.workload.manifests import (
    daemonset_manifest,
    endpoint_address,
    families,
    pod_calls,
    pod_name,
    pod_status_calls,
    replacement_calls,
    sentinel,
    sentinel_calls,
    service_manifests,
    slice_calls,
)
from framework.workload.withdraw import withdraw_group

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")

PODS_STALL_S: Final = 120.0
STALL_S_PER_ENDPOINT: Final = 0.003
"""A controller manager that starts reads all nodes and pods before it counts any: of 100,000 two minutes."""
PODS_TIMEOUT_S: Final = 3600.0
ENDPOINTS_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.25
ENDPOINTS_READ_PER_S: Final = 20_000
"""The slices of 100,000 endpoints are read each 5 s."""
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


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


class _Write(msgspec.Struct):
    time: datetime = _NEVER


class _Metadata(msgspec.Struct, rename="camel"):
    managed_fields: list[_Write] = []


class _Slice(msgspec.Struct):
    endpoints: list[_Endpoint] | None = None
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)

    @property
    def written_utc(self) -> datetime:
        return max((write.time for write in self.metadata.managed_fields), default=_NEVER)


class DaemonSetService:
    """One Service; ``prepare`` it, ``apply`` it, ``delete`` it."""

    def __init__(
        self,
        spec: ServiceSpec,
        endpoint: ApiEndpoint,
        *,
        loading_pods: Callable[[], AbstractContextManager[int]] | None,
        home: Home = OWN_CLUSTER,
    ) -> None:
        """``loading_pods`` surrounds the creation of adopted pods, keeps controllers away meanwhile, and says
        how many requests may be under way; None where controllers can't be kept away."""
        self.spec = spec
        self._home = home
        self._loading_pods = loading_pods
        self._endpoint = endpoint
        self._client = endpoint.client()
        self._core = kubernetes.client.CoreV1Api(self._client)
        self.cluster_ip: str | None = None
        """Where the Service can be asked; None before it is applied, and for a headless one."""
        self._applied_s: float | None = None
        self._written_s = 0.0
        self._replaced: set[int] = set()
        self._moved: set[int] = set()
        self._pairs: frozenset[tuple[str, str]] | None = None
        self._applying = threading.Lock()
        self._apps = kubernetes.client.AppsV1Api(self._client)

    @property
    def full_name(self) -> str:
        """``namespace/name``, as kube-proxy names it in its rules."""
        return f"{self._home.namespace}/{self.spec.name}"

    @property
    def full_names(self) -> frozenset[str]:
        """Of every Service that a listing is to be searched for, a headless one's sentinel included."""
        names = (*self.spec.names, *((sentinel(self.spec).name,) if self.spec.headless else ()))
        return frozenset(f"{self._home.namespace}/{name}" for name in names)

    def prepare(self, on_done: Callable[[int], object] = int) -> None:
        """Have the pods Ready, where the mode has any. ``on_done`` hears how many are; an adopted
        one counts half when it is created.

        Raises KilonodeError when no further pod turns Ready for two minutes and 3 ms for each endpoint.
        """
        if self.spec.mode == "endpointslices":
            return
        if self.spec.mode == "adopted":
            if self._loading_pods is None:
                raise BadInputError(
                    "pods can't be adopted in a cluster whose DaemonSet controller can't be paused",
                    where="mode",
                    remedy="give native or endpointslices",
                )
            with self._loading_pods() as parallelism:
                self._put_service_account()
                self._load_pods(self._put_daemonset(), on_done, parallelism)
        else:
            self._put_daemonset()
        self._wait_for_pods(on_done)

    def apply(self) -> float:
        """Create the Service; its endpoints follow. Returns before they are complete.

        Gives the moment of creation (CLOCK_BOOTTIME, seconds). One that is there stays, so that several nodes
        can be measured under it.
        """
        with self._applying:
            if self._applied_s is None:
                self._applied_s = time.clock_gettime(time.CLOCK_BOOTTIME)
                self._pairs = None
                self._create()
                self._written_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            return self._applied_s

    @property
    def is_applied(self) -> bool:
        """Whether the Service is there: applied, and not withdrawn since."""
        return self._applied_s is not None

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """Address and port of every endpoint that a node may be programmed with now, in all families.

        None before it is applied. Of a headless Service they are the sentinel's.
        """
        if self._pairs is None:
            seen = sentinel(self.spec) if self.spec.headless else self.spec
            self._pairs = frozenset(
                (endpoint_address(index, self._replaced, family), str(port))
                for index in range(seen.endpoints if self.is_applied else 0)
                for family in families(seen)
                for port in seen.ports
            )
        return self._pairs

    @property
    def addresses_gone(self) -> tuple[str, ...]:
        """Where endpoints were before they moved, and nobody is now; IPv4, by which clients ask."""
        return tuple(endpoint_address(index, self._moved - self._replaced) for index in sorted(self._moved))

    def replace(self, count: int, *, first: int = 0) -> float:
        """Move ``count`` endpoints to new addresses, spread evenly from endpoint ``first`` on.

        Replaced ones go back. Gives the moment before the first request (CLOCK_BOOTTIME, seconds).
        """
        if self.spec.mode != "endpointslices":
            raise BadInputError(
                f"endpoints can't be replaced in mode {self.spec.mode}: the pods' addresses are their nodes'",
                where=self.full_name,
                remedy='give mode="endpointslices"',
            )
        if self.spec.headless:
            raise BadInputError(
                "kube-proxy never learns that endpoints of a headless Service were replaced",
                where=self.full_name,
                remedy="give a Service that kube-proxy programs",
            )
        if not 0 < count <= self.spec.endpoints:
            raise BadInputError(
                f"{count} of {self.spec.endpoints} endpoints can't be replaced",
                where=self.full_name,
                remedy="replace one or more, and not more than there are",
            )
        chosen = {(first + n * self.spec.endpoints // count) % self.spec.endpoints for n in range(count)}
        self._replaced ^= chosen
        self._moved |= chosen
        self._pairs = None
        calls = replacement_calls(self.spec, self._replaced, chosen, home=self._home)
        begun_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        run_bulk(lambda bulk: bulk.each(calls), self._endpoint)
        self._written_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        return begun_s

    def last_changed_s(self) -> float:
        """When the Service and its endpoints last changed (CLOCK_BOOTTIME, seconds).

        That is when the last write was answered. A controller's is read from the slices, which tell it to the
        second: given is that second's beginning.
        """
        if self.spec.mode == "endpointslices" or not self.is_applied:
            return self._written_s

        async def read(bulk: Bulk) -> datetime:
            pages = bulk.pages(self._home.slices_path, _Slice, selector=self._slice_selector)
            return max([one.written_utc async for page in pages for one in page], default=_NEVER)

        written_utc: datetime = run_bulk(read, self._endpoint)
        age_s = (datetime.now(UTC) - written_utc).total_seconds()
        return max(self._written_s, time.clock_gettime(time.CLOCK_BOOTTIME) - age_s)

    def _create(self) -> None:
        made = [
            self._core.create_namespaced_service(self._home.namespace, one)
            for one in service_manifests(self.spec, home=self._home)
        ]
        self.cluster_ip = None if self.spec.headless else str(made[0].spec.cluster_ip)
        if self.spec.mode == "endpointslices":
            run_bulk(lambda bulk: bulk.each(slice_calls(self.spec, home=self._home)), self._endpoint)
        if self.spec.headless:
            self.wait_for_endpoints()
            run_bulk(lambda bulk: bulk.each(sentinel_calls(self.spec, home=self._home)), self._endpoint)

    def wait_for_endpoints(self) -> Endpoints:
        """Wait until the API server holds exactly the asked endpoints, all Ready and distinct."""
        last: list[Endpoints] = []
        expected = self.spec.endpoints * (2 if self.spec.dual_stack else 1)

        def complete() -> Endpoints | None:
            last[:] = [self.endpoints()]
            found = last[0]
            good = found.ready == found.distinct_addresses == expected
            return found if good else None

        return wait_until(
            complete,
            what=f"{expected} endpoints of {self.full_name}",
            timeout_s=ENDPOINTS_TIMEOUT_S + STALL_S_PER_ENDPOINT * self.spec.endpoints,
            interval_s=max(_POLL_S, self.spec.endpoints / ENDPOINTS_READ_PER_S),
            describe=lambda: str(last),
            remedy="look at kube-controller-manager.log",
        )

    def endpoints(self) -> Endpoints:
        """Read the Service's slices, in pages."""

        async def read(bulk: Bulk) -> Endpoints:
            slices = ready = 0
            addresses: set[str] = set()
            async for page in bulk.pages(self._home.slices_path, _Slice, selector=self._slice_selector):
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

    def withdraw(self) -> None:
        """Delete the Service and its slices, and keep the pods."""
        self._applied_s = None
        self._replaced.clear()
        self._moved.clear()
        self._pairs = None
        withdraw_group(self.spec.name, self._endpoint, home=self._home)
        self._written_s = time.clock_gettime(time.CLOCK_BOOTTIME)

    def delete(self) -> None:
        """Delete everything; the pods go with the DaemonSet, by the garbage collector."""
        self.withdraw()
        self._ignore_missing(
            self._apps.delete_namespaced_daemon_set, self.spec.workload, self._home.namespace
        )

    def close(self) -> None:
        """Close the client; what it made stays."""
        self._client.close()

    def _put_daemonset(self) -> str:
        """Create the DaemonSet, or change it to this spec; gives its uid."""
        body = daemonset_manifest(self.spec, home=self._home)
        try:
            made = self._apps.create_namespaced_daemon_set(self._home.namespace, body)
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise
            made = self._apps.patch_namespaced_daemon_set(self.spec.workload, self._home.namespace, body)
        return str(made.metadata.uid)

    def _put_service_account(self) -> None:
        """The API server takes no pod without it; the controllers make it, where they run already."""
        try:
            self._core.create_namespaced_service_account(
                self._home.namespace, {"metadata": {"name": "default"}}
            )
        except kubernetes.client.ApiException as error:
            if error.status != 409:
                raise

    def _load_pods(self, daemonset_uid: str, on_done: Callable[[int], object], parallelism: int) -> None:
        """Create what pods are missing, and make Ready what aren't."""
        wanted = {pod_name(self.spec, index): index for index in range(self.spec.endpoints)}

        async def load(bulk: Bulk) -> None:
            rows = bulk.rows(self._home.pods_path, ("Name", "Status"), selector=f"app={self.spec.workload}")
            status = {name: status async for page in rows for name, status in page}
            missing = [index for name, index in wanted.items() if name not in status]
            unready = [index for name, index in wanted.items() if status.get(name) != "Running"]
            ready = len(wanted) - len(unready)
            created = len(wanted) - len(missing)
            await bulk.each(
                pod_calls(self.spec, daemonset_uid=daemonset_uid, indexes=missing),
                lambda done: on_done((ready + created + done) // 2),
            )
            await bulk.each(
                pod_status_calls(self.spec, daemonset_uid=daemonset_uid, indexes=unready),
                lambda done: on_done((ready + len(wanted) + done) // 2),
            )

        run_bulk(load, self._endpoint, parallelism=parallelism)

    def _wait_for_pods(self, on_done: Callable[[int], object]) -> None:
        best = -1
        stall_s = PODS_STALL_S + STALL_S_PER_ENDPOINT * self.spec.endpoints
        progress_at_s = time.monotonic()

        def settled() -> bool | None:
            nonlocal best, progress_at_s
            daemonset = self._apps.read_namespaced_daemon_set_status(self.spec.workload, self._home.namespace)
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
