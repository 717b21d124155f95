"""The ladder: smallest rung first, ids that people read."""

from __future__ import annotations

import pytest

from framework import endpoints_ladder
from framework.errors import BadInputError


def test_rungs_are_sorted_named_and_each_there_once() -> None:
    mark = endpoints_ladder(100_000, 10, 1_000, 10, 1_500).mark
    assert mark.name == "parametrize"
    assert mark.args == ("endpoints", [10, 1_000, 1_500, 100_000])
    assert mark.kwargs == {"ids": ["10", "1k", "1500", "100k"]}


@pytest.mark.parametrize("count", [0, -1, 1_000_001])
def test_an_impossible_rung_is_refused(count: int) -> None:
    with pytest.raises(BadInputError) as caught:
        endpoints_ladder(10, count)
    assert caught.value.where == "endpoints_ladder"


def test_a_ladder_without_rungs_is_refused() -> None:
    with pytest.raises(BadInputError, match="no rung"):
        endpoints_ladder()
