"""How long fake nodes' leases are on a machine that can't renew them as often as production does.

Production gives a node lease 40 s and renews it each 10 s, so 100,000 nodes cost 10,000 writes a second. What
one renewal costs here is *measured* when the API server starts (``framework.cluster.renewals``). Renewals may
take two fifths of the machine's CPUs, the rest is the experiment's; the fakes' lease is production's wherever
that fits, else the shortest that fits. The node controller's grace period follows: it must exceed the fakes'
renewal interval by the time that a wave of renewals may come late, or healthy fakes turn NotReady. A real
node keeps 40 s.

kwok renews with as many requests under way as the budget says: under a flood of bulk requests the API server
serves each request under way alike, so renewals keep their share only with a share of the requests.
"""

from __future__ import annotations

import math
from typing import Final

from framework.spec import Spec

PRODUCTION_LEASE_S: Final = 40
"""kubelet's nodeLeaseDurationSeconds."""
PRODUCTION_GRACE_S: Final = 50
"""kube-controller-manager's --node-monitor-grace-period since Kubernetes 1.32."""
NODE_MONITOR_PERIOD_S: Final = 5
"""kube-controller-manager's default --node-monitor-period."""
RENEWALS_PER_LEASE: Final = 4
"""kubelet and kwok both renew after a quarter of the lease's duration."""
PRODUCTION_INTERVAL_S: Final = PRODUCTION_LEASE_S // RENEWALS_PER_LEASE
RENEWAL_SHARE: Final = 0.4
"""Share of the machine's CPUs that renewals may take."""
RENEWAL_SHARE_MAX: Final = 0.8
"""Where the grace period would be too long, renewals may take this much."""
GRACE_S_MAX: Final = 480
"""Eight minutes: longer, and a scenario of a dying node waits for ever for the controller's verdict."""
GRACE_INTERVALS: Final = 3.0
"""Two renewals in a row may be missed, as they are while thousands of pods are created."""
GRACE_INTERVALS_MIN: Final = 1.5
"""What the grace period is at least where three intervals exceed its limit."""
WATCHERS_FACTOR: Final = 1.5
"""kwok, which sends a renewal, and kube-controller-manager, which watches it, add half of what etcd and
kube-apiserver need (``benchmarks/``, November 2026)."""
BULK_PARALLELISM: Final = 16
"""Requests under way when the framework loads objects beside kwok's."""
LOAD_PARALLELISM: Final = 128
"""Requests under way while controllers and kwok are out of the way: etcd then writes many in one batch, and a
lease costs it half of what it costs with 16."""
POD_PARALLELISM: Final = 32
"""kwok's podPlayStageParallelism: status updates of pods under way."""


class RenewalCost(Spec, frozen=True, kw_only=True):
    """CPU time of etcd and kube-apiserver for one lease renewal, measured on a machine with ``cpus``."""

    cpu_s: float
    cpus: int

    @property
    def per_s_max(self) -> float:
        """Renewals a second that all CPUs together would carry, kwok's and the controllers' part included."""
        return self.cpus / (self.cpu_s * WATCHERS_FACTOR)


class LeaseBudget(Spec, frozen=True, kw_only=True):
    """The fakes' leases for a fleet of ``nodes``.

    ``lease_s`` is their duration, ``interval_s`` the time between renewals, ``grace_s`` the controller's
    grace period, ``parallelism`` kwok's renewals under way, ``cpu_share`` the share of the machine's CPUs
    that renewals take (None: not this machine's). In a cluster that is not ours nobody tells the grace
    period: ``grace_s`` is then production's, as an assumption, and ``is_grace_known`` false.
    """

    nodes: int
    lease_s: int
    interval_s: float
    grace_s: int
    parallelism: int
    cpu_share: float | None
    is_grace_known: bool = True

    @property
    def known_grace_s(self) -> int | None:
        """The grace period, unless it is an assumption."""
        return self.grace_s if self.is_grace_known else None

    @property
    def is_production(self) -> bool:
        return self.lease_s == PRODUCTION_LEASE_S and self.grace_s == PRODUCTION_GRACE_S

    @property
    def renewals_per_s(self) -> float:
        """Renewals a second that the fleet needs."""
        return self.nodes / self.interval_s

    @property
    def not_ready_after_s(self) -> tuple[float, float]:
        """How long after its last renewal the controller calls a node NotReady: at the earliest, the latest.

        The controller looks at all nodes once in each monitor period. It notices a renewal at the next look,
        counts the grace period from there, and notices its end at a look again.
        """
        return float(self.grace_s), float(self.grace_s + 2 * NODE_MONITOR_PERIOD_S)

    def same_times(self, other: LeaseBudget) -> bool:
        """Whether kwok and the controllers would run with the same flags."""
        mine = (self.lease_s, self.grace_s, self.parallelism)
        return mine == (other.lease_s, other.grace_s, other.parallelism)

    def __str__(self) -> str:
        deviation = (
            "as production"
            if self.is_production
            else f"production: {PRODUCTION_LEASE_S} s / {PRODUCTION_LEASE_S // RENEWALS_PER_LEASE} s / "
            f"{PRODUCTION_GRACE_S} s"
        )
        renewals = f"{self.renewals_per_s:.0f} renewals/s"
        if self.cpu_share is not None:
            renewals += f", {self.cpu_share:.0%} of the CPUs"
        grace = f"{self.grace_s} s ({deviation})" if self.is_grace_known else "unknown"
        leases = f"leases of {self.lease_s:,} s renewed each {self.interval_s:g} s"
        return f"{leases}, grace period {grace}; {renewals}"


def production_budget(nodes: int) -> LeaseBudget:
    """Production's times, for a cluster whose machines and flags are not ours."""
    return LeaseBudget(
        nodes=nodes,
        lease_s=PRODUCTION_LEASE_S,
        interval_s=float(PRODUCTION_INTERVAL_S),
        grace_s=PRODUCTION_GRACE_S,
        parallelism=BULK_PARALLELISM,
        cpu_share=None,
        is_grace_known=False,
    )


def lease_budget(nodes: int, cost: RenewalCost) -> LeaseBudget:
    """Production's times wherever the renewals of ``nodes`` fit their share, else the shortest that fit.

    A share beyond ``RENEWAL_SHARE`` is taken only to keep the grace period within ``GRACE_S_MAX``, and never
    more than ``RENEWAL_SHARE_MAX``: then the grace period grows on.
    """
    fitting_s = nodes / (RENEWAL_SHARE * cost.per_s_max)
    shortest_s = nodes / (RENEWAL_SHARE_MAX * cost.per_s_max)
    interval_s = max(shortest_s, min(fitting_s, GRACE_S_MAX / GRACE_INTERVALS_MIN))
    lease_s = max(PRODUCTION_LEASE_S, math.ceil(RENEWALS_PER_LEASE * interval_s))
    interval_s = lease_s / RENEWALS_PER_LEASE
    grace_s = max(
        PRODUCTION_GRACE_S,
        min(GRACE_S_MAX, math.ceil(GRACE_INTERVALS * interval_s)),
        math.ceil(GRACE_INTERVALS_MIN * interval_s),
    )
    share = nodes / interval_s / cost.per_s_max
    kept = max(share, RENEWAL_SHARE)
    return LeaseBudget(
        nodes=nodes,
        lease_s=lease_s,
        interval_s=interval_s,
        grace_s=grace_s,
        parallelism=round((BULK_PARALLELISM + POD_PARALLELISM) * kept / (1 - kept)),
        cpu_share=share,
    )
