"""The page of shapes and remedies shows what was recorded, and the scenario expects it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import an_evidence
from test_report_run_folder import a_checked_result

from benchmarks.remedies import REMEDIES, SCENARIO, SHAPES, Remedies, collect, recorded, table
from framework.analysis import derive_outcome
from framework.outcome import RunResult
from framework.units import MIB, short_count

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "remedies.md").read_text()
KEPT = msgspec.json.decode((ROOT / "docs" / "remedies.json").read_bytes(), type=Remedies)


@pytest.fixture(scope="module")
def scenario() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / SCENARIO))


def a_result(cell: str, asked: int = 1000, story: str = "a_shape_or_remedy", **changes: Any) -> RunResult:
    return a_checked_result(
        test_id=f"{SCENARIO}::test_{story}[{cell}]",
        parameters={"asked": asked},
        outcome=msgspec.structs.replace(derive_outcome(an_evidence()), **changes),
    )


def test_rows_are_named_by_their_cells() -> None:
    found = collect([a_result("dual-stack-1k-kube_proxy-1.37.2"), a_result("base-1k-kube_proxy-1.37.2")])
    assert [(row.row, row.asked, row.kube_proxy) for row in found.rows] == [
        ("base", 1000, "1.37.2"),
        ("dual-stack", 1000, "1.37.2"),
    ]


def test_the_last_of_two_counts_and_other_stories_do_not() -> None:
    first = a_result("base-1k-kube_proxy-1.37.2", sync_s=1.0)
    later = msgspec.structs.replace(
        a_result("base-1k-kube_proxy-1.37.2", sync_s=2.0), started_utc="2999-01-01T00:00:00+00:00"
    )
    other = msgspec.structs.replace(
        first, test_id="scenarios/test_other.py::test_it[base-1k-kube_proxy-1.37.2]"
    )
    (row,) = collect([later, other, first]).rows
    assert row.sync_s == 2.0


def test_a_row_that_was_not_programmed_says_so() -> None:
    kept = collect([a_result("base-1k-kube_proxy-1.37.2", programming="timed_out", sync_s=None)])
    assert "| **timed out** |" in table(kept, {"base": "none"})


class TestPage:
    def test_the_tables(self) -> None:
        for part in (recorded(KEPT), table(KEPT, REMEDIES), table(KEPT, SHAPES)):
            assert part in PAGE

    def test_every_row_can_be_reproduced(self, scenario: dict[str, Any]) -> None:
        assert {row.row for row in KEPT.rows} == set(SHAPES) | set(REMEDIES)
        cells = set(scenario["PEAKS_MIB"]) | {("iptables", 100_000)}
        assert {(row.row, row.asked) for row in KEPT.rows} == cells
        command = re.search(r"^ +pytest (\S+) .*-k (\S+)", PAGE, re.M)
        assert command is not None
        assert command[1] == SCENARIO
        assert command[2].rpartition("-")[0] in SHAPES

    @pytest.mark.parametrize(
        "row", KEPT.rows, ids=lambda row: f"{row.row}-{short_count(row.asked)}-{row.kube_proxy}"
    )
    def test_a_run_expects_what_was_recorded(self, scenario: dict[str, Any], row: Any) -> None:
        if row.programming != "programmed":
            return
        expectation = scenario["as_measured"](row.row, row.asked, row.kube_proxy)
        kubelets_bytes = 0 if row.row == "iptables" else int(scenario["KUBELETS_TABLES_MIB"] * MIB)
        seen_bytes = row.nft.value + kubelets_bytes
        assert expectation.nft_bytes_below / 1.6 < seen_bytes < expectation.nft_bytes_below
        assert (expectation.nft_bytes_above or 0) < seen_bytes
        assert expectation.charged_bytes_below / 1.3 < row.charged.value < expectation.charged_bytes_below
        assert row.nft.value > MIB
