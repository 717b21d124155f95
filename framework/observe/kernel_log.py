"""Who was killed by the OOM killer, why, and who else could have been: from the kernel's own log.

``/dev/kmsg`` is followed from the moment of opening on. For each kill the kernel prints, among much else, a
table of the candidates, one ``oom-kill:`` line that names the memory cgroup that was full and the victim's
own, and one ``Killed process`` line with the victim's memory at that moment. The parser joins the three by
the victim's pid. It is pure and takes lines one by one, so it also reads logs that were recorded elsewhere,
with the table layouts of kernels since 4.19; what a line does not say is 0 or empty, and nothing that the
log may contain is an error.

Kernel log time is the scheduler's clock, which runs with CLOCK_MONOTONIC to within milliseconds.
"""

from __future__ import annotations

import errno
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from types import TracebackType
from typing import Final, NamedTuple, Self

from framework.cgroup import MemoryCgroup, is_within
from framework.errors import MissingRequirementError
from framework.observe.follow import Follower
from framework.outcome import OomCandidate, OomKill
from framework.units import KIB

PAGE_BYTES: Final = 4 * KIB
"""The tables count pages; kilonode's targets (amd64, and arm64 as distributed) have 4 KiB ones."""
LINES_MAX: Final = 20_000
TABLES_MAX: Final = 16
_RECORD_BYTES_MAX: Final = 8192

_OOM_KILL: Final = re.compile(
    r"oom-kill:constraint=(?P<constraint>\w*)(?P<where>,.*)?,task=.*,pid=(?P<pid>\d+)", re.ASCII
)
_FULL_CGROUP: Final = re.compile(r",oom_memcg=(.*?)(?:,task_memcg=|$)")
_VICTIM_CGROUP: Final = re.compile(r",task_memcg=(.*)")
_KILLED: Final = re.compile(r"Killed process (?P<pid>\d+) \((?P<comm>.*)\),? (?P<figures>.*)")
_FIGURE: Final = re.compile(r"([A-Za-z_-]+):(-?\d+)")
_TABLE_HEADER: Final = re.compile(r"\[ *pid *\] +(?P<columns>uid +tgid +total_vm .*name)\s*$")
_TABLE_ROW: Final = re.compile(r"\[ *(?P<pid>\d+)\] +(?P<values>-?\d+ +\d+ .*)")


class KernelLine(NamedTuple):
    """One line of the kernel log; ``monotonic_s`` is its time."""

    monotonic_s: float
    text: str


class _Cause(NamedTuple):
    """What an ``oom-kill:`` line and the table before it say."""

    constraint: str
    cgroup: str
    victim_cgroup: str
    candidates: tuple[OomCandidate, ...]


_NO_CAUSE: Final = _Cause("", "", "", ())


def parse_record(record: str) -> KernelLine | None:
    """The message of a ``/dev/kmsg`` record (``prio,seq,usec,flags;text``), None when it is none.

    Lines after the first carry device properties and are dropped.
    """
    prefix, separator, text = record.partition(";")
    fields = prefix.split(",")
    if not separator or len(fields) < 4 or not (fields[2].isascii() and fields[2].isdigit()):
        return None
    return KernelLine(int(fields[2]) / 1e6, text.partition("\n")[0])


