"""A bounded series: complete while it is short, then evenly thinned out, and always over all its time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from framework.observe.series import BoundedSeries


def kept(offered: int, samples_max: int) -> tuple[int, ...]:
    """What is kept of 0, 1, 2 and so on."""
    series: BoundedSeries[int] = BoundedSeries(samples_max)
    for sample in range(offered):
        series.add(sample)
    return series.samples


@given(st.integers(0, 500), st.integers(2, 50))
def test_never_reaches_its_bound(offered: int, samples_max: int) -> None:
    assert len(kept(offered, samples_max)) < samples_max


@given(st.integers(2, 50))
def test_keeps_every_sample_until_then(samples_max: int) -> None:
    assert kept(samples_max - 1, samples_max) == tuple(range(samples_max - 1))


@given(st.integers(1, 500), st.integers(3, 50))
def test_keeps_the_first_and_every_so_manieth_up_to_the_end(offered: int, samples_max: int) -> None:
    samples = kept(offered, samples_max)
    apart = {after - before for before, after in pairwise(samples)} or {1}
    assert samples[0] == 0
    assert len(apart) == 1
    assert offered - samples[-1] <= apart.pop()
