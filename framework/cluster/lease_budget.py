"""How long fake nodes' leases may be on a machine that can't renew them as often as production does.

Production gives a node lease 40 s and renews it each 10 s, so 100,000 nodes cost 10,000 writes a second. Here
the fakes' lease grows until their renewals fit a rate that leaves room for the experiment, and the node
controller's grace period follows: it must exceed the fakes' renewal interval plus the spread of a wave of
renewals, or healthy fakes turn NotReady. A real node keeps 40 s.
"""

from __future__ import annotations

import math
from typing import Final

from framework.spec import Spec

PRODUCTION_LEASE_S: Final = 40
"""kubelet's nodeLeaseDurationSeconds."""
PRODUCTION_GRACE_S: Final = 50
"""kube-controller-manager's --node-monitor-grace-period since Kubernetes 1.32."""
RENEWALS_PER_LEASE: Final = 4
"""kubelet and kwok both renew after a quarter of the lease's duration."""
RENEWALS_PER_S: Final = 100.0
"""Renewals that 2 cores carry beside an experiment: about 2 ms of kube-apiserver CPU each."""
_GRACE_PER_INTERVAL: Final = 3.0
"""Two waves of renewals may come late, as they do while thousands of pods are created."""


class LeaseBudget(Spec, frozen=True, kw_only=True):
    """``lease_s`` of the fakes' leases, ``interval_s`` between renewals, ``grace_s`` of the controller."""

    lease_s: int
    interval_s: float
    grace_s: int

    @property
    def is_production(self) -> bool:
        return self.lease_s == PRODUCTION_LEASE_S and self.grace_s == PRODUCTION_GRACE_S


def lease_budget(nodes: int, *, renewals_per_s: float = RENEWALS_PER_S) -> LeaseBudget:
    """Production's times wherever ``nodes`` leases fit ``renewals_per_s``, else the shortest that fit."""
    lease_s = max(PRODUCTION_LEASE_S, math.ceil(RENEWALS_PER_LEASE * nodes / renewals_per_s))
    interval_s = lease_s / RENEWALS_PER_LEASE
    grace_s = max(PRODUCTION_GRACE_S, math.ceil(_GRACE_PER_INTERVAL * interval_s))
    return LeaseBudget(lease_s=lease_s, interval_s=interval_s, grace_s=grace_s)
