"""Which memory limit to try next, and what the trials so far say: bisection of a node's limit.

A trial gives one node one limit and tells whether the node survived. The search begins at the highest limit,
where it learns what of the node's memory could not be given back. It tries that with ``RESERVE_BYTES`` as a
limit, goes up from there in steps that double, because the edge is near, and halves what lies between the
largest limit that killed and the smallest above it that did not, down to the resolution. Chance has a part
near the edge: kube-proxy's garbage collector, or what the kernel reclaims in time. So both limits at the edge
are tried again, and one death moves the edge up.

``next_limit`` is a pure function of the trials, so a search that was interrupted goes on with those it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from framework.errors import BadInputError
from framework.outcome import Measure, Record
from framework.spec import MEMORY_BYTES_MIN, Spec
from framework.units import MIB, mib

RESERVE_BYTES: Final = 24 * MIB
"""Page cache that a node can't go on without, by searches for the limit (docs/answers.md)."""
RESOLUTION_BYTES_MIN: Final = MIB
REPEATS_MAX: Final = 100
_UNKNOWN_EDGE_TRIALS: Final = 2
"""How many trials a node took here to come from the highest limit to the resolution, besides repeats."""
UNTOLD_MAX: Final = 3
"""Trials of one limit of which nothing can be told: more would not help."""


class LimitTrial(Record, frozen=True, kw_only=True):
    """One node under one limit.

    ``survived`` is None where it can't be told; ``why`` says so in words, or what killed the node. It
    ``starved`` where nothing was killed, but it was not programmed in time. The other figures are the node's
    own, None where it did not live to give them.
    """

    limit_bytes: int
    survived: bool | None
    why: str
    folder: str
    elapsed_s: float
    starved: bool = False
    nft_bytes_peak: Measure | None = None
    charged_bytes_peak: Measure | None = None
    unreclaimable_bytes_peak: Measure | None = None
    programmed_after_s: float | None = None


