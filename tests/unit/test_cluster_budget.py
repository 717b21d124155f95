"""Leases are production's as long as the machine can renew them, and as short as they may be beyond."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.cluster import LeaseBudget, RenewalCost, lease_budget
from framework.spec import NODES_MAX

NODES = st.integers(1, NODES_MAX)
COSTS = st.builds(RenewalCost, cpu_s=st.floats(0.0001, 0.05), cpus=st.integers(1, 256))
TWO_CPUS = RenewalCost(cpu_s=0.002, cpus=2)
"""667 renewals/s at most, 267 with room for an experiment."""


@pytest.mark.parametrize("nodes", [1, 100, 1000, 2666])
def test_small_fleets_are_as_in_production(nodes: int) -> None:
    budget = lease_budget(nodes, TWO_CPUS)
    assert budget.is_production
    assert (budget.lease_s, budget.interval_s, budget.grace_s) == (40, 10.0, 50)
    assert "(as production)" in str(budget)


@pytest.mark.parametrize(
    ("nodes", "lease_s", "grace_s", "cpu_share"),
    [(10_000, 150, 113, 0.4), (100_000, 1280, 480, 0.469), (1_000_000, 7500, 2813, 0.8)],
)
def test_large_fleets_are_not(nodes: int, lease_s: int, grace_s: int, cpu_share: float) -> None:
    budget = lease_budget(nodes, TWO_CPUS)
    assert (budget.lease_s, budget.grace_s) == (lease_s, grace_s)
    assert budget.cpu_share == pytest.approx(cpu_share, abs=0.001)
    assert not budget.is_production
    assert "(production: 40 s / 10 s / 50 s)" in str(budget)


def test_a_silent_node_is_found_after_the_grace_period_and_two_looks() -> None:
    assert lease_budget(100, TWO_CPUS).not_ready_after_s == (50, 60)


def test_a_slow_machine_gives_renewals_more_of_itself_before_the_grace_period_grows_beyond_its_limit() -> (
    None
):
    slow = lease_budget(100_000, RenewalCost(cpu_s=0.003, cpus=2))
    assert slow.grace_s == 480
    assert slow.cpu_share is not None
    assert 0.4 < slow.cpu_share < 0.8


def test_fleets_that_kwok_serves_alike_are_told_from_others() -> None:
    small, larger, largest = (lease_budget(nodes, TWO_CPUS) for nodes in (10, 1000, 10_000))
    assert small.same_times(larger)
    assert not small.same_times(largest)


@settings(deadline=None)
@given(NODES, COSTS)
def test_renewals_fit_the_machine_and_healthy_nodes_stay_ready(nodes: int, cost: RenewalCost) -> None:
    budget = lease_budget(nodes, cost)
    assert budget.renewals_per_s <= 0.8 * cost.per_s_max * (1 + 1e-9)
    assert budget.cpu_share is not None
    assert budget.renewals_per_s == pytest.approx(budget.cpu_share * cost.per_s_max)
    assert budget.grace_s >= 1.5 * budget.interval_s
    assert budget.lease_s >= 40
    assert budget.grace_s >= 50
    assert budget.parallelism >= 32


@settings(deadline=None)
@given(NODES, COSTS)
def test_no_lease_is_longer_than_it_must_be(nodes: int, cost: RenewalCost) -> None:
    budget = lease_budget(nodes, cost)
    a_second_less = (budget.lease_s - 1) / 4
    share = nodes / a_second_less / cost.per_s_max
    assert budget.lease_s == 40 or share > 0.4 * (1 - 1e-9)


@settings(deadline=None)
@given(NODES, NODES, COSTS)
def test_larger_fleets_never_have_shorter_times(one: int, other: int, cost: RenewalCost) -> None:
    smaller, larger = (lease_budget(nodes, cost) for nodes in sorted((one, other)))
    assert _times(smaller) <= _times(larger)


def _times(budget: LeaseBudget) -> tuple[int, int]:
    return budget.lease_s, budget.grace_s
