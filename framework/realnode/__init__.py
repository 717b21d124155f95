"""Real nodes: real kubelet, containerd, kube-proxy and nft under a memory limit."""

from framework.realnode.host import HOST_SYSCTLS, XTABLES, HostNode
from framework.realnode.pods import obstacle
from framework.realnode.private_copy import CopyPool, evict

__all__ = ["HOST_SYSCTLS", "XTABLES", "CopyPool", "HostNode", "evict", "obstacle"]
