"""The same measurements on several kinds of cluster, side by side.

nft is the same program wherever it runs, so its peak has to be the same for the same rules: where two kinds
of cluster disagree, one of them measures something else. Compared is what both measured alike: first
programmings of one plain Service, on nodes of one limit without ballast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis import bounded_mib
from framework.errors import BadInputError
from framework.outcome import Outcome, RunResult
from framework.units import short_count

PROGRAMS: Final = ("nft", "kube-proxy", "kubelet", "containerd", "kube-apiserver", "etcd", "kwok")


@dataclass(frozen=True)
class Cell:
    """One limit, size and kube-proxy, measured on each of some kinds of cluster."""

    endpoints: int
    kube_proxy: str
    limit_bytes: int | None
    by_cluster: Mapping[str, Outcome]

    @property
    def nft_difference(self) -> float | None:
        """How much larger the largest peak is than the smallest, as a share; None where one is unknown."""
        peaks = [outcome.nft_bytes_peak for outcome in self.by_cluster.values()]
        values = [peak.value for peak in peaks if peak is not None and peak.bound == "exact"]
        return max(values) / min(values) - 1 if len(values) == len(peaks) else None


def compared(results: Sequence[RunResult]) -> tuple[Cell, ...]:
    """What every kind of cluster in ``results`` measured, by size and version; the last of each counts.

    Raises BadInputError where there is only one kind.
    """
    found: dict[tuple[int | None, int, str], dict[str, Outcome]] = {}
    for result in results:
        outcome = result.outcome
        if outcome is None or not _is_plain(result, outcome):
            continue
        key = (outcome.limit_bytes, outcome.endpoints, outcome.kube_proxy)
        found.setdefault(key, {})[str(result.parameters["cluster"])] = outcome
    kinds = {kind for outcomes in found.values() for kind in outcomes}
    if len(kinds) < 2:
        raise BadInputError(
            f"these runs measured plain Services on {' and '.join(kinds) or 'no'} clusters alone",
            where="RUN",
            remedy="give runs of two kinds, such as --cluster embedded and --cluster kind",
        )
    return tuple(
        Cell(endpoints, kube_proxy, limit_bytes, outcomes)
        for (limit_bytes, endpoints, kube_proxy), outcomes in sorted(found.items(), key=_order)
        if outcomes.keys() == kinds
    )


def _order(item: tuple[tuple[int | None, int, str], object]) -> tuple[int, int, str]:
    """Nodes without a known limit first."""
    limit_bytes, endpoints, kube_proxy = item[0]
    return (limit_bytes or 0, endpoints, kube_proxy)


def _is_plain(result: RunResult, outcome: Outcome) -> bool:
    return (
        outcome.phase == "first_programming"
        and not outcome.shape
        and not result.parameters["ballast_bytes"]
        and "cluster" in result.parameters
    )


@dataclass(frozen=True)
class SideBySide:
    """A rich renderable of ``compared``, with the programs that took part below it."""

    results: Sequence[RunResult]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        cells = compared(self.results)
        kinds = sorted(cells[0].by_cluster) if cells else []
        table = Table(
            box=box.ROUNDED if console.is_terminal else box.ASCII,
            title="First programming of one DaemonSet Service",
            title_justify="left",
            title_style="bold",
        )
        nft, node, sync = (
            [f"{what}\n{kind}" for kind in kinds] for what in ("nft MiB", "node MiB", "sync s")
        )
        for header in ("end-\npoints", "kube-\nproxy", *nft, "differ\nby", *node, *sync):
            table.add_column(header, justify="right", no_wrap=True)
        for cell in cells:
            outcomes = [cell.by_cluster[kind] for kind in kinds]
            table.add_row(
                short_count(cell.endpoints),
                cell.kube_proxy,
                *(bounded_mib(outcome.nft_bytes_peak) for outcome in outcomes),
                "-" if cell.nft_difference is None else f"{cell.nft_difference:.1%}",
                *(bounded_mib(outcome.charged_bytes_peak) for outcome in outcomes),
                *("-" if outcome.sync_s is None else f"{outcome.sync_s:.2f}" for outcome in outcomes),
            )
        yield table
        for line in dict.fromkeys(_program_lines(self.results)):
            yield Text(line, "dim")


def _program_lines(results: Sequence[RunResult]) -> Iterator[str]:
    """Each kind's programs, with version and source."""
    kinds = sorted({str(result.parameters.get("cluster")) for result in results})
    for kind in kinds:
        parts = {
            (part.name, part.version, part.source)
            for result in results
            if result.parameters.get("cluster") == kind
            for part in result.environment.components
        }
        for name in PROGRAMS:
            found = sorted((version, source) for part, version, source in parts if part == name)
            if found:
                yield f"{kind}: {name} {', '.join(f'{version} ({source})' for version, source in found)}"
