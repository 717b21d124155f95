"""Whether an outcome is what was expected: worst wins, doubts never pass, known-bad cells are strict."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_analysis_outcomes import a_killed_evidence, a_measure, an_outcome

from framework.analysis import Expectation, VerdictError, expect, judge
from framework.errors import BadInputError
from framework.outcome import Doubt, Topic
from framework.units import MIB


def a_doubt(*about: Topic) -> Doubt:
    return Doubt(about=about, text="somebody looked away")


class TestExpectation:
    def test_asserts_something(self) -> None:
        with pytest.raises(BadInputError, match="asserts nothing"):
            Expectation()

    @pytest.mark.parametrize(
        "harmless",
        [
            {"programming": "programmed"},
            {"ready_throughout": True},
            {"oom_victims": ()},
            {"nft_bytes_below": 1},
        ],
    )
    def test_known_bad_expects_something_bad(self, harmless: dict[str, Any]) -> None:
        with pytest.raises(BadInputError, match="nothing bad is expected"):
            Expectation(**harmless, known_bad="one chain for each endpoint")


class TestAssertions:
    @pytest.mark.parametrize(
        "right",
        [
            {"programming": "programmed"},
            {"nft_bytes_below": 112 * MIB},
            {"nft_bytes_above": 110 * MIB},
            {"charged_bytes_below": 378 * MIB},
            {"charged_bytes_above": 376 * MIB},
            {"sync_s_below": 4.5},
            {"ready_throughout": True},
            {"ready_at_end": True},
            {"oom_victims": ()},
        ],
    )
    def test_that_hold_pass(self, right: dict[str, Any]) -> None:
        verdict = judge(an_outcome(), Expectation(**right))
        assert (verdict.result, verdict.reasons) == ("pass", ())

    @pytest.mark.parametrize(
        ("wrong", "reason"),
        [
            ({"programming": "nft_killed"}, "expected nft killed, found programmed"),
            ({"nft_bytes_below": 20 * MIB}, "expected nft's peak below 20.0 MiB, found 111 MiB"),
            ({"nft_bytes_above": 200 * MIB}, "expected nft's peak above 200 MiB, found 111 MiB"),
            ({"charged_bytes_below": 377 * MIB}, "expected the node's peak below 377 MiB, found 377 MiB"),
            ({"charged_bytes_above": 377 * MIB}, "expected the node's peak above 377 MiB, found 377 MiB"),
            ({"sync_s_below": 4.4}, "expected a sync below 4.4 s, found 4.40 s"),
            ({"ready_throughout": False}, "expected Ready throughout: no, found: yes"),
            ({"ready_at_end": False}, "expected Ready at the end: no, found: yes"),
            ({"oom_victims": ("nft",)}, "expected the kernel to kill nft, found nobody"),
        ],
    )
    def test_that_do_not_hold_fail_with_numbers(self, wrong: dict[str, Any], reason: str) -> None:
        verdict = judge(an_outcome(), Expectation(**wrong))
        assert (verdict.result, verdict.reasons) == ("fail", (reason,))

    def test_how_often_a_victim_was_killed_does_not_matter(self) -> None:
        outcome = an_outcome(a_killed_evidence())
        assert outcome.oom_victims == ("nft", "nft")
        assert judge(outcome, Expectation(oom_victims=("nft",))).result == "pass"
        assert judge(outcome, Expectation(oom_victims=("nft", "kubelet"))).result == "fail"

    def test_a_sync_that_never_was_fails(self) -> None:
        verdict = judge(an_outcome(a_killed_evidence()), Expectation(sync_s_below=5))
        assert verdict.reasons == ("expected a sync below 5 s, found none with all endpoints",)


class TestBounds:
    """A lower bound can exceed a bound for certain, and never stay below one."""

    @pytest.mark.parametrize(
        ("asserted", "result"),
        [
            ({"nft_bytes_below": 1100 * MIB}, "unknown"),
            ({"nft_bytes_below": 1000 * MIB}, "fail"),
            ({"nft_bytes_above": 1000 * MIB}, "pass"),
            ({"nft_bytes_above": 1100 * MIB}, "unknown"),
        ],
    )
    def test_of_a_killed_nft(self, asserted: dict[str, Any], result: str) -> None:
        assert judge(an_outcome(a_killed_evidence()), Expectation(**asserted)).result == result

    def test_of_a_node_peak(self) -> None:
        outcome = an_outcome(charged_bytes_peak=a_measure(300, "lower"))
        assert judge(outcome, Expectation(charged_bytes_below=400 * MIB)).result == "unknown"
        assert judge(outcome, Expectation(charged_bytes_below=200 * MIB)).result == "fail"

    @pytest.mark.parametrize("asserted", [{"nft_bytes_below": 1}, {"nft_bytes_above": 1}])
    def test_of_an_nft_that_was_not_seen(self, asserted: dict[str, Any]) -> None:
        verdict = judge(an_outcome(nft_bytes_peak=None), Expectation(**asserted))
        assert verdict.result == "unknown"
        assert "found ? MiB" in verdict.reasons[0]


class TestDoubts:
    @pytest.mark.parametrize(
        ("asserted", "topic"),
        [
            ({"programming": "programmed"}, "programming"),
            ({"programming": "nft_killed"}, "programming"),
            ({"programming": "nft_killed"}, "victims"),
            ({"nft_bytes_below": 112 * MIB}, "nft_peak_low"),
            ({"nft_bytes_below": 20 * MIB}, "nft_peak_high"),
            ({"nft_bytes_above": 110 * MIB}, "nft_peak_high"),
            ({"nft_bytes_above": 200 * MIB}, "nft_peak_low"),
            ({"sync_s_below": 5}, "sync"),
            ({"ready_throughout": True}, "ready"),
            ({"ready_at_end": True}, "ready"),
            ({"oom_victims": ()}, "victims"),
        ],
    )
    def test_that_touch_an_assertion_make_it_unknown(self, asserted: dict[str, Any], topic: Topic) -> None:
        for outcome, refusals in (
            (an_outcome(doubts=(a_doubt(topic),)), ()),
            (an_outcome(), (a_doubt(topic),)),
        ):
            verdict = judge(outcome, Expectation(**asserted), refusals)
            assert verdict.result == "unknown"
            assert verdict.reasons[0].endswith("but somebody looked away")

    @pytest.mark.parametrize(
        ("asserted", "topic"),
        [
            ({"programming": "programmed"}, "nft_peak_low"),
            ({"programming": "programmed"}, "victims"),
            ({"nft_bytes_below": 112 * MIB}, "nft_peak_high"),
            ({"nft_bytes_above": 110 * MIB}, "nft_peak_low"),
            ({"oom_victims": ()}, "ready"),
        ],
    )
    def test_about_something_else_change_nothing(self, asserted: dict[str, Any], topic: Topic) -> None:
        assert judge(an_outcome(doubts=(a_doubt(topic),)), Expectation(**asserted)).result == "pass"

    def test_a_fail_elsewhere_is_worse(self) -> None:
        expectation = Expectation(programming="programmed", ready_at_end=False)
        verdict = judge(an_outcome(doubts=(a_doubt("programming"),)), expectation)
        assert verdict.result == "fail"
        assert len(verdict.reasons) == 2

    @settings(deadline=None)
    @given(
        st.builds(
            Expectation,
            programming=st.sampled_from(["programmed", "nft_killed"]),
            nft_bytes_below=st.none() | st.integers(0, 300 * MIB),
            nft_bytes_above=st.none() | st.integers(0, 300 * MIB),
            ready_throughout=st.none() | st.booleans(),
            oom_victims=st.sampled_from([None, (), ("nft",)]),
            known_bad=st.none(),
        )
    )
    def test_about_everything_never_pass(self, expectation: Expectation) -> None:
        doubts = (a_doubt(*typing.get_args(Topic)),)
        assert judge(an_outcome(doubts=doubts), expectation).result == "unknown"
        assert judge(an_outcome(), expectation, doubts).result == "unknown"


class TestKnownBad:
    known = Expectation(
        programming="nft_killed", ready_throughout=True, known_bad="one chain for each endpoint"
    )

    def test_that_is_bad_passes(self) -> None:
        assert judge(an_outcome(a_killed_evidence()), self.known).result == "pass"

    def test_that_turned_good_fails_with_the_news(self) -> None:
        verdict = judge(an_outcome(), self.known)
        assert verdict.result == "fail"
        assert verdict.reasons[0] == (
            "this cell was known bad (one chain for each endpoint) and is good now: programmed, Ready, "
            "nft's peak 111 MiB: drop known_bad"
        )

    def test_that_is_bad_in_another_way_fails_without_news(self) -> None:
        verdict = judge(an_outcome(programming="timed_out"), self.known)
        assert verdict.reasons == ("expected nft killed, found timed out",)

    def test_by_its_peak_turned_good(self) -> None:
        hungry = Expectation(programming="programmed", nft_bytes_above=500 * MIB, known_bad="lists the table")
        assert "drop known_bad" in judge(an_outcome(), hungry).reasons[0]
        assert judge(an_outcome(nft_bytes_peak=a_measure(600)), hungry).result == "pass"

    def test_that_may_have_turned_good_is_unknown(self) -> None:
        verdict = judge(an_outcome(doubts=(a_doubt("programming"),)), self.known)
        assert verdict.result == "unknown"
        assert not any("drop known_bad" in reason for reason in verdict.reasons)


class TestExpect:
    def test_a_pass_returns(self) -> None:
        assert expect(an_outcome(), Expectation(programming="programmed")).result == "pass"

    def test_a_fail_raises_with_the_outcome_as_a_table(self) -> None:
        with pytest.raises(VerdictError) as caught:
            expect(
                an_outcome(a_killed_evidence()),
                Expectation(programming="programmed"),
                repro="pytest -k 'real_node and 100k'",
            )
        message = str(caught.value)
        assert caught.value.verdict.result == "fail"
        for part in (
            "fail: 100,000 endpoints, kube-proxy 1.37.2",
            "  - expected programmed, found nft killed",
            "limit          2,048 MiB",
            "nft peak       >=1,063 MiB (exit record), 2 runs",
            "killed         nft x2 (out of memory at 2,048 MiB)",
            "sync error     signal: killed (1 retry; longest wait 30 s)",
            "ready          throughout: yes, at the end: yes",
            "see it again   pytest -k 'real_node and 100k'",
        ):
            assert part in message

    def test_an_unknown_raises_as_such(self) -> None:
        with pytest.raises(VerdictError, match=r"^unknown: ") as caught:
            expect(
                an_outcome(),
                Expectation(programming="programmed"),
                fidelity_refusals=(a_doubt("programming"),),
            )
        assert caught.value.verdict.result == "unknown"
        assert "see it again" not in str(caught.value)

    def test_doubts_are_in_the_table(self) -> None:
        outcome = an_outcome(doubts=(a_doubt("ready"),))
        with pytest.raises(VerdictError, match=r"doubt +somebody looked away"):
            expect(outcome, Expectation(programming="nft_killed"))
