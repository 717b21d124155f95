"""Leases are production's as long as the machine can renew them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.cluster import lease_budget
from framework.spec import NODES_MAX

NODES = st.integers(1, NODES_MAX)
RATES = st.floats(1, 10_000)


@pytest.mark.parametrize("nodes", [1, 100, 1000])
def test_small_fleets_are_as_in_production(nodes: int) -> None:
    budget = lease_budget(nodes)
    assert budget.is_production
    assert (budget.lease_s, budget.interval_s, budget.grace_s) == (40, 10.0, 50)


@pytest.mark.parametrize(("nodes", "lease_s", "grace_s"), [(10_000, 400, 300), (100_000, 4000, 3000)])
def test_large_fleets_are_not(nodes: int, lease_s: int, grace_s: int) -> None:
    budget = lease_budget(nodes)
    assert (budget.lease_s, budget.grace_s) == (lease_s, grace_s)
    assert not budget.is_production


@settings(deadline=None)
@given(NODES, RATES)
def test_renewals_fit_the_rate_and_healthy_nodes_stay_ready(nodes: int, rate: float) -> None:
    budget = lease_budget(nodes, renewals_per_s=rate)
    assert nodes / budget.interval_s <= rate * (1 + 1e-9)
    assert budget.grace_s >= 3 * budget.interval_s
    assert budget.lease_s >= 40
    assert budget.grace_s >= 50


@settings(deadline=None)
@given(NODES, RATES)
def test_no_lease_is_longer_than_it_must_be(nodes: int, rate: float) -> None:
    lease_s = lease_budget(nodes, renewals_per_s=rate).lease_s
    assert lease_s == 40 or nodes / ((lease_s - 1) / 4) > rate * (1 - 1e-9)
