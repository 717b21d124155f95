"""Figures as PerfData, the JSON that Kubernetes' own performance dashboards read.

The layout is that of ``PerfData`` in kubernetes/kubernetes, test/e2e/perftype/perftype.go, version v1: items
told apart by labels, of which those with the same labels must have the same unit and the same names. So each
figure is an item, and whether it is exact is one of its labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from framework.outcome import Measure, Outcome, RunResult
from framework.units import MIB

VERSION: Final = "v1"


class DataItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Some figures of one unit."""

    data: dict[str, float]
    unit: str
    labels: dict[str, str]


class PerfData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """All figures of a run."""

    version: str
    data_items: tuple[DataItem, ...]
    labels: dict[str, str]


def perf_data(results: Sequence[RunResult]) -> PerfData:
    """The figures of every measurement: memory in MiB, times in seconds."""
    items = tuple(item for result in results for item in _items(result))
    environment = results[0].environment if results else None
    labels = (
        {}
        if environment is None
        else {
            "run": results[0].run_id,
            "kernel": environment.kernel,
            "cgroup": environment.cgroup_mode,
            "cpus": str(environment.cpus),
        }
    )
    return PerfData(version=VERSION, data_items=items, labels=labels)


def _items(result: RunResult) -> Iterator[DataItem]:
    outcome = result.outcome
    if outcome is None:
        return
    labels = {
        "Test": result.test_id,
        "Phase": outcome.phase,
        "KubeProxy": outcome.kube_proxy,
        "Endpoints": str(outcome.endpoints),
        "NodeLimitMiB": "unknown" if outcome.limit_bytes is None else str(outcome.limit_bytes // MIB),
        "Verdict": result.verdict.result if result.verdict is not None else "unchecked",
    }
    for name, peak in _peaks(outcome):
        bound = {"Metric": name, "Bound": peak.bound}
        yield DataItem(data={"Peak": peak.value / MIB}, unit="MiB", labels=labels | bound)
    for name, seconds in (("sync", outcome.sync_s), ("programmed", outcome.programmed_after_s)):
        if seconds is not None:
            yield DataItem(data={"Elapsed": seconds}, unit="s", labels=labels | {"Metric": name})


def _peaks(outcome: Outcome) -> Iterator[tuple[str, Measure]]:
    peaks = {
        "nft": outcome.nft_bytes_peak,
        "node": outcome.charged_bytes_peak,
        "unreclaimable": outcome.unreclaimable_bytes_peak,
    }
    return ((name, peak) for name, peak in peaks.items() if peak is not None)
