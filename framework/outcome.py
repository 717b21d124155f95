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

from typing import Final, Literal

import msgspec

from framework.spec import Loader


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


class CgroupSample(Record, frozen=True, kw_only=True):
    """One reading of a node's memory cgroup. ``kernel_bytes`` includes page tables and nft objects."""

    at_s: float
    charged_bytes: int
    anonymous_bytes: int
    file_bytes: int
    kernel_bytes: int


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
    """The node as the control plane sees it. ``lease_age_s`` is None while there is no lease."""

    at_s: float
    ready: Literal["True", "False", "Unknown", "absent"]
    reason: str
    lease_age_s: float | None
    lease_duration_s: float | None


class Ruleset(Record, frozen=True, kw_only=True):
    """What the kernel holds for kube-proxy's tables, from one listing after programming.

    ``endpoints`` are the distinct pairs of address and port that the listing names for each asked Service.
    ``service_ports`` counts these Services' ports for which it has any rule, if only to drop packets; None
    where an older kilonode did not count them. ``listing_bytes`` is the length of ``nft list ruleset``,
    or of ``iptables-save``, where chains and rules are those of kube-proxy's chains and there are no
    elements.
    """

    tables: int
    chains: int
    rules: int
    elements: int
    endpoints: int
    listing_bytes: int
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
        return ruleset.endpoints == self.endpoints and (
            not counted or ruleset.service_ports == self.service_ports
        )


class DaemonRecord(Record, frozen=True, kw_only=True):
    """One long-lived process of the node. ``exit_code`` is None while it lives."""

    name: str
    pid: int
    exit_code: int | None
    memory_bytes_peak: Measure | None
    oom_score_adj: int


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


class FidelityItem(Record, frozen=True, kw_only=True):
    """One deviation from production: what differs, and what it may change in the figures."""

    id: str
    what: str
    effect: str


class Evidence(Record, frozen=True, kw_only=True):
    """Everything that was recorded about one real node during one measurement.

    ``exit_records_lost`` counts buffer overruns of the kernel's exit records, ``argv_unknown`` the processes
    that ended before their command line could be read; ``measured_by`` is ``poll`` where the kernel refused
    exit records, and then every peak is a lower bound. ``endpoints_expected`` counts an endpoint once for
    each port of the Service, as kube-proxy does. ``expected`` is what the node is to be programmed with; None
    (evidence of older kilonodes): all of ``endpoints_expected`` in one family. ``shape`` is how the workload
    differs from one TCP Service of one port, ``loader`` the program that loads rulesets.
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
    measured_by: Literal["exit_record", "poll"]
    oom_kills: tuple[OomKill, ...]
    cgroup: CgroupEvidence
    syncs: tuple[ProxySync, ...]
    sync_failures_metric: int | None
    status: tuple[NodeStatusSample, ...]
    ruleset: Ruleset | None
    daemons: tuple[DaemonRecord, ...]
    harness_memory_bytes_peak: int
    harness_cpu_s: float
    expected: Programmed | None = None
    shape: str = ""
    loader: Loader = "nft"


Programming = Literal["programmed", "nft_killed", "sync_failed", "timed_out", "daemon_died"]
Result = Literal["pass", "fail", "unknown"]
Topic = Literal["programming", "victims", "nft_peak_low", "nft_peak_high", "sync", "ready"]
"""What a doubt is about. ``nft_peak_low``: nft's peak may exceed its figure; ``nft_peak_high``: be less."""


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
    """

    programming: Programming
    node: str
    kube_proxy: str
    endpoints: int
    endpoint_mode: str
    limit_bytes: int
    nft_bytes_peak: Measure | None
    nft_runs: int
    nft_killed: int
    charged_bytes_peak: Measure
    unreclaimable_bytes_peak: Measure
    kernel_bytes_end: int
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
    shape: str = ""
    loader: Loader = "nft"


class Verdict(Record, frozen=True, kw_only=True):
    """``reasons`` says why it is not a pass; empty for a pass."""

    result: Result
    reasons: tuple[str, ...] = ()


class RunResult(Record, frozen=True, kw_only=True):
    """One measurement, whole: what a run folder's ``result.json`` holds.

    ``outcome`` and ``verdict`` are None while the run is under way or when it broke before they were known.
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
