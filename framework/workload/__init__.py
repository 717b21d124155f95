"""Services for nodes to pay for."""

from typing import Protocol

from framework.spec import ManyServicesSpec, ServiceSpec
from framework.workload.manifests import (
    NAMESPACE,
    daemonset_manifest,
    many_services_calls,
    pod_calls,
    pod_status_calls,
    sentinel_calls,
    service_manifests,
    slice_calls,
)
from framework.workload.many import ManyServices
from framework.workload.programmed import programmed
from framework.workload.service import DaemonSetService, Endpoints

__all__ = [
    "NAMESPACE",
    "DaemonSetService",
    "Endpoints",
    "ManyServices",
    "Workload",
    "daemonset_manifest",
    "many_services_calls",
    "pod_calls",
    "pod_status_calls",
    "programmed",
    "sentinel_calls",
    "service_manifests",
    "slice_calls",
]


class Workload(Protocol):
    """What a measurement needs of Services, one or many."""

    @property
    def spec(self) -> ServiceSpec | ManyServicesSpec: ...

    @property
    def full_names(self) -> frozenset[str]:
        """Of every Service that a listing is to be searched for, as kube-proxy names them."""

    def apply(self) -> float:
        """Create the Services; gives the moment before (CLOCK_BOOTTIME, seconds). What is there stays."""

    def withdraw(self) -> None:
        """Delete the Services and their slices."""

    def close(self) -> None:
        """Let go of what is held open."""
