"""Where a measurement differs from production, and what that makes unknowable.

``deviations`` lists every difference for the result, so that a figure never travels without them. Most only
shift figures. ``refusals`` finds the few that decide an assertion: it replays each OOM kill with production's
``oom_score_adj`` over the kernel's own table of candidates, and where another process would have died,
nothing can be said about who dies. Both are pure functions of recorded facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from framework.cluster.lease_budget import PRODUCTION_GRACE_S, PRODUCTION_LEASE_S
from framework.outcome import Component, Doubt, Evidence, FidelityItem, OomCandidate, OomKill
from framework.spec import EndpointMode, Spec, TextAccount
from framework.units import mib

SKEW_MINORS_MAX: Final = 3
"""kube-proxy may be up to three minors older than kube-apiserver, and never newer (version skew policy)."""
OOM_SCORES_PRODUCTION: Final[Mapping[str, int]] = {
    "kubelet": -999,
    "kube-proxy": -999,
    "nft": -999,
    "containerd": -999,
    "containerd-shim": -998,
    "pause": -998,
    "runc": -998,
}
"""oom_score_adj of a node's daemons by comm (15 characters); nft inherits kube-proxy's, containerd gives its
shims one more than its own, runc inherits it, kubelet gives pause -998. Everything else counts as a system
daemon: 0."""
OOM_SCORE_SYSTEM_DAEMON: Final = 0


class RunFacts(Spec, frozen=True, kw_only=True):
    """What a run did otherwise than production would; the input of ``deviations`` and ``refusals``.

    ``oom_scores`` is ``flat`` where all processes of the node have the same oom_score_adj, ``shifted`` where
    they keep differences but not values. ``memory_bytes_seen_by_kubelet`` is what kubelet takes for the
    node's capacity. ``rebuilt`` are the executables that are no official builds. ``apiserver`` and
    ``kube_proxy`` are versions such as ``1.35.0``. ``fakes_not_ready`` are fake nodes that the node
    controller called NotReady at the end of the measurement; None where it didn't say.
    """

    cgroup_mode: Literal["v1", "v2"]
    oom_scores: Literal["production", "flat", "shifted"]
    node_memory_bytes: int
    memory_bytes_seen_by_kubelet: int
    node_monitor_grace_period_s: float
    fake_lease_duration_s: float
    endpoint_mode: EndpointMode
    daemonset_off_real_nodes: bool
    pods_on_real_node: bool
    node_credentials: bool
    shares_host_kernel: bool
    host_cpus: int
    apiserver: str
    kube_proxy: str
    rebuilt: tuple[Component, ...] = ()
    ballast_bytes: int = 0
    ballast_pods: int = 0
    text: TextAccount = "charged"
    fakes_not_ready: int | None = 0


def deviations(facts: RunFacts) -> tuple[FidelityItem, ...]:
    """Every deviation of a run from production, in a fixed order."""
    return tuple(_deviations(facts))


def _deviations(facts: RunFacts) -> Iterator[FidelityItem]:
    yield from _memory_items(facts)
    yield from _control_plane_items(facts)
    yield from _workload_items(facts)
    yield from _binary_items(facts)
    yield from _host_items(facts)


def _memory_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if facts.cgroup_mode == "v1":
        yield FidelityItem(
            id="cgroup-v1",
            what="the node's memory is limited by cgroup v1, most production nodes have v2",
            effect="charges and reclaim differ in detail: the smallest limit that survives may differ",
        )
    if facts.memory_bytes_seen_by_kubelet > facts.node_memory_bytes:
        yield FidelityItem(
            id="no-eviction",
            what=f"kubelet sees {mib(facts.memory_bytes_seen_by_kubelet)} MiB, the node's limit is "
            f"{mib(facts.node_memory_bytes)} MiB",
            effect="MemoryPressure and eviction never set in; in production they may free memory before an "
            "OOM kill",
        )
    if facts.text == "host":
        yield FidelityItem(
            id="text-not-charged",
            what="the pages of the node's executables belong to the host, not to the node",
            effect="the node looks about 200 MiB of page cache cheaper, and near its limit a process is "
            "killed where a node that pays for its text would starve first",
        )
    if facts.oom_scores != "production":
        yield _oom_score_item(facts.oom_scores)
    if facts.ballast_bytes:
        yield FidelityItem(
            id="ballast",
            what=f"{mib(facts.ballast_bytes)} MiB of anonymous memory stand for everything else on the node",
            effect="real neighbours also hold page cache and can be evicted; the ballast never shrinks",
        )


def _oom_score_item(scores: Literal["flat", "shifted"]) -> FidelityItem:
    if scores == "flat":
        what = "oom_score_adj can't be lowered here (no CAP_SYS_RESOURCE), all processes have the same"
        effect = "the kernel chooses its victim by size alone; in production anything above -999 goes first"
    else:
        what = "oom_score_adj is shifted upwards (no CAP_SYS_RESOURCE) and capped at 1000"
        effect = "processes whose scores meet the cap may change places as victims"
    return FidelityItem(id="oom-score-adj", what=what, effect=effect)


def _control_plane_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if facts.node_monitor_grace_period_s != PRODUCTION_GRACE_S:
        yield FidelityItem(
            id="node-monitor-grace-period",
            what=f"node-monitor-grace-period is {facts.node_monitor_grace_period_s:g} s instead of "
            f"{PRODUCTION_GRACE_S:g} s",
            effect="the control plane calls a silent node NotReady earlier or later than production would",
        )
    if facts.fake_lease_duration_s != PRODUCTION_LEASE_S:
        yield FidelityItem(
            id="fake-lease",
            what=f"fake nodes have leases of {facts.fake_lease_duration_s:g} s instead of "
            f"{PRODUCTION_LEASE_S:g} s; real nodes keep {PRODUCTION_LEASE_S:g} s",
            effect="kube-apiserver and etcd carry another load of lease renewals than production's",
        )
    if not facts.node_credentials:
        yield FidelityItem(
            id="admin-credentials",
            what="the real node uses admin credentials, not a node's own",
            effect="node authorization and its watches of single objects are not tried; nft is unaffected",
        )


def _workload_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if facts.endpoint_mode == "adopted":
        yield FidelityItem(
            id="adopted-pods",
            what="the DaemonSet's pods were created in bulk and made Ready by the framework, then adopted by "
            "the real controller; they lack the label of the controller's revision",
            effect="nothing that a node sees: the real controllers count them and write the EndpointSlices",
        )
    if facts.endpoint_mode == "endpointslices":
        yield FidelityItem(
            id="direct-endpointslices",
            what="EndpointSlices are written by the framework; there are no pods behind them",
            effect="they come faster and fuller than from the controller: kube-proxy may sync less often",
        )
    if facts.daemonset_off_real_nodes:
        yield FidelityItem(
            id="daemonset-off-real-nodes",
            what="nodeAffinity keeps the DaemonSet off real nodes",
            effect="the real node lacks its own endpoint and that pod's memory",
        )
    if not facts.pods_on_real_node:
        yield FidelityItem(
            id="no-pods",
            what="the real node runs no pods and its CNI sets up loopback only",
            effect="pods, CNI and their kernel objects cost no memory here: production has less to spare",
        )

    if facts.ballast_pods:
        yield FidelityItem(
            id="ballast-pods",
            what=f"{facts.ballast_pods} ballast pods stand for everything else on the node: real pods in "
            "real cgroups, on the node's network, their requests scaled to the memory that kubelet sees",
            effect="pod networks and their kernel objects cost no memory here, and the pods never shrink",
        )


def _binary_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if facts.rebuilt:
        built = ", ".join(f"{part.name} {part.version} ({part.toolchain})" for part in facts.rebuilt)
        yield FidelityItem(
            id="rebuilt-binaries",
            what=f"built from source, not official: {built}",
            effect="another Go toolchain has another garbage collector: the memory of these daemons may "
            "differ, nft's does not",
        )
    behind = _minor(facts.apiserver) - _minor(facts.kube_proxy)
    if behind:
        distance = f"{abs(behind)} minor{'s' if abs(behind) > 1 else ''} {'older' if behind > 0 else 'newer'}"
        supported = "supported" if 0 < behind <= SKEW_MINORS_MAX else "not supported"
        yield FidelityItem(
            id="version-skew",
            what=f"kube-proxy {facts.kube_proxy} is {distance} than kube-apiserver "
            f"{facts.apiserver} ({supported})",
            effect="production meets this during upgrades only; nft's memory follows kube-proxy's version",
        )


def _host_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if not facts.shares_host_kernel:
        return
    yield FidelityItem(
        id="shared-kernel",
        what="the real node is a cgroup and a network namespace on the host's kernel",
        effect="kernel memory that is charged to nobody (modules, slabs outside the cgroup) is missing from "
        "the node's figures; a node-wide OOM can't happen",
    )
    yield FidelityItem(
        id="shared-cpus",
        what=f"the real node shares {facts.host_cpus} CPUs with the control plane and the fake nodes",
        effect="durations are longer than on a node of its own and vary by 2x; memory does not",
    )


def _minor(version: str) -> int:
    return int(version.split(".")[1])


def _fleet_refusals(facts: RunFacts) -> Iterator[Doubt]:
    """The node controller marks the pods of a NotReady node NotReady, and their endpoints go."""
    if facts.fakes_not_ready:
        yield Doubt(
            about=("programming", "ready"),
            text=f"{facts.fakes_not_ready:,} fake nodes were NotReady at the end: their leases were not "
            "renewed in time, and their endpoints may have gone",
        )


def refusals(
    facts: RunFacts, evidence: Evidence, oom_scores: Mapping[str, int] = OOM_SCORES_PRODUCTION
) -> tuple[Doubt, ...]:
    """The deviations that make an assertion about this evidence unknowable.

    ``oom_scores`` maps a comm to the oom_score_adj that it has in production; a ballast should be named here
    with the score of what it stands for.
    """
    return (
        *_victim_refusals(facts, evidence, oom_scores),
        *_ready_refusals(facts, evidence),
        *_fleet_refusals(facts),
    )


def _victim_refusals(facts: RunFacts, evidence: Evidence, oom_scores: Mapping[str, int]) -> Iterator[Doubt]:
    if facts.oom_scores == "production":
        return
    for kill in evidence.oom_kills:
        victim = _production_victim(kill, evidence.cgroup.limit_bytes, oom_scores)
        if victim is None:
            yield Doubt(
                about=("victims",),
                text=f"oom_score_adj is {facts.oom_scores} and the kernel log lists no candidates at the "
                f"kill of {kill.victim_comm}: production may have chosen another victim",
            )
        elif victim.pid != kill.victim_pid:
            yield Doubt(
                about=("victims",),
                text=f"oom_score_adj is {facts.oom_scores}: {kill.victim_comm} was killed, production's "
                f"scores would have chosen {victim.comm} ({mib(victim.memory_bytes_rss)} MiB)",
            )


def _production_victim(kill: OomKill, limit_bytes: int, oom_scores: Mapping[str, int]) -> OomCandidate | None:
    """Whom the kernel would have chosen with production's scores (oom_badness() in its mm/oom_kill.c)."""

    def badness(candidate: OomCandidate) -> float:
        held = candidate.memory_bytes_rss + candidate.page_table_bytes + candidate.swap_bytes
        return held + oom_scores.get(candidate.comm, OOM_SCORE_SYSTEM_DAEMON) * limit_bytes / 1000

    return max(kill.candidates, key=badness, default=None)


def _ready_refusals(facts: RunFacts, evidence: Evidence) -> Iterator[Doubt]:
    """A node that stayed Ready only because the control plane is more patient than production's."""
    if facts.node_monitor_grace_period_s <= PRODUCTION_GRACE_S:
        return
    silences_s = [sample.lease_age_s or 0.0 for sample in evidence.status if sample.ready == "True"]
    silence_s = max(silences_s, default=0.0)
    if silence_s > PRODUCTION_GRACE_S:
        yield Doubt(
            about=("ready",),
            text=f"the node was Ready with a lease not renewed for {silence_s:.0f} s: production's grace "
            f"period of {PRODUCTION_GRACE_S:g} s would have made it NotReady, here it is "
            f"{facts.node_monitor_grace_period_s:g} s",
        )
