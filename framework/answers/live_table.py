"""A running cluster's warning, for eyes: what each node is programmed with, and how each size stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from framework.analysis.forecast import ENDPOINTS_MAX, Colour
from framework.answers.live import GroupWarning, LiveWarning
from framework.units import mib, short_count

_STYLES: Final[dict[Colour, str]] = {
    "green": "bold green",
    "amber": "bold yellow",
    "red": "bold red",
    "unknown": "bold",
}


@dataclass(frozen=True)
class LiveTable:
    """A rich renderable of a warning."""

    warning: LiveWarning

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del options
        warning = self.warning
        yield Text.assemble(
            (warning.colour.upper(), _STYLES[warning.colour]), f": {headline(warning)}", overflow="fold"
        )
        table = Table(box=box.ROUNDED if console.is_terminal else box.ASCII)
        table.add_column("nodes with")
        for header in ("nodes", "need\nMiB", "at most\nMiB", "red at\nendpoints", "red at\nnodes"):
            table.add_column(header, justify="right", no_wrap=True)
        table.add_column("")
        for group in warning.groups:
            table.add_row(*_cells(group, warning), Text(group.colour, _STYLES[group.colour]))
        yield table
        for line in _notes(warning):
            yield Text(line, "dim")


def headline(warning: LiveWarning) -> str:
    """What every node has to bear, in a sentence, and why there is no colour."""
    counts = warning.counts
    said = (
        f"{counts.endpoints:,} endpoints of {counts.services:,} Services with {counts.service_ports:,} "
        f"ports, {counts.nodes:,} nodes, kube-proxy {warning.kube_proxy or '?'}"
    )
    return f"{warning.unknown}; {said}" if warning.unknown else said


def _cells(group: GroupWarning, warning: LiveWarning) -> Iterator[str]:
    yield f"{mib(group.group.memory_bytes)} MiB"
    yield f"{group.group.nodes:,}"
    yield mib(group.need_bytes)
    yield mib(group.need_bytes_high)
    found = group.endpoints_red
    if found is None:
        yield from ("?", "?")
        return
    if found.endpoints is None:
        yield from (f"> {short_count(ENDPOINTS_MAX)}", "-")
        return
    nodes = group.nodes_at(found.endpoints, warning.counts)
    yield f"{_rounded(found.endpoints):,}"
    yield "?" if nodes is None else f"{_rounded(nodes):,}"


def _rounded(count: int) -> int:
    """To three digits: the interval is wider than that."""
    return round(count, -max(0, len(str(count)) - 3))


def _notes(warning: LiveWarning) -> Iterator[str]:
    counts = warning.counts
    if counts.largest_service:
        yield (
            f"The largest Service is {counts.largest_service}: {counts.largest_service_endpoints:,} "
            "endpoints, its ports counted each."
        )
    yield (
        "Need: memory that can't be reclaimed on a node where kube-proxy starts (nft, kube-proxy, kernel, "
        f"kubelet, containerd), beside which {mib(warning.ballast_bytes)} MiB are left for all else "
        "(--ballast). Red: it is expected to die. Amber: it may, or three quarters of it are taken."
    )
    yield "Red at nodes: with endpoints growing as nodes do, as those of DaemonSets' Services."
    if not counts.mode:
        yield "kube-proxy's mode can't be read: this holds for nftables mode."
    if len(counts.endpoints_by_family) > 1:
        yield "Endpoints of both families are counted together; nft loads each family alone."
