"""Clusters of kind's: control plane, workers, and the image that they are made of."""

from framework.cluster.kind.cluster import (
    HOST_PROGRAMS,
    LIMITS_LEAST,
    NODE_SYSCTLS,
    KindCluster,
    KindSettings,
    container_cgroup,
)
from framework.cluster.kind.config import PROGRAMS_FOLDER
from framework.cluster.kind.image import (
    find_node_image,
    image_components,
    missing_packages,
    node_image,
    node_image_requests,
    require_builder,
)

__all__ = [
    "HOST_PROGRAMS",
    "LIMITS_LEAST",
    "NODE_SYSCTLS",
    "PROGRAMS_FOLDER",
    "KindCluster",
    "KindSettings",
    "container_cgroup",
    "find_node_image",
    "image_components",
    "missing_packages",
    "node_image",
    "node_image_requests",
    "require_builder",
]