class OomParser:
    """Joins lines of the kernel log into OOM kills; feed it every line.

    ``boottime_offset_s`` is added to a line's time to get ``at_s``.
    """

    def __init__(self, boottime_offset_s: float = 0.0) -> None:
        self._offset_s = boottime_offset_s
        self._kills: list[OomKill] = []
        self._columns: list[str] = []
        self._tables: deque[dict[int, OomCandidate]] = deque(maxlen=TABLES_MAX)
        self._causes: dict[int, _Cause] = {}
        self._last_cause = _NO_CAUSE

    @property
    def kills(self) -> tuple[OomKill, ...]:
        return tuple(self._kills)

    def feed(self, line: KernelLine) -> None:
        """Take the next line; one that has nothing to do with an OOM kill changes nothing."""
        if header := _TABLE_HEADER.search(line.text):
            self._columns = header["columns"].split()
            self._tables.append({})
        elif self._columns and (row := _TABLE_ROW.search(line.text)):
            self._add_candidate(row["values"].split(None, len(self._columns) - 1))
        elif cause := _OOM_KILL.search(line.text):
            self._add_cause(cause)
        elif killed := _KILLED.search(line.text):
            self._add_kill(line, killed)

    def _add_candidate(self, values: list[str]) -> None:
        if len(values) != len(self._columns):
            return
        row = dict(zip(self._columns, values, strict=True))
        figures = {name: int(value) for name, value in row.items() if _is_number(value)}
        pid = figures.get("tgid", 0)
        self._tables[-1][pid] = OomCandidate(
            pid=pid,
            comm=row["name"],
            memory_bytes_rss=figures.get("rss", 0) * PAGE_BYTES,
            page_table_bytes=figures.get("pgtables_bytes", figures.get("nr_ptes", 0) * PAGE_BYTES),
            swap_bytes=figures.get("swapents", 0) * PAGE_BYTES,
            oom_score_adj=figures.get("oom_score_adj", 0),
        )

    def _add_cause(self, found: re.Match[str]) -> None:
        pid = int(found["pid"])
        table: dict[int, OomCandidate] = next((t for t in reversed(self._tables) if pid in t), {})
        where = found["where"] or ""
        full, victim = _FULL_CGROUP.search(where), _VICTIM_CGROUP.search(where)
        self._last_cause = self._causes[pid] = _Cause(
            constraint=found["constraint"],
            cgroup=full[1] if full else "/",
            victim_cgroup=victim[1] if victim else "",
            candidates=tuple(table.values()),
        )

    def _add_kill(self, line: KernelLine, killed: re.Match[str]) -> None:
        """With memory.oom.group several processes die of one cause, and only the first is named in it."""
        pid = int(killed["pid"])
        figures = {name: int(value) for name, value in _FIGURE.findall(killed["figures"])}
        cause = self._causes.pop(pid, self._last_cause)
        self._kills.append(
            OomKill(
                at_s=line.monotonic_s + self._offset_s,
                victim_pid=pid,
                victim_comm=killed["comm"],
                constraint=cause.constraint,
                cgroup=cause.cgroup,
                victim_cgroup=cause.victim_cgroup,
                memory_bytes_anon=figures.get("anon-rss", 0) * KIB,
                memory_bytes_file=figures.get("file-rss", 0) * KIB,
                memory_bytes_shmem=figures.get("shmem-rss", 0) * KIB,
                page_table_bytes=figures.get("pgtables", 0) * KIB,
                oom_score_adj=figures.get("oom_score_adj", 0),
                candidates=cause.candidates,
            )
        )


def _is_number(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit()


class KernelLog:
    """Follows /dev/kmsg while it is entered. Raises MissingRequirementError where that is refused.

    ``zero_s`` is the CLOCK_BOOTTIME reading that counts as 0.
    """

    def __init__(self, zero_s: float, *, path: str = "/dev/kmsg") -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise MissingRequirementError(
                f"may not read the kernel log: {error.strerror}",
                where=path,
                remedy="run as root, or set sysctl kernel.dmesg_restrict=0",
            ) from error
        os.lseek(self._fd, 0, os.SEEK_END)
        suspended_s = time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
        self.offset_s = suspended_s - zero_s
        """To be added to a line's time for the run's clock."""
        self._parser = OomParser(self.offset_s)
        self._lines: deque[KernelLine] = deque(maxlen=LINES_MAX)
        self._lock = threading.Lock()
        self.overruns = 0
        """How often the kernel overwrote lines that were not read yet: a kill may be missing."""
        self._follower = Follower("kilonode-kmsg", (self._fd,), self._drain)

    def kills(self, cgroup: MemoryCgroup | None = None) -> tuple[OomKill, ...]:
        """The OOM kills so far; only those of ``cgroup`` and below, when one is given."""
        self._drain()
        with self._lock:
            kills = self._parser.kills
        if cgroup is None:
            return kills
        return tuple(kill for kill in kills if _concerns(kill, cgroup.kernel_path))

    @property
    def lines(self) -> tuple[KernelLine, ...]:
        """Everything the kernel logged meanwhile (the last 20,000 lines)."""
        self._drain()
        with self._lock:
            return tuple(self._lines)

    def __enter__(self) -> Self:
        self._follower.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop following; what was read stays readable. May be repeated."""
        try:
            self._follower.stop()
        finally:
            self._drain()
            with self._lock:
                if self._fd >= 0:
                    os.close(self._fd)
                    self._fd = -1

    def _drain(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            for record in self._records():
                line = parse_record(record)
                if line is not None:
                    self._lines.append(line)
                    self._parser.feed(line)

    def _records(self) -> Iterator[str]:
        """The records that wait; each read(2) gives exactly one."""
        while True:
            try:
                record = os.read(self._fd, _RECORD_BYTES_MAX)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.EPIPE:
                    raise
                self.overruns += 1
            else:
                if not record:
                    return
                yield record.decode(errors="replace")


def _concerns(kill: OomKill, cgroup: str) -> bool:
    return is_within(kill.cgroup, cgroup) or is_within(kill.victim_cgroup, cgroup)
