"""The final table: legible at 80 columns, without colour, and honest about bounds."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from test_analysis_outcomes import a_killed_evidence, a_measure, an_evidence
from test_report_run_folder import a_checked_result, a_result

from framework.analysis import derive_outcome
from framework.outcome import Component, Evidence, Outcome, RunResult, Verdict
from framework.report import ResultsTable, Row
from framework.units import GIB

FOLDER = Path("runs/20251115T101500Z-1a2b3c")


def a_measured_result(evidence: Evidence, verdict: Verdict, **changes: Any) -> RunResult:
    outcome = msgspec.structs.replace(derive_outcome(evidence), **changes)
    return a_checked_result(outcome=outcome, verdict=verdict)


def a_killed_outcome() -> Outcome:
    peaks = {"charged_bytes_peak": a_measure(2048), "unreclaimable_bytes_peak": a_measure(1786, "lower")}
    return msgspec.structs.replace(derive_outcome(a_killed_evidence(kube_proxy="1.35.0")), **peaks)


def test_a_shape_stands_under_the_verdict_and_another_loader_below_the_table() -> None:
    shaped = msgspec.structs.replace(
        derive_outcome(an_evidence()), shape="affinity ClientIP, iptables mode", loader="iptables-restore"
    )
    text = drawn(ResultsTable((a_checked_result(outcome=shaped),), FOLDER))
    assert re.search(r"\| affinity ClientIP, +\|$", text, re.M)
    assert "biggest ruleset load (in iptables mode of iptables-restore)" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80


def test_a_kill_names_the_loader() -> None:
    killed = msgspec.structs.replace(a_killed_outcome(), loader="iptables-restore")
    assert "iptables-restore" in drawn(ResultsTable((a_checked_result(outcome=killed),), FOLDER))


def every_verdict() -> ResultsTable:
    fail = Verdict(result="fail", reasons=("expected nft's peak below 100 MiB, found 111 MiB",))
    unknown = Verdict(result="unknown", reasons=("expected Ready throughout: yes, found: unknown",))
    return ResultsTable(
        (
            a_checked_result(outcome=a_killed_outcome()),
            a_measured_result(an_evidence(), fail, endpoints=10_000),
            a_measured_result(
                an_evidence(), unknown, endpoints=10, kube_proxy="1.36.1", ready_throughout=None
            ),
            a_result(),
        ),
        FOLDER,
        skipped=(
            Row(
                endpoints=100_000,
                kube_proxy="1.34.2",
                limit_bytes=2 * GIB,
                verdict="skipped",
                reasons=("it needs 9 GiB, 4 GiB are free",),
            ),
        ),
    )


def drawn(table: ResultsTable, *, terminal: bool = False, width: int = 80) -> str:
    file = io.StringIO()
    Console(file=file, force_terminal=terminal, width=width, color_system=None, legacy_windows=False).print(
        table
    )
    return file.getvalue()


class TestResultsTable:
    def test_fits_80_columns_in_ascii(self) -> None:
        text = drawn(every_verdict())
        assert text.isascii()
        assert max(map(len, text.splitlines())) <= 80
        assert "…" not in text

    def test_has_round_corners_on_a_terminal(self) -> None:
        text = drawn(every_verdict(), terminal=True)
        assert "╭" in text
        assert max(map(len, text.splitlines())) <= 80

    def test_says_each_verdict_with_its_outcome(self) -> None:
        text = drawn(every_verdict())
        for words in ("pass", "fail", "unknown", "skipped", "nft killed, Ready", "programmed, Ready?"):
            assert words in text

    def test_marks_lower_bounds(self) -> None:
        text = drawn(every_verdict())
        assert ">=1,063" in text
        assert "(>=1,786)" in text
        assert ">=2,048" not in text

    def test_is_in_the_order_of_endpoints_and_version(self) -> None:
        rows = [line.split("|")[1:3] for line in drawn(every_verdict()).splitlines() if line.startswith("| ")]
        names = [(endpoints.strip(), version.strip()) for endpoints, version in rows if "." in version]
        assert names == [
            ("10", "1.36.1"),
            ("10k", "1.37.2"),
            ("100k", "1.34.2"),
            ("100k", "1.35.0"),
            ("100k", "1.37.2"),
        ]

    def test_says_why_a_cell_is_no_pass(self) -> None:
        text = drawn(every_verdict(), width=200)
        assert "fail 10k x 1.37.2: expected nft's peak below 100 MiB, found 111 MiB" in text
        assert "skipped 100k x 1.34.2: it needs 9 GiB, 4 GiB are free" in text
        assert "unknown 100k x 1.37.2: it broke off before anything was measured" in text

    def test_says_a_reason_once_and_of_how_many(self) -> None:
        named = Row(name="test_a", endpoints=None, kube_proxy="1.35.0", limit_bytes=None, verdict="skipped")
        skipped = [replace(named, reasons=("no memory",)), replace(named, name="b", reasons=("no memory",))]
        text = drawn(ResultsTable((), FOLDER, skipped=skipped))
        assert text.splitlines() == [f"Full result: {FOLDER}", "skipped test_a and 1 more: no memory"]

    def test_what_nobody_measured_is_one_row_for_each_cell(self) -> None:
        cell = Row(endpoints=100_000, kube_proxy="1.35.0", limit_bytes=None, verdict="skipped")
        text = drawn(ResultsTable((), FOLDER, skipped=[cell, replace(cell, kube_proxy="1.37.2"), cell]))
        rows = [line.split("|") for line in text.splitlines() if "skipped" in line]
        assert [(row[2].strip(), row[7].strip()) for row in rows] == [
            ("1.35.0", "skipped x2"),
            ("1.37.2", "skipped"),
        ]

    def test_tells_apart_what_else_ran_on_a_node(self) -> None:
        empty = a_checked_result()
        asked = [{"ballast": "pods", "ballast_profile": "ordinary"}, {"ballast": "system 300 MiB"}, {}]
        results = [msgspec.structs.replace(empty, parameters=empty.parameters | each) for each in asked]
        text = drawn(ResultsTable(results, FOLDER))
        assert text.count("ordinary ballast") == 1
        assert text.count("| system 300 MiB") == 1

    def test_says_where_how_and_with_what(self) -> None:
        text = drawn(every_verdict(), width=200)
        for words in (
            f"Full result: {FOLDER}",
            "biggest ruleset load, from the kernel's exit records",
            "from the cgroup's own high-water mark",
            "Kernel 6.18.0, nft 1.0.6, kubelet ?, cgroup v1",
            "Control plane: kube-apiserver 1.37.2.",
            "Unlike production: cgroup-v1.",
        ):
            assert text.count(words) == 1

    def test_a_node_of_another_machine_has_a_kernel_of_its_own(self) -> None:
        here = a_checked_result()
        kernel = Component(name="kernel", version="6.1.0", source="node w1", toolchain="", sha256="")
        environment = msgspec.structs.replace(
            here.environment, components=(*here.environment.components, kernel)
        )
        text = drawn(
            ResultsTable((msgspec.structs.replace(here, environment=environment),), FOLDER), width=200
        )
        assert "Node: kernel 6.1.0, nft 1.0.6, kubelet ?." in text
        assert "Measured from another machine: kernel 6.18.0, cgroup v1" in text

    def test_a_measurement_that_was_not_checked(self) -> None:
        table = ResultsTable((a_checked_result(verdict=None, stage="measured"),), FOLDER)
        assert "unknown 100k x 1.37.2: it was measured, but not checked" in drawn(table, width=200)

    def test_each_limit_has_its_own_table(self) -> None:
        outcome = msgspec.structs.replace(a_killed_outcome(), limit_bytes=GIB)
        table = ResultsTable((a_checked_result(), a_checked_result(outcome=outcome)), FOLDER)
        text = drawn(table)
        assert text.index("Node limit 1,024 MiB") < text.index("Node limit 2,048 MiB")

    def test_nothing_measured(self) -> None:
        assert drawn(ResultsTable((), FOLDER)).strip() == f"Full result: {FOLDER}"

    def test_text_that_looks_like_markup_is_kept(self) -> None:
        verdict = Verdict(result="fail", reasons=("see test_x[bold]",))
        assert "see test_x[bold]" in drawn(ResultsTable((a_checked_result(verdict=verdict),), FOLDER))
