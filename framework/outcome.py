"""What happened: typed, frozen, serialisable.

Three layers, each made from the one before:

* *evidence* is what was recorded: exit records, kernel-log kills, cgroup readings, kube-proxy's own log and
  metrics, node status. Nothing in it is concluded.
* an *outcome* is what the evidence means, derived by pure functions in ``framework.analysis``.
* a *verdict* compares an outcome with what a scenario expected: pass, fail, or unknown with its reason.

All times named ``at_s`` are seconds on one clock: ``CLOCK_BOOTTIME`` minus the run's zero, which
``Evidence.zero_utc`` gives as wall-clock time. Memory is in bytes everywhere. None means *unknown*,
never zero.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from framework.spec import Loader, ManyServicesSpec, RealNodeSpec, ServiceSpec

PODS_CGROUP: Final = "kubepods"
"""The cgroup in which kubelet makes those of its pods."""
_POD: Final = re.compile(rf"/{PODS_CGROUP}/|-{PODS_CGROUP}\.slice/")
"""By kubelet's cgroupfs driver and by its systemd driver, below kind's ``cgroupRoot``."""


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of everything that is written to a run folder."""


Source = Literal["exit_record", "cgroup_counter", "sample", "poll", "log", "metric", "listing"]
"""How a figure was obtained. ``exit_record`` and ``cgroup_counter`` are kept by the kernel at each change and
so are exact peaks; ``sample`` and ``poll`` saw moments only."""

Bound = Literal["exact", "lower"]

Family = Literal["IPv4", "IPv6"]
LOADER_COMMS: Final[dict[Loader, frozenset[str]]] = {
    "nft": frozenset({"nft"}),
    "iptables-restore": frozenset({"iptables-restor", "ip6tables-resto"}),
}
"""By which names the kernel knows a loader's processes: the first 15 characters."""
_NO_LOADS: Final = frozenset({"--check", "-c", "--version", "-V", "--test", "-t", "--help", "-h"})


class Measure(Record, frozen=True, kw_only=True):
    """One figure with its pedigree. ``bound == "lower"``: the truth is this or more."""

    value: int
    source: Source
    bound: Bound


class ProcessExit(Record, frozen=True, kw_only=True):
    """One process of a real node that ended, as the kernel's exit accounting (taskstats) reports it.

    ``exit_code`` and ``signal`` exclude each other. ``argv`` is None where the process was gone before its
    command line could be read. ``memory_bytes_peak`` is its high-water RSS.
    """

    at_s: float
    pid: int
    parent_pid: int
    comm: str
    argv: tuple[str, ...] | None
    exit_code: int | None
    signal: int | None
    elapsed_s: float
    cpu_user_s: float
    cpu_system_s: float
    memory_bytes_peak: int
    source: Source
    bound: Bound

    @property
    def loads_ruleset(self) -> bool | None:
        """True for ``nft -f -`` and ``iptables-restore --noflush``, the load of a transaction; None where the
        command line is unknown."""
        if self.argv is None:
            return None
        loads = self.comm in LOADER_COMMS["iptables-restore"] or (self.comm == "nft" and "-f" in self.argv)
        return loads and not _NO_LOADS & set(self.argv)


class OomCandidate(Record, frozen=True, kw_only=True):
    """A row of the kernel's table of candidates at an OOM kill."""

    pid: int
    comm: str
    memory_bytes_rss: int
    page_table_bytes: int
    swap_bytes: int
    oom_score_adj: int


class OomKill(Record, frozen=True, kw_only=True):
    """One OOM kill, from the kernel log; ``cgroup`` is the path of the one that was out of memory."""

    at_s: float
    victim_pid: int
    victim_comm: str
    constraint: str
    cgroup: str
    victim_cgroup: str
    memory_bytes_anon: int
    memory_bytes_file: int
    memory_bytes_shmem: int
    page_table_bytes: int
    oom_score_adj: int
    candidates: tuple[OomCandidate, ...]

    @property
    def in_pod(self) -> bool:
        """Whether the victim was in a pod of kubelet's."""
        return _POD.search(self.victim_cgroup) is not None


class CgroupSample(Record, frozen=True, kw_only=True):
    """One reading of a node's memory cgroup. ``kernel_bytes`` includes page tables and nft objects."""

    at_s: float
    charged_bytes: int
    anonymous_bytes: int
    file_bytes: int
    kernel_bytes: int


class ProcessTrack(Record, frozen=True, kw_only=True):
    """The anonymous memory of one process at some moments, while it had one name.

    It is read from ``/proc/PID/statm`` and so may lag by some pages of each thread.
    """

    pid: int
    comm: str
    at_s: tuple[float, ...]
    anonymous_bytes: tuple[int, ...]


