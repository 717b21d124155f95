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
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, Literal

from framework.analysis.fates import crash_loops, fates, readiness
from framework.analysis.reading import STATUS_GAP_S_MAX, Reading
from framework.cluster.lease_budget import PRODUCTION_LEASE_S
from framework.outcome import Doubt, Evidence, Outcome, Programmed, Ruleset, Topic, Unseen
from framework.units import mib

PEAK_DISAGREEMENT_MAX: Final = 0.05
"""Share by which the kernel log and the exit record of one killed process may differ: pages are still freed
and charged between the log line and the exit."""


_STRANGERS_ENDS: Final = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
"""Exit codes of a process that did not end by itself; a crash has other ones (SIGSEGV, SIGABRT, a status)."""


def derive_outcome(evidence: Evidence) -> Outcome:
    """The outcome of one measurement, with every doubt about it."""
    reading = Reading(evidence)
    cgroup = evidence.cgroup
    kills = sorted(evidence.oom_kills, key=lambda kill: kill.at_s)
    ended = [sync for sync in reading.syncs if (sync.ended_at_s or 0) >= evidence.workload_applied_at_s]
    return Outcome(
        programming=reading.programming,
        node=evidence.node,
        kube_proxy=evidence.kube_proxy,
        endpoints=evidence.endpoints_expected,
        endpoint_mode=evidence.endpoint_mode,
        limit_bytes=cgroup.limit_bytes if cgroup else None,
        nft_bytes_peak=reading.nft_peak,
        nft_runs=len(reading.nft_exits),
        nft_killed=len(reading.attributed_kills),
        charged_bytes_peak=cgroup.charged_bytes_peak if cgroup else None,
        unreclaimable_bytes_peak=cgroup.unreclaimable_bytes_peak if cgroup else None,
        kernel_bytes_end=cgroup.end.kernel_bytes if cgroup else None,
        sync_s=reading.programming_sync.elapsed_s if reading.programming_sync else None,
        sync_full=reading.programming_sync.full if reading.programming_sync else None,
        programmed_after_s=_programmed_after_s(reading),
        oom_victims=tuple(kill.victim_comm for kill in kills),
        sync_errors=tuple(dict.fromkeys(sync.error for sync in evidence.syncs if sync.error is not None)),
        retries=sum(
            earlier.error is not None for syncs in reading.families.values() for earlier, _ in pairwise(syncs)
        ),
        retry_interval_s=_longest_interval_s(reading),
        ready_throughout=reading.ready_throughout,
        ready_at_end=reading.ready_at_end,
        ruleset=evidence.ruleset,
        doubts=tuple(_doubts(reading)),
        phase=evidence.phase,
        fates=fates(reading),
        victims=tuple(reading.victim(kill) for kill in kills),
        survivors=reading.survivors,
        readiness=readiness(evidence),
        crash_loops=crash_loops(evidence),
        nft_list_bytes_peak=reading.nft_list_peak,
        kernel_bytes_left=cgroup.end.kernel_bytes - cgroup.baseline.kernel_bytes if cgroup else None,
        syncs=len(ended),
        syncs_failed=sum(sync.error is not None for sync in ended),
        served=reading.served,
        traffic_before=reading.traffic_before,
        traffic_during=reading.traffic_during,
        traffic_after=reading.traffic_after,
        sync_s_max=max((sync.elapsed_s for sync in ended if sync.elapsed_s is not None), default=None),
        shape=evidence.shape,
        loader=evidence.loader,
    )


def _programmed_after_s(reading: Reading) -> float | None:
    programmed_at_s = reading.evidence.programmed_at_s
    if not reading.is_programmed or programmed_at_s is None:
        return None
    return programmed_at_s - reading.evidence.workload_applied_at_s


def _longest_interval_s(reading: Reading) -> float | None:
    """Between the starts of two failed syncs in a row of one family."""
    starts_s = [
        [sync.started_at_s for sync in syncs if sync.error is not None] for syncs in reading.families.values()
    ]
    intervals_s = [later - earlier for family in starts_s for earlier, later in pairwise(family)]
    return max(intervals_s, default=None)


_BLIND_TO: Final[dict[Unseen, tuple[Topic, ...]]] = {
    "exits": ("victims", "nft_peak_low", "nft_peak_high"),
    "kills": ("victims",),
    "cgroup": (),
    "syncs": ("programming", "sync"),
    "ruleset": ("programming",),
    "daemons": ("victims",),
}
"""What may be otherwise where these records are missing; a bound on an unknown figure is unknown anyway."""


def _doubts(reading: Reading) -> Iterator[Doubt]:
    yield from _disturbance_doubts(reading)
    yield from (Doubt(about=_BLIND_TO[each.what], text=each.why) for each in reading.evidence.unseen)
    yield from _measuring_doubts(reading)
    yield from _kill_doubts(reading)
    yield from _peak_doubts(reading)
    yield from _programming_doubts(reading)
    yield from _ready_doubts(reading)


