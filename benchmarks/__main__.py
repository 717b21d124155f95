"""The one command: ``python -m benchmarks [NAME...]``."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks import fleets, harness, pages, registration
from benchmarks.model import FORMAT, Bench, Benchmark, Results
from framework import guard, ledger
from framework.binaries import Binaries
from framework.doctor import require_machine
from framework.signals import ended_as_by_ctrl_c
from framework.units import parse_count


def main(
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    nodes: Annotated[str, typer.Option(help="Fleet of the benchmarks `endpoints` and `renewals`.")] = "10k",
    rounds: Annotated[int, typer.Option(min=1, help="Rounds of each benchmark; medians are compared.")] = 3,
    json: Annotated[Path, typer.Option(help="Where to write the figures.")] = Path("runs/benchmarks.json"),
) -> None:
    """Measure the harness: ratios of figures that were taken in this run.

    Needs root, like measuring itself. All of them take about half an hour on 2 CPUs.
    """
    require_machine(json.parent)
    ledger.clean(include_kept=False)
    console = Console(width=None if sys.stdout.isatty() else 110)
    binaries = Binaries()
    binaries.ensure_all([*binaries.defaults(), binaries.request("vegeta")])
    begin_s = time.monotonic()
    bench = Bench(
        binaries=binaries,
        rounds=rounds,
        say=lambda text: console.print(f"{time.monotonic() - begin_s:6.0f} s  {text}", highlight=False),
    )
    every: dict[str, Callable[[Bench], Benchmark]] = {
        "registration": registration.ceiling,
        "kwokctl": registration.kwokctl,
        "snapshots": fleets.snapshots,
        "pods": fleets.pods,
        "observing": harness.observing,
        "endpoints": lambda bench: fleets.endpoints(bench, parse_count(nodes, where="--nodes")),
        "renewals": lambda bench: fleets.renewals(bench, parse_count(nodes, where="--nodes")),
    }
    unknown = set(names or ()) - every.keys()
    if unknown:
        raise typer.BadParameter(f"{', '.join(unknown)}: give some of {', '.join(every)}")
    with ended_as_by_ctrl_c():
        done = tuple(every[name](bench) for name in names or every)
    results = Results(
        format=FORMAT,
        made_utc=datetime.now(UTC).isoformat(timespec="seconds"),
        kernel=platform.release(),
        cpus=os.cpu_count() or 0,
        memory_bytes=guard.memory_total_bytes(),
        versions={name: binaries.get(name).version for name in ("kube-apiserver", "etcd", "kwok", "vegeta")},
        benchmarks=done,
    )
    json.parent.mkdir(parents=True, exist_ok=True)
    json.write_bytes(msgspec.json.format(msgspec.json.encode(results)))
    for benchmark in done:
        console.print(table(benchmark))
    console.print(f"{pages.recorded(results)} {json}", highlight=False, soft_wrap=True)


def table(benchmark: Benchmark) -> Table:
    """One benchmark for people."""
    caption = f"{benchmark.ratio_of}: {benchmark.ratio:#.3g} (aim: {benchmark.aim})"
    shown = Table(box=box.ASCII, title=benchmark.question, caption=caption, title_justify="left")
    for header in ("", "median", "unit", "rounds"):
        shown.add_column(header, justify="right" if header == "median" else "left")
    for figure in benchmark.figures:
        shown.add_row(figure.what, pages.number(figure.median), figure.unit, pages.rounds(figure))
    return shown


typer.run(main)
