"""What changed between runs, for eyes: the finding first, then each change, then what was not compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis.comparison import Comparison, Finding

_STYLES: Final = {"worse": "bold red", "better": "green", "other": "yellow"}
_FINDING_STYLES: Final[dict[Finding, str]] = {
    "worse": "bold red",
    "better": "green",
    "same": "green",
    "nothing_compared": "yellow",
}


def finding_line(comparison: Comparison) -> str:
    """The finding in one line, the gravest change in it."""
    runs = "1 run" if comparison.baseline_runs == 1 else f"{comparison.baseline_runs} runs"
    extent = f"{comparison.figures} figures of {comparison.measurements} measurements against {runs}"
    match comparison.finding:
        case "nothing_compared":
            why = f": {comparison.not_compared[-1]}" if comparison.not_compared else ""
            return f"NOTHING COMPARED{why}"
        case "worse":
            worst = comparison.changes[0]
            worse = sum(change.direction == "worse" for change in comparison.changes)
            more = f", and {worse - 1} more" if worse > 1 else ""
            return f"WORSE: {worst.what} of {worst.label}: {worst.text}{more} ({extent})"
        case "better":
            best = next(change for change in comparison.changes if change.direction == "better")
            return f"BETTER: {best.what} of {best.label}: {best.text} ({extent})"
        case "same":
            return f"SAME: {extent}"


@dataclass(frozen=True)
class ComparisonTable:
    """A rich renderable of a comparison."""

    comparison: Comparison

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        comparison = self.comparison
        yield Text(finding_line(comparison), _FINDING_STYLES[comparison.finding])
        if comparison.changes:
            table = Table(box=box.ROUNDED if console.is_terminal else box.ASCII)
            for header in ("measurement", "what", "was -> is", ""):
                table.add_column(header)
            for change in comparison.changes:
                word = "changed" if change.direction == "other" else change.direction
                cells = map(Text, (change.label, change.what, change.text))
                table.add_row(*cells, Text(word, _STYLES[change.direction]))
            yield table
        for line in _notes(comparison):
            yield Text(line, "dim")


def _notes(comparison: Comparison) -> Iterator[str]:
    for line in comparison.not_compared:
        yield f"Not compared: {line}."
    for line in comparison.versions:
        yield f"Other program: {line}."
