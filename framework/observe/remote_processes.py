"""The nft processes and OOM kills of a node that only a command prefix reaches.

The kernel's exit records don't leave their machine, so processes are polled there: a shell script of POSIX
looks through /proc more than ten times a second and prints each nft with its ``VmHWM``. What lives shorter
than a look is missed, and growth after the last one too, so every peak is a lower bound; at the sizes that
matter nft lives for seconds. A prefix that is killed here may leave its script running there, so the script
ends by itself: rounds of some seconds follow one another, each begun before the last has ended.

The node's kernel log is read with dmesg when evidence is taken.
"""

from __future__ import annotations

import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import msgspec

from framework.errors import TimeLimitError
from framework.observe.kernel_log import KernelLine, OomParser
from framework.outcome import OomKill, ProcessExit
from framework.remote import LOOK_END, LOOK_INTERVAL_S, Remote, script
from framework.units import KIB
from framework.wait import wait_until

ROUND_LOOKS: Final = 150
ROUND_S: Final = 6.0
"""After which the next round begins; ``ROUND_LOOKS`` take 7.5 s and more."""
FAILED_ROUND_PAUSE_S: Final = 1.0
END_TIMEOUT_S: Final = 5.0
ENDED_AFTER_S: Final = 0.5
"""A process that so long no look saw has ended, even if two rounds looked at once."""
LOOKED_TIMEOUT_S: Final = 5.0
GAP_S_MAX: Final = 1.0
"""Without a look for so long, an nft may be unseen: it counts as a lost record."""
TICKS_PER_S: Final = 100
"""USER_HZ, the same on every architecture that Kubernetes is built for."""
_SEEN: Final = re.compile(r"(?P<kib>\d+) (?P<pid>\d+) \((?P<comm>.*)\) (?P<stat>[^|]*)\|(?P<argv>.*)")
_STAT_PARENT: Final = 1
_STAT_USER: Final = 11
_STAT_SYSTEM: Final = 12
_STAT_START: Final = 19
_DMESG: Final = re.compile(r"(?:<\d+>)?\[ *(?P<at>\d+\.\d+)\] (?P<text>.*)")


class Looks:
    """Joins the lines of looks into processes. Pure; ``now_s`` is when a line came."""

    def __init__(self, zero_s: float) -> None:
        self._zero_s = zero_s
        self._seen: dict[tuple[int, str], ProcessExit] = {}
        self.last_s = 0.0
        """When the last look ended; 0 before the first."""
        self.gaps = 0

    def feed(self, line: str, now_s: float) -> None:
        if line.strip() == LOOK_END:
            if self.last_s and now_s - self.last_s > GAP_S_MAX:
                self.gaps += 1
            self.last_s = max(self.last_s, now_s)
            return
        found = _SEEN.fullmatch(line.rstrip("\n"))
        stat = found["stat"].split() if found else []
        if found is None or len(stat) <= _STAT_START:
            return
        if not all(stat[field].isdecimal() for field in (_STAT_PARENT, _STAT_USER, _STAT_SYSTEM)):
            return
        key = (int(found["pid"]), stat[_STAT_START])
        before = self._seen.get(key)
        if before is None and found["kib"] == "0":
            return  # Dead already, and a zombie tells nothing of what it held.
        at_s = now_s - self._zero_s
        self._seen[key] = ProcessExit(
            at_s=at_s,
            pid=key[0],
            parent_pid=int(stat[_STAT_PARENT]),
            comm=found["comm"],
            argv=tuple(found["argv"].split()) or (before.argv if before else None),
            exit_code=None,
            signal=None,
            elapsed_s=before.elapsed_s + at_s - before.at_s if before else 0.0,
            cpu_user_s=int(stat[_STAT_USER]) / TICKS_PER_S,
            cpu_system_s=int(stat[_STAT_SYSTEM]) / TICKS_PER_S,
            memory_bytes_peak=max(int(found["kib"]) * KIB, before.memory_bytes_peak if before else 0),
            source="poll",
            bound="lower",
        )

    @property
    def exits(self) -> tuple[ProcessExit, ...]:
        """The processes that the last looks did not see any more."""
        last_at_s = self.last_s - self._zero_s
        return tuple(seen for seen in self._seen.values() if last_at_s - seen.at_s > ENDED_AFTER_S)


