"""What kind is told, and what a cluster of kind's is changed to afterwards; pure functions of typed data.

kind and kubeadm make an ordinary cluster: their defaults hold wherever a measurement of 100,000 nodes doesn't
need another value. Two mechanisms change it. kind's configuration says what must be so from the first moment:
workers, their labels, kube-proxy's mode, kubelet's settings. Flags of the control plane are written into the
static pods' manifests, which kubelet follows, because the lease budget and the API server's tuning change
with the fleet; so all flags are in one place, in the form of any Kubernetes version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, Final

import yaml

import kwok
from framework.binaries import Binary
from framework.cluster.lease_budget import NODE_MONITOR_PERIOD_S, LeaseBudget
from framework.spec import Spec

ETCD_QUOTA_BYTES: Final = 8 << 30
UNLIMITED_QPS: Final = 5000
UNLIMITED_BURST: Final = 10_000
"""What kwokctl calls unlimited (DefaultUnlimitedQPS, DefaultUnlimitedBurst in its pkg/consts)."""
MANIFESTS: Final = PurePosixPath("/etc/kubernetes/manifests")
CNI_FOLDER: Final = PurePosixPath("/etc/cni/net.d")
PROGRAMS_FOLDER: Final = PurePosixPath("/kilonode")
"""Where a worker finds executables that replace the image's."""
SERVICE_RANGE: Final = "10.96.0.0/12"
KUBE_PROXY_LABEL: Final = "kilonode.dev/kube-proxy"
"""kube-proxy's DaemonSet runs on nodes that have it, and so on none: fakes would cost a pod each, and real
nodes run kube-proxy as a pod of their own, at the version that is asked for."""
_POD_RANGE: Final = "10.244.{node}.0/24"
_CNI: Final = """\
{{"cniVersion": "0.3.1", "name": "kilonode", "plugins": [
  {{"type": "ptp", "ipMasq": false, "ipam": {{"type": "host-local", "ranges": [[{{"subnet": "{subnet}"}}]],
    "routes": [{{"dst": "0.0.0.0/0"}}]}}}}]}}
"""
_CERTIFICATE: Final = "/etc/kubernetes/pki/apiserver"
"""Valid for 127.0.0.1 too, where kube-controller-manager's metrics are."""


class NodeFolders(Spec, frozen=True, kw_only=True):
    """Folders of the host that a node sees: its CNI configuration, and executables that replace its own."""

    cni: str
    programs: str


class KindSpec(Spec, frozen=True, kw_only=True):
    """A cluster of one control plane and a worker for each of ``workers``.

    ``labels`` are the workers'. ``lowest_oom_score`` is the lowest oom_score_adj that this machine permits,
    where production has -999.
    """

    image: str
    control_plane: NodeFolders
    workers: tuple[NodeFolders, ...]
    labels: Mapping[str, str]
    lowest_oom_score: int


def kind_configuration(spec: KindSpec) -> str:
    """The YAML for ``kind create cluster --config``."""
    nodes = [_node("control-plane", spec.image, spec.control_plane)]
    nodes += [_node("worker", spec.image, folders, spec.labels) for folders in spec.workers]
    score = max(-999, spec.lowest_oom_score)
    patches: list[dict[str, Any]] = [
        # kind's own list is replaced by this one. CoreDNS would be scheduled to a fake node.
        {"kind": "InitConfiguration", "skipPhases": ["preflight", "addon/coredns"]},
        {"kind": "KubeletConfiguration", "failCgroupV1": False, "oomScoreAdj": score},
        {"kind": "KubeProxyConfiguration", "oomScoreAdj": score},
    ]
    return yaml.safe_dump(
        {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {
                "disableDefaultCNI": True,
                "kubeProxyMode": "nftables",
                "serviceSubnet": SERVICE_RANGE,
            },
            "nodes": nodes,
            "kubeadmConfigPatches": [yaml.safe_dump(patch, sort_keys=False) for patch in patches],
        },
        sort_keys=False,
    )


