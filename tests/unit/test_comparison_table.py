"""What changed, in one line and as a table: the gravest first, and nothing that looks like markup is lost."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console
from test_comparison import measured

from framework.analysis.comparison import Change, Comparison, compare
from framework.outcome import RunResult
from framework.report import ComparisonTable, finding_line


def a_change(**changes: Any) -> Change:
    change = Change(
        label="10k x 1.35.0", what="nft peak", kind="memory", direction="worse", text="80 MiB -> 99 MiB"
    )
    return msgspec.structs.replace(change, **changes)


def a_comparison(*found: Change, **changes: Any) -> Comparison:
    comparison = Comparison(
        baseline_runs=5,
        same_machine=True,
        measurements=2,
        figures=20,
        changes=found,
        not_compared=(),
        versions=(),
    )
    return msgspec.structs.replace(comparison, **changes)


def drawn(comparison: Comparison, width: int = 80) -> str:
    text = io.StringIO()
    Console(file=text, width=width).print(ComparisonTable(comparison))
    return text.getvalue()


EXTENT = "20 figures of 2 measurements against 5 runs"
BETTER = a_change(direction="better", text="99 MiB -> 80 MiB")
OTHER = a_change(what="rules", direction="other", text="61 -> 62")


@pytest.mark.parametrize(
    ("comparison", "line"),
    [
        (a_comparison(), f"SAME: {EXTENT}"),
        (a_comparison(OTHER), f"SAME: {EXTENT}"),
        (a_comparison(baseline_runs=1), "SAME: 20 figures of 2 measurements against 1 run"),
        (
            a_comparison(OTHER, BETTER),
            f"BETTER: nft peak of 10k x 1.35.0: 99 MiB -> 80 MiB ({EXTENT})",
        ),
        (
            a_comparison(a_change(), OTHER, BETTER),
            f"WORSE: nft peak of 10k x 1.35.0: 80 MiB -> 99 MiB ({EXTENT})",
        ),
        (
            a_comparison(a_change(), a_change(), a_change(), BETTER),
            f"WORSE: nft peak of 10k x 1.35.0: 80 MiB -> 99 MiB, and 2 more ({EXTENT})",
        ),
        (a_comparison(figures=0), "NOTHING COMPARED"),
        (
            a_comparison(figures=0, not_compared=("times: x", "test_x: not measured before")),
            "NOTHING COMPARED: test_x: not measured before",
        ),
    ],
)
def test_the_finding_is_one_line(comparison: Comparison, line: str) -> None:
    assert finding_line(comparison) == line
    assert " ".join(drawn(comparison).split()).startswith(line)


def test_the_gravest_of_a_real_comparison_is_in_the_line() -> None:
    before: list[RunResult] = [measured(nft_mib=100, node_mib=300)]
    found = compare([before], [measured(nft_mib=110, node_mib=900)])
    line = finding_line(found)
    assert line.startswith(
        "WORSE: node peak of 100k x 1.37.2, 2,048 MiB: 300 MiB -> 900 MiB (+200.0%), and 1 more"
    )


def test_each_change_is_a_row_with_its_direction() -> None:
    rows = [line.split("|")[2:5] for line in drawn(a_comparison(a_change(), OTHER, BETTER)).splitlines()]
    assert [[cell.strip() for cell in row] for row in rows if len(row) == 3][1:] == [
        ["nft peak", "80 MiB -> 99 MiB", "worse"],
        ["rules", "61 -> 62", "changed"],
        ["nft peak", "99 MiB -> 80 MiB", "better"],
    ]


def test_without_changes_there_is_no_table() -> None:
    assert drawn(a_comparison()).splitlines() == [f"SAME: {EXTENT}"]


def test_what_was_left_out_and_other_programs_are_told_below() -> None:
    text = drawn(
        a_comparison(
            a_change(),
            not_compared=("times: the machines differ", "test_x: not measured this time"),
            versions=("nft: 1.0.6 -> 1.1.0",),
        )
    )
    assert text.splitlines()[-3:] == [
        "Not compared: times: the machines differ.",
        "Not compared: test_x: not measured this time.",
        "Other program: nft: 1.0.6 -> 1.1.0.",
    ]


def test_text_that_looks_like_markup_is_kept() -> None:
    words = a_change(label="a[bold]", what="b[red]", text="c[/red]")
    text = drawn(a_comparison(words, not_compared=("test_x[bold]: y",)))
    for kept in ("a[bold]", "b[red]", "c[/red]", "test_x[bold]: y"):
        assert kept in text
