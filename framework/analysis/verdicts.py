"""Whether an outcome is what was expected.

Each assertion of an ``Expectation`` is checked by itself and is pass, fail or unknown; the worst one is the
verdict (fail before unknown before pass). An assertion is unknown when a doubt about the outcome, or a
deviation from production, touches it in the direction that matters: a peak that may be higher than its figure
can still be *above* a bound for certain, but never below one. An unknown is never a pass.

Cells known to be bad are expected as bad, and are strict both ways: one that turned good fails with the news,
so that the table of known cells stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import Final

from framework.analysis.table import (
    FATE_WORDS,
    PROGRAMMING_WORDS,
    bounded_mib,
    describe_outcome,
    outcome_rows,
    render_rows,
)
from framework.errors import BadInputError
from framework.outcome import Doubt, Fate, Measure, Outcome, Programming, Result, Served, Topic, Verdict
from framework.spec import Spec
from framework.units import mib

_SEVERITY: Final[tuple[Result, ...]] = ("pass", "unknown", "fail")
_DEADLY: Final[frozenset[Programming]] = frozenset({"nft_killed", "daemon_died"})


class Expectation(Spec, frozen=True, kw_only=True):
    """What a scenario asserts about an outcome; None asserts nothing.

    ``nft_bytes_*`` bound the peak of one ruleset load, ``charged_bytes_*`` the node's cgroup peak with page
    cache; all bounds are exclusive. ``oom_victims`` are exactly the distinct victims, in the order of their
    first kills: kube-proxy retries for ever, so how often depends on when one looks. ``first_victim`` is the
    first of them, by the name of a daemon or ballast or, for others, by the kernel's comm. ``fates`` all
    held, and none of ``no_fates`` did. ``served`` is what clients of the node met in the end. ``known_bad``
    names the reason why the expected outcome is a bad one. Raises BadInputError for one that asserts
    nothing, and for a known-bad one that expects nothing bad.
    """

    programming: Programming | None = None
    nft_bytes_below: int | None = None
    nft_bytes_above: int | None = None
    charged_bytes_below: int | None = None
    charged_bytes_above: int | None = None
    sync_s_below: float | None = None
    ready_throughout: bool | None = None
    ready_at_end: bool | None = None
    oom_victims: tuple[str, ...] | None = None
    first_victim: str | None = None
    fates: tuple[Fate, ...] | None = None
    no_fates: tuple[Fate, ...] | None = None
    served: Served | None = None
    known_bad: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if all(getattr(self, name) is None for name in self.__struct_fields__ if name != "known_bad"):
            raise BadInputError(
                "an expectation asserts nothing", where="Expectation", remedy="give at least one assertion"
            )
        if self.known_bad is not None and not self._expects_something_bad:
            raise BadInputError(
                f"known bad ({self.known_bad}), but nothing bad is expected",
                where="Expectation",
                remedy="expect the bad outcome (such as programming='nft_killed'), or drop known_bad",
            )

    @property
    def _expects_something_bad(self) -> bool:
        return (
            self.programming not in (None, "programmed")
            or self.nft_bytes_above is not None
            or self.charged_bytes_above is not None
            or self.ready_throughout is False
            or self.ready_at_end is False
            or bool(self.oom_victims)
            or self.first_victim is not None
            or self.served in {"partly", "not"}
            or not _GOOD_FATES.issuperset(self.fates or ())
        )


class VerdictError(AssertionError):
    """An outcome is not what was expected, or it is unknown whether it is; ``verdict`` tells which."""

    def __init__(self, verdict: Verdict, outcome: Outcome, repro: str) -> None:
        self.verdict = verdict
        self.outcome = outcome
        rows = (*outcome_rows(outcome), *((("see it again", repro),) if repro else ()))
        reasons = "\n".join(f"  - {reason}" for reason in verdict.reasons)
        super().__init__(
            f"{verdict.result}: {outcome.endpoints:,} endpoints, kube-proxy {outcome.kube_proxy}\n"
            f"{reasons}\n\n{render_rows(rows)}"
        )


def expect(
    outcome: Outcome, expectation: Expectation, *, fidelity_refusals: Sequence[Doubt] = (), repro: str = ""
) -> Verdict:
    """The verdict, if it is a pass. Raises VerdictError for a fail and for an unknown.

    ``repro`` is the command that makes the same measurement again.
    """
    verdict = judge(outcome, expectation, fidelity_refusals)
    if verdict.result != "pass":
        raise VerdictError(verdict, outcome, repro)
    return verdict


def judge(outcome: Outcome, expectation: Expectation, fidelity_refusals: Sequence[Doubt] = ()) -> Verdict:
    """The worst of all assertions, with the reason of each that is no pass.

    What disturbed the measurement makes it unknown, whatever was found. ``fidelity_refusals`` are the
    deviations from production that make an assertion unknowable, as ``framework.analysis.fidelity.refusals``
    gives them.
    """
    doubts = (*outcome.doubts, *fidelity_refusals)
    if outcome.disturbed:
        return Verdict(result="unknown", reasons=tuple(dict.fromkeys(outcome.disturbed)))
    found = [_resolve(claim, doubts) for claim in _claims(outcome, expectation)]
    worst = max((verdict.result for verdict in found), key=_SEVERITY.index)
    reasons = tuple(dict.fromkeys(reason for verdict in found for reason in verdict.reasons))
    if worst == "fail" and expectation.known_bad is not None and _is_good(outcome, expectation):
        reasons = (_good_news(outcome, expectation.known_bad), *reasons)
    return Verdict(result=worst, reasons=reasons)


@dataclass(frozen=True)
class _Claim:
    """One assertion: whether it holds (None: the figure can't tell), and the topics that may change that."""

    holds: bool | None
    sentence: str
    touched_by: frozenset[Topic] = frozenset()


def _resolve(claim: _Claim, doubts: Sequence[Doubt]) -> Verdict:
    touching = [doubt for doubt in doubts if claim.touched_by & set(doubt.about)]
    if touching:
        return Verdict(
            result="unknown", reasons=tuple(f"{claim.sentence}; but {doubt}" for doubt in touching)
        )
    if claim.holds is None:
        return Verdict(result="unknown", reasons=(claim.sentence,))
    return Verdict(result="pass") if claim.holds else Verdict(result="fail", reasons=(claim.sentence,))


def _claims(outcome: Outcome, expectation: Expectation) -> Iterator[_Claim]:
    for claim in _ASSERTIONS:
        made = claim(outcome, expectation)
        if made is not None:
            yield made


def _programming_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    expected, found = expectation.programming, outcome.programming
    if expected is None:
        return None
    topics: frozenset[Topic] = frozenset({"programming"})
    return _Claim(
        holds=found == expected,
        sentence=f"expected {PROGRAMMING_WORDS[expected]}, found {PROGRAMMING_WORDS[found]}",
        touched_by=topics | {"victims"} if {expected, found} & _DEADLY else topics,
    )


def _nft_below_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    return _below(
        f"{outcome.loader}'s peak", outcome.nft_bytes_peak, expectation.nft_bytes_below, _NFT_DOUBTS
    )


def _nft_above_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    return _above(
        f"{outcome.loader}'s peak", outcome.nft_bytes_peak, expectation.nft_bytes_above, _NFT_DOUBTS
    )


def _charged_below_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    return _below("the node's peak", outcome.charged_bytes_peak, expectation.charged_bytes_below, _NO_DOUBTS)


def _charged_above_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    return _above("the node's peak", outcome.charged_bytes_peak, expectation.charged_bytes_above, _NO_DOUBTS)


@dataclass(frozen=True)
class _PeakDoubts:
    """The topics that say a figure may be too low, and too high."""

    low: frozenset[Topic]
    high: frozenset[Topic]


_NFT_DOUBTS: Final = _PeakDoubts(low=frozenset({"nft_peak_low"}), high=frozenset({"nft_peak_high"}))
_NO_DOUBTS: Final = _PeakDoubts(low=frozenset(), high=frozenset())


def _below(noun: str, found: Measure | None, bound_bytes: int | None, doubts: _PeakDoubts) -> _Claim | None:
    if bound_bytes is None:
        return None
    sentence = f"expected {noun} below {mib(bound_bytes)} MiB, found {bounded_mib(found)} MiB"
    if found is None:
        return _Claim(None, sentence)
    if found.value >= bound_bytes:
        return _Claim(False, sentence, doubts.high)
    return _Claim(None if found.bound == "lower" else True, sentence, doubts.low)


def _above(noun: str, found: Measure | None, bound_bytes: int | None, doubts: _PeakDoubts) -> _Claim | None:
    if bound_bytes is None:
        return None
    sentence = f"expected {noun} above {mib(bound_bytes)} MiB, found {bounded_mib(found)} MiB"
    if found is None:
        return _Claim(None, sentence)
    if found.value > bound_bytes:
        return _Claim(True, sentence, doubts.high)
    return _Claim(None if found.bound == "lower" else False, sentence, doubts.low)


def _sync_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    bound_s = expectation.sync_s_below
    if bound_s is None:
        return None
    found = "none with all endpoints" if outcome.sync_s is None else f"{outcome.sync_s:.2f} s"
    return _Claim(
        holds=outcome.sync_s is not None and outcome.sync_s < bound_s,
        sentence=f"expected a sync below {bound_s:g} s, found {found}",
        touched_by=frozenset({"sync"}),
    )


def _ready_throughout_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    expected, found = expectation.ready_throughout, outcome.ready_throughout
    if expected is None:
        return None
    return _Claim(
        holds=None if found is None else found == expected,
        sentence=f"expected Ready throughout: {_yes(expected)}, found: {_yes(found)}",
        touched_by=frozenset({"ready"}),
    )


def _ready_at_end_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    expected, found = expectation.ready_at_end, outcome.ready_at_end
    if expected is None:
        return None
    return _Claim(
        holds=found == expected,
        sentence=f"expected Ready at the end: {_yes(expected)}, found: {_yes(found)}",
        touched_by=frozenset({"ready"}),
    )


def _victims_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    if expectation.oom_victims is None:
        return None
    expected, found = _distinct(expectation.oom_victims), _distinct(outcome.oom_victims)
    return _Claim(
        holds=found == expected,
        sentence=f"expected the kernel to kill {_names(expected)}, found {_names(found)}",
        touched_by=frozenset({"victims"}),
    )


def _first_victim_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    expected, found = expectation.first_victim, outcome.victims[:1]
    if expected is None:
        return None
    return _Claim(
        holds=found == (expected,),
        sentence=f"expected the kernel to kill {expected} first, found {_names(found)}",
        touched_by=frozenset({"victims"}),
    )


def _fates_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    if expectation.fates is None:
        return None
    expected, found = set(expectation.fates), {seen.fate for seen in outcome.fates}
    return _Claim(
        holds=expected <= found,
        sentence=f"expected the node's fate to be {_fate_words(expected)}, found {_fate_words(found)}",
        touched_by=_fate_topics(expected),
    )


def _no_fates_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    if expectation.no_fates is None:
        return None
    refused, found = set(expectation.no_fates), {seen.fate for seen in outcome.fates}
    return _Claim(
        holds=not refused & found,
        sentence=f"expected the node's fate not to be {_fate_words(refused)}, found {_fate_words(found)}",
        touched_by=_fate_topics(refused),
    )


def _fate_topics(fates: Set[Fate]) -> frozenset[Topic]:
    return frozenset[Topic]().union(*(_FATE_TOPICS.get(fate, _OTHER_FATE_TOPICS) for fate in fates))


def _served_claim(outcome: Outcome, expectation: Expectation) -> _Claim | None:
    if expectation.served is None:
        return None
    return _Claim(
        holds=None if outcome.served is None else outcome.served == expectation.served,
        sentence=f"expected to be {expectation.served} served, found: {outcome.served or 'unknown'}",
    )


_GOOD_FATES: Final[frozenset[Fate]] = frozenset({"programmed", "programmed_late", "recovered"})
_FATE_TOPICS: Final[dict[Fate, frozenset[Topic]]] = {
    "programmed": frozenset({"programming"}),
    "programmed_late": frozenset({"programming"}),
    "starved": frozenset({"ready"}),
    "not_ready": frozenset({"ready"}),
}
_OTHER_FATE_TOPICS: Final[frozenset[Topic]] = frozenset({"programming", "victims"})
_ASSERTIONS: Final[tuple[Callable[[Outcome, Expectation], _Claim | None], ...]] = (
    _programming_claim,
    _nft_below_claim,
    _nft_above_claim,
    _charged_below_claim,
    _charged_above_claim,
    _sync_claim,
    _ready_throughout_claim,
    _ready_at_end_claim,
    _victims_claim,
    _first_victim_claim,
    _fates_claim,
    _no_fates_claim,
    _served_claim,
)


def _is_good(outcome: Outcome, expectation: Expectation) -> bool:
    """Programmed, nobody killed, Ready throughout, and not above the peaks that were known bad."""
    nft, charged = outcome.nft_bytes_peak, outcome.charged_bytes_peak
    nft_bound, charged_bound = expectation.nft_bytes_above, expectation.charged_bytes_above
    return (
        outcome.programming == "programmed"
        and not outcome.oom_victims
        and outcome.ready_throughout is True
        and outcome.served in {None, "fully"}
        and (nft_bound is None or (nft is not None and nft.value <= nft_bound))
        and (charged_bound is None or (charged is not None and charged.value <= charged_bound))
    )


def _good_news(outcome: Outcome, known_bad: str) -> str:
    return (
        f"this cell was known bad ({known_bad}) and is good now: {describe_outcome(outcome)}, "
        f"{outcome.loader}'s peak {bounded_mib(outcome.nft_bytes_peak)} MiB: drop known_bad"
    )


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "unknown"}[value]


def _distinct(victims: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(victims))


def _fate_words(fates: Set[Fate]) -> str:
    return ", ".join(FATE_WORDS[fate] for fate in FATE_WORDS if fate in fates) or "none"


def _names(victims: Sequence[str]) -> str:
    return ", ".join(victims) or "nobody"