class CgroupEvidence(Record, frozen=True, kw_only=True):
    """A node's memory cgroup over one measurement.

    ``charged_bytes_peak`` is the kernel's own high-water mark (page cache included). The unreclaimable peak
    (anonymous plus kernel memory) has no such counter: it is the largest sample, so a lower bound.
    """

    mode: Literal["v1", "v2"]
    limit_bytes: int
    charged_bytes_peak: Measure
    unreclaimable_bytes_peak: Measure
    kernel_bytes_peak: Measure
    baseline: CgroupSample
    end: CgroupSample
    oom_kills: int
    samples: tuple[CgroupSample, ...]
    sample_interval_s: float


class ProxySync(Record, frozen=True, kw_only=True):
    """One sync of kube-proxy, from its log at -v=2.

    ``endpoints`` is what it was about to program, None where the sync failed before it said so.
    """

    started_at_s: float
    ended_at_s: float | None
    family: Family
    full: bool
    services: int | None
    endpoints: int | None
    elapsed_s: float | None
    error: str | None
    retry_after_s: float | None


class NodeStatusSample(Record, frozen=True, kw_only=True):
    """The node as the control plane sees it. ``lease_age_s`` is None while there is no lease.

    ``ready_since_s`` is the condition's lastTransitionTime, which has whole seconds.
    """

    at_s: float
    ready: Literal["True", "False", "Unknown", "absent"]
    reason: str
    lease_age_s: float | None
    lease_duration_s: float | None
    ready_since_s: float | None = None


class Connect(Record, frozen=True, kw_only=True):
    """One attempt of a client behind the node to reach the Service.

    It was served when ``error`` (timeout, refused, unreachable, reset) is None: the connection stood (TCP) or
    an answer was read (UDP). ``elapsed_s`` is the time until then, of TCP the kernel's own measure, or until
    the attempt failed. ``backend`` is the endpoint that answered, None where it did not say so in time.
    """

    at_s: float
    elapsed_s: float
    backend: str | None
    error: str | None


class Traffic(Record, frozen=True, kw_only=True):
    """Attempts of a stretch of time. ``success`` is None where there was none.

    Times are of those that were served; the 99th percentile needs a hundred of them. ``backends`` are the
    distinct endpoints that answered, ``backends_expected`` as many as that many picks with equal chances
    would reach on average; ``busiest_share`` is the part of the answers that the busiest endpoint gave: 1
    with session affinity.
    """

    begin_s: float
    end_s: float
    attempts: int
    served: int
    success: float | None
    connect_s_p50: float | None
    connect_s_p99: float | None
    backends: int
    backends_expected: float
    errors: dict[str, int]
    busiest_share: float | None = None


class Ruleset(Record, frozen=True, kw_only=True):
    """What the kernel holds for kube-proxy's tables, from one listing after programming.

    ``endpoints`` are the distinct pairs of address and port that the listing names for each asked Service,
    ``unexpected`` those among them that no such Service has (any more). ``service_ports`` counts these
    Services' ports for which it has any rule, if only to drop packets; None where an older kilonode did not
    count them. ``listing_bytes`` is the length of ``nft list ruleset``, or of ``iptables-save``, where chains
    and rules are those of kube-proxy's chains and there are no elements.
    """

    tables: int
    chains: int
    rules: int
    elements: int
    endpoints: int
    listing_bytes: int
    unexpected: int = 0
    service_ports: int | None = None


class Programmed(Record, frozen=True, kw_only=True):
    """What kube-proxy is to make of a workload on one node, in ``families``.

    ``endpoints_logged`` is what its log counts in each family: the endpoints it knows, whatever their
    Services' policy or hints then leave of them. ``endpoints`` and ``service_ports`` are what the ruleset
    names, in all families together.
    """

    families: tuple[Family, ...]
    endpoints_logged: int
    endpoints: int
    service_ports: int | None

    def is_complete(self, sync: ProxySync, family: Family) -> bool:
        """Whether this sync is of ``family``, ended well, and had all endpoints, earlier ones included."""
        succeeded = sync.error is None and sync.ended_at_s is not None
        return succeeded and sync.family == family and (sync.endpoints or 0) >= self.endpoints_logged

    def matches(self, ruleset: Ruleset) -> bool:
        """Whether the ruleset names exactly what it should, as far as was counted."""
        counted = None not in (ruleset.service_ports, self.service_ports)
        return (
            ruleset.endpoints == self.endpoints
            and not ruleset.unexpected
            and (not counted or ruleset.service_ports == self.service_ports)
        )


