"""Real nodes: real kubelet, containerd, kube-proxy and nft under a memory limit."""

from framework.realnode.host import HOST_SYSCTLS, HostNode

__all__ = ["HOST_SYSCTLS", "HostNode"]
