"""How a node ended, in an operator's words, from one evidence and nothing else.

An outcome's ``programming`` says what became of the Service's rules. A *fate* says what became of the node,
and several hold at once: nft is killed, the lease runs on, nobody is served. Each comes with the moment from
which it holds and with what proves it, all on the run's one clock; ``timeline`` has every event in order.

The node's silence is told from its lease: a renewal that did not come for the lease's own 40 s is seen at
once, however patient the node controller of a large fleet has to be. What production's controller would have
said follows from the last renewal, by its grace period and the period in which it looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

from framework.analysis.reading import Reading, succeeded
from framework.cluster.lease_budget import NODE_MONITOR_PERIOD_S, PRODUCTION_GRACE_S
from framework.outcome import (
    CrashLoop,
    Event,
    Evidence,
    Fate,
    FateSeen,
    NodeStatusSample,
    OomKill,
    Outcome,
    ProxySync,
    Readiness,
)
from framework.units import mib

TOLD_S_MIN: Final = 0.1
"""A change that takes less is told as a moment."""
PROGRAMMING_S_MAX: Final = 30.0
"""Later than this is late: the network programming latency that SIG Scalability aims at for 99 % of changes
(kubernetes/community, sig-scalability/slos/network_programming_latency.md)."""

Cause = Literal["killed", "no_memory", "message_too_long", "timeout", "other"]
_CAUSES: Final[tuple[tuple[str, Cause], ...]] = (
    ("signal: killed", "killed"),
    ("Cannot allocate memory", "no_memory"),
    ("Message too long", "message_too_long"),
    ("No buffer space available", "message_too_long"),
    ("deadline exceeded", "timeout"),
    ("timed out", "timeout"),
)
CAUSE_WORDS: Final[dict[Cause, str]] = {
    "killed": "its load was killed",
    "no_memory": "no memory (ENOMEM)",
    "message_too_long": "message too long (EMSGSIZE, ENOBUFS)",
    "timeout": "timed out",
    "other": "failed",
}
_DAEMON_FATES: Final[dict[str, Fate]] = {
    "kube-proxy": "kube_proxy_killed",
    "kubelet": "kubelet_killed",
    "containerd": "containerd_killed",
}
BAD_FATES: Final[frozenset[Fate]] = frozenset(
    {
        "nft_killed",
        "sync_failed",
        "silent_outage",
        "starved",
        "not_ready",
        "workload_killed",
        *_DAEMON_FATES.values(),
    }
)


def sync_failure_cause(error: str) -> Cause:
    """What made a sync fail, by kube-proxy's and nft's own words."""
    return next((cause for text, cause in _CAUSES if text in error), "other")


def fates(reading: Reading) -> tuple[FateSeen, ...]:
    """Every fate of the node, in order of time; of each kind the first."""
    first: dict[Fate, FateSeen] = {}
    for seen in sorted(_fates(reading), key=lambda seen: seen.at_s):
        first.setdefault(seen.fate, seen)
    recovered = _recovered(reading, list(first.values()))
    return (*first.values(), *recovered)


def _fates(reading: Reading) -> Iterator[FateSeen]:
    yield from _kill_fates(reading)
    yield from _sync_fates(reading)
    yield from _node_fates(reading)
    yield from _programmed(reading)
    yield from _silent_outage(reading)


def _kill_fates(reading: Reading) -> Iterator[FateSeen]:
    attributed = {kill.victim_pid for _, kill in reading.attributed_kills}
    for kill in reading.evidence.oom_kills:
        victim = reading.victim(kill)
        fate = _DAEMON_FATES.get(victim)
        if victim in reading.ballast_names:
            fate = "workload_killed"
        elif kill.victim_pid in attributed:
            fate = "nft_killed"
        if fate is not None:
            yield FateSeen(fate=fate, at_s=kill.at_s, why=_killed_words(victim, kill))


def _killed_words(victim: str, kill: OomKill) -> str:
    held = kill.memory_bytes_anon + kill.memory_bytes_file + kill.memory_bytes_shmem
    return f"the kernel killed {victim} ({kill.victim_pid}) with {mib(held)} MiB, oom_score_adj " + str(
        kill.oom_score_adj
    )


def _sync_fates(reading: Reading) -> Iterator[FateSeen]:
    for sync in reading.syncs:
        if sync.error is not None and sync_failure_cause(sync.error) != "killed":
            yield FateSeen(fate="sync_failed", at_s=_end_s(sync), why=_failure_words(sync))


def _failure_words(sync: ProxySync) -> str:
    error = sync.error or ""
    return f"kube-proxy's sync failed, {CAUSE_WORDS[sync_failure_cause(error)]}: {error.strip()[:200]}"


def _node_fates(reading: Reading) -> Iterator[FateSeen]:
    evidence = reading.evidence
    seen = readiness(evidence)
    if seen.lease_expired_at_s is not None and not _daemon_ended_before(reading, seen.lease_expired_at_s):
        yield FateSeen(
            fate="starved",
            at_s=seen.lease_expired_at_s,
            why=f"the lease was not renewed for {seen.silence_s:.0f} s with every daemon alive",
        )
    if seen.not_ready_at_s is not None:
        yield FateSeen(
            fate="not_ready",
            at_s=seen.not_ready_at_s,
            why=f"the node controller set Ready to something else: {seen.not_ready_reason}",
        )


def _daemon_ended_before(reading: Reading, at_s: float) -> bool:
    ended = {restart.name for restart in reading.evidence.restarts if restart.ended_at_s <= at_s}
    return bool(ended & set(_DAEMON_FATES)) or bool(reading.dead_daemons)


def _programmed(reading: Reading) -> Iterator[FateSeen]:
    evidence, programmed_at_s = reading.evidence, reading.evidence.programmed_at_s
    if not reading.is_programmed or programmed_at_s is None or reading.programming == "nft_killed":
        return
    after_s = programmed_at_s - evidence.workload_applied_at_s
    changed_at_s = evidence.last_changed_at_s
    latency_s = after_s if changed_at_s is None else max(0.0, programmed_at_s - changed_at_s)
    failed = [sync for sync in reading.syncs if sync.error is not None and _end_s(sync) <= programmed_at_s]
    late = bool(failed) or latency_s > PROGRAMMING_S_MAX
    syncs = f" and {len(failed)} failed syncs" if failed else ""
    took_time = after_s - latency_s > TOLD_S_MIN
    latency = f", {latency_s:.1f} s after the last change" if took_time else ""
    yield FateSeen(
        fate="programmed_late" if late else "programmed",
        at_s=programmed_at_s,
        why=f"all {reading.expected.endpoints:,} endpoints were in the ruleset after {after_s:.1f} s"
        f"{latency}{syncs}",
    )


def _silent_outage(reading: Reading) -> Iterator[FateSeen]:
    look = reading.last_look
    if look is None or not reading.fails_clients or reading.evidence.phase == "service_deleted":
        return
    if reading.serves_nobody:
        return
    if look.ready == "True" and _is_renewed(look):
        yield FateSeen(fate="silent_outage", at_s=_outage_s(reading), why=reading.served_words)


def _outage_s(reading: Reading) -> float:
    """From the first sync that failed on; without one, from when the endpoints should have been there."""
    failed = [sync for sync in reading.syncs if sync.error is not None]
    applied_at_s = reading.evidence.workload_applied_at_s
    return _end_s(failed[0]) if failed else applied_at_s


def _recovered(reading: Reading, seen: Sequence[FateSeen]) -> Iterator[FateSeen]:
    bad = [fate for fate in seen if fate.fate in BAD_FATES]
    look = reading.last_look
    if not bad or look is None or reading.dead_daemons:
        return
    good = look.ready == "True" and _is_renewed(look) and reading.served == "fully"
    last = reading.syncs[-1] if reading.syncs else None
    if good and last is not None and succeeded(last):
        yield FateSeen(
            fate="recovered",
            at_s=max(*(fate.at_s for fate in bad), reading.evidence.programmed_at_s or 0.0),
            why="the last sync succeeded, the ruleset is complete, the lease renewed, the node Ready",
        )


def failure_order(outcomes: Sequence[Outcome]) -> tuple[tuple[Outcome, FateSeen], ...]:
    """The nodes that failed, each with its first bad fate, the earliest first.

    Only outcomes whose times are on one clock can be compared.
    """
    failed = [
        (outcome, min(bad, key=lambda seen: seen.at_s))
        for outcome in outcomes
        if (bad := [seen for seen in outcome.fates if seen.fate in BAD_FATES])
    ]
    return tuple(sorted(failed, key=lambda pair: pair[1].at_s))


def readiness(evidence: Evidence) -> Readiness:
    """When the lease expired, when the node controller noticed, and when production's would have.

    From the phase's beginning on: a node that boots is not Ready at first.
    """
    since_s = evidence.workload_applied_at_s
    looks = sorted((look for look in evidence.status if look.at_s >= since_s), key=lambda look: look.at_s)
    silence_s = max((look.lease_age_s for look in looks if look.lease_age_s is not None), default=None)
    expired = next((look for look in looks if not _is_renewed(look)), None)
    silent = next((look for look in looks if (look.lease_age_s or 0.0) > PRODUCTION_GRACE_S), None)
    not_ready = next((look for look in looks if look.ready in ("False", "Unknown")), None)
    return Readiness(
        silence_s=silence_s,
        lease_expired_at_s=None if expired is None else _renewed_s(expired) + (expired.lease_duration_s or 0),
        not_ready_at_s=None if not_ready is None else max(not_ready.ready_since_s or not_ready.at_s, since_s),
        not_ready_reason="" if not_ready is None else f"{not_ready.ready}, {not_ready.reason}",
        production_not_ready_at_s=None if silent is None else _production_not_ready_s(_renewed_s(silent)),
    )


def _production_not_ready_s(renewed_s: float) -> tuple[float, float]:
    """The controller notices a renewal at its next look, and the end of the grace period at a look again."""
    earliest_s = renewed_s + PRODUCTION_GRACE_S
    return earliest_s, earliest_s + 2 * NODE_MONITOR_PERIOD_S


def _renewed_s(look: NodeStatusSample) -> float:
    return look.at_s - (look.lease_age_s or 0.0)


def _is_renewed(look: NodeStatusSample) -> bool:
    return look.lease_age_s is None or look.lease_age_s <= (look.lease_duration_s or 0.0)


def crash_loops(evidence: Evidence) -> tuple[CrashLoop, ...]:
    """What ended and was restarted, from ``begun_at_s`` on, by name."""
    ends = defaultdict(list)
    for restart in sorted(evidence.restarts, key=lambda restart: restart.ended_at_s):
        ends[restart.name].append(restart)
    return tuple(
        CrashLoop(
            name=name,
            ends=len(restarts),
            period_s=_mean([later.ended_at_s - one.ended_at_s for one, later in pairwise(restarts)]),
            down_s=sum((each.restarted_at_s or evidence.ended_at_s) - each.ended_at_s for each in restarts),
            window_s=evidence.ended_at_s - evidence.begun_at_s,
        )
        for name, restarts in ends.items()
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _end_s(sync: ProxySync) -> float:
    return sync.started_at_s if sync.ended_at_s is None else sync.ended_at_s


def timeline(evidence: Evidence) -> tuple[Event, ...]:
    """Everything that decided the outcome, in order, on one clock."""
    return tuple(sorted(_events(Reading(evidence)), key=lambda event: event.at_s))


_PHASE_WORDS: Final = {
    "first_programming": "Service created",
    "cold_start": "kube-proxy started, no rules in the kernel",
    "endpoints_changed": "endpoints changed",
    "rolling_replacement": "rolling replacement began",
    "kube_proxy_restart": "kube-proxy restarted, its rules in the kernel",
    "full_resync": "full sync asked for",
    "service_deleted": "Service deleted",
}


def _events(reading: Reading) -> Iterator[Event]:
    evidence = reading.evidence
    yield Event(at_s=evidence.workload_applied_at_s, what=_PHASE_WORDS[evidence.phase], source="framework")
    for kill in evidence.oom_kills:
        yield Event(at_s=kill.at_s, what=_killed_words(reading.victim(kill), kill), source="kernel log")
    for sync in reading.syncs:
        if sync.error is not None:
            yield Event(at_s=_end_s(sync), what=_failure_words(sync), source="kube-proxy's log")
    for restart in evidence.restarts:
        yield Event(at_s=restart.ended_at_s, what=f"{restart.name} ended", source="framework")
        if restart.restarted_at_s is not None:
            what = f"{restart.name} started again after {restart.delay_s:g} s"
            yield Event(at_s=restart.restarted_at_s, what=what, source="framework")
    if reading.is_programmed and evidence.programmed_at_s is not None:
        yield Event(
            at_s=evidence.programmed_at_s,
            what=f"all {reading.expected.endpoints:,} endpoints programmed",
            source="kube-proxy's log and the ruleset",
        )
    yield from _status_events(evidence)


def _status_events(evidence: Evidence) -> Iterator[Event]:
    seen = readiness(evidence)
    if seen.lease_expired_at_s is not None:
        yield Event(at_s=seen.lease_expired_at_s, what="the node's lease expired", source="lease")
    if seen.production_not_ready_at_s is not None:
        yield Event(
            at_s=seen.production_not_ready_at_s[0],
            what="production's node controller would say NotReady from here on, within "
            f"{2 * NODE_MONITOR_PERIOD_S} s",
            source="lease",
        )
    looks = sorted(evidence.status, key=lambda look: look.at_s)
    for earlier, later in pairwise(looks):
        if later.ready != earlier.ready:
            what = f"Ready {earlier.ready} -> {later.ready} ({later.reason})"
            yield Event(at_s=later.ready_since_s or later.at_s, what=what, source="node status")