class DaemonRecord(Record, frozen=True, kw_only=True):
    """One long-lived process of the node. ``exit_code`` is None while it lives.

    ``role`` tells the node's own daemons from ballast, which stands for what else runs on a node.
    """

    name: str
    pid: int
    exit_code: int | None
    memory_bytes_peak: Measure | None
    oom_score_adj: int
    role: Literal["daemon", "ballast"] = "daemon"


class Restart(Record, frozen=True, kw_only=True):
    """A long-lived process that ended and was started again after ``delay_s``, by the node's restart policy.

    ``restarted_at_s`` is None while the delay runs.
    """

    name: str
    pid: int
    exit_code: int
    ended_at_s: float
    delay_s: float
    restarted_at_s: float | None


class OomScores(Record, frozen=True, kw_only=True):
    """oom_score_adj of the node's processes by name: as asked, and as this machine permits.

    ``shift`` was added to all of them but those ``capped``, which lost their distance to others: they would
    exceed 1000, or are pods, whose scores kubelet gives.
    """

    policy: Literal["production", "flat", "explicit"]
    asked: dict[str, int]
    applied: dict[str, int]
    shift: int
    capped: tuple[str, ...]


class PodRecord(Record, frozen=True, kw_only=True):
    """One ballast pod of the node, as the API server and the kernel know it at one moment.

    ``state`` and ``last_end`` are its container's, with the reason where kubelet gives one (``OOMKilled``,
    ``CrashLoopBackOff``). ``oom_score_adj`` is what its process really has; None while none runs.
    """

    name: str
    qos: str
    phase: str
    state: str | None
    last_end: str | None
    restarts: int
    oom_score_adj: int | None


class Component(Record, frozen=True, kw_only=True):
    """One executable that took part, with where it came from."""

    name: str
    version: str
    source: str
    toolchain: str
    sha256: str


class Environment(Record, frozen=True, kw_only=True):
    """The machine and the versions that a figure depends on."""

    kernel: str
    cgroup_mode: Literal["v1", "v2"]
    cpus: int
    memory_bytes: int
    python: str
    distribution: str
    components: tuple[Component, ...]
    cpu_model: str = ""


class FidelityItem(Record, frozen=True, kw_only=True):
    """One deviation from production: what differs, and what it may change in the figures."""

    id: str
    what: str
    effect: str


Phase = Literal[
    "first_programming",
    "cold_start",
    "endpoints_changed",
    "rolling_replacement",
    "kube_proxy_restart",
    "full_resync",
    "service_deleted",
]
"""What a measurement did to the node. ``first_programming``: the Service was created under a running
kube-proxy. ``cold_start``: kube-proxy started with the Service there and none of its rules in the kernel.
``kube_proxy_restart``: the same, with the rules in the kernel. ``full_resync``: a label of the Node changed,
for which kube-proxy syncs everything."""


MeasuredBy = Literal["exit_record", "poll", "nothing"]
"""How processes that ended were recorded."""
Unseen = Literal["exits", "kills", "cgroup", "syncs", "ruleset", "daemons"]
"""A kind of records that nobody could take."""


class Blindness(Record, frozen=True, kw_only=True):
    """What could not be seen of a node, and why; nothing may be concluded from its absence."""

    what: Unseen
    why: str


class Disturbance(Record, frozen=True, kw_only=True):
    """Something that nobody planned and that happened to the cluster or the machine under a measurement."""

    at_s: float
    text: str


