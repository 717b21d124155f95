"""What each phase of a Service's life cost one node: a table for each node that went through several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from rich import box
from rich.table import Table

from framework.analysis import PHASE_WORDS, bounded_mib
from framework.outcome import Outcome, RunResult
from framework.units import mib, short_count


def phase_tables(results: Sequence[RunResult], style: box.Box) -> Iterator[Table]:
    """A table for each test and node with a later phase than its first, in the order of measuring."""
    groups: defaultdict[tuple[str, str], list[RunResult]] = defaultdict(list)
    for result in results:
        if result.outcome is not None:
            groups[result.test_id, result.outcome.node].append(result)
    for group in groups.values():
        if {result.outcome.phase for result in group if result.outcome} - {"first_programming"}:
            yield _table(group, style)


def _table(group: Sequence[RunResult], style: box.Box) -> Table:
    first = group[0].outcome
    assert first is not None  # noqa: S101 - phase_tables picks only those
    title = (
        f"Phases of {short_count(first.endpoints)} endpoints, kube-proxy {first.kube_proxy}, "
        f"node limit {mib(first.limit_bytes)} MiB"
    )
    table = Table(box=style, title=title, title_justify="left", title_style="bold")
    table.add_column("phase", min_width=11)
    for header in (
        "nft\nruns",
        "load\nMiB",
        "list\nMiB",
        "node\nMiB",
        "sync\ns",
        "failed\nsyncs",
        "kernel\nMiB",
        "served\n%",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    for result in group:
        if result.outcome is not None:
            table.add_row(*_cells(result, result.outcome))
    return table


def _cells(result: RunResult, outcome: Outcome) -> tuple[str, ...]:
    seen = outcome.traffic_after
    return (
        _name(result, outcome),
        str(outcome.nft_runs),
        bounded_mib(outcome.nft_bytes_peak),
        "-" if outcome.nft_list_bytes_peak is None else bounded_mib(outcome.nft_list_bytes_peak),
        bounded_mib(outcome.charged_bytes_peak),
        "-" if outcome.sync_s_max is None else f"{outcome.sync_s_max:.2f}",
        str(outcome.syncs_failed),
        "-" if outcome.kernel_bytes_left is None else mib(outcome.kernel_bytes_left),
        "-" if seen is None or seen.success is None else f"{seen.success:.0%}",
    )


def _name(result: RunResult, outcome: Outcome) -> str:
    asked = result.parameters
    match outcome.phase:
        case "endpoints_changed":
            return f"{asked.get('endpoints_changed', '?')} changed"
        case "rolling_replacement":
            return f"{asked.get('per_s', '?')}/s for {asked.get('for_s', '?')} s"
        case phase:
            return PHASE_WORDS[phase]
