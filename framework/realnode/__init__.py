"""Real nodes: real kubelet, containerd, kube-proxy and nft under a memory limit."""

from framework.realnode.config import NODE_LABELS
from framework.realnode.existing_node import ExistingNode
from framework.realnode.host import XTABLES, HostNode
from framework.realnode.kind_worker import KindWorker
from framework.realnode.node import ContainerLogs, Node, PodLog
from framework.realnode.pods import obstacle
from framework.realnode.private_copy import CopyPool, evict

__all__ = [
    "NODE_LABELS",
    "XTABLES",
    "ContainerLogs",
    "CopyPool",
    "ExistingNode",
    "HostNode",
    "KindWorker",
    "Node",
    "PodLog",
    "evict",
    "obstacle",
]
