"""The nightly job: what it asks pytest for, what it leaves behind, and that its reason comes first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import a_killed_evidence
from test_comparison import elsewhere, measured
from test_report_run_folder import TEST_ID, a_checked_result, a_result
from test_report_tables import a_result as of_evidence

from framework.analysis.comparison import compare
from framework.answers import PLANS, NightlyResult, judge_night, nightly, plan_of, run_nightly
from framework.errors import BadInputError
from framework.outcome import Result, RunResult, Verdict
from framework.report import RunFolder, load_run

TESTS_FAILED = int(pytest.ExitCode.TESTS_FAILED)
INTERRUPTED = int(pytest.ExitCode.INTERRUPTED)
USAGE_ERROR = int(pytest.ExitCode.USAGE_ERROR)
NO_TESTS_COLLECTED = int(pytest.ExitCode.NO_TESTS_COLLECTED)
INTERNAL_ERROR = int(pytest.ExitCode.INTERNAL_ERROR)


def judged(verdict: Result, *reasons: str, **changes: Any) -> RunResult:
    return a_checked_result(verdict=Verdict(result=verdict, reasons=reasons), **changes)


class TestJudging:
    @pytest.mark.parametrize(
        ("exit_code", "results", "reason"),
        [
            (0, [], "FAIL: nothing was measured"),
            (
                TESTS_FAILED,
                [judged("fail", "expected programmed, found timed out", "more")],
                f"FAIL: {TEST_ID}: expected programmed, found timed out",
            ),
            (TESTS_FAILED, [judged("unknown")], f"UNKNOWN: {TEST_ID}: it broke off"),
            (TESTS_FAILED, [a_result()], f"UNKNOWN: {TEST_ID}: it broke off"),
            (
                TESTS_FAILED,
                [judged("pass"), a_result(), judged("unknown", "x"), judged("fail", "y", test_id="b")],
                "FAIL: b: y; 2 more are no pass",
            ),
            (0, [judged("fail", "known\nbad")], f"FAIL: {TEST_ID}: known bad"),
            (
                TESTS_FAILED,
                [judged("pass")],
                "FAIL: a test failed outside its measurements; its output says more",
            ),
            (INTERRUPTED, [judged("pass")], "FAIL: it was interrupted; its output says more"),
            (USAGE_ERROR, [], "FAIL: pytest refused to start; its output says more"),
            (NO_TESTS_COLLECTED, [], "FAIL: no scenario was found; its output says more"),
            (INTERNAL_ERROR, [], "FAIL: pytest ended with status 3; its output says more"),
        ],
        ids=range(11),
    )
    def test_what_is_no_pass_makes_a_red_night_and_says_why(
        self, exit_code: int, results: Sequence[RunResult], reason: str
    ) -> None:
        assert judge_night(exit_code, results, None) == (False, reason)

    def test_the_first_night_has_nothing_to_be_compared_with(self) -> None:
        passed, reason = judge_night(0, [measured(), measured()], None)
        assert passed
        assert reason.startswith("PASS: 2 measurements; the first of this machine")

    def test_what_got_worse_makes_a_red_night(self) -> None:
        after = [measured(nft_mib=120)]
        passed, reason = judge_night(0, after, compare([[measured(nft_mib=100)]], after))
        assert not passed
        assert reason.startswith("WORSE: nft peak of 100k x 1.37.2, 2,048 MiB: 100 MiB -> 120 MiB (+20.0%)")

    def test_what_failed_comes_before_what_got_worse(self) -> None:
        after = [of_evidence(a_killed_evidence())]
        comparison = compare([[measured()]], after)
        assert comparison.finding == "worse"
        assert judge_night(INTERRUPTED, after, comparison)[1].startswith("FAIL: it was interrupted")

    @pytest.mark.parametrize(
        ("before", "finding"),
        [
            (measured(nft_mib=100), "SAME: "),
            (measured(nft_mib=150), "BETTER: nft peak"),
            (msgspec.structs.replace(measured(), test_id="other"), "NOTHING COMPARED: "),
        ],
    )
    def test_what_did_not_get_worse_is_a_green_night(self, before: RunResult, finding: str) -> None:
        after = [measured(nft_mib=100)]
        passed, reason = judge_night(0, after, compare([[before]], after))
        assert passed
        assert reason.startswith(f"PASS: 1 measurements; {finding}")


class TestPlans:
    def test_are_found_by_name(self) -> None:
        assert [plan_of(name) for name in PLANS] == ["standard", "large"]

    def test_others_are_refused_by_naming_them(self) -> None:
        with pytest.raises(BadInputError, match="there is no plan 'huge'") as caught:
            plan_of("huge")
        assert caught.value.remedy == "give one of standard, large"


@dataclass
class Night:
    """Where nights happen, and a pytest that measures what it is told to."""

    folder: Path
    results: Sequence[RunResult] = ()
    exit_code: int = 0
    asked: list[list[str]] = field(default_factory=list)

    def pytest_main(self, arguments: list[str]) -> int:
        self.asked.append(arguments)
        options = dict(option.removeprefix("--").split("=") for option in arguments if "=" in option)
        os.write(1, b"collected 1 item\n")
        Path(options["junit-xml"]).write_text("<testsuites/>")
        if self.results:
            run = RunFolder.create(Path(options["runs-dir"]), command=["pytest"])
            for result in self.results:
                run.start(result).write(result)
            run.end()
        return self.exit_code

    def passes(self, *results: RunResult, options: Sequence[str] = ()) -> NightlyResult:
        self.results = results
        return run_nightly(
            "standard",
            scenarios=["scenarios"],
            options=options,
            runs=self.folder / "runs",
            history=self.folder / "history",
            output=self.folder / "nightly",
        )

    def output(self, name: str) -> str:
        return (self.folder / "nightly" / name).read_text()

    @property
    def kept(self) -> list[Path]:
        return sorted((self.folder / "history").iterdir())


@pytest.fixture
def night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Night:
    made = Night(tmp_path)
    monkeypatch.setattr(pytest, "main", made.pytest_main)
    return made


class TestNight:
    def test_asks_for_what_the_plan_says_and_then_for_more(
        self, night: Night, capfd: pytest.CaptureFixture[str]
    ) -> None:
        night.passes(measured(), options=["--max-nodes", "1k"])
        (asked,) = night.asked
        assert asked[:4] == ["scenarios", "-k", "scenario", "--strict-env"]
        assert asked[4:6] == list(PLANS["standard"].options)
        assert asked[-2:] == ["--max-nodes", "1k"]
        assert capfd.readouterr() == ("", "collected 1 item\n")

    def test_leaves_its_answer_in_files_and_the_run_in_the_history(self, night: Night) -> None:
        found = night.passes(measured(nft_mib=100))
        assert (found.passed, found.comparison, found.pytest_exit) == (True, None, 0)
        assert msgspec.json.decode(night.output("nightly.json"), type=NightlyResult) == found
        assert night.output("junit.xml") == "<testsuites/>"
        perf = msgspec.json.decode(night.output("perfdata.json"))
        assert {"Peak": 100.0} in [item["data"] for item in perf["dataItems"]]
        summary = night.output("summary.md")
        assert summary.splitlines()[0] == f"**{found.reason}**"
        assert "## What a Kubernetes node paid: " + found.run in summary
        assert [path.name for path in night.kept] == [found.run]
        (kept,) = load_run(night.kept[0])
        assert (kept.evidence, kept.outcome) == (None, measured(nft_mib=100).outcome)

    def test_the_second_is_compared_with_the_first(self, night: Night) -> None:
        night.passes(measured(nft_mib=100))
        found = night.passes(measured(nft_mib=120))
        assert not found.passed
        assert found.comparison is not None
        assert (found.comparison.finding, found.comparison.baseline_runs) == ("worse", 1)
        assert found.reason.startswith("WORSE: nft peak")
        summary = night.output("summary.md")
        assert summary.splitlines()[0] == f"**{found.reason}**"
        assert "### Compared with the runs before" in summary
        assert len(night.kept) == 2

    def test_another_machine_begins_anew(self, night: Night) -> None:
        night.passes(elsewhere(measured(nft_mib=100)))
        assert night.passes(measured(nft_mib=120)).comparison is None

    def test_that_measured_nothing_does_not_take_the_last_runs_for_its_own(self, night: Night) -> None:
        night.passes(measured())
        night.exit_code = NO_TESTS_COLLECTED
        found = night.passes()
        assert (found.passed, found.run, found.comparison) == (False, "", None)
        assert night.output("summary.md") == "**FAIL: no scenario was found; its output says more**\n"
        assert len(night.kept) == 1

    def test_only_so_many_are_kept(self, night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(nightly, "HISTORY_RUNS", 2)
        for _ in range(3):
            night.passes(measured())
        assert len(night.kept) == 2

    def test_a_long_summary_is_cut_after_its_reason(
        self, night: Night, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(nightly, "SUMMARY_BYTES_MAX", 800)
        found = night.passes(*[judged("fail", "é" * 300)] * 3)
        notice = "\n\n(cut: the report has it all)\n"
        summary = night.output("summary.md")
        assert summary.splitlines()[0] == f"**{found.reason}**"
        assert summary.endswith(notice)
        assert 790 < len(summary.removesuffix(notice).encode()) <= 800
