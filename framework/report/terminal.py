"""The final table: endpoints x kube-proxy, for eyes and for CI logs.

It fits 80 columns, needs no colour, and is drawn in ASCII where the output is no terminal. Each figure of
memory says how far it can be trusted: ``>=`` marks a lower bound, and the node's peak stands over the part of
it that could not have been reclaimed. Below the table: where the full result lies, why a cell is no pass, how
the figures were obtained, and the versions that they depend on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final, Literal

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis import ballast_beside, bounded_mib, describe_outcome
from framework.outcome import Environment, FidelityItem, Outcome, RunResult
from framework.report.phase_table import phase_tables
from framework.report.who_dies import asks_who_dies, who_dies_table
from framework.spec import version_order
from framework.units import mib, short_count

VerdictWord = Literal["pass", "fail", "unknown", "skipped"]
_STYLES: Final[dict[VerdictWord, str]] = {
    "pass": "green",
    "fail": "bold red",
    "unknown": "yellow",
    "skipped": "dim",
}
_CONTROL_PLANE: Final = ("kube-apiserver", "kube-controller-manager", "etcd", "kwok")
_SOURCES: Final = {
    "exit_record": "the kernel's exit records",
    "cgroup_counter": "the cgroup's own high-water mark",
    "sample": "samples",
    "poll": "polling",
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One cell of the matrix. ``outcome`` is None where nothing was measured; ``reasons`` say why no pass.

    Without ``endpoints`` it is no cell, and only its reasons are told, under ``name``.
    """

    name: str = ""
    endpoints: int | None
    kube_proxy: str
    limit_bytes: int | None
    verdict: VerdictWord
    outcome: Outcome | None = None
    reasons: tuple[str, ...] = ()
    beside: str = ""
    """What else ran on the node."""
    tests: int = 1
    """How many tests wanted this cell, where nothing was measured."""

    @property
    def label(self) -> str:
        if self.endpoints is None:
            return self.name or "?"
        shape = f" ({self.outcome.shape})" if self.outcome is not None and self.outcome.shape else ""
        return f"{short_count(self.endpoints)} x {self.kube_proxy}{shape}"


def row_of(result: RunResult) -> Row:
    """The row of one measurement; one that broke off before its checks is unknown.

    Without an outcome the parameters ``endpoints``, ``kube_proxy`` and ``memory_bytes`` name the cell.
    """
    outcome, asked = result.outcome, result.parameters
    verdict = result.verdict
    if outcome is None:
        return Row(
            endpoints=_whole(asked.get("endpoints")),
            kube_proxy=str(asked.get("kube_proxy") or "?"),
            limit_bytes=_whole(asked.get("memory_bytes")),
            verdict=verdict.result if verdict else "unknown",
            reasons=verdict.reasons if verdict else ("it broke off before anything was measured",),
        )
    return Row(
        endpoints=outcome.endpoints,
        kube_proxy=outcome.kube_proxy,
        limit_bytes=outcome.limit_bytes,
        verdict=verdict.result if verdict else "unknown",
        outcome=outcome,
        beside=ballast_beside(asked),
        reasons=verdict.reasons if verdict else ("it was measured, but not checked",),
    )


@dataclass(frozen=True)
class ResultsTable:
    """A rich renderable of all measurements of a session.

    ``skipped`` are cells that were not measured; ``folder`` is where the full result lies, and ``page`` the
    report that was made of it.
    """

    results: Sequence[RunResult]
    folder: Path
    skipped: Sequence[Row] = ()
    page: Path | None = None

    @property
    def _programmed(self) -> list[RunResult]:
        """First programmings: later phases of the same node have tables of their own."""
        return [
            result
            for result in self.results
            if result.outcome is None or result.outcome.phase == "first_programming"
        ]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        rows = sorted((*map(row_of, self._programmed), *self.skipped), key=_order)
        style = box.ROUNDED if console.is_terminal else box.ASCII
        cells = _once_each(row for row in rows if row.outcome is not None or row.endpoints is not None)
        for limit_bytes, group in groupby(cells, key=lambda row: row.limit_bytes):
            yield _table(limit_bytes, list(group), style)
        yield from phase_tables(self.results, style)
        deaths = [result for result in self.results if asks_who_dies(result)]
        if deaths:
            yield who_dies_table(deaths, style)
        yield Text(f"Full result: {self.folder}", overflow="fold")
        if self.page is not None:
            yield Text(f"Report: {self.page}", overflow="fold")
        yield from reason_lines([*map(row_of, self.results), *self.skipped])
        for note in dict.fromkeys(_notes(self.results)):
            yield Text(note, "dim")


def _once_each(rows: Iterable[Row]) -> list[Row]:
    """Rows of the same cell in which nothing was measured as one."""
    found: list[Row] = []
    for row in rows:
        last = found[-1] if found else None
        if last is not None and row.outcome is None and _cell(row) == _cell(last):
            found[-1] = replace(last, tests=last.tests + 1)
        else:
            found.append(row)
    return found


def _cell(row: Row) -> tuple[object, ...]:
    return (row.outcome, row.limit_bytes, row.endpoints, row.kube_proxy, row.verdict)


def _order(row: Row) -> tuple[int, int, tuple[int, ...]]:
    return (row.limit_bytes or 0, row.endpoints or 0, version_order(row.kube_proxy))


