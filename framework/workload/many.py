"""Many small Services: what a node pays for Services rather than for endpoints.

Each has slices of its own, written directly. They are created as fast as the API server takes them, each
after its slices, so that kube-proxy programs them in several syncs, as it would a cluster that is filled.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from framework.cluster import OWN_CLUSTER, ApiEndpoint, Home, run_bulk
from framework.lazy import LazyModule
from framework.spec import ManyServicesSpec
from framework.workload.manifests import many_services_calls
from framework.workload.withdraw import withdraw_group

if TYPE_CHECKING:
    import kubernetes
else:
    kubernetes = LazyModule("kubernetes")


class ManyServices:
    """Many Services with the face of one; ``apply`` them, ``withdraw`` them."""

    def __init__(self, spec: ManyServicesSpec, endpoint: ApiEndpoint, *, home: Home = OWN_CLUSTER) -> None:
        self.spec = spec
        self._home = home
        self._endpoint = endpoint
        self.cluster_ip: str | None = None
        """The address of the first; None before they are applied."""
        self._applied_s: float | None = None
        self._written_s = 0.0

    @property
    def full_names(self) -> frozenset[str]:
        """``namespace/name`` of each, as kube-proxy names them in its rules."""
        return frozenset(f"{self._home.namespace}/{name}" for name in self.spec.names)

    @property
    def is_applied(self) -> bool:
        """Whether they are there: applied, and not withdrawn since."""
        return self._applied_s is not None

    @property
    def pairs(self) -> None:
        """Not told apart: their endpoints never move."""
        return

    @property
    def addresses_gone(self) -> tuple[str, ...]:
        return ()

    def apply(self) -> float:
        """Create all; gives the moment before the first (CLOCK_BOOTTIME, seconds). What is there stays."""
        if self._applied_s is None:
            self._applied_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            run_bulk(lambda bulk: bulk.each(many_services_calls(self.spec, home=self._home)), self._endpoint)
            self._written_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            self.cluster_ip = self._first_address()
        return self._applied_s

    def last_changed_s(self) -> float:
        """When the last write was answered (CLOCK_BOOTTIME, seconds)."""
        return self._written_s

    def _first_address(self) -> str:
        with self._endpoint.client() as client:
            core = kubernetes.client.CoreV1Api(client)
            return str(core.read_namespaced_service(self.spec.names[0], self._home.namespace).spec.cluster_ip)

    def withdraw(self) -> None:
        """Delete all with their slices."""
        self._applied_s = None
        withdraw_group(self.spec.name, self._endpoint, home=self._home)
        self._written_s = time.clock_gettime(time.CLOCK_BOOTTIME)

    def close(self) -> None:
        """Nothing is held open between requests."""