class LimitSearch(Spec, frozen=True, kw_only=True):
    """How to search: between ``lowest_bytes`` and ``highest_bytes``, to multiples of ``resolution_bytes``.

    Each limit at the edge is tried ``repeats`` times. Raises BadInputError for bounds that leave nothing to
    search.
    """

    resolution_bytes: int
    repeats: int
    highest_bytes: int
    lowest_bytes: int = MEMORY_BYTES_MIN

    def __post_init__(self) -> None:
        if self.resolution_bytes < RESOLUTION_BYTES_MIN:
            raise BadInputError(
                f"a resolution of {self.resolution_bytes} bytes is finer than a node repeats itself",
                where="resolution",
                remedy=f"give at least {mib(RESOLUTION_BYTES_MIN)} MiB",
            )
        if not 1 <= self.repeats <= REPEATS_MAX:
            raise BadInputError(
                f"{self.repeats} is outside 1 to {REPEATS_MAX}",
                where="repeats",
                remedy="give how often each limit at the edge is tried",
            )
        if self.first_bytes <= self.last_bytes:
            raise BadInputError(
                f"there is no limit to search between {mib(self.lowest_bytes)} and "
                f"{mib(self.highest_bytes)} MiB",
                where="highest",
                remedy="give a higher one, or a finer resolution",
            )

    @property
    def first_bytes(self) -> int:
        """The highest limit that is tried."""
        return self.highest_bytes // self.resolution_bytes * self.resolution_bytes

    @property
    def last_bytes(self) -> int:
        """The lowest limit that is tried."""
        return -(-self.lowest_bytes // self.resolution_bytes) * self.resolution_bytes


class LimitEdge(Record, frozen=True, kw_only=True):
    """What trials say of a limit.

    ``surviving_bytes`` is the smallest limit above every death, ``killing_bytes`` the largest one that
    killed, None where none was found. ``lowest_survived_bytes`` is the smallest that any trial survived:
    below ``killing_bytes`` where chance decides between the two.
    """

    surviving_bytes: int | None
    surviving_trials: int
    killing_bytes: int | None
    killing_trials: int
    killing_deaths: int
    lowest_survived_bytes: int | None


def edge(trials: Sequence[LimitTrial]) -> LimitEdge:
    """The edge as far as ``trials`` tell."""
    lives = Counter(trial.limit_bytes for trial in trials if trial.survived is True)
    deaths = Counter(trial.limit_bytes for trial in trials if trial.survived is False)
    killing = max(deaths, default=None)
    surviving = min((limit for limit in lives if killing is None or limit > killing), default=None)
    return LimitEdge(
        surviving_bytes=surviving,
        surviving_trials=0 if surviving is None else lives[surviving],
        killing_bytes=killing,
        killing_trials=0 if killing is None else deaths[killing] + lives[killing],
        killing_deaths=0 if killing is None else deaths[killing],
        lowest_survived_bytes=min(lives, default=None),
    )


def next_limit(search: LimitSearch, trials: Sequence[LimitTrial]) -> int | None:
    """The limit of the next trial, None when the edge is known; all limits in bytes.

    It is known when two neighbours, one resolution apart, were tried as often as asked and the upper one
    never killed, or when the highest limit killed, or the lowest did not.
    """
    found = edge(trials)
    if found.surviving_bytes is None:
        return search.first_bytes if found.killing_bytes is None else _above(search, found.killing_bytes)
    if found.killing_bytes is None:
        return _below(search, trials, found)
    if found.surviving_bytes - found.killing_bytes > search.resolution_bytes:
        return _between(search, trials, found.killing_bytes, found.surviving_bytes)
    if found.surviving_trials < search.repeats:
        return found.surviving_bytes
    return found.killing_bytes if found.killing_trials < search.repeats else None


def untold(trials: Sequence[LimitTrial], limit_bytes: int) -> tuple[str, ...]:
    """Why nothing could be told of ``limit_bytes``, once ``UNTOLD_MAX`` trials of it told nothing."""
    whys = [trial.why for trial in trials if trial.limit_bytes == limit_bytes and trial.survived is None]
    return tuple(dict.fromkeys(whys)) if len(whys) >= UNTOLD_MAX else ()


def trials_left(search: LimitSearch, trials: Sequence[LimitTrial]) -> int:
    """How many more trials there will be, if no limit dies that survived before."""
    found = edge(trials)
    repeats = 2 * search.repeats
    if found.surviving_bytes is None or found.killing_bytes is None:
        return repeats + _UNKNOWN_EDGE_TRIALS
    span_bytes = found.surviving_bytes - found.killing_bytes
    if span_bytes > search.resolution_bytes:
        near_bytes = min(span_bytes, 2 * _step(search, trials))
        return repeats - 1 + _halvings(near_bytes, search.resolution_bytes)
    return max(0, search.repeats - found.surviving_trials) + max(0, search.repeats - found.killing_trials)


def _halvings(span_bytes: int, resolution_bytes: int) -> int:
    return max(0, (span_bytes // resolution_bytes - 1).bit_length())


def _above(search: LimitSearch, killing_bytes: int) -> int | None:
    """Twice what killed; None where that was the highest."""
    if killing_bytes >= search.first_bytes:
        return None
    return min(search.first_bytes, 2 * killing_bytes)


def _below(search: LimitSearch, trials: Sequence[LimitTrial], found: LimitEdge) -> int | None:
    """At first what a survivor could not have given back, and the reserve; then ever further down."""
    surviving_bytes = found.surviving_bytes or search.first_bytes
    if surviving_bytes <= search.last_bytes:
        return surviving_bytes if found.surviving_trials < search.repeats else None
    needs = [trial.unreclaimable_bytes_peak for trial in trials if trial.survived is True]
    need_bytes = max((need.value for need in needs if need is not None), default=surviving_bytes // 2)
    tried = len({trial.limit_bytes for trial in trials if trial.survived is True})
    step_bytes = search.resolution_bytes * (2 ** max(0, tried - 3) - 1)
    near_bytes = min(need_bytes + RESERVE_BYTES, surviving_bytes - search.resolution_bytes)
    guess_bytes = _down(search, near_bytes - step_bytes)
    return max(search.last_bytes, min(guess_bytes, surviving_bytes - search.resolution_bytes))


def _between(
    search: LimitSearch, trials: Sequence[LimitTrial], killing_bytes: int, surviving_bytes: int
) -> int:
    """A little above what killed, more after each death; the middle once that is less."""
    middle_bytes = max(
        killing_bytes + search.resolution_bytes, _down(search, (surviving_bytes + killing_bytes) // 2)
    )
    return min(middle_bytes, killing_bytes + _step(search, trials))


def _step(search: LimitSearch, trials: Sequence[LimitTrial]) -> int:
    """How far above what killed the edge is looked for: the double after each further limit that only killed.

    Where a limit both killed and did not, the edge is at hand.
    """
    deaths = {trial.limit_bytes for trial in trials if trial.survived is False}
    lives = {trial.limit_bytes for trial in trials if trial.survived is True}
    if deaths & lives:
        return search.resolution_bytes
    return search.resolution_bytes << max(0, len(deaths) - 1)


def _down(search: LimitSearch, limit_bytes: int) -> int:
    return limit_bytes // search.resolution_bytes * search.resolution_bytes
