"""Who dies: OOM policy x ballast x limit, and what became of the node.

A row for each measurement in which somebody was killed, or which asked who would be: victims in the order in
which the kernel first chose them, what was still there at the end, what clients got, and what the control
plane said of the node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.table import Table

from framework.analysis import describe_ready
from framework.outcome import Outcome, RunResult, Served
from framework.units import mib, short_count

_SERVED_WORDS: Final[dict[Served | None, str]] = {
    "fully": "yes",
    "partly": "partly",
    "not": "no",
    None: "unknown",
}


_HEADERS: Final = (
    "OOM policy",
    "ballast",
    "limit\nMiB",
    "end-\npoints",
    "killed, in order",
    "survived",
    "served",
    "node",
)


def asks_who_dies(result: RunResult) -> bool:
    """Whether a measurement belongs into the table."""
    outcome, asked = result.outcome, result.parameters
    return outcome is not None and bool(
        outcome.victims or asked.get("ballast") or asked.get("oom_policy") not in {None, "production"}
    )


def who_dies_table(results: Sequence[RunResult], style: box.Box) -> Table:
    """The measurements that ``asks_who_dies`` picks."""
    table = Table(box=style, title="Who dies", title_justify="left", title_style="bold")
    for header in _HEADERS:
        table.add_column(header)
    for result in results:
        outcome = result.outcome
        if outcome is not None:
            last = result is results[-1]
            table.add_row(*_cells(result, outcome), end_section=not last)
    return table


def _cells(result: RunResult, outcome: Outcome) -> tuple[str, ...]:
    asked = result.parameters
    return (
        str(asked.get("oom_policy") or "?"),
        str(asked.get("ballast") or "none"),
        mib(outcome.limit_bytes),
        f"{short_count(outcome.endpoints)}\n{outcome.kube_proxy}",
        _counted(outcome.victims),
        ", ".join(outcome.survivors) or "nobody",
        _SERVED_WORDS[outcome.served],
        describe_ready(outcome),
    )


def _counted(victims: Sequence[str]) -> str:
    times = Counter(victims)
    named = [name if count == 1 else f"{name} x{count}" for name, count in times.items()]
    return ", ".join(named) or "nobody"
