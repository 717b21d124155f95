"""What recorded evidence means.

``derive_outcome`` is a pure function of one ``Evidence``: no cluster, clock or file takes part, so that a run
folder can be judged again years later. It concludes only what two independent witnesses agree on. A ruleset
counts as programmed when kube-proxy's log *and* a listing of the kernel's ruleset say so; a process counts as
killed for memory when its exit record *and* the kernel log say so. Where one witness is missing or they
contradict each other, the milder conclusion is drawn and a ``Doubt`` names what is less than certain.

kube-proxy runs one proxier for each IP family, and the one without endpoints always succeeds. Everything said
about syncs is therefore said about the families that carry the workload: both for a dual-stack Service, which
is programmed when both are.

What a node is to be programmed with may be less than all endpoints, or nothing but an entry that drops
(``Programmed``); then too the log must have all endpoints and the ruleset exactly what is expected.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from framework.outcome import (
    LOADER_COMMS,
    Doubt,
    Evidence,
    Family,
    Measure,
    OomKill,
    Outcome,
    ProcessExit,
    Programmed,
    Programming,
    ProxySync,
    Ruleset,
)
from framework.units import mib

STATUS_GAP_S_MAX: Final = 5.0
"""Between two looks further apart than this a node could have been NotReady unseen: half of the 10 s in which
a kubelet renews its lease, so that no renewal that fails goes by without a look."""
PEAK_DISAGREEMENT_MAX: Final = 0.05
"""Share by which the kernel log and the exit record of one killed process may differ: pages are still freed
and charged between the log line and the exit."""


def derive_outcome(evidence: Evidence) -> Outcome:
    """The outcome of one measurement, with every doubt about it."""
    reading = _Reading(evidence)
    samples = evidence.status
    return Outcome(
        programming=reading.programming,
        node=evidence.node,
        kube_proxy=evidence.kube_proxy,
        endpoints=evidence.endpoints_expected,
        endpoint_mode=evidence.endpoint_mode,
        limit_bytes=evidence.cgroup.limit_bytes,
        nft_bytes_peak=reading.nft_peak,
        nft_runs=len(reading.nft_exits),
        nft_killed=len(reading.attributed_kills),
        charged_bytes_peak=evidence.cgroup.charged_bytes_peak,
        unreclaimable_bytes_peak=evidence.cgroup.unreclaimable_bytes_peak,
        kernel_bytes_end=evidence.cgroup.end.kernel_bytes,
        sync_s=reading.programming_sync.elapsed_s if reading.programming_sync else None,
        sync_full=reading.programming_sync.full if reading.programming_sync else None,
        programmed_after_s=_programmed_after_s(reading),
        oom_victims=tuple(
            kill.victim_comm for kill in sorted(evidence.oom_kills, key=lambda kill: kill.at_s)
        ),
        sync_errors=tuple(dict.fromkeys(sync.error for sync in evidence.syncs if sync.error is not None)),
        retries=sum(
            earlier.error is not None for syncs in reading.families.values() for earlier, _ in pairwise(syncs)
        ),
        retry_interval_s=_longest_interval_s(reading),
        ready_throughout=reading.ready_throughout,
        ready_at_end=bool(samples) and max(samples, key=lambda sample: sample.at_s).ready == "True",
        ruleset=evidence.ruleset,
        doubts=tuple(_doubts(reading)),
        shape=evidence.shape,
        loader=evidence.loader,
    )


@dataclass(frozen=True)
class _Reading:
    """One evidence with what is read off it more than once."""

    evidence: Evidence

    @cached_property
    def expected(self) -> Programmed:
        """What the node is to be programmed with; older evidence does not tell the family."""
        if self.evidence.expected is not None:
            return self.evidence.expected
        endpoints = self.evidence.endpoints_expected
        return Programmed(
            families=(self._carrying_family,),
            endpoints_logged=endpoints,
            endpoints=endpoints,
            service_ports=None,
        )

    @property
    def _carrying_family(self) -> Family:
        """The IP family whose syncs carry a Service of one."""
        carrying = [sync for sync in self.evidence.syncs if sync.endpoints]
        if carrying:
            return max(carrying, key=lambda sync: sync.endpoints or 0).family
        failed = [sync for sync in self.evidence.syncs if sync.error is not None]
        return failed[0].family if failed else "IPv4"

    @cached_property
    def families(self) -> dict[Family, tuple[ProxySync, ...]]:
        """The syncs of each of the workload's families in the order of their starts."""
        ordered = sorted(self.evidence.syncs, key=lambda sync: sync.started_at_s)
        return {
            family: tuple(sync for sync in ordered if sync.family == family)
            for family in self.expected.families
        }

    @cached_property
    def complete_syncs(self) -> dict[Family, tuple[ProxySync, ...]]:
        """Of each family those that ended well and had all endpoints, the workload's or earlier ones."""
        return {
            family: tuple(sync for sync in syncs if self.expected.is_complete(sync, family))
            for family, syncs in self.families.items()
        }

    @cached_property
    def programming_sync(self) -> ProxySync | None:
        """The first complete sync that ended after the workload was applied; with two families the one that
        ended last, and None unless both have one."""
        applied_at_s = self.evidence.workload_applied_at_s
        first = [
            next((sync for sync in syncs if (sync.ended_at_s or 0) >= applied_at_s), None)
            for syncs in self.complete_syncs.values()
        ]
        found = [sync for sync in first if sync is not None]
        return max(found, key=lambda sync: sync.ended_at_s or 0) if len(found) == len(first) else None

    @cached_property
    def listing_complete(self) -> bool:
        ruleset = self.evidence.ruleset
        return ruleset is not None and self.expected.matches(ruleset)

    @cached_property
    def nft_exits(self) -> tuple[ProcessExit, ...]:
        """The exits of the program that loads rulesets, whatever it was run for."""
        comms = LOADER_COMMS[self.evidence.loader]
        return tuple(record for record in self.evidence.exits if record.comm in comms)

    def is_loader(self, kill: OomKill) -> bool:
        return kill.victim_comm in LOADER_COMMS[self.evidence.loader]

    @cached_property
    def nft_sigkilled(self) -> tuple[ProcessExit, ...]:
        return tuple(record for record in self.nft_exits if record.signal == signal.SIGKILL)

    @cached_property
    def attributed_kills(self) -> tuple[tuple[ProcessExit, OomKill], ...]:
        """Every nft that died by SIGKILL together with the kernel-log record of the OOM kill that did it."""
        kills = {kill.victim_pid: kill for kill in self.evidence.oom_kills if self.is_loader(kill)}
        return tuple((record, kills[record.pid]) for record in self.nft_sigkilled if record.pid in kills)

    @cached_property
    def nft_kill_is_final(self) -> bool:
        """An nft was killed for memory, and no sync of some family that started after the last succeeded."""
        if not self.attributed_kills:
            return False
        last_kill_at_s = max(kill.at_s for _, kill in self.attributed_kills)
        return any(
            not any(_succeeded(sync) and sync.started_at_s >= last_kill_at_s for sync in syncs)
            for syncs in self.families.values()
        )

    @cached_property
    def programming(self) -> Programming:
        """The gravest conclusion that holds."""
        if any(daemon.exit_code is not None for daemon in self.evidence.daemons):
            return "daemon_died"
        if self.nft_kill_is_final:
            return "nft_killed"
        if self.is_programmed:
            return "programmed"
        if any(_last_failed(syncs) for syncs in self.families.values()):
            return "sync_failed"
        return "timed_out"

    @cached_property
    def is_programmed(self) -> bool:
        return (
            self.programming_sync is not None
            and self.listing_complete
            and self.evidence.programmed_at_s is not None
        )

    @cached_property
    def biggest_nft(self) -> ProcessExit | None:
        """The biggest nft that loaded a ruleset, or may have: its command line is unknown."""
        loads = [record for record in self.nft_exits if record.loads_ruleset is not False]
        return max(loads, key=lambda record: record.memory_bytes_peak, default=None)

    @cached_property
    def nft_peak(self) -> Measure | None:
        """A lower bound where moments were missed, for a killed process, which wanted more, and while a sync is
        still under way: its load has no exit record yet."""
        biggest = self.biggest_nft
        if biggest is None:
            return None
        is_lower = (
            biggest.bound == "lower"
            or biggest.signal == signal.SIGKILL
            or self.evidence.measured_by == "poll"
            or self.evidence.exit_records_lost > 0
            or self.sync_under_way
        )
        return Measure(
            value=biggest.memory_bytes_peak,
            source=biggest.source,
            bound="lower" if is_lower else "exact",
        )

    @property
    def sync_under_way(self) -> bool:
        """Whether a sync had begun and not ended when the evidence was taken."""
        last = [syncs[-1] for syncs in self.families.values() if syncs]
        return any(sync.ended_at_s is None and sync.error is None for sync in last)

    @cached_property
    def status_gap_s(self) -> float:
        """The longest time without a look at the node, from the workload to the end."""
        begin_s, end_s = self.evidence.workload_applied_at_s, self.evidence.ended_at_s
        looks = sorted(sample.at_s for sample in self.evidence.status if begin_s <= sample.at_s <= end_s)
        return max(later - earlier for earlier, later in pairwise([begin_s, *looks, max(begin_s, end_s)]))

    @cached_property
    def ready_throughout(self) -> bool | None:
        """False for any sample that is not Ready; None where a time without a sample was too long."""
        begin_s, end_s = self.evidence.workload_applied_at_s, self.evidence.ended_at_s
        looks = [sample.ready for sample in self.evidence.status if begin_s <= sample.at_s <= end_s]
        if any(ready != "True" for ready in looks):
            return False
        return True if looks and self.status_gap_s <= STATUS_GAP_S_MAX else None


