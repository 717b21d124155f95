"""What changed between runs: beyond both thresholds, beyond the baseline's own spread, and only if alike."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console
from test_analysis_outcomes import a_killed_evidence, a_measure, an_evidence
from test_report_tables import a_result

from framework.analysis.comparison import Comparison, compare
from framework.outcome import Measure, RunResult
from framework.report import ComparisonTable
from framework.units import GIB, MIB


def measured(**outcome: Any) -> RunResult:
    """A result whose outcome has these fields; ``nft_mib`` and ``node_mib`` are exact peaks."""
    changed: dict[str, Any] = {}
    for name, field in (("nft_mib", "nft_bytes_peak"), ("node_mib", "charged_bytes_peak")):
        if name in outcome:
            changed[field] = exact(outcome.pop(name))
    result = a_result(an_evidence())
    assert result.outcome is not None
    return msgspec.structs.replace(
        result, outcome=msgspec.structs.replace(result.outcome, **changed, **outcome)
    )


def exact(mib: float) -> Measure:
    return a_measure(mib)


def elsewhere(result: RunResult, **environment: Any) -> RunResult:
    changed = msgspec.structs.replace(result.environment, **({"kernel": "6.1.0-other"} | environment))
    return msgspec.structs.replace(result, environment=changed)


def change_of(what: str, found: Comparison) -> Any:
    return next((change for change in found.changes if change.what == what), None)


class TestThresholds:
    @pytest.mark.parametrize(
        ("before", "after", "direction"),
        [
            (100, 102.5, None),
            (100, 104, "worse"),
            (100, 96, "better"),
            (10, 10.9, None),
            (10, 11.2, "worse"),
        ],
    )
    def test_memory_counts_beyond_a_share_and_a_size(
        self, before: float, after: float, direction: str | None
    ) -> None:
        change = change_of("nft peak", compare([[measured(nft_mib=before)]], [measured(nft_mib=after)]))
        assert (change and change.direction) == direction

    def test_time_has_to_double(self) -> None:
        before = [[measured(sync_s=1.0)]]
        assert compare(before, [measured(sync_s=1.9)]).finding == "same"
        assert compare(before, [measured(sync_s=2.1)]).finding == "worse"
        assert compare([[measured(sync_s=0.1)]], [measured(sync_s=0.5)]).finding == "same"

    def test_a_rule_more_is_news_and_no_fault(self) -> None:
        result = measured()
        assert result.outcome is not None
        assert result.outcome.ruleset is not None
        ruleset = msgspec.structs.replace(result.outcome.ruleset, rules=result.outcome.ruleset.rules + 1)
        found = compare([[result]], [measured(ruleset=ruleset)])
        assert change_of("rules", found).direction == "other"
        assert found.finding == "same"


class TestBaseline:
    def test_what_it_varied_by_is_no_change(self) -> None:
        baseline = [[measured(nft_mib=mib)] for mib in (100, 112, 101)]
        assert compare(baseline, [measured(nft_mib=110)]).finding == "same"
        change = change_of("nft peak", compare(baseline, [measured(nft_mib=113)]))
        assert (change.direction, change.before) == ("worse", 101 * MIB)
        assert change.text == "101 MiB -> 113 MiB (+11.9%), 100 MiB to 112 MiB before"

    def test_a_fact_that_varied_is_none_either(self) -> None:
        baseline = [[measured()], [a_result(a_killed_evidence())]]
        assert compare(baseline, [a_result(a_killed_evidence())]).finding == "same"


class TestBounds:
    def test_more_than_an_exact_figure_is_more_for_certain(self) -> None:
        lower = measured(nft_bytes_peak=Measure(value=200 * MIB, source="exit_record", bound="lower"))
        assert change_of("nft peak", compare([[measured(nft_mib=100)]], [lower])).direction == "worse"

    @pytest.mark.parametrize("at_least_mib", [50, 100])
    def test_less_is_nothing(self, at_least_mib: int) -> None:
        peak = Measure(value=at_least_mib * MIB, source="exit_record", bound="lower")
        found = compare([[measured(nft_mib=100)]], [measured(nft_bytes_peak=peak)])
        assert change_of("nft peak", found) is None
        assert any("nft peak is a lower bound" in line for line in found.not_compared)

    def test_less_than_a_lower_bound_is_less_for_certain(self) -> None:
        lower = measured(nft_bytes_peak=Measure(value=200 * MIB, source="exit_record", bound="lower"))
        assert change_of("nft peak", compare([[lower]], [measured(nft_mib=100)])).direction == "better"

    def test_samples_are_compared_with_samples(self) -> None:
        def sampled(mib: int) -> RunResult:
            peak = Measure(value=mib * MIB, source="sample", bound="lower")
            return measured(unreclaimable_bytes_peak=peak)

        assert compare([[sampled(300)]], [sampled(310)]).finding == "same"
        assert compare([[sampled(300)]], [sampled(400)]).finding == "worse"


class TestFacts:
    def test_an_outcome_that_turned_bad_comes_first(self) -> None:
        found = compare([[a_result(an_evidence())]], [a_result(a_killed_evidence())])
        assert found.finding == "worse"
        assert (found.changes[0].what, found.changes[0].text) in {
            ("outcome", "programmed -> nft killed"),
            ("fates", found.changes[0].text),
        }

    def test_one_that_turned_good_is_better(self) -> None:
        found = compare([[a_result(a_killed_evidence())]], [a_result(an_evidence())])
        assert change_of("outcome", found).direction == "better"


class TestAlike:
    def test_other_machines_compare_memory_and_no_times(self) -> None:
        before, after = measured(nft_mib=100, sync_s=1.0), measured(nft_mib=120, sync_s=9.0)
        found = compare([[before]], [elsewhere(after)])
        assert not found.same_machine
        assert change_of("nft peak", found).direction == "worse"
        assert change_of("sync", found) is None
        assert found.not_compared[0].startswith("times:")

    def test_another_question_is_not_compared(self) -> None:
        asked = a_result(an_evidence(), memory_bytes=2 * GIB)
        found = compare([[a_result(an_evidence(), memory_bytes=1)]], [asked])
        assert found.finding == "nothing_compared"
        assert any("something else was asked before" in line for line in found.not_compared)

    def test_the_fleet_that_the_machine_afforded_is_no_question(self) -> None:
        found = compare([[a_result(an_evidence(), fleet_nodes=10)]], [a_result(an_evidence(), fleet_nodes=1)])
        assert found.finding == "same"

    def test_the_second_measurement_of_a_test_is_compared_with_the_second(self) -> None:
        baseline = [[measured(nft_mib=100), measured(nft_mib=200)]]
        assert compare(baseline, [measured(nft_mib=100), measured(nft_mib=200)]).finding == "same"
        found = compare(baseline, [measured(nft_mib=100)])
        assert found.measurements == 1
        assert any("not measured this time" in line for line in found.not_compared)

    def test_what_broke_off_is_told(self) -> None:
        broken = msgspec.structs.replace(measured(), outcome=None, verdict=None, stage="started")
        found = compare([[measured()]], [broken])
        assert found.finding == "nothing_compared"
        assert any("broke off" in line for line in found.not_compared)

    def test_other_programs_are_named(self) -> None:
        before = measured()
        parts = tuple(
            msgspec.structs.replace(part, version="9.9.9") for part in before.environment.components
        )
        after = elsewhere(measured(), kernel=before.environment.kernel, components=parts)
        found = compare([[before]], [after])
        assert found.versions
        assert all("-> 9.9.9" in line for line in found.versions)


def test_the_table_fits_and_says_all() -> None:
    found = compare([[measured(nft_mib=100, sync_s=1)]], [elsewhere(measured(nft_mib=120, sync_s=5))])
    text = io.StringIO()
    Console(file=text, width=80).print(ComparisonTable(found))
    assert text.getvalue().isascii()
    for word in ("WORSE", "nft peak", "100 MiB -> 120 MiB (+20.0%)", "times: the machines differ"):
        assert word in text.getvalue()
