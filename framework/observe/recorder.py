"""What recorders of process exits have in common: their face, and how they read /proc."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from framework.cgroup import MemoryCgroup, memory_path
from framework.outcome import MeasuredBy, ProcessExit

_READ_BYTES: Final = 262_144
"""Twice the longest single argument that exec accepts; what is longer is cut."""


class Recorder(ABC):
    """What exact and polling recorders have in common. A context manager; records while it is entered."""

    measured_by: MeasuredBy
    why: str
    """Why this kind of recorder was chosen; empty for the exact one."""

    @abstractmethod
    def watch(self, cgroup: MemoryCgroup) -> None:
        """Record the processes of ``cgroup`` and of all below it; call it before they start."""

    @abstractmethod
    def forget(self, cgroup: MemoryCgroup) -> None:
        """Stop recording ``cgroup`` and drop what was recorded of it."""

    @abstractmethod
    def exits(self, cgroup: MemoryCgroup) -> tuple[ProcessExit, ...]:
        """The processes of ``cgroup`` and below that ended so far, in the order of their ends."""

    @property
    @abstractmethod
    def lost(self) -> int:
        """How often exit records were lost (buffer overruns; each may have cost several records)."""

    @property
    @abstractmethod
    def argv_unknown(self) -> int:
        """Recorded processes that ended before their command line could be read."""

    @abstractmethod
    def __enter__(self) -> Self: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ProcReader:
    """Reads what the kernel's records do not carry from /proc; ``proc`` can be a recorded tree."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = f"{proc}/"

    def cgroup(self, pid: int) -> str | None:
        """The memory cgroup of ``pid``, None when it is gone."""
        return memory_path(self._read(pid, "cgroup").decode(errors="replace"))

    def argv(self, pid: int) -> tuple[str, ...] | None:
        """The command line of ``pid``, None when it is gone."""
        words = self._read(pid, "cmdline")
        return tuple(words.decode(errors="replace").removesuffix("\0").split("\0")) if words else None

    def status(self, pid: int) -> dict[str, str]:
        """The fields of /proc/PID/status; empty when it is gone."""
        lines = self._read(pid, "status").decode(errors="replace").split("\n")
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def stat(self, pid: int) -> list[str]:
        """The fields of /proc/PID/stat from the third on; empty when it is gone."""
        return self._read(pid, "stat").decode(errors="replace").rpartition(")")[2].split()

    def comm(self, pid: int) -> str:
        """What the kernel calls it; empty when it is gone."""
        return self._read(pid, "comm").decode(errors="replace").rstrip("\n")

    def anonymous_pages(self, pid: int) -> int | None:
        """Pages of memory that are no file's and not shared; None when it is gone."""
        fields = self._read(pid, "statm").split()
        return max(0, int(fields[1]) - int(fields[2])) if len(fields) > 2 else None

    def _read(self, pid: int, name: str) -> bytes:
        try:
            fd = os.open(f"{self._proc}{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, ProcessLookupError):
            return b""
        try:
            return os.read(fd, _READ_BYTES)
        except ProcessLookupError:
            return b""
        finally:
            os.close(fd)