def _succeeded(sync: ProxySync) -> bool:
    return sync.error is None and sync.ended_at_s is not None


def _programmed_after_s(reading: _Reading) -> float | None:
    programmed_at_s = reading.evidence.programmed_at_s
    if not reading.is_programmed or programmed_at_s is None:
        return None
    return programmed_at_s - reading.evidence.workload_applied_at_s


def _last_failed(syncs: Sequence[ProxySync]) -> bool:
    """Whether the last sync that came to an end, or to an error, is one that failed."""
    finished = [sync for sync in syncs if sync.error is not None or sync.ended_at_s is not None]
    return bool(finished) and finished[-1].error is not None


def _longest_interval_s(reading: _Reading) -> float | None:
    """Between the starts of two failed syncs in a row of one family."""
    starts_s = [
        [sync.started_at_s for sync in syncs if sync.error is not None] for syncs in reading.families.values()
    ]
    intervals_s = [later - earlier for family in starts_s for earlier, later in pairwise(family)]
    return max(intervals_s, default=None)


def _doubts(reading: _Reading) -> Iterator[Doubt]:
    yield from _measuring_doubts(reading)
    yield from _kill_doubts(reading)
    yield from _peak_doubts(reading)
    yield from _programming_doubts(reading)
    yield from _ready_doubts(reading)


