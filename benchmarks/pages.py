"""A run's ratios as a Markdown table: ``python -m benchmarks.pages runs/benchmarks.json``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks.model import Results
from framework.units import mib


def recorded(results: Results) -> str:
    """One line: when, where and of what."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"Recorded on {results.made_utc[:10]} with {results.cpus} CPUs, {mib(results.memory_bytes)} MiB, "
        f"kernel {results.kernel}: {versions}."
    )


def ratios(results: Results) -> str:
    """Markdown: what was asked, the figures, and the ratio beside its aim."""
    lines = ["| benchmark | figures (medians) | ratio | of | aim |", "|---|---|---|---|---|"]
    for found in results.benchmarks:
        shown = "; ".join(f"{figure.what}: {figure.median:,.4g} {figure.unit}" for figure in found.figures)
        ratio = "-" if found.ratio is None else f"{found.ratio:.2f}"
        lines.append(f"| `{found.name}` | {shown.strip()} | {ratio} | {found.ratio_of} | {found.aim} |")
    return "\n".join(lines)


if __name__ == "__main__":
    found = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Results)
    print(f"{recorded(found)}\n\n{ratios(found)}")
