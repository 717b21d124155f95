"""Where a measurement differs from production, and what that makes unknowable.

``deviations`` lists every difference for the result, so that a figure never travels without them. Most only
shift figures. ``refusals`` finds the few that decide an assertion: it replays each OOM kill with the asked
``oom_score_adj`` over the kernel's own table of candidates, and where another process would have died,
nothing can be said about who dies. Both are pure functions of recorded facts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal

from framework.analysis.fates import readiness
from framework.analysis.table import describe_scores
from framework.cluster.lease_budget import PRODUCTION_GRACE_S, PRODUCTION_LEASE_S
from framework.oom_scores import score_of, scores_by_comm
from framework.outcome import Component, Doubt, Evidence, FidelityItem, OomCandidate, OomKill, OomScores
from framework.spec import Ballast, BallastKind, Content, EndpointMode, Spec, TextAccount
from framework.units import mib

SKEW_MINORS_MAX: Final = 3
"""kube-proxy may be up to three minors older than kube-apiserver, and never newer (version skew policy)."""


class RunFacts(Spec, frozen=True, kw_only=True):
    """What a run did otherwise than production would; the input of ``deviations`` and ``refusals``.

    ``oom_scores`` are the node's, asked and applied. ``memory_bytes_seen_by_kubelet`` is what kubelet takes
    for the node's capacity. ``rebuilt`` are the executables that are no official builds. ``apiserver`` and
    ``kube_proxy`` are versions such as ``1.35.0``. ``fakes_not_ready`` are fake nodes that the node
    controller called NotReady at the end of the measurement; None where it didn't say. ``sentinel`` is true
    where a small Service stands beside a headless one. ``other_runs`` lived on the same machine.
    """

    cgroup_mode: Literal["v1", "v2"] | None
    oom_scores: OomScores
    node_memory_bytes: int
    memory_bytes_seen_by_kubelet: int
    node_monitor_grace_period_s: float | None
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
    ballast: tuple[Ballast, ...] = ()
    text: TextAccount = "charged"
    fakes_not_ready: int | None = 0
    captures_transactions: bool = False
    sentinel: bool = False
    existing_cluster: bool = False
    kind_worker: bool = False
    other_runs: int = 0


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
    if facts.kind_worker:
        yield FidelityItem(
            id="kind-worker",
            what="the node is a container of kind's: systemd and journald are in its limit, kube-proxy is a "
            "pod of its own and not the DaemonSet's, and kubelet evicts nobody, as kind configures it",
            effect="it holds some 20 MiB more than a node's daemons alone; nft's own memory is the same",
        )
    yield from _oom_score_items(facts.oom_scores)
    if facts.captures_transactions:
        yield FidelityItem(
            id="twin",
            what="a wrapper around nft stores each transaction in a file before nft reads it",
            effect="the files' pages are charged to the node and each load begins later; nft's own memory is "
            "the same",
        )
    processes = [each for each in facts.ballast if each.form != "pod"]
    if processes:
        held = ", ".join(
            f"{mib(each.memory_bytes)} MiB of {_CONTENT_WORDS[each.content]} as {_KIND_WORDS[each.kind]}"
            for each in processes
        )
        yield FidelityItem(
            id="ballast",
            what=f"processes stand for everything else on the node: {held}",
            effect="they have the oom_score_adj of what they stand for, but are no pods: nobody evicts them, "
            "and they neither grow nor shrink",
        )


_CONTENT_WORDS: Final[dict[Content, str]] = {"anonymous": "anonymous memory", "page_cache": "page cache"}
_KIND_WORDS: Final[dict[BallastKind, str]] = {
    "system": "a system daemon",
    "guaranteed": "a Guaranteed pod",
    "burstable": "a Burstable pod",
    "besteffort": "a BestEffort pod",
}


def _oom_score_items(scores: OomScores) -> Iterator[FidelityItem]:
    if scores.policy == "flat":
        yield FidelityItem(
            id="oom-flat",
            what="all processes of the node have the same oom_score_adj, as asked",
            effect="the kernel chooses by size alone; in production anything above -999 goes first",
        )
    if scores.policy == "explicit":
        yield FidelityItem(
            id="oom-explicit",
            what=f"oom_score_adj as asked: {describe_scores(scores.asked)}",
            effect="other scores than production's choose other victims",
        )
    if scores.shift and scores.policy != "flat":
        capped = (
            f", but not that of {', '.join(scores.capped)} (capped at 1000, or kubelet's own)"
            if scores.capped
            else ""
        )
        yield FidelityItem(
            id="oom-score-adj",
            what=f"every oom_score_adj is {scores.shift} higher (no CAP_SYS_RESOURCE){capped}",
            effect="other differences, and so victims, stay; each kill is replayed with the true scores",
        )


def _control_plane_items(facts: RunFacts) -> Iterator[FidelityItem]:
    if facts.existing_cluster:
        yield FidelityItem(
            id="existing-cluster",
            what="the cluster was there before: its control plane, its other Services and its nodes are as "
            "they are, and workloads are in a namespace with a longer name",
            effect="the ruleset holds the cluster's other Services too, and each rule is some bytes longer",
        )
    if facts.node_monitor_grace_period_s is None:
        yield FidelityItem(
            id="grace-period-unknown",
            what="node-monitor-grace-period can't be asked for: time limits take production's "
            f"{PRODUCTION_GRACE_S:g} s",
            effect="the control plane may call a silent node NotReady earlier or later than that",
        )
    elif facts.node_monitor_grace_period_s != PRODUCTION_GRACE_S:
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
            what="EndpointSlices and their hints are written by the framework; there are no pods behind them",
            effect="they come faster and fuller than from the controller: kube-proxy may sync less often",
        )
    if facts.sentinel:
        yield FidelityItem(
            id="sentinel",
            what="a Service with two endpoints was created after the headless one, to show that kube-proxy "
            "has seen that and passed it over",
            effect="the node has the rules of those two endpoints",
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
    pods = [each for each in facts.ballast if each.form == "pod"]
    if pods:
        yield FidelityItem(
            id="ballast-pods",
            what=f"{len(pods)} ballast pods stand for everything else on the node: real pods in real "
            "cgroups, on the node's network, their requests scaled to the memory that kubelet sees",
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
    if facts.other_runs:
        runs = "another run" if facts.other_runs == 1 else f"{facts.other_runs} other runs"
        yield FidelityItem(
            id="other-runs",
            what=f"{runs} of kilonode lived on this machine at the same time",
            effect="where CPUs are short Go collects garbage later: beside a run that measured at the same "
            "moment kube-proxy held 20% more and the node's peak rose by 3%; nft's did not",
        )
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
    """The node controller marks the pods of a NotReady node NotReady, and their endpoints go.

    Slices that are written directly have no pods, and no controller looks after them.
    """
    if facts.fakes_not_ready and facts.endpoint_mode != "endpointslices":
        yield Doubt(
            about=("programming", "ready"),
            text=f"{facts.fakes_not_ready:,} fake nodes were NotReady at the end: their leases were not "
            "renewed in time, and their endpoints may have gone",
        )


def refusals(facts: RunFacts, evidence: Evidence) -> tuple[Doubt, ...]:
    """The deviations that make an assertion about this evidence unknowable."""
    return (
        *_victim_refusals(facts.oom_scores, evidence),
        *_ready_refusals(facts, evidence),
        *_fleet_refusals(facts),
    )


def _victim_refusals(scores: OomScores, evidence: Evidence) -> Iterator[Doubt]:
    if not scores.shift:
        return
    for kill in evidence.oom_kills:
        limit_bytes = evidence.cgroup.limit_bytes if evidence.cgroup else 0
        victim = _true_victim(kill, limit_bytes, scores_by_comm(scores.asked))
        if victim is None:
            yield Doubt(
                about=("victims",),
                text=f"oom_score_adj is {scores.shift} too high and the kernel log lists no candidates at "
                f"the kill of {kill.victim_comm}: the true scores may have chosen another victim",
            )
        elif victim.pid != kill.victim_pid:
            yield Doubt(
                about=("victims",),
                text=f"oom_score_adj is {scores.shift} too high: {kill.victim_comm} was killed, the true "
                f"scores would have chosen {victim.comm} ({mib(victim.memory_bytes_rss)} MiB)",
            )


def _true_victim(kill: OomKill, limit_bytes: int, oom_scores: Mapping[str, int]) -> OomCandidate | None:
    """Whom the kernel would have chosen with the asked scores (oom_badness() in its mm/oom_kill.c)."""

    def badness(candidate: OomCandidate) -> float:
        held = candidate.memory_bytes_rss + candidate.page_table_bytes + candidate.swap_bytes
        return held + score_of(candidate.comm, oom_scores) * limit_bytes / 1000

    return max(kill.candidates, key=badness, default=None)


def _ready_refusals(facts: RunFacts, evidence: Evidence) -> Iterator[Doubt]:
    """A node that stayed Ready only because the control plane is more patient than production's.

    One that it called NotReady in the end was called so later than in production, and no less.
    """
    called_not_ready = readiness(evidence).not_ready_at_s is not None
    grace_s = facts.node_monitor_grace_period_s
    if called_not_ready or (grace_s is not None and grace_s <= PRODUCTION_GRACE_S):
        return
    here = "here it is unknown" if grace_s is None else f"here it is {grace_s:g} s"
    silences_s = [sample.lease_age_s or 0.0 for sample in evidence.status if sample.ready == "True"]
    silence_s = max(silences_s, default=0.0)
    if silence_s > PRODUCTION_GRACE_S:
        yield Doubt(
            about=("ready",),
            text=f"the node was Ready with a lease not renewed for {silence_s:.0f} s: production's grace "
            f"period of {PRODUCTION_GRACE_S:g} s would have made it NotReady, {here}",
        )
