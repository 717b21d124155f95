"""Memory cgroups, versions 1 and 2, behind one face.

A real node is a memory cgroup with processes in it: the limit, the peak and the number of OOM kills are the
kernel's own counters, and every figure about a node's memory comes from here. The two versions differ in
file names, in units of account and in what they count:

* version 1 has its own tree for the memory controller (``/sys/fs/cgroup/memory``), a high-water mark of
  kernel memory, and counts an OOM kill only in the cgroup of the victim, so kills are summed over the tree;
* version 2 has one tree, in which the controller must be enabled from the root down
  (``cgroup.subtree_control``), counts kills hierarchically and keeps no high-water mark of kernel memory.

In both, anonymous and file memory are hierarchical figures, and kernel memory (page tables, slabs, stacks,
socket buffers, nft objects) is part of what is charged.

A container runtime makes cgroups of its own below the one that it is given, and not only for memory:
``delegate`` gets one ready for that, and ``remove`` removes what the runtime made in every tree.

A process is charged to the cgroup that it was in when it touched a page, so a node's processes must be put
in before exec (``procs_path`` is for that), and each measurement wants a cgroup of its own: nft objects that
the last one left in the kernel stay charged.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from framework.cgroup_counters import (
    FILES,
    CgroupMode,
    CgroupReading,
    MemoryFigures,
    figures_of,
    oom_kills_of,
    reading_of,
)
from framework.errors import BadInputError, KilonodeError, MissingRequirementError
from framework.process import KILL_TIMEOUT_S
from framework.wait import wait_until

CGROUP_ROOT: Final = Path("/sys/fs/cgroup")
REMOVE_TIMEOUT_S: Final = 10.0
_CONTAINER_CONTROLLERS: Final = ("cpu", "cpuset", "hugetlb", "io", "memory", "pids")
"""What kubelet looks for in its ``cgroupRoot`` (getSupportedUnifiedControllers in its
pkg/kubelet/cm/cgroup_v2_manager_linux.go), and runc's io."""
_STAT_BYTES_MAX: Final = 16384
_PROCS_BYTES: Final = 65_536


def detect_mode(root: Path = CGROUP_ROOT) -> CgroupMode:
    """Which cgroup version has the memory controller. Raises MissingRequirementError when neither has it."""
    return _memory_tree(root)[0]


def memory_cgroup(relative_name: str, root: Path = CGROUP_ROOT) -> MemoryCgroup:
    """The memory cgroup ``relative_name`` (such as ``kilonode/RUN/node-1``); nothing is created yet.

    Raises BadInputError for a name that would leave the tree, MissingRequirementError without a controller.
    """
    parts = relative_name.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise BadInputError(
            f"{relative_name!r} is no name of a cgroup",
            where="cgroup",
            remedy="give a relative name such as kilonode/run-1/node-1",
        )
    mode, tree = _memory_tree(root)
    return MemoryCgroup(tree.joinpath(*parts), mode, tree)


def memory_path(text: str) -> str | None:
    """The memory cgroup in the text of /proc/PID/cgroup; None where it tells none.

    That is a process's which ended: version 1 shows it in the root.
    """
    unified = None
    for line in text.split("\n"):
        _, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if not separator:
            continue
        if "memory" in controllers.split(","):
            return path if path != "/" else None
        if not controllers:
            unified = path
    return unified


