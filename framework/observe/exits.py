"""Every process of a real node that ended, exactly: who, with which command line, how, and at which peak.

nft lives for milliseconds at small scale and is killed at large scale. Polling misses the first and sees only
a lower bound of the second, so the kernel's own accounting is read instead: taskstats delivers a record for
every thread that ends on the machine, killed ones included, with the high-water RSS of its address space.

Exit records carry neither command line nor cgroup. Those come from the proc connector: at each exec the
process is looked up in /proc, at each fork the child inherits its parent's cgroup. Both arrive on sockets,
which one thread follows. Events are looked at first, because a process waits for nobody; exit records are
booked only after the events that came meanwhile, so each event that preceded an exit is known by then.
``exits`` drains both sockets itself and therefore knows of every process that ended before the call. The
thread runs with real-time priority: of 1,000 processes that lived for 1.3 ms on two busy cores, one was gone
before its command line could be read, and 300 were without the priority.

Only processes of watched cgroups are kept, so the recorder's memory does not grow with what else the machine
does. A process which is gone before it could be looked up has the command line None. One that enters a
watched cgroup and ends within a millisecond without having been forked there can be missed; a daemon's
children cannot.

The high-water RSS is as exact as the kernel's: since Linux 6.2 each CPU batches its updates of the RSS
counters, so an exit record, like ru_maxrss, may differ from the truth by ``peak_slack_bytes``. On two CPUs it
was 32 to 172 KiB below the peak that /proc/PID/status summed exactly. CPU times are counted in the kernel's
ticks and were up to 40 ms off rusage for a process of 0.3 s.

Where the kernel refuses (no CAP_NET_ADMIN, a container's namespaces, an old kernel) ``PollingRecorder`` has
the same face and says less: its peaks are lower bounds and it knows no exit status.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Self

from framework.cgroup import MemoryCgroup, is_within
from framework.errors import MissingRequirementError
from framework.log import get_logger
from framework.observe.follow import Follower
from framework.observe.netlink import (
    RECEIVE_BUFFER_BYTES,
    Exec,
    Fork,
    ThreadExit,
    decode_exits,
    decode_process_events,
    open_exit_socket,
    open_process_event_socket,
)
from framework.observe.polling import PollingRecorder
from framework.observe.recorder import ProcReader, Recorder
from framework.outcome import ProcessExit
from framework.units import KIB

EXITS_MAX: Final = 500_000
"""Exits kept at most; one that comes later is counted as lost."""
SWITCH_INTERVAL_S: Final = 0.0001
_DATAGRAM_BYTES_MAX: Final = 65536
_log = get_logger(__name__)


@dataclass
class _Life:
    """A living process of a watched cgroup, with the sums of its threads that already ended."""

    cgroup: str
    argv: tuple[str, ...] | None
    wait_status: int = 0
    user_us: int = 0
    system_us: int = 0
    memory_kib_peak: int = 0

    def add(self, record: ThreadExit) -> None:
        self.user_us += record.user_us
        self.system_us += record.system_us
        self.memory_kib_peak = max(self.memory_kib_peak, record.memory_kib_peak)
        if record.pid == record.tgid:
            self.wait_status = record.wait_status

    def ended(self, last: ThreadExit, at_s: float) -> ProcessExit:
        killed = os.WIFSIGNALED(self.wait_status)
        return ProcessExit(
            at_s=at_s,
            pid=last.tgid,
            parent_pid=last.parent_pid,
            comm=last.comm,
            argv=self.argv,
            exit_code=None if killed else os.WEXITSTATUS(self.wait_status),
            signal=os.WTERMSIG(self.wait_status) if killed else None,
            elapsed_s=last.elapsed_us / 1e6,
            cpu_user_s=self.user_us / 1e6,
            cpu_system_s=self.system_us / 1e6,
            memory_bytes_peak=self.memory_kib_peak * KIB,
            source="exit_record",
            bound="exact",
        )


class _Ended(NamedTuple):
    cgroup: str
    exit: ProcessExit


class ExitBook:
    """Joins forks, execs and exits into processes of the watched cgroups. Pure but for ``proc``."""

    def __init__(self, proc: ProcReader) -> None:
        self._proc = proc
        self._watched: set[str] = set()
        self._lives: dict[int, _Life] = {}
        self._ended: list[_Ended] = []
        self.overfull = 0

    def watch(self, cgroup: str, pids: tuple[int, ...]) -> None:
        """Watch ``cgroup``, in which ``pids`` run already."""
        self._watched.add(cgroup)
        for pid in pids:
            self.executed(Exec(pid))

    def forget(self, cgroup: str) -> None:
        self._watched.discard(cgroup)
        self._lives = {pid: life for pid, life in self._lives.items() if not is_within(life.cgroup, cgroup)}
        self._ended = [ended for ended in self._ended if not is_within(ended.cgroup, cgroup)]

    def exits(self, cgroup: str) -> tuple[ProcessExit, ...]:
        return tuple(ended.exit for ended in self._ended if is_within(ended.cgroup, cgroup))

    @property
    def argv_unknown(self) -> int:
        return sum(ended.exit.argv is None for ended in self._ended)

    def forked(self, event: Fork) -> None:
        """A child begins in the cgroup, and with the command line, of its parent."""
        parent = self._lives.get(event.parent_pid)
        if parent is None:
            self._lives.pop(event.pid, None)
        else:
            self._lives[event.pid] = _Life(parent.cgroup, parent.argv)

    def executed(self, event: Exec) -> None:
        """Look the process up; one that is gone keeps its inherited cgroup and has no known command line."""
        inherited = self._lives.get(event.pid)
        if inherited is not None:
            inherited.argv = self._proc.argv(event.pid)
        cgroup = self._proc.cgroup(event.pid)
        if cgroup is None:
            return
        if any(is_within(cgroup, watched) for watched in self._watched):
            argv = inherited.argv if inherited is not None else self._proc.argv(event.pid)
            self._lives[event.pid] = _Life(cgroup, argv)
        else:
            self._lives.pop(event.pid, None)

    def exited(self, record: ThreadExit, at_s: float) -> None:
        """Book the end of a thread, and of its process when it was the last one."""
        life = self._lives.get(record.tgid) or self._child_of_known(record)
        if life is None:
            return
        life.add(record)
        if not record.group_ended:
            self._lives[record.tgid] = life
            return
        self._lives.pop(record.tgid, None)
        if len(self._ended) < EXITS_MAX:
            self._ended.append(_Ended(life.cgroup, life.ended(record, at_s)))
        else:
            self.overfull += 1

    def _child_of_known(self, record: ThreadExit) -> _Life | None:
        """For a process whose fork was not reported (the event buffer overran)."""
        parent = self._lives.get(record.parent_pid)
        return _Life(parent.cgroup, argv=None) if parent is not None else None


class ExitRecorder(Recorder):
    """Exact: taskstats and the proc connector. Raises MissingRequirementError where the kernel refuses."""

    measured_by = "exit_record"
    why = ""

    def __init__(self, zero_s: float, *, receive_buffer_bytes: int = RECEIVE_BUFFER_BYTES) -> None:
        self._zero_s = zero_s
        self._exit_socket = open_exit_socket(receive_buffer_bytes)
        try:
            self._event_socket = open_process_event_socket()
        except MissingRequirementError:
            self._exit_socket.close()
            raise
        self._book = ExitBook(ProcReader())
        self._lock = threading.Lock()
        self._closed = False
        self._switch_interval_before_s: float | None = None
        self._overruns = 0
        self.events_lost = 0
        """Overruns of the fork and exec events: they cost command lines, not exit records."""
        fds = (self._exit_socket.fileno(), self._event_socket.fileno())
        self._follower = Follower("kilonode-exits", fds, self._drain, urgent=True)

    def watch(self, cgroup: MemoryCgroup) -> None:
        self._drain()
        with self._lock:
            self._book.watch(cgroup.kernel_path, cgroup.pids())

    def forget(self, cgroup: MemoryCgroup) -> None:
        with self._lock:
            self._book.forget(cgroup.kernel_path)

    def exits(self, cgroup: MemoryCgroup) -> tuple[ProcessExit, ...]:
        self._drain()
        with self._lock:
            return self._book.exits(cgroup.kernel_path)

    @property
    def lost(self) -> int:
        return self._overruns + self._book.overfull

    @property
    def argv_unknown(self) -> int:
        with self._lock:
            return self._book.argv_unknown

    def _drain(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._book_events()
            records = list(_datagrams(self._exit_socket, self._count_overrun))
            at_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._zero_s
            self._book_events()
            for datagram in records:
                for record in decode_exits(datagram):
                    self._book.exited(record, at_s)

    def _book_events(self) -> None:
        for datagram in _datagrams(self._event_socket, self._count_events_lost):
            for event in decode_process_events(datagram):
                if isinstance(event, Exec):
                    self._book.executed(event)
                else:
                    self._book.forked(event)

    def _count_overrun(self) -> None:
        self._overruns += 1

    def _count_events_lost(self) -> None:
        self.events_lost += 1

    def __enter__(self) -> Self:
        self._switch_interval_before_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self._follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop recording; what was recorded stays readable. May be repeated."""
        if self._switch_interval_before_s is not None:
            sys.setswitchinterval(self._switch_interval_before_s)
            self._switch_interval_before_s = None
        try:
            self._follower.stop()
            self._drain()
        finally:
            with self._lock:
                self._closed = True
                self._exit_socket.close()
                self._event_socket.close()


def open_recorder(zero_s: float) -> Recorder:
    """The best recorder that this kernel and this user's privileges allow; ``why`` tells of a fallback.

    ``zero_s`` is the CLOCK_BOOTTIME reading that counts as 0 in every ``at_s``.
    """
    try:
        return ExitRecorder(zero_s)
    except MissingRequirementError as refusal:
        _log.warning("falling back to polling, every process peak is a lower bound: %s", refusal)
        return PollingRecorder(zero_s, why=str(refusal))


def peak_slack_bytes(cpus: int) -> int:
    """How far the kernel's RSS may be off: each CPU holds back up to 32 pages, or 2 for each CPU, if more.

    Source: percpu_counter_batch (lib/percpu_counter.c), for one of the counters that RSS is the sum of; in
    practice one, that of anonymous memory, grows.
    """
    return max(32, 2 * cpus) * cpus * os.sysconf("SC_PAGE_SIZE")


def _datagrams(source: socket.socket, count_overrun: Callable[[], None]) -> Iterator[bytes]:
    """Everything that waits in a socket now."""
    while True:
        try:
            yield source.recv(_DATAGRAM_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            count_overrun()