def _node(
    role: str, image: str, folders: NodeFolders, labels: Mapping[str, str] | None = None
) -> dict[str, Any]:
    mounts = [
        {"hostPath": folders.cni, "containerPath": str(CNI_FOLDER), "readOnly": True},
        {"hostPath": folders.programs, "containerPath": str(PROGRAMS_FOLDER), "readOnly": True},
    ]
    node: dict[str, Any] = {"role": role, "image": image, "extraMounts": mounts}
    return node | ({"labels": dict(labels)} if labels else {})


def cni_configuration(node: int) -> str:
    """The conflist of the ``node``-th node: pods on it reach it and each other, and no other node's.

    kindnet would be a pod on each fake node, and ranges from the node controller an allocation for each.
    """
    return _CNI.format(subnet=_POD_RANGE.format(node=node))


def flags_of(component: str, budget: LeaseBudget | None) -> dict[str, str]:
    """A static pod's flags beside kubeadm's: those of the embedded control plane, so that both are alike.

    There is no ``budget`` as long as the controllers don't run.
    """
    flags = _embedded_flags(component)
    match component:
        case "etcd":
            flags["quota-backend-bytes"] = str(ETCD_QUOTA_BYTES)
        case "kube-apiserver":
            flags |= {
                "max-requests-inflight": "0",
                "max-mutating-requests-inflight": "0",
                "enable-priority-and-fairness": "false",
            }
        case "kube-controller-manager" | "kube-scheduler":
            flags |= {"kube-api-qps": str(UNLIMITED_QPS), "kube-api-burst": str(UNLIMITED_BURST)}
    if component == "kube-controller-manager":
        flags |= {
            "allocate-node-cidrs": "false",
            "tls-cert-file": f"{_CERTIFICATE}.crt",
            "tls-private-key-file": f"{_CERTIFICATE}.key",
            "node-monitor-period": f"{NODE_MONITOR_PERIOD_S}s",
        }
        if budget is not None:
            flags["node-monitor-grace-period"] = f"{budget.grace_s}s"
    return flags


def _embedded_flags(component: str) -> dict[str, str]:
    """What ``kwok/kwokctl.yaml`` patches; where a component listens is kubeadm's to say."""
    patches = yaml.safe_load(kwok.read("kwokctl.yaml"))["componentsPatches"]
    return {
        argument["key"]: argument["value"]
        for patch in patches
        if patch["name"] == component
        for argument in patch["extraArgs"]
        if argument["key"] != "bind-address"
    }


def changed_manifest(text: str, flags: Mapping[str, str], env: Mapping[str, str]) -> str:
    """A static pod's manifest with these flags and environment variables, in the place of older ones."""
    pod: dict[str, Any] = yaml.safe_load(text)
    (container,) = pod["spec"]["containers"]
    names = tuple(f"--{name}=" for name in flags)
    kept = [word for word in container["command"] if not word.startswith(names)]
    container["command"] = [*kept, *(f"--{name}={value}" for name, value in flags.items())]
    others = [variable for variable in container.get("env", ()) if variable["name"] not in env]
    container["env"] = [*others, *({"name": name, "value": value} for name, value in env.items())]
    return yaml.safe_dump(pod, sort_keys=False)


def image_of(manifest: str) -> str:
    """The image of a static pod's only container."""
    (container,) = yaml.safe_load(manifest)["spec"]["containers"]
    return str(container["image"])


def kwok_command(kwok_binary: Binary, *, kubeconfig: str, config: str, budget: LeaseBudget) -> Sequence[str]:
    """kwok on the host, against a kubeconfig; ``config`` says which nodes are its own."""
    return (
        str(kwok_binary.path),
        f"--kubeconfig={kubeconfig}",
        f"--config={config}",
        f"--node-lease-duration-seconds={budget.lease_s}",
        "--v=4",
    )
