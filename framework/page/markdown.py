"""The report as Markdown, for an issue or a CI summary."""

from __future__ import annotations

from collections.abc import Iterator

from framework.analysis.comparison import Comparison
from framework.page.sections import Cells, Report


def markdown(report: Report) -> str:
    """All sections but the plots, whose tables are there."""
    return "\n".join(_lines(report)) + "\n"


def markdown_table(cells: Cells) -> str:
    """A table as GitHub and GitLab read it."""
    rules = ["--:" if column in cells.numeric else "---" for column in range(len(cells.headers))]
    rows = [cells.headers, rules, *cells.rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in rows)


def markdown_of_changes(comparison: Comparison) -> str:
    """What changed between runs; empty where nothing did."""
    lines = [f"- not compared: {line}" for line in comparison.not_compared]
    lines += [f"- other program: {line}" for line in comparison.versions]
    if comparison.changes:
        rows = tuple(
            (change.direction, change.label, change.what, change.text) for change in comparison.changes
        )
        lines.insert(0, markdown_table(Cells(headers=("", "measurement", "what", "was -> is"), rows=rows)))
        lines.insert(1, "")
    return "\n".join(["### Compared with the runs before", "", *lines, ""]) if lines else ""


def _cell(text: str) -> str:
    """Neither a pipe nor a line ends a cell, and nothing in it is HTML."""
    return text.replace("|", "\\|").replace("<", "\\<").replace("\n", " ")


def _lines(report: Report) -> Iterator[str]:
    counts = ", ".join(
        f"{report.counts[word]} {word}" for word in ("fail", "unknown", "pass") if word in report.counts
    )
    yield f"## What a Kubernetes node paid: {report.title}"
    yield ""
    yield f"**{counts or 'nothing measured'}**"
    yield ""
    if report.command:
        yield f"    {report.command}"
        yield ""
    yield from (f"{line}  " for line in report.machine)
    yield from _section("Verdicts", report.verdicts)
    if report.ladder is not None:
        yield from _section("nft's memory by endpoints", report.ladder.table)
    for each in report.over_time:
        yield from _section(f"Memory over time: {each.label}: {each.outcome}", each.table)
    for title, cells in (("Who dies", report.deaths), ("What clients met", report.traffic)):
        if cells is not None:
            yield from _section(title, cells)
    yield from _section("What differs from production", report.fidelity)
    yield from _section("Versions", report.versions)


def _section(title: str, cells: Cells) -> Iterator[str]:
    yield ""
    yield f"### {title}"
    yield ""
    yield markdown_table(cells)
