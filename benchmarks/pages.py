"""A run's figures as Markdown: ``python -m benchmarks.pages runs/benchmarks.json``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks.model import Benchmark, Figure, Results
from framework.units import mib


def recorded(results: Results) -> str:
    """One line: when, where and of what."""
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    return (
        f"Recorded on {results.made_utc[:10]} with {results.cpus} CPUs, {mib(results.memory_bytes)} MiB, "
        f"kernel {results.kernel}: {versions}."
    )


def ratios(results: Results) -> str:
    """Markdown: each benchmark's ratio beside its aim."""
    lines = ["| benchmark | ratio | of | aim |", "|---|---|---|---|"]
    lines += [
        f"| `{found.name}` | {found.ratio:#.3g} | {found.ratio_of} | {found.aim} |"
        for found in results.benchmarks
    ]
    return "\n".join(lines)


def figures(benchmark: Benchmark) -> str:
    """Markdown: what was asked, and each figure's median and rounds."""
    lines = [
        f"**`{benchmark.name}`: {benchmark.question}**",
        "",
        "| figure | median | unit | rounds |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {figure.what} | {number(figure.median)} | {figure.unit} | {rounds(figure)} |"
        for figure in benchmark.figures
    ]
    return "\n".join(lines)


def rounds(figure: Figure) -> str:
    """Each round's value; empty where there was one."""
    return " ".join(map(number, figure.rounds)) if len(figure.rounds) > 1 else ""


def number(value: float) -> str:
    """Four significant digits, and every digit before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


if __name__ == "__main__":
    found = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Results)
    print("\n\n".join([recorded(found), ratios(found), *map(figures, found.benchmarks)]))
