"""Runs on two kinds of cluster, compared cell by cell."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console
from test_analysis_outcomes import an_evidence
from test_report_tables import a_result

from framework.errors import BadInputError
from framework.outcome import Measure, RunResult
from framework.report import SideBySide, compared
from framework.units import MIB


def on(cluster: str, nft_mib: float | None, **parameters: Any) -> RunResult:
    result = a_result(an_evidence(), **{"cluster": cluster, "ballast_bytes": 0, **parameters})
    assert result.outcome is not None
    peak = None
    if nft_mib is not None:
        peak = Measure(value=int(nft_mib * MIB), source="exit_record", bound="exact")
    return msgspec.structs.replace(
        result, outcome=msgspec.structs.replace(result.outcome, nft_bytes_peak=peak)
    )


def test_what_both_measured_is_a_cell_with_its_difference() -> None:
    (cell,) = compared([on("embedded", 100), on("kind", 104)])
    assert cell.by_cluster.keys() == {"embedded", "kind"}
    assert cell.nft_difference == pytest.approx(0.04)


def test_the_last_measurement_of_a_cell_counts() -> None:
    (cell,) = compared([on("embedded", 50), on("kind", 104), on("embedded", 104)])
    assert cell.nft_difference == pytest.approx(0.0)


def test_nothing_is_said_of_a_peak_that_nobody_knows() -> None:
    (cell,) = compared([on("embedded", None), on("kind", 104)])
    assert cell.nft_difference is None


def test_what_only_one_measured_and_what_has_ballast_or_a_shape_is_left_out() -> None:
    results = [on("embedded", 100), on("kind", 104), on("embedded", 300, ballast_bytes=MIB)]
    (cell,) = compared(results)
    assert cell.nft_difference == pytest.approx(0.04)
    later = a_result(an_evidence(phase="endpoints_changed"), cluster="embedded", ballast_bytes=0)
    assert len(compared([*results, later])) == 1


def test_one_kind_alone_is_refused() -> None:
    with pytest.raises(BadInputError, match="on embedded clusters alone"):
        compared([on("embedded", 100), on("embedded", 100)])


def test_the_table_names_both_and_where_their_programs_came_from() -> None:
    text = io.StringIO()
    Console(file=text, width=100).print(SideBySide([on("embedded", 100), on("kind", 104)]))
    table = text.getvalue()
    assert "4.0%" in table
    for kind in ("embedded", "kind"):
        assert f"{kind}: nft " in table
    assert table.isascii()