def _table(limit_bytes: int | None, rows: Sequence[Row], style: box.Box) -> Table:
    measured = any(row.outcome is not None for row in rows)
    title = f"Node limit {mib(limit_bytes)} MiB" if measured or limit_bytes is not None else "Not measured"
    table = Table(box=style, title=title, title_justify="left", title_style="bold", show_lines=False)
    for header in (
        "end-\npoints",
        "kube-\nproxy",
        "nft\npeak\nMiB",
        "node peak\n(unrecl.)\nMiB",
        "sync\ns",
        "rules",
    ):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("verdict", min_width=17)
    for row in rows:
        table.add_row(*_cells(row), end_section=row is not rows[-1])
    return table


def _cells(row: Row) -> tuple[Text, ...]:
    outcome = row.outcome
    verdict = Text(row.verdict, _STYLES[row.verdict])
    name = (Text("?" if row.endpoints is None else short_count(row.endpoints)), Text(row.kube_proxy))
    if outcome is None:
        if row.tests > 1:
            verdict.append(f" x{row.tests}")
        return (*name, Text("-"), Text("-"), Text("-"), Text("-"), verdict)
    verdict.append(f"\n{describe_outcome(outcome)}", "default not bold")
    for more in filter(None, (outcome.shape, row.beside)):
        verdict.append(f"\n{more}", "default not bold")
    node_peak = (
        f"{bounded_mib(outcome.charged_bytes_peak)}\n({bounded_mib(outcome.unreclaimable_bytes_peak)})"
    )
    return (
        *name,
        Text(bounded_mib(outcome.nft_bytes_peak)),
        Text(node_peak),
        Text(_seconds(outcome.sync_s)),
        Text("-" if outcome.ruleset is None else f"{outcome.ruleset.rules:,}"),
        verdict,
    )


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds:.2f}" if seconds < 10 else f"{seconds:.1f}"


def reason_lines(rows: Sequence[Row]) -> Iterator[Text]:
    """Why rows are no pass, each reason once."""
    labels: defaultdict[tuple[VerdictWord, str], list[str]] = defaultdict(list)
    for row in rows:
        for reason in row.reasons:
            labels[row.verdict, reason].append(row.label)
    for (verdict, reason), names in labels.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield Text.assemble((verdict, _STYLES[verdict]), f" {names[0]}{others}: {reason}")


def _notes(results: Sequence[RunResult]) -> Iterator[str]:
    outcomes = [result.outcome for result in results if result.outcome is not None]
    if outcomes:
        yield from _measuring_notes(outcomes)
    yield from basis_lines(
        [result.environment for result in results], [i for r in results for i in r.fidelity]
    )


def _measuring_notes(outcomes: Sequence[Outcome]) -> Iterator[str]:
    nft = [outcome.nft_bytes_peak.source for outcome in outcomes if outcome.nft_bytes_peak]
    node = [outcome.charged_bytes_peak.source for outcome in outcomes if outcome.charged_bytes_peak]
    if nft:
        others = sorted({outcome.loader for outcome in outcomes} - {"nft"})
        of = f" (in iptables mode of {', '.join(others)})" if others else ""
        yield f"nft peak: resident memory of the biggest ruleset load{of}, from {_sources(nft)}."
    if node:
        yield (
            f"Node peak: all memory charged to the node, page cache included, from {_sources(node)}; in "
            "brackets what could not be reclaimed (anonymous + kernel), from samples."
        )
    kinds = {"full" if outcome.sync_full else "partial" for outcome in outcomes if outcome.sync_s is not None}
    if kinds:
        words = " and ".join(sorted(kinds))
        yield f"Sync: kube-proxy's own time for the sync that programmed the last endpoint ({words})."
    yield ">= the truth is this or more.  - not seen."


def _sources(sources: Sequence[str]) -> str:
    return " and ".join(_SOURCES.get(source, source) for source in sorted(set(sources)))


def basis_lines(
    environments: Iterable[Environment | None], fidelity: Iterable[FidelityItem]
) -> Iterator[str]:
    """What figures rest on: the machines, the versions, and what is unlike production."""
    for environment in environments:
        if environment is not None:
            yield from machine_lines(environment)
    deviations = sorted({item.id for item in fidelity})
    if deviations:
        yield f"Unlike production: {', '.join(deviations)}."


def machine_lines(environment: Environment) -> Iterator[str]:
    """The machine and the versions that figures depend on."""
    versions = {part.name: part.version.removeprefix("v") for part in environment.components}
    nft, kubelet = versions.get("nft", "?"), versions.get("kubelet", "?")
    machine = (
        f"cgroup {environment.cgroup_mode}, {environment.cpus} CPUs, {mib(environment.memory_bytes)} MiB."
    )
    kernel = versions.get("kernel", environment.kernel)
    if kernel == environment.kernel:
        yield f"Kernel {kernel}, nft {nft}, kubelet {kubelet}, {machine}"
    else:
        yield f"Node: kernel {kernel}, nft {nft}, kubelet {kubelet}."
        yield f"Measured from another machine: kernel {environment.kernel}, {machine}"
    control_plane = [f"{name} {versions[name]}" for name in _CONTROL_PLANE if name in versions]
    if control_plane:
        yield f"Control plane: {', '.join(control_plane)}."


def _whole(value: str | float | None) -> int | None:
    return value if isinstance(value, int) else None
