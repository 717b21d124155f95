"""What the framework itself costs while it observes a node."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from benchmarks.model import Bench, Benchmark, Figure
from framework import process
from framework.lab import Lab, LabSettings
from framework.measurement import RealNode
from framework.report import PhaseName, RunFolder
from framework.spec import RealNodeSpec
from framework.units import GIB, MIB

OBSERVED_S = 30.0


class _Quiet:
    def phase_started(self, name: PhaseName, detail: str, total: int | None = None) -> None: ...

    def phase_advanced(self, name: PhaseName, done: int) -> None: ...

    def phase_ended(self, name: PhaseName, ok: bool, detail: str) -> None: ...


def observing(bench: Bench) -> Benchmark:
    """CPU and memory of the framework's process while it watches a node in sync."""
    shares: list[float] = []
    memory_mib: list[float] = []
    with tempfile.TemporaryDirectory(prefix="kn-") as folder:
        settings = LabSettings(max_nodes=100, cluster="embedded", mode="endpointslices", keep=False)
        run = RunFolder.create(Path(folder), command=["benchmarks"])
        lab = Lab(settings, binaries=bench.binaries, run_folder=run, reporter=_Quiet())
        try:
            lab.grow_fleet(100)
            spec = RealNodeSpec(memory_bytes=2 * GIB, kube_proxy=bench.binaries.default_kube_proxies()[-1])
            node = RealNode.start(lab, spec, test_id="observing", repro="python -m benchmarks observing")
            for number in range(bench.rounds):
                bench.say(f"observing, round {number + 1}: {OBSERVED_S:g} s")
                begin_s, cpu_s = time.monotonic(), time.process_time()
                time.sleep(OBSERVED_S)
                shares.append((time.process_time() - cpu_s) / (time.monotonic() - begin_s))
                memory_mib.append(process.memory_bytes_of(os.getpid()) / MIB)
            node.stop()
        finally:
            lab.close()
    figures = (
        Figure(
            what="CPU while observing", unit="% of one core", rounds=tuple(100 * share for share in shares)
        ),
        Figure(what="memory of the process", unit="MiB", rounds=tuple(memory_mib)),
    )
    return Benchmark(
        name="observing",
        question="What does the framework cost while it observes a node?",
        figures=figures,
        ratio=figures[0].median / 100,
        ratio_of="CPU time / elapsed time",
        aim="0.02 or less",
    )
