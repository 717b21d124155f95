"""The answer of a replay, for eyes: expected beside found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.answers.replay import PEAK_TOLERANCE, ReplayResult

_WORDS: Final = {True: ("alike", "green"), False: ("DIFFERS", "bold red"), None: ("-", "dim")}
_VERDICTS: Final = {
    True: ("REPRODUCED", "green"),
    False: ("NOT REPRODUCED", "bold red"),
    None: ("NOTHING COULD BE TOLD", "yellow"),
}


@dataclass(frozen=True)
class ReplayTable:
    """A rich renderable of a replay."""

    result: ReplayResult

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        word, style = _VERDICTS[self.result.reproduced]
        yield Text.assemble((word, style), f": {self.result.test_id}")
        table = Table(box=box.ROUNDED if console.is_terminal else box.ASCII)
        for header in ("", "expected", "found", ""):
            table.add_column(header)
        for row in self.result.rows:
            cells = map(Text, (row.what, row.expected, row.found))
            table.add_row(*cells, Text(*_WORDS[row.alike]))
        yield table
        yield Text(
            f"nft alone is alike to {PEAK_TOLERANCE:.0%}; the whole node as two runs are compared "
            "(kilonode compare).",
            "dim",
        )
        for note in self.result.notes:
            yield Text(f"Note: {note}.", "dim")
        if self.result.comparison is not None:
            for line in (*self.result.comparison.not_compared, *self.result.comparison.versions):
                yield Text(f"Note: {line}.", "dim")
