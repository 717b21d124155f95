"""What a benchmark says, and what it stands on while it runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from framework.binaries import Binaries
from framework.cluster import EmbeddedCluster
from framework.ledger import Ledger
from framework.outcome import Record

FORMAT: Final = 1
COMPONENTS: Final = ("kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler", "kwok")


class Figure(Record, frozen=True, kw_only=True):
    """One quantity, once for each round."""

    what: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)


class Benchmark(Record, frozen=True, kw_only=True):
    """``ratio`` compares medians of figures of the same run; ``aim`` says what it should be, in words."""

    name: str
    question: str
    figures: tuple[Figure, ...]
    ratio: float
    ratio_of: str
    aim: str


class Results(Record, frozen=True, kw_only=True):
    """What a run of benchmarks writes."""

    format: int
    made_utc: str
    kernel: str
    cpus: int
    memory_bytes: int
    versions: dict[str, str]
    benchmarks: tuple[Benchmark, ...]


@dataclass(frozen=True)
class Bench:
    """Settings of a run. ``say`` hears what is being done."""

    binaries: Binaries
    rounds: int
    say: Callable[[str], None]

    @contextmanager
    def place(self) -> Iterator[EmbeddedCluster]:
        """A control plane of which nothing runs yet; removed afterwards."""
        ledger = Ledger.begin()
        try:
            yield EmbeddedCluster.place(ledger, self.binaries)
        finally:
            ledger.finish()


def timed(work: Callable[[], object]) -> float:
    """Seconds that ``work`` takes."""
    begin_s = time.monotonic()
    work()
    return time.monotonic() - begin_s