class Evidence(Record, frozen=True, kw_only=True):
    """Everything that was recorded about one real node during one measurement.

    ``exit_records_lost`` counts buffer overruns of the kernel's exit records, ``argv_unknown`` the processes
    that ended before their command line could be read; ``measured_by`` is ``poll`` where the kernel refused
    exit records, and then every peak is a lower bound. ``endpoints_expected`` counts an endpoint once for
    each port of the Service, as kube-proxy does. ``expected`` is what the node is to be programmed with; None
    (evidence of older kilonodes): all of ``endpoints_expected`` in one family. ``shape`` is how the workload
    differs from one TCP Service of one port, ``loader`` the program that loads rulesets.

    ``phase`` says what was done at ``workload_applied_at_s``; from ``last_changed_at_s`` on (None in evidence
    of older kilonodes) the Service and all its endpoints were as they are to be. All records are from
    ``begun_at_s`` on; what came before belongs to an earlier phase of the same node. At ``settled_at_s`` it
    was decided what became of the Service; what clients met afterwards says whether it is served.
    ``addresses_gone`` are no endpoints any longer: an answer from there is an answer from rules that are
    stale. ``unseen`` is what could not be recorded at all, as of a node that is somebody else's; ``cgroup``
    is None then, or ``exits`` and the like empty. ``tracks`` say whose anonymous memory it was at moments;
    none for nodes elsewhere, and in evidence of older kilonodes. ``disturbances`` are in the order in which
    they were noticed: a later one may follow from an earlier.
    """

    zero_utc: str
    node: str
    kube_proxy: str
    endpoints_expected: int
    endpoint_mode: str
    workload_applied_at_s: float
    programmed_at_s: float | None
    ended_at_s: float
    exits: tuple[ProcessExit, ...]
    exit_records_lost: int
    measured_by: MeasuredBy
    oom_kills: tuple[OomKill, ...]
    cgroup: CgroupEvidence | None
    syncs: tuple[ProxySync, ...]
    sync_failures_metric: int | None
    status: tuple[NodeStatusSample, ...]
    ruleset: Ruleset | None
    daemons: tuple[DaemonRecord, ...]
    pods: tuple[PodRecord, ...] = ()
    harness_memory_bytes_peak: int
    harness_cpu_s: float
    phase: Phase = "first_programming"
    begun_at_s: float = 0.0
    settled_at_s: float | None = None
    last_changed_at_s: float | None = None
    addresses_expected: int = 0
    connects: tuple[Connect, ...] = ()
    addresses_gone: tuple[str, ...] = ()
    oom_scores: OomScores | None = None
    restarts: tuple[Restart, ...] = ()
    node_monitor_grace_period_s: float | None = None
    expected: Programmed | None = None
    shape: str = ""
    loader: Loader = "nft"
    unseen: tuple[Blindness, ...] = ()
    tracks: tuple[ProcessTrack, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()

    def sees(self, what: Unseen) -> bool:
        return all(each.what != what for each in self.unseen)


Served = Literal["fully", "partly", "not"]
Fate = Literal[
    "programmed",
    "programmed_late",
    "silent_outage",
    "nft_killed",
    "sync_failed",
    "kube_proxy_killed",
    "kubelet_killed",
    "containerd_killed",
    "workload_killed",
    "starved",
    "not_ready",
    "recovered",
]
"""What became of the node; several hold at once.

``programmed_late``: after a failed sync, or later than 30 s after the last change. ``silent_outage``: the
node is Ready, its lease renewed, and the Service is not served by it. ``sync_failed``: without a kill.
``workload_killed``: something else on the node was killed in nft's place. ``starved``: the lease expired with
every daemon alive. ``not_ready``: the node controller's own verdict. ``recovered``: served, renewed and Ready
after any of these.
"""


class FateSeen(Record, frozen=True, kw_only=True):
    """A fate, the moment from which it held, and the records that say so, in words."""

    fate: Fate
    at_s: float
    why: str


class Event(Record, frozen=True, kw_only=True):
    """Something that decided an outcome; ``source`` names the record that tells of it."""

    at_s: float
    what: str
    source: str


class Readiness(Record, frozen=True, kw_only=True):
    """When the node fell silent, and who noticed; None for what did not happen or was not seen.

    ``lease_expired_at_s`` is the last renewal plus the lease's own duration: the node's word.
    ``not_ready_at_s`` is the node controller's verdict with the grace period that it had here;
    ``production_not_ready_at_s`` are the earliest and the latest moment of it with production's.
    ``silence_s`` is the longest time without a renewal.
    """

    silence_s: float | None
    lease_expired_at_s: float | None
    not_ready_at_s: float | None
    not_ready_reason: str
    production_not_ready_at_s: tuple[float, float] | None


class CrashLoop(Record, frozen=True, kw_only=True):
    """A long-lived process that ended again and again: ``period_s`` between its ends, ``down_s`` of the
    ``window_s`` that were watched without it."""

    name: str
    ends: int
    period_s: float | None
    down_s: float
    window_s: float


Programming = Literal["programmed", "nft_killed", "sync_failed", "timed_out", "daemon_died"]
Result = Literal["pass", "fail", "unknown"]
Topic = Literal["programming", "victims", "nft_peak_low", "nft_peak_high", "sync", "ready", "everything"]
"""What a doubt is about. ``nft_peak_low``: nft's peak may exceed its figure; ``nft_peak_high``: be less.
``everything``: the measurement is not the one that was asked for, and nothing follows from it."""


class Doubt(Record, frozen=True, kw_only=True):
    """One reason why an outcome is less than certain: ``text`` is a sentence, ``about`` what it touches."""

    about: tuple[Topic, ...]
    text: str

    def __str__(self) -> str:
        return self.text


class Outcome(Record, frozen=True, kw_only=True):
    """What the evidence means for one node, one Service and one kube-proxy.

    ``retries`` counts syncs that followed a failed one; ``retry_interval_s`` is the longest time between the
    starts of two failed ones in a row: a change of endpoints brings the next sync earlier.
    ``ready_throughout`` is None where the status was not seen often enough to say. ``loader`` is the program
    whose runs the ``nft_`` figures are of, also where it is ``iptables-restore``.

    ``victims`` are the names of what the kernel killed, in order, ``survivors`` the long-lived processes that
    were there at the end. ``kernel_bytes_left`` is the kernel memory at the end beyond that of the idle node.
    ``served`` is what clients met after it was decided what became of the Service or, without clients, what
    the ruleset says; ``traffic_*`` are what they met before the phase, until then, and from there on.
    """

    programming: Programming
    node: str
    kube_proxy: str
    endpoints: int
    endpoint_mode: str
    limit_bytes: int | None
    nft_bytes_peak: Measure | None
    nft_runs: int
    nft_killed: int
    charged_bytes_peak: Measure | None
    unreclaimable_bytes_peak: Measure | None
    kernel_bytes_end: int | None
    sync_s: float | None
    sync_full: bool | None
    programmed_after_s: float | None
    oom_victims: tuple[str, ...]
    sync_errors: tuple[str, ...]
    retries: int
    retry_interval_s: float | None
    ready_throughout: bool | None
    ready_at_end: bool
    ruleset: Ruleset | None
    doubts: tuple[Doubt, ...]
    phase: Phase = "first_programming"
    fates: tuple[FateSeen, ...] = ()
    victims: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    readiness: Readiness | None = None
    crash_loops: tuple[CrashLoop, ...] = ()
    nft_list_bytes_peak: Measure | None = None
    kernel_bytes_left: int | None = None
    syncs: int = 0
    syncs_failed: int = 0
    sync_s_max: float | None = None
    served: Served | None = None
    traffic_before: Traffic | None = None
    traffic_during: Traffic | None = None
    traffic_after: Traffic | None = None
    shape: str = ""
    loader: Loader = "nft"

    @property
    def disturbed(self) -> tuple[str, ...]:
        """Why nothing follows from it, that first which came first; empty where nothing disturbed it."""
        return tuple(doubt.text for doubt in self.doubts if "everything" in doubt.about)


class Verdict(Record, frozen=True, kw_only=True):
    """``reasons`` says why it is not a pass; empty for a pass."""

    result: Result
    reasons: tuple[str, ...] = ()


class WatchAsked(Record, frozen=True, kw_only=True):
    """How long a phase was followed, as ``framework.Watch`` has it."""

    failures: int
    timeout_s: float | None
    until_s: float
    until_not_ready: bool


class PhaseAsked(Record, frozen=True, kw_only=True):
    """One phase with its own parameters: ``endpoints_changed``, or ``per_s`` and ``for_s``."""

    phase: Phase
    parameters: dict[str, int]
    watch: WatchAsked


class Asked(Record, frozen=True, kw_only=True):
    """The resolved scenario of one measurement: enough to do the same again.

    The workload is one DaemonSet ``service``, or ``many_services``. ``earlier`` are the phases that the same
    node went through before with the same workload. ``together`` counts the nodes that were measured at the
    same moment, and ``zone`` was the Node's before the first of its phases.
    """

    node: RealNodeSpec
    service: ServiceSpec | None
    many_services: ManyServicesSpec | None
    fleet_nodes: int
    zone: str
    act: PhaseAsked
    earlier: tuple[PhaseAsked, ...] = ()
    together: int = 1


class RunResult(Record, frozen=True, kw_only=True):
    """One measurement, whole: what a run folder's ``result.json`` holds.

    ``outcome`` and ``verdict`` are None while the run is under way or when it broke before they were known.
    ``asked`` is None in results of older kilonodes; in these ``repro`` is empty, the command that makes the
    same measurement again.
    """

    format: int
    run_id: str
    test_id: str
    started_utc: str
    stage: Literal["started", "measured", "checked"]
    parameters: dict[str, str | int | float | bool | None]
    environment: Environment
    fidelity: tuple[FidelityItem, ...]
    evidence: Evidence | None = None
    outcome: Outcome | None = None
    verdict: Verdict | None = None
    asked: Asked | None = None
    repro: str = ""
