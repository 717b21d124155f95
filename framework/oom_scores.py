"""Whom the kernel would kill first: production's oom_score_adj, and what of it this machine permits.

When a memory cgroup is full the kernel kills the process with the highest badness: what it holds, plus
oom_score_adj thousandths of the limit (``oom_badness`` in the kernel's mm/oom_kill.c). In production a node's
daemons have -999, so that anything else dies before them, and among them the largest.

Lowering a score takes CAP_SYS_RESOURCE. Without it all scores are shifted upwards until the lowest is one
that may be had. A shift keeps every difference, and so every choice, up to the cap of 1000; beyond it two
processes with different scores meet. Which choices that may change is replayed for each kill from the
kernel's own table of candidates (``framework.analysis.fidelity``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from framework.outcome import OomScores
from framework.process import CAP_SYS_RESOURCE, has_capability
from framework.spec import OOM_SCORE_MAX, OOM_SCORE_MIN, Ballast, OomPolicy, RealNodeSpec

DAEMON_SCORE: Final = -999
"""kubelet (KubeletConfiguration.oomScoreAdj), kube-proxy (KubeProxyConfiguration.oomScoreAdj, which its nft
and iptables inherit) and containerd (OOMScoreAdjust in its systemd unit)."""
GUARANTEED_SCORE: Final = -997
BESTEFFORT_SCORE: Final = 1000
SYSTEM_SCORE: Final = 0
"""guaranteedOOMScoreAdj and besteffortOOMScoreAdj in pkg/kubelet/qos/policy.go; what nobody sets is 0."""
_COPY_NUMBER: Final = re.compile(r"\d{3}-", re.ASCII)
_CHILDREN: Final[Mapping[str, tuple[str, int]]] = {
    **dict.fromkeys(
        (
            *("nft", "iptables", "ip6tables", "iptables-restor", "ip6tables-resto"),
            *("iptables-save", "ip6tables-save"),
        ),
        ("kube-proxy", 0),
    ),
    "iptables": ("kube-proxy", 0),
    "ip6tables": ("kube-proxy", 0),
    "iptables-restor": ("kube-proxy", 0),
    "ip6tables-resto": ("kube-proxy", 0),
    "iptables-save": ("kube-proxy", 0),
    "ip6tables-save": ("kube-proxy", 0),
    "containerd-shim": ("containerd", 1),
    "runc": ("containerd", 1),
    "pause": ("containerd", 1),
}
"""By comm: whose score a child has, and how much more. containerd gives its shims one more than its own,
runc inherits it, and kubelet gives pause -998."""


def production_scores(spec: RealNodeSpec) -> dict[str, int]:
    """oom_score_adj in production of the node's daemons and of each ballast, by name."""
    daemons = dict.fromkeys(("kubelet", "containerd", "kube-proxy"), DAEMON_SCORE)
    return daemons | {each.name: _ballast_score(each, spec.memory_bytes) for each in spec.ballast}


def _ballast_score(ballast: Ballast, node_memory_bytes: int) -> int:
    match ballast.kind:
        case "system":
            return SYSTEM_SCORE
        case "guaranteed":
            return GUARANTEED_SCORE
        case "besteffort":
            return BESTEFFORT_SCORE
        case "burstable":
            return burstable_score(ballast.requested_bytes, node_memory_bytes)


def burstable_score(request_bytes: int, node_memory_bytes: int) -> int:
    """GetContainerOOMScoreAdjust in pkg/kubelet/qos/policy.go: 3 to 999, less the more is requested."""
    score = 1000 - 1000 * request_bytes // node_memory_bytes
    return min(max(score, 1000 + GUARANTEED_SCORE), BESTEFFORT_SCORE - 1)


def plan_scores(spec: RealNodeSpec, *, lowest: int) -> OomScores:
    """What each of the node's processes gets where ``lowest`` is the lowest score that may be had.

    Under ``flat`` all get the same. Other policies are shifted as a whole if need be, but for pods: kubelet
    gives them their own scores, and containerd none below its own.
    """
    asked = asked_scores(spec.oom_policy, production_scores(spec))
    shift = max(0, lowest - min(asked.values()))
    applied = {name: min(score + shift, OOM_SCORE_MAX) for name, score in asked.items()}
    for pod in spec.pods:
        applied[pod.name] = max(asked[pod.name], applied["containerd"])
    return OomScores(
        policy=spec.oom_policy if isinstance(spec.oom_policy, str) else "explicit",
        asked=asked,
        applied=applied,
        shift=shift,
        capped=tuple(name for name, score in asked.items() if applied[name] - score != shift),
    )


def asked_scores(policy: OomPolicy, production: Mapping[str, int]) -> dict[str, int]:
    """The scores that ``policy`` means, by name, as they would be on a machine that permits all."""
    if policy == "flat":
        return dict.fromkeys(production, 0)
    return {**production, **(policy if isinstance(policy, dict) else {})}


def scores_by_comm(by_name: Mapping[str, int]) -> dict[str, int]:
    """``by_name`` with the processes that these start, by the kernel's comm."""
    children = {comm: by_name[parent] + more for comm, (parent, more) in _CHILDREN.items()}
    return {**children, **by_name}


def score_of(comm: str, by_comm: Mapping[str, int]) -> int:
    """What the process called ``comm`` has; what nobody set is a system daemon's.

    A shim is executed from its private copy, whose number and name fill comm: ``002-containerd-``.
    """
    bare = _COPY_NUMBER.sub("", comm)
    if bare != comm:
        return next((score for name, score in by_comm.items() if name.startswith(bare)), SYSTEM_SCORE)
    return by_comm.get(comm, SYSTEM_SCORE)


def lowest_score(proc: Path = Path("/proc/self")) -> int:
    """The lowest oom_score_adj that this process may give to another."""
    if has_capability(CAP_SYS_RESOURCE, proc):
        return OOM_SCORE_MIN
    return int((proc / "oom_score_adj").read_text())
