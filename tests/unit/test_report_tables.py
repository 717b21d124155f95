"""The tables of phases and of deaths, at 80 columns."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from test_analysis_outcomes import a_killed_evidence, an_evidence
from test_report_run_folder import a_checked_result

from framework.analysis import derive_outcome
from framework.outcome import Evidence, RunResult
from framework.report import ResultsTable


def a_result(evidence: Evidence, **parameters: Any) -> RunResult:
    result = a_checked_result(outcome=derive_outcome(evidence))
    return msgspec.structs.replace(result, parameters=result.parameters | parameters)


def drawn(*results: RunResult) -> str:
    text = io.StringIO()
    Console(file=text, width=80, legacy_windows=False).print(ResultsTable(results, Path("runs/x")))
    assert all(len(line) <= 80 for line in text.getvalue().splitlines())
    assert text.getvalue().isascii()
    return text.getvalue()


def test_phases_of_one_node_are_a_table_and_only_the_first_is_a_row_of_the_ladder() -> None:
    first = a_result(an_evidence())
    change = a_result(an_evidence(phase="endpoints_changed"), endpoints_changed=1)
    rolling = a_result(an_evidence(phase="rolling_replacement"), per_s=50, for_s=15)
    text = drawn(first, change, rolling)
    assert "Phases of 100k endpoints, kube-proxy 1.37.2, node limit 2,048 MiB" in text
    assert "1 changed" in text
    assert "50/s for 15" in text
    assert text.count("programmed, Ready") == 1


def test_a_node_with_one_phase_has_no_such_table() -> None:
    assert "Phases" not in drawn(a_result(an_evidence()))


def test_deaths_are_told_with_policy_ballast_victims_survivors_and_service() -> None:
    text = drawn(a_result(a_killed_evidence(), oom_policy="production", ballast="guaranteed 150 MiB"))
    row = text[text.index("Who dies") :]
    for word in ("guaranteed 150 MiB", "scores: production", "nft x2", "kubelet", "not served", "Ready"):
        assert word in row


def test_where_nobody_was_asked_about_and_nobody_died_there_is_none() -> None:
    quiet = a_result(an_evidence(), oom_policy="production", ballast="", ballast_profile="")
    assert "Who dies" not in drawn(quiet)
    ordinary = a_result(an_evidence(), ballast="burstable 80 MiB", ballast_profile="ordinary")
    assert "Who dies" not in drawn(ordinary)
    assert "Who dies" in drawn(a_result(an_evidence(), oom_policy="flat"))
