"""The search for the limit that a node survives: it ends, brackets the truth, and goes on where it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from framework.analysis.limit_search import (
    LimitSearch,
    LimitTrial,
    edge,
    next_limit,
    trials_left,
    untold,
)
from framework.errors import BadInputError
from framework.outcome import Measure
from framework.units import GIB, MIB

TRIALS_MAX = 200


def a_trial(
    limit_bytes: int,
    survived: bool | None,
    *,
    starved: bool = False,
    needs_bytes: int | None = None,
    takes_bytes: int | None = None,
) -> LimitTrial:
    def told(figure: int | None) -> Measure | None:
        if figure is None or survived is not True:
            return None
        return Measure(value=figure, source="cgroup_counter", bound="exact")

    return LimitTrial(
        limit_bytes=limit_bytes,
        survived=survived,
        why="it was so",
        folder="trial",
        elapsed_s=20.0,
        starved=starved,
        charged_bytes_peak=told(min(takes_bytes, limit_bytes) if takes_bytes else None),
        unreclaimable_bytes_peak=told(needs_bytes),
    )


def a_search(resolution_mib: int = 16, repeats: int = 3, highest_mib: int = 4096) -> LimitSearch:
    return LimitSearch(
        resolution_bytes=resolution_mib * MIB, repeats=repeats, highest_bytes=highest_mib * MIB
    )


def searched(
    search: LimitSearch,
    survives: Callable[[int, int], bool],
    *,
    needs_bytes: int | None = None,
    takes_bytes: int | None = None,
) -> list[LimitTrial]:
    """All trials of a search of nodes that survive by ``survives(limit_bytes, number of the trial)``."""
    trials: list[LimitTrial] = []
    while (limit_bytes := next_limit(search, trials)) is not None:
        assert search.last_bytes <= limit_bytes <= search.first_bytes
        assert limit_bytes % search.resolution_bytes == 0
        survived = survives(limit_bytes, len(trials))
        trials.append(a_trial(limit_bytes, survived, needs_bytes=needs_bytes, takes_bytes=takes_bytes))
        assert len(trials) <= TRIALS_MAX
    return trials


class TestSearch:
    def test_begins_at_the_highest(self) -> None:
        assert next_limit(a_search(), []) == 4 * GIB

    def test_then_tries_what_was_needed_and_some_page_cache(self) -> None:
        trials = [a_trial(4 * GIB, True, needs_bytes=199 * MIB)]
        assert next_limit(a_search(), trials) == 208 * MIB

    @pytest.mark.parametrize(("edge_mib", "count"), [(215, 7), (300, 11), (180, 8)])
    def test_of_a_node_like_any_takes_seven_trials_and_of_others_few_more(
        self, edge_mib: int, count: int
    ) -> None:
        trials = searched(
            a_search(), lambda limit, _: limit >= edge_mib * MIB, needs_bytes=199 * MIB, takes_bytes=413 * MIB
        )
        found = edge(trials)
        assert found.killing_bytes is not None
        assert found.surviving_bytes is not None
        assert found.killing_bytes < edge_mib * MIB <= found.surviving_bytes
        assert found.surviving_bytes - found.killing_bytes == 16 * MIB
        assert (found.killing_trials, found.surviving_trials) == (3, 3)
        assert len(trials) == count

    @settings(max_examples=200)
    @given(
        edge_mib=st.integers(70, 4000),
        resolution_mib=st.sampled_from([1, 8, 16, 100]),
        repeats=st.integers(1, 4),
        needs_share=st.floats(0.3, 1.2),
    )
    def test_brackets_the_truth(
        self, edge_mib: int, resolution_mib: int, repeats: int, needs_share: float
    ) -> None:
        search = a_search(resolution_mib, repeats)
        needs_bytes = int(edge_mib * MIB * needs_share)
        trials = searched(search, lambda limit, _: limit >= edge_mib * MIB, needs_bytes=needs_bytes)
        found = edge(trials)
        if found.surviving_bytes is None:
            assert edge_mib * MIB > search.first_bytes
            return
        assert found.surviving_bytes >= edge_mib * MIB
        assert found.surviving_trials >= repeats
        if found.killing_bytes is None:
            assert found.surviving_bytes == search.last_bytes
            return
        assert found.killing_bytes < edge_mib * MIB
        assert found.killing_trials >= repeats
        assert found.surviving_bytes - found.killing_bytes == search.resolution_bytes
        assert found.lowest_survived_bytes == found.surviving_bytes

    @settings(max_examples=200)
    @given(
        edge_mib=st.integers(200, 2000),
        fuzz_mib=st.integers(0, 100),
        luck=st.lists(st.floats(-1, 1), min_size=7),
    )
    def test_ends_where_chance_decides(self, edge_mib: int, fuzz_mib: int, luck: list[float]) -> None:
        def survives(limit_bytes: int, trial: int) -> bool:
            return limit_bytes >= (edge_mib + fuzz_mib * luck[trial % len(luck)]) * MIB

        trials = searched(a_search(), survives, needs_bytes=edge_mib * MIB)
        found = edge(trials)
        assert found.surviving_bytes is not None
        assert all(t.survived for t in trials if t.limit_bytes >= found.surviving_bytes)
        assert found.surviving_trials >= 3

    def test_goes_on_where_it_was(self) -> None:
        def survives(limit_bytes: int, _: int) -> bool:
            return limit_bytes >= 777 * MIB

        whole = searched(a_search(), survives)
        for count in range(len(whole)):
            assert next_limit(a_search(), whole[:count]) == whole[count].limit_bytes

    def test_gives_up_where_the_highest_kills(self) -> None:
        trials = searched(a_search(highest_mib=512), lambda *_: False)
        assert [trial.limit_bytes for trial in trials] == [512 * MIB]
        assert edge(trials).surviving_bytes is None

    def test_ends_at_the_lowest_where_nothing_kills(self) -> None:
        trials = searched(a_search(highest_mib=512), lambda *_: True)
        assert trials[-1].limit_bytes == 64 * MIB
        assert edge(trials).killing_bytes is None

    def test_passes_over_what_told_nothing(self) -> None:
        told = [a_trial(4 * GIB, True, needs_bytes=200 * MIB), a_trial(224 * MIB, None)]
        assert next_limit(a_search(), told) == 224 * MIB
        assert untold(told, 224 * MIB) == ()
        assert untold([*told, *[a_trial(224 * MIB, None)] * 2], 224 * MIB) == ("it was so",)


class TestEdge:
    def test_one_death_moves_it_up(self) -> None:
        trials = [a_trial(304 * MIB, True), a_trial(288 * MIB, False), a_trial(304 * MIB, False)]
        found = edge([*trials, a_trial(320 * MIB, True)])
        assert (found.killing_bytes, found.surviving_bytes) == (304 * MIB, 320 * MIB)
        assert (found.killing_trials, found.killing_deaths) == (2, 1)

    def test_says_how_wide_chance_reaches(self) -> None:
        trials = [a_trial(288 * MIB, True), a_trial(320 * MIB, False), a_trial(336 * MIB, True)]
        found = edge(trials)
        assert (found.lowest_survived_bytes, found.killing_bytes) == (288 * MIB, 320 * MIB)


class TestTrialsLeft:
    def test_end_at_none(self) -> None:
        trials = searched(a_search(), lambda limit, _: limit >= 300 * MIB, needs_bytes=210 * MIB)
        assert trials_left(a_search(), trials) == 0
        assert [trials_left(a_search(), trials[:-count]) for count in (1, 2, 3)] == [1, 2, 3]


class TestBadInput:
    @pytest.mark.parametrize(
        ("asked", "words"),
        [
            ({"resolution_bytes": 1000}, "finer than a node repeats itself"),
            ({"repeats": 0}, "outside 1 to"),
            ({"highest_bytes": 70 * MIB}, "no limit to search between"),
        ],
    )
    def test_is_refused(self, asked: dict[str, int], words: str) -> None:
        good = {"resolution_bytes": 16 * MIB, "repeats": 3, "highest_bytes": GIB}
        with pytest.raises(BadInputError, match=words):
            LimitSearch(**(good | asked))
