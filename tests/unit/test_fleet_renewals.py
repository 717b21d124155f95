"""Renewals judged: how many a second, how late, and which leases had none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.cluster import LeaseBudget, RenewalCost, lease_budget
from framework.fleet import Renewal, RenewalReport, judge_renewals

BUDGET = lease_budget(4, RenewalCost(cpu_s=0.001, cpus=2))
BEGIN_S = 1_000_000.0


def judged(
    *renewals: tuple[int, float], budget: LeaseBudget = BUDGET, watched_s: float = 40
) -> RenewalReport:
    seen = [Renewal(node=f"fake-{node:06d}", at_s=BEGIN_S + at_s) for node, at_s in renewals]
    return judge_renewals(seen, budget, begin_s=BEGIN_S, end_s=BEGIN_S + watched_s)


def test_a_fleet_that_is_renewed_each_interval_is_not_late() -> None:
    report = judged(*((node, 2 * node + 10 * turn) for node in range(4) for turn in range(4)))
    assert (report.renewals, report.unrenewed) == (16, 0)
    assert report.per_s == pytest.approx(0.4)
    assert report.per_s_needed == pytest.approx(0.4)
    assert report.late_s_max == 0


def test_lateness_is_what_exceeds_the_interval_in_whatever_order_it_is_seen() -> None:
    report = judged((0, 17), (0, 5), (1, 3), (1, 13), (2, 9), (2, 19), (3, 1), (3, 11))
    assert report.late_s_max == pytest.approx(2)
    assert report.late_s_p50 == 0


def test_the_first_renewal_is_late_when_it_comes_late_after_the_beginning() -> None:
    assert judged((0, 25), (1, 1), (2, 1), (3, 1)).late_s_max == pytest.approx(15)


def test_a_lease_without_any_renewal_is_late_by_all_that_was_watched() -> None:
    report = judged((0, 1), (1, 1), (2, 1))
    assert report.unrenewed == 1
    assert report.late_s_max == pytest.approx(30)


def test_waves_show_in_the_busiest_minute_and_not_in_the_lateness() -> None:
    budget = lease_budget(1200, RenewalCost(cpu_s=0.1, cpus=2))
    assert budget.interval_s > 120
    waves = [(node, turn * budget.interval_s + node / 20) for turn in range(2) for node in range(1200)]
    report = judged(*waves, budget=budget, watched_s=2 * budget.interval_s)
    assert report.late_s_max == pytest.approx(0, abs=1e-6)
    assert report.per_s_busiest == pytest.approx(20)
    assert report.per_s < report.per_s_busiest
    assert report.gap_s_mean == pytest.approx(budget.interval_s)


def test_nothing_seen_at_all() -> None:
    report = judged()
    assert (report.renewals, report.unrenewed, report.per_s, report.per_s_busiest) == (0, 4, 0, 0)
    assert report.gap_s_mean is None
    assert report.late_s_p50 == pytest.approx(30)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 40)), max_size=50))
def test_lateness_is_ordered_and_never_negative(renewals: list[tuple[int, float]]) -> None:
    report = judged(*renewals)
    assert 0 <= report.late_s_p50 <= report.late_s_p99 <= report.late_s_max <= 30
    assert report.renewals == len(renewals)
