"""The memory of a node over time: its cgroup's counters, 50 times a second.

The kernel keeps a high-water mark of what is charged, but none of what cannot be reclaimed (anonymous and
kernel memory together), and only samples show the order of events: kube-proxy grew, nft came, nft died. A
sample with its wake-up costs about 0.3 ms of CPU, so 50 Hz take 1.4% of a core; ``cpu_s`` says what it was.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Final

from framework.cgroup import MemoryCgroup
from framework.observe.series import BoundedSeries
from framework.outcome import CgroupSample, Measure
from framework.ticker import Ticker, Ticking

SAMPLE_INTERVAL_S: Final = 0.02
SAMPLES_MAX: Final = 500_000
"""Almost three hours at 50 Hz; later samples thin the series out by half, so that it always spans all."""


class CgroupSampler(Ticking):
    """Samples a memory cgroup while it is entered.

    ``zero_s`` is the CLOCK_BOOTTIME reading that counts as 0. The largest unreclaimable sample is kept apart,
    so thinning out a long series never loses the peak.
    """

    def __init__(
        self,
        cgroup: MemoryCgroup,
        zero_s: float,
        *,
        interval_s: float = SAMPLE_INTERVAL_S,
        samples_max: int = SAMPLES_MAX,
    ) -> None:
        self.interval_s = interval_s
        self._zero_s = zero_s
        self._reader = cgroup.reader()
        self._lock = threading.Lock()
        self._series: BoundedSeries[CgroupSample] = BoundedSeries(samples_max)
        self._unreclaimable_bytes_peak = 0
        self._kernel_bytes_peak = 0
        self._ticker = Ticker("kilonode-cgroup", interval_s, self._tick)

    def sample(self) -> CgroupSample:
        """One sample now, for a baseline or an end; it is not added to the series. Only while entered."""
        figures = self._reader.read()
        return CgroupSample(
            at_s=time.clock_gettime(time.CLOCK_BOOTTIME) - self._zero_s,
            charged_bytes=figures.charged_bytes,
            anonymous_bytes=figures.anonymous_bytes,
            file_bytes=figures.file_bytes,
            kernel_bytes=figures.kernel_bytes,
        )

    @property
    def samples(self) -> tuple[CgroupSample, ...]:
        """The series so far, in order of time."""
        with self._lock:
            return self._series.samples

    @property
    def unreclaimable_bytes_peak(self) -> Measure:
        """The largest sum of anonymous and kernel memory that a sample saw."""
        return Measure(value=self._unreclaimable_bytes_peak, source="sample", bound="lower")

    @property
    def kernel_bytes_peak(self) -> Measure:
        """The largest kernel memory that a sample saw, for cgroup v2, which keeps no such mark."""
        return Measure(value=self._kernel_bytes_peak, source="sample", bound="lower")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            super().__exit__(kind, error, trace)
        finally:
            self._reader.close()

    def _tick(self) -> None:
        sample = self.sample()
        with self._lock:
            unreclaimable_bytes = sample.anonymous_bytes + sample.kernel_bytes
            self._unreclaimable_bytes_peak = max(self._unreclaimable_bytes_peak, unreclaimable_bytes)
            self._kernel_bytes_peak = max(self._kernel_bytes_peak, sample.kernel_bytes)
            self._series.add(sample)
