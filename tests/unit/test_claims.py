"""Claims as data, and how figures judge them."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_analysis_outcomes import a_killed_evidence, a_measure, a_ruleset, a_sync, an_evidence, an_nft
from test_report_run_folder import a_checked_result

from framework.analysis import derive_outcome
from framework.claims import (
    Claim,
    Claims,
    ClaimsTable,
    Expected,
    Figure,
    judge_claim,
    judge_claims,
    load_claims,
)
from framework.errors import BadInputError
from framework.outcome import Evidence, RunResult
from framework.units import GIB


def a_claim(expected: Expected, **changes: Any) -> Claim:
    given: dict[str, Any] = {"id": "x", "says": "x", "measure": "nft_bytes"}
    return Claim(expected=expected, **(given | changes))


def judged(expected: Expected, value: float, *, bound: Any = "exact", tolerance: float = 0.0) -> str:
    figure = Figure(value=value, bound=bound, text="")
    return judge_claim(a_claim(expected, tolerance=tolerance), "1.35.0", figure, "").judgement


class TestJudging:
    @pytest.mark.parametrize(
        ("expected", "value", "judgement"),
        [
            (Expected(about=100), 100, "confirmed"),
            (Expected(about=100), 101, "refuted"),
            (Expected(from_=1, to=3), 3, "confirmed"),
            (Expected(from_=1, to=3), 0.9, "refuted"),
            (Expected(at_least=700), 700, "confirmed"),
            (Expected(at_least=700), 699, "refuted"),
            (Expected(below=1), 1, "refuted"),
            (Expected(below=1), 0.5, "confirmed"),
        ],
    )
    def test_inside_its_bounds(self, expected: Expected, value: float, judgement: str) -> None:
        assert judged(expected, value) == judgement

    def test_tolerance_widens_both_sides(self) -> None:
        assert judged(Expected(about=100), 149, tolerance=0.5) == "confirmed"
        assert judged(Expected(about=100), 51, tolerance=0.5) == "confirmed"
        assert judged(Expected(about=100), 151, tolerance=0.5) == "refuted"

    @pytest.mark.parametrize(
        ("expected", "value", "judgement"),
        [
            (Expected(at_least=700), 800, "confirmed"),
            (Expected(at_least=700), 600, "not measured"),
            (Expected(about=100), 100, "not measured"),
            (Expected(about=100), 200, "refuted"),
        ],
    )
    def test_a_lower_bound_decides_only_what_it_can(
        self, expected: Expected, value: float, judgement: str
    ) -> None:
        assert judged(expected, value, bound="lower") == judgement

    def test_without_a_figure_the_reason_is_told(self) -> None:
        verdict = judge_claim(a_claim(Expected(about=1)), "1.35.0", None, "no run")
        assert (verdict.judgement, verdict.why, verdict.figure) == ("not measured", "no run", None)

    @given(st.floats(1, 1e9), st.floats(0, 0.9))
    def test_what_a_claim_says_confirms_it(self, value: float, tolerance: float) -> None:
        assert judged(Expected(about=value), value, tolerance=tolerance) == "confirmed"

    @pytest.mark.parametrize("wrong", [{}, {"about": 1, "below": 2}, {"from_": 1}, {"to": 1}])
    def test_a_claim_that_says_nothing_or_too_much_is_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(BadInputError, match="a claim expects"):
            Expected(**wrong)


def a_result(evidence: Evidence | None = None, endpoints: int = 10_000, **parameters: Any) -> RunResult:
    evidence = evidence or an_evidence()
    expected = msgspec.structs.replace(evidence, endpoints_expected=endpoints)
    if evidence.ruleset is not None and evidence.ruleset.endpoints:
        expected = msgspec.structs.replace(
            expected,
            ruleset=a_ruleset(endpoints),
            syncs=tuple(msgspec.structs.replace(sync, endpoints=endpoints + 1) for sync in expected.syncs),
        )
    result = a_checked_result(evidence=expected, outcome=derive_outcome(expected))
    asked = {"kube_proxy": "1.35.0", "ports": 1, "ballast_bytes": 0, "oom_policy": "production"}
    return msgspec.structs.replace(result, parameters=asked | parameters)


def verdicts(*results: RunResult) -> dict[str, tuple[str, str]]:
    return {
        verdict.claim: (verdict.judgement, verdict.figure.text if verdict.figure else verdict.why)
        for verdict in judge_claims(load_claims(), results)
    }


class TestTheArticles:
    def test_every_claim_has_a_name_of_its_own(self) -> None:
        claims = load_claims().claims
        assert len({claim.id for claim in claims}) == len(claims) >= 25

    def test_memory_and_time_come_from_the_load(self) -> None:
        load = an_nft(400 / 1.048576, cpu_user_s=0.8, cpu_system_s=0.2)
        found = verdicts(a_result(an_evidence(exits=(load,))))
        assert found["memory-10k"] == ("confirmed", "400 MB")
        assert found["time-10k"] == ("refuted", "1 s of CPU")
        assert found["memory-100k"] == ("not measured", "no run with 100,000 endpoints was programmed")

    def test_a_gigabyte_is_no_power_of_ten(self) -> None:
        found = verdicts(a_result(an_evidence(exits=(an_nft(1104),)), 100_000))
        assert found["memory-100k"] == ("confirmed", "1,158 MB")

    def test_a_node_with_ballast_or_two_ports_is_no_plain_one(self) -> None:
        found = verdicts(a_result(ballast_bytes=1), a_result(ports=2))
        assert found["memory-10k"][0] == "not measured"

    def test_one_changed_endpoint_is_compared_with_the_first_load(self) -> None:
        first = a_result(an_evidence(exits=(an_nft(100),)))
        change = a_result(an_evidence(phase="endpoints_changed", exits=(an_nft(90),)), endpoints_changed=1)
        found = verdicts(first, change)
        assert found["full-reload"] == ("confirmed", "90% of the memory at 10,000 endpoints")
        assert found["check-first"] == ("refuted", "0 checks, 1 loads")

    def test_the_articles_death_needs_an_ordinary_node_of_2_gib(self) -> None:
        death = a_killed_evidence()
        plain = a_result(death, 100_000, memory_bytes=2 * GIB)
        assert verdicts(plain)["oom-2gb"][0] == "not measured"
        ordinary = a_result(death, 100_000, memory_bytes=2 * GIB, ballast_profile="ordinary")
        assert verdicts(ordinary)["oom-2gb"] == ("refuted", "killed: nft; Ready, not served")
        served = a_result(an_evidence(), 100_000, memory_bytes=2 * GIB, ballast_profile="ordinary")
        both = "killed: nft; Ready, not served; or killed: nobody; Ready, fully served"
        assert verdicts(ordinary, served)["oom-2gb"] == ("refuted", both)

    def test_the_weakest_fail_first_or_they_don_t(self) -> None:
        def node(limit_bytes: int, killed_at_s: float | None) -> RunResult:
            evidence = an_evidence() if killed_at_s is None else a_killed_evidence()
            assert evidence.cgroup is not None
            cgroup = msgspec.structs.replace(evidence.cgroup, limit_bytes=limit_bytes)
            kills = tuple(
                msgspec.structs.replace(kill, at_s=killed_at_s or 0.0) for kill in evidence.oom_kills
            )
            changed = msgspec.structs.replace(evidence, cgroup=cgroup, oom_kills=kills)
            return a_result(changed, 100_000)

        good = verdicts(node(GIB, 12.0), node(2 * GIB, 13.0), node(4 * GIB, None))
        assert good["least-memory"] == ("confirmed", "failed: 1 GiB, 2 GiB")
        bad = verdicts(node(GIB, None), node(2 * GIB, 13.0))
        assert bad["least-memory"] == ("refuted", "failed: 2 GiB")
        assert verdicts(node(GIB, None), node(2 * GIB, None))["least-memory"][1] == "none of the nodes failed"

    def test_a_quiet_run_warned_nobody(self) -> None:
        assert verdicts(a_result())["no-warning"][0] == "confirmed"
        failed = a_sync(started_at_s=10.5, ended_at_s=10.9, error="x", endpoints=None)
        loud = a_result(an_evidence(syncs=(failed, a_sync())))
        assert verdicts(loud)["no-warning"][0] == "refuted"

    def test_each_version_is_judged_by_its_own_runs(self) -> None:
        results = (a_result(), a_result(kube_proxy="1.37.2"))
        versions = [verdict.kube_proxy for verdict in judge_claims(load_claims(), results)]
        assert versions[:2] == ["1.35.0", "1.37.2"]

    def test_the_table_fits_80_columns(self) -> None:
        claims = load_claims()
        text = io.StringIO()
        table = ClaimsTable(claims, judge_claims(claims, [a_result()]))
        Console(file=text, width=80).print(table)
        assert "confirmed" in text.getvalue()
        assert all(len(line) <= 80 for line in text.getvalue().splitlines())


def test_a_lower_bound_stays_one_in_the_figure() -> None:
    result = a_result()
    assert result.outcome is not None
    low = msgspec.structs.replace(result.outcome, nft_bytes_peak=a_measure(700, "lower"))
    (verdict,) = judge_claims(
        Claims(source="x", claims=(a_claim(Expected(at_least=1), endpoints=10_000),)),
        [msgspec.structs.replace(result, outcome=low)],
    )
    assert verdict.figure is not None
    assert verdict.figure.text.startswith(">=")
