"""Services for nodes to pay for."""

from typing import Protocol

from framework.spec import ManyServicesSpec, ServiceSpec
from framework.workload.manifests import (
    NAMESPACE,
    daemonset_manifest,
    many_services_calls,
    pod_calls,
    pod_status_calls,
    replacement_calls,
    sentinel_calls,
    service_manifests,
    slice_calls,
)
from framework.workload.many import ManyServices
from framework.workload.programmed import answering, programmed
from framework.workload.service import DaemonSetService, Endpoints

__all__ = [
    "NAMESPACE",
    "DaemonSetService",
    "Endpoints",
    "ManyServices",
    "Workload",
    "answering",
    "daemonset_manifest",
    "many_services_calls",
    "pod_calls",
    "pod_status_calls",
    "programmed",
    "replacement_calls",
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

    @property
    def cluster_ip(self) -> str | None:
        """Where the first Service can be asked; None before they are applied, and for a headless one."""

    @property
    def is_applied(self) -> bool:
        """Whether the Services are there."""

    @property
    def pairs(self) -> frozenset[tuple[str, str]] | None:
        """Address and port of every endpoint that a node may be programmed with now; None: not told apart."""

    @property
    def addresses_gone(self) -> tuple[str, ...]:
        """Where endpoints were before they moved, and nobody is now."""

    def apply(self) -> float:
        """Create the Services; gives the moment before (CLOCK_BOOTTIME, seconds). What is there stays."""

    def last_changed_s(self) -> float:
        """When the Services and their endpoints last changed (CLOCK_BOOTTIME, seconds)."""

    def withdraw(self) -> None:
        """Delete the Services and their slices."""

    def close(self) -> None:
        """Let go of what is held open."""
