"""One evidence, with what is read off it more than once: the ground of outcomes and fates.

Nothing here concludes from one witness alone where two exist: see ``framework.analysis.outcomes``.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final

from framework.analysis.traffic import traffic
from framework.outcome import (
    LOADER_COMMS,
    Evidence,
    Family,
    Measure,
    NodeStatusSample,
    OomKill,
    ProcessExit,
    Programmed,
    Programming,
    ProxySync,
    Served,
    Traffic,
)
from framework.traffic import ATTEMPT_S_MAX

STATUS_GAP_S_MAX: Final = 5.0
"""Between two looks further apart than this a node could have been NotReady unseen: half of the 10 s in which
a kubelet renews its lease, so that no renewal that fails goes by without a look."""

TRAFFIC_BEFORE_S: Final = 5.0
"""How much of what clients met before a phase belongs to its evidence."""
SERVED_SHARE_MIN: Final = 0.999
"""Share of connects from which a Service counts as served."""


@dataclass(frozen=True)
class Reading:
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
    def syncs(self) -> tuple[ProxySync, ...]:
        """The syncs of all of the workload's families in the order of their starts."""
        ours = (sync for sync in self.evidence.syncs if sync.family in self.expected.families)
        return tuple(sorted(ours, key=lambda sync: sync.started_at_s))

    @cached_property
    def families(self) -> dict[Family, tuple[ProxySync, ...]]:
        """The same for each family."""
        return {
            family: tuple(sync for sync in self.syncs if sync.family == family)
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
        """The sync after which the ruleset was seen complete, else the first complete one after the workload
        was applied: with two families the later one's first. None unless each family has one."""
        applied_at_s, seen_at_s = self.evidence.workload_applied_at_s, self.evidence.programmed_at_s
        after = [
            [sync for sync in syncs if (sync.ended_at_s or 0) >= applied_at_s]
            for syncs in self.complete_syncs.values()
        ]
        if not all(after):
            return None
        seen = next((sync for syncs in after for sync in syncs if sync.ended_at_s == seen_at_s), None)
        return seen or max((syncs[0] for syncs in after), key=lambda sync: sync.ended_at_s or 0)

    @cached_property
    def listing_complete(self) -> bool:
        ruleset = self.evidence.ruleset
        return ruleset is not None and self.expected.matches(ruleset)

    @property
    def listing_incomplete(self) -> bool:
        """Whether the ruleset was listed and is another than it should be."""
        return self.evidence.ruleset is not None and not self.listing_complete

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
            not any(succeeded(sync) and sync.started_at_s >= last_kill_at_s for sync in syncs)
            for syncs in self.families.values()
        )

    @cached_property
    def programming(self) -> Programming:
        """The gravest conclusion that holds."""
        if self.dead_daemons:
            return "daemon_died"
        if self.nft_kill_is_final:
            return "nft_killed"
        if self.is_programmed:
            return "programmed"
        if any(_last_failed(syncs) for syncs in self.families.values()):
            return "sync_failed"
        return "timed_out"

    @cached_property
    def dead_daemons(self) -> tuple[str, ...]:
        """The node's own daemons that had ended and were not there again at the end."""
        daemons = self.evidence.daemons
        return tuple(each.name for each in daemons if each.role == "daemon" and each.exit_code is not None)

    @cached_property
    def names_by_pid(self) -> dict[int, str]:
        """The long-lived processes of the node, those of before their restarts too."""
        restarted = {restart.pid: restart.name for restart in self.evidence.restarts}
        return restarted | {daemon.pid: daemon.name for daemon in self.evidence.daemons}

    @cached_property
    def ballast_names(self) -> frozenset[str]:
        processes = {daemon.name for daemon in self.evidence.daemons if daemon.role == "ballast"}
        return frozenset(processes | {pod.name for pod in self.evidence.pods})

    @cached_property
    def survivors(self) -> tuple[str, ...]:
        """The long-lived processes and pods that were there at the end, restarted ones too."""
        alive = [daemon.name for daemon in self.evidence.daemons if daemon.exit_code is None]
        return (*alive, *(pod.name for pod in self.evidence.pods if pod.state == "Running"))

    def victim(self, kill: OomKill) -> str:
        """Whom a kill hit: the name of a long-lived process, else the kernel's comm."""
        return self.names_by_pid.get(kill.victim_pid, kill.victim_comm)

    @cached_property
    def last_look(self) -> NodeStatusSample | None:
        return max(self.evidence.status, key=lambda sample: sample.at_s, default=None)

    @cached_property
    def ready_at_end(self) -> bool:
        return self.last_look is not None and self.last_look.ready == "True"

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
        return self._peak(self.biggest_nft)

    @cached_property
    def nft_list_peak(self) -> Measure | None:
        """The biggest nft that listed what the kernel holds."""
        lists = [record for record in self.nft_exits if record.loads_ruleset is False]
        return self._peak(max(lists, key=lambda record: record.memory_bytes_peak, default=None))

    def _peak(self, biggest: ProcessExit | None) -> Measure | None:
        """A lower bound where moments were missed, and for a killed process: it wanted more.

        Also while a sync is still under way, whose processes have no exit record yet.
        """
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
    def traffic_before(self) -> Traffic | None:
        applied_at_s = self.evidence.workload_applied_at_s
        return self._traffic(applied_at_s - TRAFFIC_BEFORE_S, applied_at_s)

    @cached_property
    def traffic_during(self) -> Traffic | None:
        return self._traffic(self.evidence.workload_applied_at_s, self.evidence.settled_at_s)

    @cached_property
    def traffic_after(self) -> Traffic | None:
        """Without the last attempts, which may not have ended."""
        gone = frozenset(self.evidence.addresses_gone)
        until_s = self.evidence.ended_at_s - ATTEMPT_S_MAX
        return self._traffic(self.evidence.settled_at_s, until_s, gone)

    def _traffic(
        self, begin_s: float | None, end_s: float | None, gone: frozenset[str] = frozenset()
    ) -> Traffic | None:
        """None where no client was there to ask."""
        if not self.evidence.connects or begin_s is None or end_s is None:
            return None
        addresses = max(1, self.evidence.addresses_expected)
        return traffic(self.evidence.connects, begin_s=begin_s, end_s=end_s, endpoints=addresses, gone=gone)

    @cached_property
    def served(self) -> Served | None:
        """By what clients met in the end, and by what the ruleset lists: fully only if both say so.

        Clients can't tell by themselves that a third of the endpoints answers for all. A node that is to have
        no endpoint serves nobody, though that is what it was asked for.
        """
        met, listed = self._clients_served, self._listing_served
        if met == "fully" and self.listing_incomplete:
            return "partly"
        return met or listed

    @property
    def fails_clients(self) -> bool:
        """Whether connects fail in the end, as far as known; rules that are stale but answer don't count."""
        return (self._clients_served or self._listing_served) not in (None, "fully")

    @cached_property
    def _clients_served(self) -> Served | None:
        seen = self.traffic_after
        if seen is None or seen.success is None:
            return None
        if seen.served == 0:
            return "not"
        return "fully" if seen.success >= SERVED_SHARE_MIN else "partly"

    @cached_property
    def _listing_served(self) -> Served | None:
        ruleset = self.evidence.ruleset
        if ruleset is None:
            return None
        if self.serves_nobody:
            return "not"
        if self.listing_complete:
            return "fully"
        return "partly" if ruleset.endpoints else "not"

    @property
    def serves_nobody(self) -> bool:
        """Whether nobody is to be served through the node, by the Service's own policy or shape."""
        return self.evidence.expected is not None and not self.evidence.addresses_expected

    @cached_property
    def served_words(self) -> str:
        seen, ruleset = self.traffic_after, self.evidence.ruleset
        words = []
        if seen is not None and seen.success is not None:
            words.append(f"{seen.served:,} of {seen.attempts:,} connects were served")
        if not words or self.listing_incomplete:
            listed = ruleset.endpoints if ruleset else 0
            words.append(f"the ruleset lists {listed:,} of {self.expected.endpoints:,} endpoints")
        return ", ".join(words)

    @cached_property
    def status_gap_s(self) -> float:
        """The longest time without a look at the node, from the workload to the end."""
        return self.status_gap_between_s(self.evidence.workload_applied_at_s, self.evidence.ended_at_s)

    def status_gap_between_s(self, begin_s: float, end_s: float) -> float:
        """The longest time without a look at the node within a stretch of time."""
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


def succeeded(sync: ProxySync) -> bool:
    return sync.error is None and sync.ended_at_s is not None


def _last_failed(syncs: Sequence[ProxySync]) -> bool:
    """Whether the last sync that came to an end, or to an error, is one that failed."""
    finished = [sync for sync in syncs if sync.error is not None or sync.ended_at_s is not None]
    return bool(finished) and finished[-1].error is not None
