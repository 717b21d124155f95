"""Control planes: one face over the embedded one and those to come."""

from framework.cluster.api import ApiEndpoint, ApiError, Bulk, Call, run_bulk
from framework.cluster.embedded import ControlPlaneSettings, EmbeddedCluster
from framework.cluster.lease_budget import LeaseBudget, lease_budget

__all__ = [
    "ApiEndpoint",
    "ApiError",
    "Bulk",
    "Call",
    "ControlPlaneSettings",
    "EmbeddedCluster",
    "LeaseBudget",
    "lease_budget",
    "run_bulk",
]
