"""The answer of a limit search, as it is read: its edge in sentences that say no more than the trials did."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pytest
from rich.console import Console
from test_limit_search import a_search, a_trial

from framework.analysis.limit_search import LimitTrial
from framework.answers import LimitAsked, LimitResult, LimitTable, trial_line
from framework.units import MIB


def a_result(*trials: LimitTrial, complete: bool = True) -> LimitResult:
    return LimitResult(
        format=1,
        made_utc="2026-11-27T20:35:43+00:00",
        command="kilonode limit",
        asked=LimitAsked(kube_proxy="1.35.0", endpoints=10_000, phase="first_programming", search=a_search()),
        complete=complete,
        trials=trials,
        environment=None,
        fidelity=(),
    )


def trials_of(limit_mib: int, *ends: str) -> list[LimitTrial]:
    """Nodes with this limit, each of which ``survived``, ``died``, ``starved`` or is ``unknown``."""
    survived = {"survived": True, "died": False, "starved": False, "unknown": None}
    return [a_trial(limit_mib * MIB, survived[end], starved=end == "starved") for end in ends]


def shown(result: LimitResult) -> str:
    console = Console(width=100, file=io.StringIO())
    with console.capture() as capture:
        console.print(LimitTable(result))
    return " ".join(capture.get().split())


EDGES: Sequence[tuple[list[list[LimitTrial]], str]] = [
    (
        [trials_of(224, *["survived"] * 3), trials_of(208, "died", "starved", "starved")],
        "Smallest limit that survived: 224 MiB (3 of 3 trials). Largest limit that killed or starved: 208 "
        "MiB (3 of 3 trials, 2 of them starved). 6 trials, resolution 16.0 MiB; no limit did both.",
    ),
    (
        [trials_of(240, *["survived"] * 3), trials_of(224, "survived", "died")],
        "Largest limit that killed or starved: 224 MiB (1 of 2 trials). 5 trials, resolution 16.0 MiB; 224 "
        "MiB now did and now did not.",
    ),
    (
        [trials_of(240, "survived"), trials_of(224, "starved"), trials_of(208, "survived", "unknown")],
        "chance decided from 208 to 224 MiB, 1 told nothing.",
    ),
    ([trials_of(64, "survived")], "No limit killed or starved, down to the smallest that a node can have."),
    ([trials_of(512, "died")], "No limit survived: the node died with 512 MiB."),
]


class TestAnswer:
    @pytest.mark.parametrize(("trials", "says"), EDGES)
    def test_says_what_the_trials_did(self, trials: list[list[LimitTrial]], says: str) -> None:
        assert says in shown(a_result(*(trial for each in trials for trial in each)))

    def test_says_what_was_asked_and_how_starving_is_judged(self) -> None:
        text = shown(a_result(*trials_of(64, "survived")))
        assert "10,000 endpoints, kube-proxy 1.35.0, first programming, ballast none" in text
        assert "not programmed in 10 s and 2 times what the highest limit took" in text

    @pytest.mark.parametrize(("complete", "words"), [(True, False), (False, True)])
    def test_of_an_interrupted_search_says_so(self, *, complete: bool, words: bool) -> None:
        result = a_result(*trials_of(240, "survived"), *trials_of(224, "died"), complete=complete)
        assert ("The search was interrupted" in shown(result)) is words


@pytest.mark.parametrize("end", ["survived", "died", "starved", "unknown"])
def test_a_trial_is_told_in_one_line_while_it_goes_on(end: str) -> None:
    (trial,) = trials_of(224, end)
    assert trial_line(trial) == f"224 MiB: {end}, it was so (20 s)"
