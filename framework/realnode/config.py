"""Configuration files of a real node's daemons, as pure functions of where it is.

Deviations from production's defaults are those that a node in one memory cgroup needs; each is named here
once, and the fidelity list of a result repeats what may matter to a figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from framework.fleet import REAL_NODE_ZONE, REGION, ZONE_LABEL
from framework.realnode.image import IMAGE
from framework.spec import ProxyMode

KUBE_PROXY_METRICS_PORT: Final = 10249
KUBE_PROXY_HEALTHZ_PORT: Final = 10256
NODE_LABELS: Final = {
    "kilonode.dev/role": "real",
    "topology.kubernetes.io/region": REGION,
    ZONE_LABEL: REAL_NODE_ZONE,
}

_CONTAINERD: Final = """\
version = 2
root = "{folder}/containerd/root"
state = "{folder}/containerd/state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
  restrict_oom_score_adj = {restricted}
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{folder}/cni/bin"
  conf_dir = "{folder}/cni/net.d"
"""

LOOPBACK_CNI: Final = """\
{"cniVersion": "0.4.0", "name": "loopback", "plugins": [{"type": "loopback"}]}
"""
"""kubelet reports Ready only with some CNI configuration; pods use the node's network."""


def containerd_socket(folder: Path) -> Path:
    return folder / "containerd" / "c.sock"


def containerd_config(folder: Path, *, restrict_oom_scores: bool) -> str:
    """containerd's TOML; what it writes stays below the node's folder, or in its own mounts.

    With ``restrict_oom_scores`` a container gets containerd's own oom_score_adj where it should have a
    lower one: without CAP_SYS_RESOURCE runc could not start it.
    """
    return _CONTAINERD.format(
        folder=folder,
        socket=containerd_socket(folder),
        image=IMAGE,
        restricted=str(restrict_oom_scores).lower(),
    )


def kubelet_config(folder: Path, *, ca_file: str, oom_score_adj: int, pods_cgroup: str | None = None) -> str:
    """A KubeletConfiguration. ``pods_cgroup`` is where the pods' cgroups are to be; None for no pods.

    Without pods the QoS cgroups are off, because kubelet would make them in the host's tree, outside the
    node's limit. With pods they are production's, below ``pods_cgroup``, and the host's full disk is no
    reason to evict them. The lease stays at production's 40 s.
    """
    return yaml.safe_dump(
        ({"cgroupsPerQOS": False} if pods_cgroup is None else _with_pods(pods_cgroup))
        | {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": False},
                "x509": {"clientCAFile": ca_file},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "containerRuntimeEndpoint": f"unix://{containerd_socket(folder)}",
            "enforceNodeAllocatable": [],
            "failCgroupV1": False,
            "failSwapOn": False,
            "localStorageCapacityIsolation": False,
            "nodeLeaseDurationSeconds": 40,
            "oomScoreAdj": oom_score_adj,
            "podLogsDir": str(folder / "pod-logs"),
            "readOnlyPort": 0,
            "volumePluginDir": str(folder / "kubelet" / "volume-plugins"),
        }
    )


def _with_pods(cgroup: str) -> dict[str, Any]:
    """What a kubelet with pods is told besides.

    The one eviction threshold named is production's own for memory; the others, of disks, end with it. CPU
    quotas are off: a Guaranteed pod has a CPU limit, and what it overdrew while it filled a gigabyte in one
    system call it would have to wait for, even to die.
    """
    return {
        "cgroupsPerQOS": True,
        "cgroupRoot": cgroup,
        "cpuCFSQuota": False,
        "evictionHard": {"memory.available": "100Mi"},
        "imageGCHighThresholdPercent": 100,
    }


def kube_proxy_config(
    *,
    name: str,
    address: str,
    kubeconfig: Path,
    mode: ProxyMode,
    oom_score_adj: int,
    overrides: Mapping[str, Any],
) -> str:
    """A KubeProxyConfiguration with ``overrides`` merged over it.

    Conntrack limits are left alone, because nf_conntrack_max belongs to the host.
    """
    base: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": mode,
        "hostnameOverride": name,
        "bindAddress": "0.0.0.0",  # noqa: S104 - inside the node's own network namespace
        "metricsBindAddress": f"{address}:{KUBE_PROXY_METRICS_PORT}",
        "healthzBindAddress": f"{address}:{KUBE_PROXY_HEALTHZ_PORT}",
        "nodePortAddresses": ["primary"],
        "oomScoreAdj": oom_score_adj,
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
        },
    }
    return yaml.safe_dump(merged(base, overrides))


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``overrides`` over ``base``, mapping by mapping; lists and scalars are replaced."""
    result = dict(base)
    for key, value in overrides.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return result