def _disturbance_doubts(reading: Reading) -> Iterator[Doubt]:
    """What happened to the cluster or the machine, and the node's own processes that a stranger ended."""
    evidence = reading.evidence
    yield from (Doubt(about=("everything",), text=each.text) for each in evidence.disturbances)
    if not evidence.sees("kills"):
        return
    killed_pids = {kill.victim_pid for kill in evidence.oom_kills}
    ends = [(each.name, each.pid, each.exit_code) for each in evidence.restarts]
    ends += [(each.name, each.pid, each.exit_code) for each in evidence.daemons if each.exit_code is not None]
    for name, pid, exit_code in ends:
        if exit_code in _STRANGERS_ENDS and pid not in killed_pids:
            yield Doubt(
                about=("everything",),
                text=f"{name} {pid} was ended by {signal.Signals(-exit_code).name}, and the kernel log has "
                "no OOM kill of it: somebody else did",
            )


def _measuring_doubts(reading: Reading) -> Iterator[Doubt]:
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


def _kill_doubts(reading: Reading) -> Iterator[Doubt]:
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
    if evidence.cgroup is None or not evidence.sees("kills"):
        return
    if evidence.cgroup.oom_kills not in _countable_kills(evidence, evidence.cgroup.mode):
        yield Doubt(
            about=("programming", "victims"),
            text=f"the cgroup counted {evidence.cgroup.oom_kills} OOM kills, the kernel log has "
            f"{len(evidence.oom_kills)}",
        )


def _countable_kills(evidence: Evidence, mode: Literal["v1", "v2"]) -> range:
    """How many kills the cgroup's counters may show, by what the kernel log has.

    Version 1 counts a kill in the victim's cgroup alone, and that of a container is gone with it.
    """
    logged = len(evidence.oom_kills)
    in_pods = sum(kill.in_pod for kill in evidence.oom_kills)
    return range(logged - in_pods if mode == "v1" else logged, logged + 1)


def _peak_doubts(reading: Reading) -> Iterator[Doubt]:
    for record, kill in reading.attributed_kills:
        rss_bytes = kill.memory_bytes_anon + kill.memory_bytes_file + kill.memory_bytes_shmem
        difference_bytes = abs(rss_bytes - record.memory_bytes_peak)
        if difference_bytes > PEAK_DISAGREEMENT_MAX * max(rss_bytes, record.memory_bytes_peak):
            yield Doubt(
                about=("nft_peak_low", "nft_peak_high"),
                text=f"{reading.evidence.loader} {record.pid} held {mib(rss_bytes)} MiB by the kernel log "
                f"when it was killed, but its exit record has a peak of {mib(record.memory_bytes_peak)} MiB",
            )


def _programming_doubts(reading: Reading) -> Iterator[Doubt]:
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
    if ruleset.endpoints == expected.endpoints_logged > expected.endpoints > 0:
        return (
            f"{ruleset.endpoints:,}, those of all zones, instead of {expected.endpoints:,}: kube-proxy did "
            "not follow the slices' hints, as where it missed its Node's zone when it started"
        )
    if ruleset.endpoints != expected.endpoints:
        return f"{ruleset.endpoints:,}" + (
            f" of the {expected.endpoints:,} that it should" if expected.endpoints else ""
        )
    if ruleset.unexpected:
        return f"{ruleset.unexpected:,} that no Service has"
    return f"{ruleset.service_ports or 0:,} of {expected.service_ports or 0:,} ports of Services"


def _ready_doubts(reading: Reading) -> Iterator[Doubt]:
    if not reading.evidence.status:
        yield Doubt(about=("ready",), text="the node's status was never seen")
    elif reading.ready_throughout is None:
        yield Doubt(
            about=("ready",),
            text=f"the node's status was not seen for {reading.status_gap_s:.1f} s (more than "
            f"{STATUS_GAP_S_MAX:g} s)",
        )
    else:
        yield from _lease_doubts(reading)


def _lease_doubts(reading: Reading) -> Iterator[Doubt]:
    """A lease tells of its node only while the control plane could have taken a renewal."""
    expired_at_s = readiness(reading.evidence).lease_expired_at_s
    if expired_at_s is None:
        return
    gap_s = reading.status_gap_between_s(expired_at_s - PRODUCTION_LEASE_S, expired_at_s)
    if gap_s > STATUS_GAP_S_MAX:
        yield Doubt(
            about=("ready",),
            text=f"while the lease ran out nobody could look at the node for {gap_s:.1f} s: the control "
            "plane or the whole machine may have stood still",
        )
