"""Control planes: one face over the embedded one and those to come."""

from framework.cluster.api import ApiEndpoint, ApiError, Bulk, Call, run_bulk
from framework.cluster.embedded import LOADING, MEASURING, EmbeddedCluster, Tuning
from framework.cluster.lease_budget import (
    BULK_PARALLELISM,
    LOAD_PARALLELISM,
    PRODUCTION_LEASE_S,
    LeaseBudget,
    RenewalCost,
    lease_budget,
)

__all__ = [
    "BULK_PARALLELISM",
    "LOADING",
    "LOAD_PARALLELISM",
    "MEASURING",
    "PRODUCTION_LEASE_S",
    "ApiEndpoint",
    "ApiError",
    "Bulk",
    "Call",
    "EmbeddedCluster",
    "LeaseBudget",
    "RenewalCost",
    "Tuning",
    "lease_budget",
    "run_bulk",
]