class RemoteProcesses:
    """Polls the nft processes of a node elsewhere while it is entered."""

    def __init__(self, remote: Remote, zero_s: float) -> None:
        self._remote = remote
        self._lock = threading.Lock()
        self._looks = Looks(zero_s)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kilonode-remote", daemon=True)

    def exits(self) -> tuple[ProcessExit, ...]:
        """The nft processes that ended before the call, which waits until enough looks have missed them."""
        wanted_s = time.clock_gettime(time.CLOCK_BOOTTIME) + ENDED_AFTER_S
        with suppress(TimeLimitError):
            wait_until(
                lambda: self._looks.last_s > wanted_s or None,
                what="a look through the node's processes",
                timeout_s=LOOKED_TIMEOUT_S,
                interval_s=LOOK_INTERVAL_S,
            )
        with self._lock:
            return self._looks.exits

    @property
    def lost(self) -> int:
        """How often nobody looked for longer than ``GAP_S_MAX``."""
        with self._lock:
            late_s = time.clock_gettime(time.CLOCK_BOOTTIME) - self._looks.last_s
            return self._looks.gaps + (late_s > GAP_S_MAX)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        rounds: dict[int, _Round] = {}
        next_s = 0.0
        try:
            while not self._stop.is_set():
                now_s = time.monotonic()
                if now_s >= next_s:
                    begun = _Round(self._remote.argv("sh", "-c", script(ROUND_LOOKS)))
                    rounds[begun.fd] = begun
                    next_s = now_s + ROUND_S
                readable, _, _ = select.select(list(rounds), [], [], LOOK_INTERVAL_S)
                for fd in readable:
                    if not self._take(rounds[fd]):
                        rounds.pop(fd).end()
                        if not rounds:
                            next_s = min(next_s, time.monotonic() + FAILED_ROUND_PAUSE_S)
        finally:
            for each in rounds.values():
                each.end()

    def _take(self, each: _Round) -> bool:
        """False at the end of a round's output."""
        lines = each.lines()
        now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
        with self._lock:
            for line in lines or ():
                self._looks.feed(line, now_s)
        return lines is not None


class _Round:
    """One run of the script."""

    def __init__(self, argv: list[str]) -> None:
        self._process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
        )
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._output = self._process.stdout
        self._part = ""

    @property
    def fd(self) -> int:
        return self._output.fileno()

    def lines(self) -> list[str] | None:
        """The whole lines that came; None at the end."""
        piece = self._output.read(65536)
        if not piece:
            return None
        *whole, self._part = (self._part + piece.decode(errors="replace")).split("\n")
        return whole

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._output.close()


def remote_kills(remote: Remote, zero_s: float) -> tuple[OomKill, ...]:
    """All OOM kills in the node's kernel log; those of before ``zero_s`` have negative times."""
    uptime, log = remote.text_of("cat", "/proc/uptime"), remote.text_of("dmesg")
    if uptime is None or log is None:
        return ()
    ahead_s = float(uptime.split()[0]) - time.clock_gettime(time.CLOCK_BOOTTIME)
    return kills_in(log, offset_s=-ahead_s - zero_s)


def kills_in(log: str, *, offset_s: float) -> tuple[OomKill, ...]:
    """The OOM kills in what dmesg printed; ``offset_s`` is added to the log's times."""
    parser = OomParser(offset_s)
    for line in log.splitlines():
        found = _DMESG.fullmatch(line)
        if found is not None:
            parser.feed(KernelLine(float(found["at"]), found["text"]))
    return parser.kills


def joined(exits: Sequence[ProcessExit], kills: Sequence[OomKill]) -> tuple[ProcessExit, ...]:
    """Processes that were seen, with the signal that the kernel log tells of those that it killed."""
    killed = {kill.victim_pid for kill in kills}
    return tuple(
        msgspec.structs.replace(each, signal=signal.SIGKILL) if each.pid in killed else each for each in exits
    )
