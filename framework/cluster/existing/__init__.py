"""A cluster that was there before: fakes, kwok and Services are added to it, and nothing else is touched."""

from framework.cluster.existing.cluster import ExistingCluster
from framework.cluster.existing.manifests import Sharding
from framework.cluster.existing.plan import Plan, plan
from framework.cluster.existing.rights import Right, cluster_role_rules, needed_rights
from framework.cluster.existing.settings import ExistingSettings

__all__ = [
    "ExistingCluster",
    "ExistingSettings",
    "Plan",
    "Right",
    "Sharding",
    "cluster_role_rules",
    "needed_rights",
    "plan",
]
