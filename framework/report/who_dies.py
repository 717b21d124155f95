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

from framework.analysis import BAD_FATES, ballast_beside, describe_ready
from framework.outcome import Outcome, RunResult, Served
from framework.units import mib, short_count

_SERVED_WORDS: Final[dict[Served | None, str]] = {
    "fully": "served",
    "partly": "partly served",
    "not": "not served",
    None: "served?",
}


def asks_who_dies(result: RunResult) -> bool:
    """Whether a measurement belongs into the table."""
    outcome, asked = result.outcome, result.parameters
    chosen = asked.get("oom_policy") not in {None, "production"} or (
        asked.get("ballast") and not asked.get("ballast_profile")
    )
    if outcome is None:
        return False
    ended_badly = any(seen.fate in BAD_FATES for seen in outcome.fates)
    return bool(outcome.victims or ended_badly or chosen)


def who_dies_table(results: Sequence[RunResult], style: box.Box) -> Table:
    """The measurements that ``asks_who_dies`` picks."""
    table = Table(box=style, title="Who dies", title_justify="left", title_style="bold")
    table.add_column("node", min_width=24)
    table.add_column("killed, in order", min_width=12)
    table.add_column("survived", min_width=11)
    table.add_column("in the end", min_width=11)
    for result in results:
        if result.outcome is not None:
            table.add_row(*_cells(result, result.outcome), end_section=result is not results[-1])
    return table


def _cells(result: RunResult, outcome: Outcome) -> tuple[str, ...]:
    asked = result.parameters
    ballast = ballast_beside(asked) or "no ballast"
    node = (
        f"{mib(outcome.limit_bytes)} MiB, {ballast}\nscores: {asked.get('oom_policy', '?')}\n"
        f"{short_count(outcome.endpoints)} endpoints, {outcome.kube_proxy}"
    )
    verdict = "\nunknown" if result.verdict is not None and result.verdict.result == "unknown" else ""
    return (
        node,
        "\n".join(victims_counted(outcome.victims)) or "nobody",
        "\n".join(outcome.survivors) or "nobody",
        f"{_SERVED_WORDS[outcome.served]}\n{describe_ready(outcome)}{verdict}",
    )


def victims_counted(victims: Sequence[str]) -> list[str]:
    return [name if count == 1 else f"{name} x{count}" for name, count in Counter(victims).items()]
