"""The recorder for where the kernel refuses exit records: it looks again and again.

Each look reads the processes of the watched cgroups with their ``VmHWM``. A process is recorded when it is no
longer there. What lives shorter than the interval is missed, the growth after the last look is missed too,
and how a process ended is not known: every peak is a lower bound and both exit code and signal are None.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Final

from framework.cgroup import MemoryCgroup
from framework.observe.recorder import ProcReader, Recorder
from framework.outcome import ProcessExit
from framework.ticker import Ticker, Ticking
from framework.units import KIB

POLL_INTERVAL_S: Final = 0.004
_STAT_USER_TICKS: Final = 11
_STAT_SYSTEM_TICKS: Final = 12
_STAT_START_TICKS: Final = 19


@dataclass
class _Seen:
    """What the looks at one process found so far. Times are in clock ticks, ``start_ticks`` since boot."""

    cgroup: str
    start_ticks: int
    argv: tuple[str, ...] | None
    comm: str = ""
    parent_pid: int = 0
    user_ticks: int = 0
    system_ticks: int = 0
    memory_kib_peak: int = 0

    def look(self, status: dict[str, str], stat: list[str]) -> None:
        """A zombie has no VmHWM and keeps the last one."""
        self.comm = status.get("Name", self.comm)
        self.parent_pid = int(status.get("PPid", self.parent_pid))
        self.user_ticks = int(stat[_STAT_USER_TICKS])
        self.system_ticks = int(stat[_STAT_SYSTEM_TICKS])
        peak_kib = int(status.get("VmHWM", "0 kB").split()[0])
        self.memory_kib_peak = max(self.memory_kib_peak, peak_kib)


class PollingRecorder(Ticking, Recorder):
    """Lower bounds: scans the processes of the watched cgroups every few milliseconds."""

    measured_by = "poll"
    lost = 0

    def __init__(
        self,
        zero_s: float,
        *,
        why: str,
        interval_s: float = POLL_INTERVAL_S,
        proc: ProcReader | None = None,
    ) -> None:
        self.why = why
        self._zero_s = zero_s
        self._proc = proc or ProcReader()
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._lock = threading.Lock()
        self._watched: list[MemoryCgroup] = []
        self._alive: dict[int, _Seen] = {}
        self._ended: list[tuple[str, ProcessExit]] = []
        self._ticker = Ticker("kilonode-poll", interval_s, self._scan)

    def watch(self, cgroup: MemoryCgroup) -> None:
        with self._lock:
            self._watched.append(cgroup)

    def forget(self, cgroup: MemoryCgroup) -> None:
        name = cgroup.kernel_path
        with self._lock:
            self._watched = [watched for watched in self._watched if watched != cgroup]
            self._alive = {pid: seen for pid, seen in self._alive.items() if seen.cgroup != name}
            self._ended = [(path, ended) for path, ended in self._ended if path != name]

    def exits(self, cgroup: MemoryCgroup) -> tuple[ProcessExit, ...]:
        self._scan()
        with self._lock:
            return tuple(ended for path, ended in self._ended if path == cgroup.kernel_path)

    @property
    def argv_unknown(self) -> int:
        with self._lock:
            return sum(ended.argv is None for _, ended in self._ended)

    def _scan(self) -> None:
        with self._lock:
            present: set[int] = set()
            for cgroup in self._watched:
                for pid in cgroup.pids():
                    if self._look(pid, cgroup.kernel_path):
                        present.add(pid)
            now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            for pid in self._alive.keys() - present:
                self._end(pid, now_s)

    def _look(self, pid: int, cgroup: str) -> bool:
        """Whether the process is still there."""
        stat = self._proc.stat(pid)
        if not stat:
            return False
        start_ticks = int(stat[_STAT_START_TICKS])
        seen = self._alive.get(pid)
        if seen is not None and seen.start_ticks != start_ticks:
            self._end(pid, start_ticks / self._ticks_per_s)
            seen = None
        if seen is None:
            seen = self._alive[pid] = _Seen(cgroup, start_ticks, None)
        seen.argv = self._proc.argv(pid) or seen.argv
        seen.look(self._proc.status(pid), stat)
        return True

    def _end(self, pid: int, now_s: float) -> None:
        seen = self._alive.pop(pid)
        ended = ProcessExit(
            at_s=now_s - self._zero_s,
            pid=pid,
            parent_pid=seen.parent_pid,
            comm=seen.comm,
            argv=seen.argv,
            exit_code=None,
            signal=None,
            elapsed_s=max(0.0, now_s - seen.start_ticks / self._ticks_per_s),
            cpu_user_s=seen.user_ticks / self._ticks_per_s,
            cpu_system_s=seen.system_ticks / self._ticks_per_s,
            memory_bytes_peak=seen.memory_kib_peak * KIB,
            source="poll",
            bound="lower",
        )
        self._ended.append((seen.cgroup, ended))
