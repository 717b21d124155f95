"""Who holds a node's anonymous memory over time: each process of its cgroup, ten times a second.

A cgroup's counters say how much, and exit records each process's peak, but neither says whose memory it was
at a moment. The pages of files are left out: they are charged to the cgroup once, however many processes map
them. What lives for less than the interval is missed here and has its exit record.
"""

from __future__ import annotations

import math
import os
import threading
import time
from typing import Final, NamedTuple

from framework.cgroup import MemoryCgroup
from framework.observe.recorder import ProcReader
from framework.observe.series import BoundedSeries
from framework.outcome import ProcessTrack
from framework.ticker import Ticker, Ticking

INTERVAL_S: Final = 0.1
WALK_INTERVAL_S: Final = 1.0
"""Cgroups come and go with pods; to look for them is most of what a look would cost."""
LOOKS_MAX: Final = 20_000
"""Half an hour; later looks thin the series out by half, so that it always spans all."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class _Look(NamedTuple):
    """The anonymous bytes of each process by pid and name at one moment."""

    at_s: float
    held: dict[tuple[int, str], int]


class ProcessSampler(Ticking):
    """Looks at the processes of a memory cgroup while it is entered.

    ``zero_s`` is the CLOCK_BOOTTIME reading that counts as 0.
    """

    def __init__(
        self,
        cgroup: MemoryCgroup,
        zero_s: float,
        *,
        interval_s: float = INTERVAL_S,
        looks_max: int = LOOKS_MAX,
        proc: ProcReader | None = None,
    ) -> None:
        self._cgroup = cgroup
        self._zero_s = zero_s
        self._proc = proc or ProcReader()
        self._lock = threading.Lock()
        self._cgroups: tuple[MemoryCgroup, ...] = ()
        self._walk_at_s = -math.inf
        self._series: BoundedSeries[_Look] = BoundedSeries(looks_max)
        self._ticker = Ticker("kilonode-processes", interval_s, self._look)

    def tracks(self, since_s: float) -> tuple[ProcessTrack, ...]:
        """What each process held from ``since_s`` on, in the order in which they were first seen.

        A process that became another program has a track for each.
        """
        with self._lock:
            looks = [look for look in self._series.samples if look.at_s >= since_s]
        processes = dict.fromkeys(process for _, held in looks for process in held)
        return tuple(
            ProcessTrack(
                pid=process[0],
                comm=process[1],
                at_s=tuple(round(at_s, 3) for at_s, held in looks if process in held),
                anonymous_bytes=tuple(held[process] for _, held in looks if process in held),
            )
            for process in processes
        )

    def _look(self) -> None:
        at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._zero_s
        if at_s >= self._walk_at_s:
            self._cgroups = tuple(self._cgroup.walk())
            self._walk_at_s = at_s + WALK_INTERVAL_S
        held = {}
        for pid in (pid for cgroup in self._cgroups for pid in cgroup.own_pids()):
            pages, comm = self._proc.anonymous_pages(pid), self._proc.comm(pid)
            if pages is not None and comm:
                held[pid, comm] = pages * _PAGE_BYTES
        with self._lock:
            self._series.add(_Look(at_s, held))
