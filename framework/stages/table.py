"""nft's stages as a table for people: a column for each load, a row for each figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.outcome import Measure, Ruleset
from framework.stages.model import StagesRun
from framework.units import KIB, mib, short_count

NOTES: Final = (
    "Memory is in MiB and of one moment, the peak of nft's heap, where all of it stands side by side; at its "
    "fullest: in the snapshot that saw most, before evaluation.",
    "Parsed tree: what the parser makes of the text. Evaluated: what libnftables makes after that, much of "
    "it in the place of what was parsed. Cache: what nft read back from the kernel. Objects: libnftnl's, "
    "from which messages are written; each is freed after that. Beyond the parser: these three.",
    "Accounted: an idle nft, the heap and malloc's own, less what was asked for and never written. The node: "
    "the original load, by kube-proxy. The kernel's memory is charged to nft's cgroup, and not nft's.",
)


class Row(NamedTuple):
    """One figure of every load."""

    label: str
    cells: tuple[str, ...]


class Growth(NamedTuple):
    """What each endpoint of a larger load adds to a smaller one of the same kube-proxy, in bytes."""

    kube_proxy: str
    endpoints_from: int
    endpoints_to: int
    transaction_bytes: float
    tree_bytes: float
    heap_bytes: float
    rss_bytes: float
    kernel_bytes: float


def stage_rows(runs: Sequence[StagesRun]) -> tuple[Row, ...]:
    """Every figure, in the order in which nft's memory comes to be."""
    return tuple(Row(label, tuple(cell(run) for run in runs)) for label, cell in _CELLS)


def growth(runs: Sequence[StagesRun]) -> tuple[Growth, ...]:
    """Between each two sizes that were measured, in order; nothing beyond them.

    The newest of several loads of one size counts.
    """
    newest = {
        (run.kube_proxy, run.endpoints_asked): run
        for run in sorted(runs, key=lambda run: run.made_utc)
        if run.kube_proxy is not None and run.transaction.endpoints
    }
    sized = sorted(newest.values(), key=lambda run: (run.kube_proxy or "", run.transaction.endpoints))
    return tuple(
        _growth(small, large)
        for small, large in pairwise(sized)
        if small.kube_proxy == large.kube_proxy and small.transaction.endpoints < large.transaction.endpoints
    )


def _growth(small: StagesRun, large: StagesRun) -> Growth:
    endpoints = large.transaction.endpoints - small.transaction.endpoints

    def each(figure: Callable[[StagesRun], int]) -> float:
        return (figure(large) - figure(small)) / endpoints

    return Growth(
        kube_proxy=large.kube_proxy or "",
        endpoints_from=small.transaction.endpoints,
        endpoints_to=large.transaction.endpoints,
        transaction_bytes=each(lambda run: run.transaction.size_bytes),
        tree_bytes=each(lambda run: run.heap.peak.tree_bytes + run.heap.peak.cache_bytes),
        heap_bytes=each(lambda run: run.heap.peak.total_bytes),
        rss_bytes=each(lambda run: run.rss_peak.value),
        kernel_bytes=each(lambda run: run.kernel.after_bytes),
    )


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


def _listed(ruleset: Ruleset | None, name: str) -> str:
    return "-" if ruleset is None else f"{getattr(ruleset, name):,}"


_CELLS: Final[tuple[tuple[str, Callable[[StagesRun], str]], ...]] = (
    ("endpoints", lambda run: f"{run.transaction.endpoints:,}"),
    ("chains added", lambda run: f"{run.transaction.chains:,}"),
    ("rules added", lambda run: f"{run.transaction.rules:,}"),
    ("transaction (the file)", lambda run: small(run.transaction.size_bytes)),
    ("input buffer", lambda run: small(run.heap.peak.input_bytes)),
    ("parsed tree", lambda run: mib(run.heap.peak.parsed_bytes)),
    ("- at its fullest", lambda run: f">={mib(run.heap.most.parsed_bytes)}"),
    ("- that over the file", lambda run: f">={run.parse_ratio:.1f}"),
    ("evaluated", lambda run: mib(run.heap.peak.evaluated_bytes)),
    ("- with the parsed tree", lambda run: mib(run.heap.peak.tree_bytes)),
    ("- both as batch began", lambda run: mib(run.heap.batch_began.tree_bytes)),
    ("cache of the ruleset", lambda run: mib(run.heap.peak.cache_bytes)),
    ("objects for messages", lambda run: small(run.heap.peak.structures_bytes)),
    ("- most in a snapshot", lambda run: f">={small(run.heap.most.structures_bytes)}"),
    ("- at most, ever", lambda run: f"<={small(run.structures_bytes_bound)}"),
    ("- beyond the parser", lambda run: mib(run.heap.peak.beyond_parser_bytes)),
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
    ("kernel's, loaded", lambda run: mib(run.kernel.after_bytes)),
    ("kernel's, at most", lambda run: _resident(run.kernel.peak)),
    ("heap per endpoint", lambda run: _per_endpoint(run.heap.peak.total_bytes, run)),
    ("RSS peak per endpoint", lambda run: _per_endpoint(run.rss_peak.value, run)),
    ("kernel's per endpoint", lambda run: _per_endpoint(run.kernel.after_bytes, run)),
    ("chains listed", lambda run: _listed(run.ruleset, "chains")),
    ("rules listed", lambda run: _listed(run.ruleset, "rules")),
    ("listing", lambda run: small(run.ruleset.listing_bytes) if run.ruleset else "-"),
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
        for step in growth(self.runs):
            yield Text(
                f"{step.kube_proxy}, from {step.endpoints_from:,} to {step.endpoints_to:,} endpoints: "
                f"each adds {step.heap_bytes:,.0f} B of heap, {step.rss_bytes:,.0f} B of RSS peak, "
                f"{step.kernel_bytes:,.0f} B in the kernel.",
                "dim",
            )
        for run in self.runs:
            yield Text(f"{title(run)}: {run.obtained}; sha256 {run.transaction.sha256[:12]}", "dim")
        for versions in dict.fromkeys(describe_versions(run) for run in self.runs):
            yield Text(f"{versions}.", "dim")


def describe_versions(run: StagesRun) -> str:
    """``nft 1.0.6-2+deb12u2, ...``."""
    return ", ".join(f"{name} {version}" for name, version in run.versions.items())
