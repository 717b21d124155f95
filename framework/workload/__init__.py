"""DaemonSet Services."""

from framework.workload.manifests import (
    NAMESPACE,
    daemonset_manifest,
    pod_calls,
    pod_status_calls,
    service_manifest,
    slice_calls,
)
from framework.workload.service import DaemonSetService, Endpoints

__all__ = [
    "NAMESPACE",
    "DaemonSetService",
    "Endpoints",
    "daemonset_manifest",
    "pod_calls",
    "pod_status_calls",
    "service_manifest",
    "slice_calls",
]
