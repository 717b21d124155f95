"""DaemonSet Services."""

from framework.workload.service import (
    NAMESPACE,
    DaemonSetService,
    Endpoints,
    daemonset_manifest,
    service_manifest,
    slice_calls,
)

__all__ = [
    "NAMESPACE",
    "DaemonSetService",
    "Endpoints",
    "daemonset_manifest",
    "service_manifest",
    "slice_calls",
]
