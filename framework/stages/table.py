"""nft's stages as a table for people: a column for each load, a row for each figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.outcome import Measure
from framework.stages.model import StagesRun
from framework.units import KIB, mib, short_count

NOTES: Final = (
    "Memory is in MiB and of one moment, the peak of nft's heap; in it nft's parsed tree, the netlink buffer "
    "and all else stand side by side.",
    "Parsed tree: all that libnftables makes of the text, before and after evaluation. Cache: what nft read "
    "back from the kernel. Objects: libnftnl's, from which messages are written; each is freed after that.",
    "Accounted: an idle nft, the heap and malloc's own, less what was asked for and never written. The node: "
    "the original load, by kube-proxy.",
)


class Row(NamedTuple):
    """One figure of every load."""

    label: str
    cells: tuple[str, ...]


def stage_rows(runs: Sequence[StagesRun]) -> tuple[Row, ...]:
    """Every figure, in the order in which nft's memory comes to be."""
    return tuple(Row(label, tuple(cell(run) for run in runs)) for label, cell in _CELLS)


def _resident(measure: Measure | None) -> str:
    if measure is None:
        return "-"
    return f"{'>=' if measure.bound == 'lower' else ''}{mib(measure.value)}"


def small(size_bytes: int) -> str:
    """MiB, or bytes and KiB of what is less than a tenth of one."""
    if size_bytes < KIB:
        return f"{size_bytes} B"
    return f"{size_bytes / KIB:.1f} KiB" if size_bytes < 100 * KIB else mib(size_bytes)


def _per_endpoint(size_bytes: int, run: StagesRun) -> str:
    endpoints = run.transaction.endpoints
    return f"{size_bytes / endpoints:,.0f} B" if endpoints else "-"


_CELLS: Final[tuple[tuple[str, Callable[[StagesRun], str]], ...]] = (
    ("endpoints", lambda run: f"{run.transaction.endpoints:,}"),
    ("chains added", lambda run: f"{run.transaction.chains:,}"),
    ("rules added", lambda run: f"{run.transaction.rules:,}"),
    ("transaction (the file)", lambda run: small(run.transaction.size_bytes)),
    ("input buffer", lambda run: small(run.heap.peak.input_bytes)),
    ("parsed tree", lambda run: mib(run.heap.peak.parse_tree_bytes)),
    ("- over the file", lambda run: f"{run.parse_ratio:.1f}"),
    ("- when the batch began", lambda run: mib(run.heap.batch_began.parse_tree_bytes)),
    ("cache of the ruleset", lambda run: mib(run.heap.peak.cache_bytes)),
    ("objects for messages", lambda run: small(run.heap.peak.structures_bytes)),
    ("- most in a snapshot", lambda run: f">={small(run.heap.most.structures_bytes)}"),
    ("- at most, ever", lambda run: f"<={small(run.structures_bytes_bound)}"),
    ("netlink buffer", lambda run: mib(run.heap.peak.netlink_bytes)),
    ("- of it sent", lambda run: small(run.heap.sent_bytes)),
    ("other", lambda run: small(run.heap.peak.other_bytes)),
    ("heap at its peak", lambda run: mib(run.heap.peak.total_bytes)),
    ("malloc's own (estimate)", lambda run: mib(run.heap.admin_bytes)),
    ("never written", lambda run: f"-{mib(run.untouched_bytes)}"),
    ("RSS of an idle nft", lambda run: _resident(run.rss_idle)),
    ("accounted", lambda run: mib(run.accounted_bytes)),
    ("RSS peak, unprofiled", lambda run: _resident(run.rss_peak)),
    ("not accounted", lambda run: f"{run.unaccounted_bytes / run.rss_peak.value:+.1%}"),
    ("RSS peak in the node", lambda run: _resident(run.rss_peak_in_node)),
    ("heap per endpoint", lambda run: _per_endpoint(run.heap.peak.total_bytes, run)),
    ("RSS peak per endpoint", lambda run: _per_endpoint(run.rss_peak.value, run)),
)


def title(run: StagesRun) -> str:
    """``1.35.0 10k`` for a load of kube-proxy 1.35.0."""
    if run.kube_proxy is None or run.endpoints_asked is None:
        return "file"
    return f"{run.kube_proxy} {short_count(run.endpoints_asked)}"


@dataclass(frozen=True)
class StagesTable:
    """A rich renderable of loads; how they were obtained and the versions below it."""

    runs: Sequence[StagesRun]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII)
        table.add_column("nft -f -", no_wrap=True)
        for run in self.runs:
            table.add_column(title(run).replace(" ", "\n"), justify="right")
        for row in stage_rows(self.runs):
            table.add_row(row.label, *row.cells)
        yield table
        for note in NOTES:
            yield Text(note, "dim")
        for run in self.runs:
            yield Text(f"{title(run)}: {run.obtained}; sha256 {run.transaction.sha256[:12]}", "dim")
        for versions in dict.fromkeys(describe_versions(run) for run in self.runs):
            yield Text(f"{versions}.", "dim")


def describe_versions(run: StagesRun) -> str:
    """``nft 1.0.6-2+deb12u2, ...``."""
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())