def _measuring_doubts(reading: _Reading) -> Iterator[Doubt]:
    evidence, biggest = reading.evidence, reading.biggest_nft
    if evidence.measured_by == "poll":
        yield Doubt(
            about=("nft_peak_low",),
            text="processes were polled, not accounted for by the kernel: every peak is a lower bound",
        )
    if evidence.exit_records_lost:
        yield Doubt(
            about=("nft_peak_low",),
            text=f"exit records were lost {evidence.exit_records_lost} times: a bigger "
            f"{evidence.loader} may be unseen",
        )
    if biggest is not None and biggest.loads_ruleset is None:
        unknown = sum(record.argv is None for record in reading.nft_exits)
        yield Doubt(
            about=("nft_peak_high",),
            text=f"the command line of {unknown} of {len(reading.nft_exits)} {evidence.loader} processes is "
            "unknown, the biggest among them: its peak may be a listing's, not a load's",
        )


def _kill_doubts(reading: _Reading) -> Iterator[Doubt]:
    evidence = reading.evidence
    sigkilled_pids = {record.pid for record in reading.nft_sigkilled}
    attributed_pids = {record.pid for record, _ in reading.attributed_kills}
    for pid in sorted(sigkilled_pids - attributed_pids):
        yield Doubt(
            about=("programming", "victims"),
            text=f"{evidence.loader} {pid} died by SIGKILL, but the kernel log has no OOM kill of it",
        )
    for kill in evidence.oom_kills:
        if reading.is_loader(kill) and kill.victim_pid not in sigkilled_pids:
            yield Doubt(
                about=("programming", "nft_peak_low"),
                text=f"the kernel log has an OOM kill of {evidence.loader} {kill.victim_pid}, but no "
                "exit record shows it",
            )
    if evidence.cgroup.oom_kills != len(evidence.oom_kills):
        yield Doubt(
            about=("programming", "victims"),
            text=f"the cgroup counted {evidence.cgroup.oom_kills} OOM kills, the kernel log has "
            f"{len(evidence.oom_kills)}",
        )