def cgroup_of(pid: int) -> str | None:
    """The memory cgroup of a process, as the kernel names it; None when there is no such process."""
    try:
        return memory_path(Path(f"/proc/{pid}/cgroup").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def is_within(path: str, ancestor: str) -> bool:
    """Whether the cgroup that the kernel names ``path`` is ``ancestor`` or below it."""
    return path == ancestor or path.startswith(f"{ancestor.rstrip('/')}/")


def _memory_tree(root: Path) -> tuple[CgroupMode, Path]:
    """The version that has the memory controller, and the top of its tree (also on a hybrid machine)."""
    if (root / "memory" / "cgroup.procs").exists():
        return "v1", root / "memory"
    for tree in (root, root / "unified"):
        controllers = tree / "cgroup.controllers"
        if controllers.exists() and "memory" in controllers.read_text().split():
            return "v2", tree
    raise MissingRequirementError(
        "there is no memory cgroup controller",
        where=str(root),
        remedy="mount cgroup2 on /sys/fs/cgroup, or boot with cgroup_enable=memory",
    )


@dataclass(frozen=True)
class MemoryCgroup:
    """One memory cgroup. ``path`` is its folder, ``tree`` the top of the controller's tree."""

    path: Path
    mode: CgroupMode
    tree: Path

    @property
    def procs_path(self) -> Path:
        """The file to which a process writes 0 to enter; see ``framework.process.inside``."""
        return self.path / "cgroup.procs"

    @property
    def kernel_path(self) -> str:
        """The path as the kernel names it, in /proc/PID/cgroup and in its log: ``/kilonode/RUN/node-1``."""
        return f"/{self.path.relative_to(self.tree)}"

    @property
    def children(self) -> tuple[MemoryCgroup, ...]:
        """The cgroups directly below; none when it does not exist."""
        try:
            folders = sorted(entry.path for entry in os.scandir(self.path) if entry.is_dir())
        except FileNotFoundError:
            return ()
        return tuple(MemoryCgroup(Path(folder), self.mode, self.tree) for folder in folders)

    def walk(self) -> Iterator[MemoryCgroup]:
        """Everything below, deepest first, and then itself."""
        for child in self.children:
            yield from child.walk()
        yield self

    def create(self) -> None:
        """Create it and its parents, with the memory controller enabled; an existing one is kept.

        Raises MissingRequirementError without the privilege, KilonodeError when an ancestor has processes
        of its own (version 2 refuses to give such a cgroup's controllers to its children).
        """
        with _explained(self.path):
            for folder in self._from_top():
                if self.mode == "v2":
                    _enable(folder.parent, ("memory",))
                folder.mkdir(exist_ok=True)

    def delegate(self) -> MemoryCgroup:
        """Get it ready for a container runtime that makes cgroups below; gives the one for other processes.

        Version 1: it gets a namesake in the tree of every other controller, where containers will be too.
        Version 2: its children get the controllers that kubelet and runc ask for, and since the kernel
        then lets no process be in it, the node's own are to go into a child.
        """
        with _explained(self.path):
            if self.mode == "v1":
                for tree in _other_trees(self.tree):
                    _make_namesake(tree, self.path.relative_to(self.tree))
                return self
            available = (self.tree / "cgroup.controllers").read_text().split()
            for folder in (self.tree, *self._from_top()):
                _enable(folder, [name for name in _CONTAINER_CONTROLLERS if name in available])
        daemons = MemoryCgroup(self.path / "daemons", self.mode, self.tree)
        daemons.create()
        return daemons

    def _from_top(self) -> list[Path]:
        below_tree = [folder for folder in self.path.parents if folder.is_relative_to(self.tree)]
        return [folder for folder in reversed(below_tree) if folder != self.tree] + [self.path]

    def set_limit(self, limit_bytes: int) -> None:
        """Limit memory to ``limit_bytes`` (rounded down to a page by the kernel), without any swap on top."""
        if limit_bytes <= 0:
            raise BadInputError(
                f"{limit_bytes} is no memory limit", where="limit_bytes", remedy="give 1 byte or more"
            )
        with _explained(self.path):
            for name, value in self._limit_writes(limit_bytes):
                (self.path / name).write_text(value)

    def _limit_writes(self, limit_bytes: int) -> list[tuple[str, str]]:
        """The files to write, in order: version 1 keeps memory <= memory+swap at every moment."""
        if self.mode == "v2":
            swap = [("memory.swap.max", "0")] if (self.path / "memory.swap.max").exists() else []
            return [*swap, ("memory.max", str(limit_bytes))]
        writes = [("memory.limit_in_bytes", str(limit_bytes))]
        with_swap = self.path / "memory.memsw.limit_in_bytes"
        if with_swap.exists():
            raising = int(with_swap.read_text()) < limit_bytes
            writes.insert(0 if raising else 1, (with_swap.name, str(limit_bytes)))
        return writes

    def read(self) -> CgroupReading:
        """Every counter, once. For many readings a second see ``reader``."""
        files = FILES[self.mode]
        with _explained(self.path):
            texts = {name: (self.path / name).read_text() for name in (*files.figures, files.limit)}
            for name in files.peaks:
                with suppress(FileNotFoundError):
                    texts[name] = (self.path / name).read_text()
            return reading_of(self.mode, texts, oom_kills=self._oom_kills(files.events))

    def _oom_kills(self, events: str) -> int:
        if self.mode == "v2":
            return oom_kills_of((self.path / events).read_text())
        return sum(oom_kills_of((cgroup.path / events).read_text()) for cgroup in self.walk())

    def reset_peaks(self) -> bool:
        """Let the kernel's high-water marks begin anew; false where they can't, in version 2."""
        if self.mode == "v2":
            return False
        with _explained(self.path):
            for name in FILES[self.mode].peaks:
                (self.path / name).write_text("0")
        return True

    def reader(self) -> CgroupReader:
        """A reader that keeps the files open: some 40 microseconds of CPU a reading. Close it."""
        with _explained(self.path):
            return CgroupReader(self)

    def pids(self) -> tuple[int, ...]:
        """The processes inside, those of the cgroups below included; none when it does not exist."""
        return tuple(pid for cgroup in self.walk() for pid in cgroup.own_pids())

    def own_pids(self) -> tuple[int, ...]:
        """The processes that are in it itself; none when it does not exist."""
        try:
            fd = os.open(self.procs_path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return ()
        try:
            text = b"".join(iter(lambda: os.read(fd, _PROCS_BYTES), b""))
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            return ()
        finally:
            os.close(fd)
        return tuple(map(int, text.split()))

    def kill_all(self, timeout_s: float = KILL_TIMEOUT_S) -> None:
        """SIGKILL everything inside, again and again until nothing is left.

        A process is killed through a pidfd that was opened while it was listed and that is used only if the
        pid is still listed afterwards, so a pid that was reused by a stranger is never hit. Raises
        TimeLimitError when something is still there after ``timeout_s``.
        """
        wait_until(
            lambda: self._kill_once() or None,
            what=f"the end of every process in {self.kernel_path}",
            timeout_s=timeout_s,
            interval_s=0.01,
            describe=lambda: f"processes {self.pids()}",
            remedy="see `ps -o pid,stat,wchan` of these: an uninterruptible one waits for the kernel",
        )

    def _kill_once(self) -> bool:
        """True when nothing was inside."""
        pidfds = {pid: pidfd for pid in self.pids() if (pidfd := _pidfd(pid)) is not None}
        try:
            still_inside = set(self.pids())
            for pid, pidfd in pidfds.items():
                if pid in still_inside:
                    with suppress(ProcessLookupError):
                        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            for pidfd in pidfds.values():
                select.select([pidfd], [], [], 0.1)
        finally:
            for pidfd in pidfds.values():
                os.close(pidfd)
        return not still_inside

    def remove(self, timeout_s: float = REMOVE_TIMEOUT_S) -> None:
        """Kill what is inside, then remove it and everything below; one that is gone already is fine.

        The parents stay, for the run that made them. Raises TimeLimitError when the kernel keeps it busy.
        """

        def removed() -> bool | None:
            """A process may have entered since the last kill, as the child of a wrapper does."""
            self.kill_all(timeout_s)
            return all(_removed(folder) for folder in self._folders()) or None

        wait_until(
            removed,
            what=f"the removal of {self.kernel_path}",
            timeout_s=timeout_s,
            interval_s=0.02,
            describe=lambda: f"busy; processes {self.pids()}",
            remedy=f"look into {self.path}, then rmdir it",
        )

    def _folders(self) -> Iterator[Path]:
        """Its folders, deepest first; in version 1 those of its namesakes too."""
        trees = _other_trees(self.tree) if self.mode == "v1" else ()
        for tree in (self.tree, *trees):
            namesake = MemoryCgroup(tree / self.path.relative_to(self.tree), self.mode, tree)
            yield from (cgroup.path for cgroup in namesake.walk())


class CgroupReader:
    """The files of one memory cgroup kept open, for readings at 50 Hz and more."""

    def __init__(self, cgroup: MemoryCgroup) -> None:
        self._path = cgroup.path
        self._mode = cgroup.mode
        self._fds: list[int] = []
        try:
            for name in FILES[cgroup.mode].figures:
                self._fds.append(os.open(cgroup.path / name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.close()
            raise

    def read(self) -> MemoryFigures:
        """The figures of this moment. Raises KilonodeError when the cgroup was removed."""
        with _explained(self._path):
            texts = (os.pread(fd, _STAT_BYTES_MAX, 0).decode() for fd in self._fds)
            return figures_of(self._mode, *texts)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def __enter__(self) -> CgroupReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Says what a refusal of the kernel means; other errors pass through."""
    try:
        yield
    except PermissionError as error:
        raise MissingRequirementError(
            f"may not use the memory cgroup: {error.strerror}", where=str(path), remedy="run as root"
        ) from error
    except OSError as error:
        if error.errno == errno.EROFS:
            raise MissingRequirementError(
                "the cgroup file system is read-only",
                where=str(path),
                remedy="run in a container with --privileged, or on the machine itself",
            ) from error
        if error.errno in (errno.ENOENT, errno.ENODEV):
            raise KilonodeError(
                "the memory cgroup does not exist or was removed",
                where=str(error.filename or path),
                remedy="create it first; something else must not remove it while a node runs",
            ) from error
        raise


def _enable(parent: Path, controllers: Sequence[str]) -> None:
    """Give ``parent``'s children these controllers (version 2)."""
    control = parent / "cgroup.subtree_control"
    enabled = control.read_text().split()
    missing = [name for name in controllers if name not in enabled]
    if not missing:
        return
    try:
        control.write_text(" ".join(f"+{name}" for name in missing))
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        raise KilonodeError(
            f"this cgroup has processes of its own, so its children can't have {', '.join(missing)}",
            where=str(parent),
            remedy="move its processes to a child cgroup, or give the node another parent",
        ) from error


def _other_trees(memory_tree: Path) -> tuple[Path, ...]:
    """The trees of version 1's other controllers, each once: cpu and cpuacct are often links to one."""
    folders = {entry.resolve() for entry in memory_tree.parent.iterdir() if (entry / "cgroup.procs").exists()}
    return tuple(sorted(folders - {memory_tree.resolve()}))


def _make_namesake(tree: Path, relative: Path) -> None:
    """A cgroup in another tree of version 1. A cpuset has no CPUs until it is given some."""
    folder = tree
    for part in relative.parts:
        parent, folder = folder, folder / part
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cpuset.mems"):
            if (parent / name).exists() and not (folder / name).read_text().strip():
                (folder / name).write_text((parent / name).read_text())


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _removed(path: Path) -> bool:
    """True when ``path`` is gone; false while the kernel still lets processes leave it."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
