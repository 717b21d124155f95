"""Control planes: one face over the embedded one and those to come."""

from framework.cluster.api import ApiEndpoint, ApiError, Bulk, Call, ClusterLostError, run_bulk
from framework.cluster.control_plane import (
    KUBELET_SYSCTLS,
    LOADING,
    MEASURING,
    Cluster,
    ControlPlane,
    Tuning,
    control_plane_logs,
)
from framework.cluster.embedded import EmbeddedCluster
from framework.cluster.existing import ExistingCluster, ExistingSettings, Sharding
from framework.cluster.home import OWN_CLUSTER, Home
from framework.cluster.kind import HOST_PROGRAMS, KindCluster, KindSettings
from framework.cluster.lease_budget import (
    BULK_PARALLELISM,
    LOAD_PARALLELISM,
    PRODUCTION_LEASE_S,
    LeaseBudget,
    RenewalCost,
    lease_budget,
    production_budget,
)

__all__ = [
    "BULK_PARALLELISM",
    "HOST_PROGRAMS",
    "KUBELET_SYSCTLS",
    "LOADING",
    "LOAD_PARALLELISM",
    "MEASURING",
    "OWN_CLUSTER",
    "PRODUCTION_LEASE_S",
    "ApiEndpoint",
    "ApiError",
    "Bulk",
    "Call",
    "Cluster",
    "ClusterLostError",
    "ControlPlane",
    "EmbeddedCluster",
    "ExistingCluster",
    "ExistingSettings",
    "Home",
    "KindCluster",
    "KindSettings",
    "LeaseBudget",
    "RenewalCost",
    "Sharding",
    "Tuning",
    "control_plane_logs",
    "lease_budget",
    "production_budget",
    "run_bulk",
]
