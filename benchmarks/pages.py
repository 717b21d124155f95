"""A run's ratios as a Markdown table: ``python -m benchmarks.pages runs/benchmarks.json``."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from benchmarks.model import Results


def ratios(results: Results) -> str:
    """Markdown: what was asked, the figures, and the ratio beside its aim."""
    lines = ["| benchmark | figures (medians) | ratio | of | aim |", "|---|---|---|---|---|"]
    for found in results.benchmarks:
        shown = "; ".join(f"{figure.what}: {figure.median:,.4g} {figure.unit}" for figure in found.figures)
        ratio = "-" if found.ratio is None else f"{found.ratio:.2f}"
        lines.append(f"| `{found.name}` | {shown.strip()} | {ratio} | {found.ratio_of} | {found.aim} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(ratios(msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Results)))
