"""What clients met, counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.analysis import traffic
from framework.outcome import Connect


def a_connect(
    at_s: float = 1.0, elapsed_s: float = 0.001, backend: str | None = "10.64.0.1", error: str | None = None
) -> Connect:
    return Connect(at_s=at_s, elapsed_s=elapsed_s, backend=None if error else backend, error=error)


class TestTraffic:
    def test_only_what_began_in_the_window_counts(self) -> None:
        seen = traffic([a_connect(0.9), a_connect(1.0), a_connect(2.0)], begin_s=1.0, end_s=2.0, endpoints=5)
        assert (seen.attempts, seen.served, seen.success) == (1, 1, 1.0)

    def test_without_an_attempt_the_share_is_unknown(self) -> None:
        seen = traffic([], begin_s=0, end_s=9, endpoints=5)
        assert (seen.attempts, seen.success, seen.connect_s_p50) == (0, None, None)

    def test_errors_are_counted_by_kind(self) -> None:
        connects = [
            a_connect(),
            a_connect(error="timeout"),
            a_connect(error="timeout"),
            a_connect(error="refused"),
        ]
        seen = traffic(connects, begin_s=0, end_s=9, endpoints=5)
        assert seen.errors == {"timeout": 2, "refused": 1}
        assert seen.success == 0.25

    def test_an_answer_from_where_no_endpoint_is_any_longer_is_none(self) -> None:
        connects = [a_connect(), a_connect(backend="10.64.0.9")]
        seen = traffic(connects, begin_s=0, end_s=9, endpoints=5, gone={"10.64.0.9"})
        assert (seen.served, seen.backends, seen.errors) == (1, 1, {"gone": 1})

    def test_the_last_percentile_needs_a_hundred_connects(self) -> None:
        connects = [a_connect(elapsed_s=n / 1000) for n in range(1, 101)]
        assert traffic(connects[:99], begin_s=0, end_s=9, endpoints=5).connect_s_p99 is None
        seen = traffic(connects, begin_s=0, end_s=9, endpoints=5)
        assert (seen.connect_s_p50, seen.connect_s_p99) == (0.05, 0.099)

    @pytest.mark.parametrize(
        ("picks", "endpoints", "expected"), [(1, 1, 1), (500, 1, 1), (1, 9, 1), (10**6, 9, 9)]
    )
    def test_the_expected_spread_at_its_bounds(self, picks: int, endpoints: int, expected: float) -> None:
        seen = traffic([a_connect()] * picks, begin_s=0, end_s=9, endpoints=endpoints)
        assert seen.backends_expected == pytest.approx(expected)

    def test_a_connection_that_stands_is_served_by_nobody_in_particular(self) -> None:
        seen = traffic([a_connect(), a_connect(backend=None)], begin_s=0, end_s=9, endpoints=5)
        assert (seen.attempts, seen.served, seen.backends, seen.errors) == (2, 2, 1, {})
        assert (seen.backends_expected, seen.busiest_share) == (1, 1)

    def test_the_busiest_endpoint_tells_an_even_spread_from_a_client_that_is_held(self) -> None:
        names = [f"10.64.0.{1 + n % 10}" for n in range(200)]
        even = traffic([a_connect(backend=name) for name in names], begin_s=0, end_s=9, endpoints=10)
        held = traffic([a_connect()] * 200, begin_s=0, end_s=9, endpoints=10)
        assert (even.backends, held.backends) == (10, 1)
        assert (even.busiest_share, held.busiest_share) == (0.1, 1)
        assert even.backends_expected == held.backends_expected == pytest.approx(10, abs=0.01)

    def test_without_an_answer_nobody_is_busy(self) -> None:
        seen = traffic([a_connect(error="timeout")], begin_s=0, end_s=9, endpoints=5)
        assert (seen.busiest_share, seen.backends, seen.backends_expected) == (None, 0, 0)

    @given(
        st.lists(
            st.builds(
                a_connect,
                at_s=st.floats(0, 10),
                elapsed_s=st.floats(0, 2),
                backend=st.sampled_from([None, "10.64.0.1", "10.64.0.2", "10.64.0.3"]),
                error=st.sampled_from([None, None, "timeout", "refused"]),
            ),
            max_size=150,
        )
    )
    def test_figures_are_in_their_bounds(self, connects: list[Connect]) -> None:
        seen = traffic(connects, begin_s=0, end_s=11, endpoints=3)
        assert seen.attempts == len(connects) == seen.served + sum(seen.errors.values())
        served = sorted(connect.elapsed_s for connect in connects if connect.error is None)
        assert (seen.connect_s_p50 is None) == (not served)
        assert (seen.connect_s_p99 is None) == (len(served) < 100)
        for time_s in (seen.connect_s_p50, seen.connect_s_p99):
            assert time_s is None or served[0] <= time_s <= served[-1]
        assert 0 <= seen.backends_expected <= 3
        assert (seen.busiest_share is None) == (seen.backends == 0)
        if seen.busiest_share is not None:
            assert 1 / seen.backends - 1e-9 <= seen.busiest_share <= 1