def _peak_doubts(reading: _Reading) -> Iterator[Doubt]:
    for record, kill in reading.attributed_kills:
        rss_bytes = kill.memory_bytes_anon + kill.memory_bytes_file + kill.memory_bytes_shmem
        difference_bytes = abs(rss_bytes - record.memory_bytes_peak)
        if difference_bytes > PEAK_DISAGREEMENT_MAX * max(rss_bytes, record.memory_bytes_peak):
            yield Doubt(
                about=("nft_peak_low", "nft_peak_high"),
                text=f"{reading.evidence.loader} {record.pid} held {mib(rss_bytes)} MiB by the kernel log "
                f"when it was killed, but its exit record has a peak of {mib(record.memory_bytes_peak)} MiB",
            )


def _programming_doubts(reading: _Reading) -> Iterator[Doubt]:
    evidence, ruleset, expected = reading.evidence, reading.evidence.ruleset, reading.expected
    logged = reading.programming_sync is not None
    if logged and ruleset is None:
        yield Doubt(
            about=("programming",),
            text=f"a sync of {expected.endpoints_logged:,} endpoints succeeded by kube-proxy's log, but "
            "there is no listing of the ruleset to confirm it",
        )
    if logged and ruleset is not None and not reading.listing_complete:
        yield Doubt(
            about=("programming",),
            text=f"a sync of {expected.endpoints_logged:,} endpoints succeeded by kube-proxy's log, but the "
            f"ruleset lists {_listed(ruleset, expected)}",
        )
    if reading.listing_complete and not all(reading.complete_syncs.values()):
        yield Doubt(
            about=("programming", "sync"),
            text=f"the ruleset lists all {expected.endpoints:,} endpoints, but kube-proxy's log has no sync "
            f"of {expected.endpoints_logged:,} that succeeded",
        )
    if logged and reading.listing_complete and evidence.programmed_at_s is None:
        yield Doubt(
            about=("programming",),
            text="kube-proxy's log and the ruleset agree on all endpoints, but they were not seen in time",
        )
    if reading.programming_sync is not None and reading.programming_sync.elapsed_s is None:
        yield Doubt(about=("sync",), text="kube-proxy's log does not say how long the programming sync took")


def _listed(ruleset: Ruleset, expected: Programmed) -> str:
    """What the ruleset names instead of what it should."""
    if ruleset.endpoints != expected.endpoints:
        return f"{ruleset.endpoints:,}" + (
            f" of the {expected.endpoints:,} that it should" if expected.endpoints else ""
        )
    return f"{ruleset.service_ports or 0:,} of {expected.service_ports or 0:,} ports of Services"


def _ready_doubts(reading: _Reading) -> Iterator[Doubt]:
    if not reading.evidence.status:
        yield Doubt(about=("ready",), text="the node's status was never seen")
    elif reading.ready_throughout is None:
        yield Doubt(
            about=("ready",),
            text=f"the node's status was not seen for {reading.status_gap_s:.1f} s (more than "
            f"{STATUS_GAP_S_MAX:g} s)",
        )
