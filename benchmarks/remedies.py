"""What helps a node, by how much: the tables of docs/remedies.md from runs of one scenario.

``python -m benchmarks.remedies runs/A runs/B > docs/remedies.json`` records runs of
scenarios/test_shapes_and_remedies.py, ``python -m benchmarks.remedies docs/remedies.json`` prints the tables.
Where runs have the same row, the last one counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from framework.analysis import bounded_mib
from framework.outcome import Measure, Record, RunResult
from framework.report import load_run
from framework.units import mib

FORMAT: Final = 1
SCENARIO: Final = "scenarios/test_shapes_and_remedies.py"
SHAPES: Final = {
    "base": "one TCP port",
    "udp": '`protocol="UDP"`',
    "two-ports": "`ports=(80, 443)`",
    "dual-stack": "`dual_stack=True`",
    "three-services": "`services=3`, which share the endpoints",
    "affinity": '`session_affinity="ClientIP"`',
    "many": "`many_services(count=, endpoints_each=2)`",
}
REMEDIES: Final = {
    "base": "none",
    "same-zone": '`traffic_distribution="PreferSameZone"`, 16 zones',
    "local": '`internal_traffic_policy="Local"`, no endpoint on the node',
    "headless": "`headless=True`",
    "iptables": '`proxy_mode="iptables"`',
}
_CELL: Final = re.compile(r"\[(?P<row>[a-z-]+)-[0-9.]+[km]?-kube_proxy-(?P<kube_proxy>[0-9.]+)\]$")
_VERSIONS: Final = ("nft", "xtables-nft-multi", "kubelet", "kube-apiserver")


class Row(Record, frozen=True, kw_only=True):
    """One measurement. ``asked`` counts endpoints before ports and Services multiply them; for many Services
    it is their number. ``nft`` is the peak of the ruleset load, whichever program loads it."""

    row: str
    asked: int
    kube_proxy: str
    programming: str
    loader: str
    nft: Measure
    charged: Measure
    unreclaimable: Measure
    sync_s: float | None
    programmed_after_s: float | None
    rules: int


class Remedies(Record, frozen=True, kw_only=True):
    """All rows, with when and where they were measured."""

    format: int
    made_utc: str
    kernel: str
    cpus: int
    memory_bytes: int
    versions: dict[str, str]
    rows: tuple[Row, ...]


def collect(results: Sequence[RunResult]) -> Remedies:
    """The rows of runs; where two have the same row, the last one counts."""
    ordered = sorted(results, key=lambda result: result.started_utc)
    rows = {
        (row.row, row.asked, row.kube_proxy): row
        for row in filter(None, (_row(result) for result in ordered))
    }
    environment = ordered[-1].environment
    versions = {part.name: part.version for result in ordered for part in result.environment.components}
    return Remedies(
        format=FORMAT,
        made_utc=ordered[-1].started_utc,
        kernel=environment.kernel,
        cpus=environment.cpus,
        memory_bytes=environment.memory_bytes,
        versions={name: versions[name] for name in _VERSIONS if name in versions},
        rows=tuple(rows[key] for key in sorted(rows)),
    )


def _row(result: RunResult) -> Row | None:
    """The row of one measurement; None for one of another scenario, and for one without an outcome."""
    cell = _CELL.search(result.test_id)
    outcome = result.outcome
    if not result.test_id.startswith(SCENARIO) or cell is None or outcome is None:
        return None
    charged, unreclaimable = outcome.charged_bytes_peak, outcome.unreclaimable_bytes_peak
    if outcome.nft_bytes_peak is None or charged is None or unreclaimable is None:
        return None
    asked = result.parameters["asked"]
    assert isinstance(asked, int)  # noqa: S101 - as the framework writes it
    return Row(
        row=cell["row"],
        asked=asked,
        kube_proxy=outcome.kube_proxy,
        programming=outcome.programming,
        loader=outcome.loader,
        nft=outcome.nft_bytes_peak,
        charged=charged,
        unreclaimable=unreclaimable,
        sync_s=outcome.sync_s,
        programmed_after_s=outcome.programmed_after_s,
        rules=outcome.ruleset.rules if outcome.ruleset else 0,
    )


def recorded(remedies: Remedies) -> str:
    """One line: when, where and of what."""
    versions = ", ".join(f"{name} {version}" for name, version in remedies.versions.items())
    return (
        f"Recorded on {remedies.made_utc[:10]} with {remedies.cpus} CPUs, {mib(remedies.memory_bytes)} MiB, "
        f"kernel {remedies.kernel}: {versions}."
    )


def table(remedies: Remedies, names: Mapping[str, str]) -> str:
    """Markdown: the rows with these names, in their order, largest Services last."""
    lines = [
        "| row | what | endpoints | kube-proxy | nft peak | node peak | unreclaimable | sync | rules |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    chosen = [row for row in remedies.rows if row.row in names]
    order = list(names)
    chosen.sort(key=lambda row: (row.asked, row.kube_proxy, order.index(row.row)))
    return "\n".join([*lines, *(_line(row, names[row.row]) for row in chosen)])


def _line(row: Row, what: str) -> str:
    sync = f"{row.sync_s:.2f} s" if row.sync_s is not None else "-"
    if row.programming != "programmed":
        sync = f"**{row.programming.replace('_', ' ')}**"
    memory = f"{_mib(row.nft)} | {_mib(row.charged)} | {_mib(row.unreclaimable)}"
    return f"| `{row.row}` | {what} | {row.asked:,} | {row.kube_proxy} | {memory} | {sync} | {row.rules:,} |"


def _mib(measure: Measure) -> str:
    return f"{bounded_mib(measure)} MiB"


if __name__ == "__main__":
    paths = [Path(argument) for argument in sys.argv[1:]]
    if paths[0].suffix == ".json":
        kept = msgspec.json.decode(paths[0].read_bytes(), type=Remedies)
        print("\n\n".join([recorded(kept), table(kept, REMEDIES), table(kept, SHAPES)]))
    else:
        found = collect([result for path in paths for result in load_run(path)])
        print(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
