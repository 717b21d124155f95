"""What a run created on this machine, so that it is removed whatever happens.

A run writes each thing to its ledger *before* it creates it: one JSON line, flushed to disk. Undoing walks
the lines backwards and takes a thing that never came to be as removed. So the same code cleans up after
success, failure and Ctrl-C, and, in the next run or in ``kilonode clean``, after SIGKILL.

Whether a run still lives is told by an exclusive lock on ``owner.lock`` that its process holds as long as it
exists: the kernel drops it with the process, so no pid is ever compared with a stranger's. A run that was
told to keep its cluster has a ``kept`` mark; the next run passes it over, ``kilonode clean`` does not.

Host-wide sysctls that kubelet writes are shared between runs: the value of before the first one is restored
when the last one leaves.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import filelock
import msgspec
import platformdirs

from framework import containers, docker_data, network, process, run_objects
from framework.cgroup import memory_cgroup
from framework.errors import BadInputError, KilonodeError, TimeLimitError
from framework.log import get_logger
from framework.versioned_file import writing_below

log = get_logger(__name__)

STATE_ENV: Final = "KILONODE_STATE_DIR"
SOCKET_PATH_BYTES_MAX: Final = 107
"""sun_path of unix(7) less its final zero."""
_LONGEST_SOCKET: Final = "runs/123456/nodes/real-99/containerd/c.sock.ttrpc"
LOCK_TIMEOUT_S: Final = 120.0
"""A run that cleans up after others holds it for as long as that takes."""
_RUNS_LOCK: Final = "runs"
"""Held while a run begins and while others are cleaned: a folder without a locked lock looks dead."""
PROC_SYS: Final = Path("/proc/sys")


class Process(msgspec.Struct, frozen=True, tag=True):
    """A process, named for ever by its pid and start time."""

    pid: int
    start_ticks: int

    def undo(self) -> None:
        process.kill_exactly(self.pid, self.start_ticks)


class Cgroup(msgspec.Struct, frozen=True, tag=True):
    """A memory cgroup, by its relative name, with everything inside it, processes included."""

    name: str

    def undo(self) -> None:
        memory_cgroup(self.name).remove()


class Netns(msgspec.Struct, frozen=True, tag=True):
    name: str

    def undo(self) -> None:
        network.delete_netns(self.name)


class Link(msgspec.Struct, frozen=True, tag=True):
    """A link of the host's network namespace."""

    name: str

    def undo(self) -> None:
        network.delete_link(self.name)


class Folder(msgspec.Struct, frozen=True, tag=True):
    """A folder with everything below it; mounts below it are unmounted first."""

    path: str

    def undo(self) -> None:
        for mount in mounts_below(self.path, Path("/proc/self/mounts").read_text()):
            process.run(["umount", "--lazy", mount], check=False)
        shutil.rmtree(self.path, ignore_errors=True)


class File(msgspec.Struct, frozen=True, tag=True):
    """A file, socket or link."""

    path: str

    def undo(self) -> None:
        Path(self.path).unlink(missing_ok=True)


class MountPoint(msgspec.Struct, frozen=True, tag=True):
    """A folder of the host that was made to mount something on; one that is used meanwhile stays."""

    path: str

    def undo(self) -> None:
        with contextlib.suppress(OSError):
            Path(self.path).rmdir()


class EngineData(msgspec.Struct, frozen=True, tag=True):
    """The data folder of a private docker engine; its images stay."""

    path: str

    def undo(self) -> None:
        docker_data.discard_containers(Path(self.path))


class Containers(msgspec.Struct, frozen=True, tag=True):
    """The containers with a label, and a network, of an engine. Those of an engine that is gone are gone too.

    ``host`` is docker's DOCKER_HOST, empty for its default.
    """

    program: containers.Program
    host: str
    label: str
    network: str

    def undo(self) -> None:
        socket = self.host.removeprefix("unix://")
        if socket != self.host and not Path(socket).exists():
            return
        engine = containers.Engine(self.program, self.host)
        containers.remove_labelled(engine, self.label)
        containers.remove_network(engine, self.network)


class ClusterObjects(msgspec.Struct, frozen=True, tag=True):
    """All that has a run's label in a cluster that was there before; the cluster itself stays."""

    kubeconfig: str
    context: str
    run: str

    def undo(self) -> None:
        run_objects.remove_run(Path(self.kubeconfig), self.context, self.run)


class Sysctl(msgspec.Struct, frozen=True, tag=True):
    """A host-wide sysctl as it was before. ``key`` is its path below /proc/sys."""

    key: str
    value: str

    def undo(self) -> None:
        path = PROC_SYS / self.key
        if path.read_text().strip() != self.value:
            path.write_text(self.value)


Thing = (
    Process
    | Cgroup
    | Netns
    | Link
    | Folder
    | File
    | MountPoint
    | EngineData
    | Containers
    | ClusterObjects
    | Sysctl
)
_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Thing)


def mounts_below(folder: str, mounts_text: str) -> tuple[str, ...]:
    """Mount points at or below ``folder`` in /proc/self/mounts, innermost first."""
    top = folder.rstrip("/")
    points = (_unescaped(line.split(" ")[1]) for line in mounts_text.split("\n") if line)
    below = [point for point in points if point == top or point.startswith(f"{top}/")]
    return tuple(sorted(below, key=len, reverse=True))


def _unescaped(field: str) -> str:
    """A field of /proc/mounts, in which the kernel writes space, tab, newline and backslash in octal."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def state_root() -> Path:
    """Where runs keep their state: $KILONODE_STATE_DIR, else the platform's state folder.

    Raises BadInputError when unix sockets below it would have too long a path, or a file is in its place.
    """
    given = os.environ.get(STATE_ENV)
    root = Path(given).absolute() if given else platformdirs.user_state_path("kilonode")
    there = next(place for place in (root, *root.parents) if os.path.lexists(place))
    if not there.is_dir():
        raise BadInputError(
            f"{there} is no folder, so nothing can be kept in {root}",
            where=STATE_ENV,
            remedy=f"set {STATE_ENV} to a folder",
        )
    if len(os.fsencode(root / _LONGEST_SOCKET)) > SOCKET_PATH_BYTES_MAX:
        raise BadInputError(
            f"{root} is too long a path for unix sockets below it",
            where=STATE_ENV,
            remedy=f"set {STATE_ENV} to a shorter path",
        )
    return root


def private_socket(root: Path | None = None) -> Path:
    """Where the private docker engine of a state folder answers, if there is one."""
    return (root or state_root()) / "docker.sock"


@contextlib.contextmanager
def machine_lock(name: str, root: Path | None = None) -> Iterator[None]:
    """A lock between all runs on this machine.

    Raises TimeLimitError, which names who holds it, after two minutes: a lock whose holder has ended is free.
    """
    folder = root or state_root()
    path = folder / f"{name}.lock"
    lock = filelock.FileLock(path, timeout=LOCK_TIMEOUT_S)
    with writing_below(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise TimeLimitError(
                f"another process held the lock for {LOCK_TIMEOUT_S:g} s: {_holder(path)}",
                where=str(path),
                remedy="wait for it or end it; the lock goes with it",
            ) from error
    try:
        yield
    finally:
        lock.release()


def _holder(path: Path) -> str:
    """Who holds the lock on a file, by /proc/locks (proc(5))."""
    status = path.stat()
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = (line.split() for line in Path("/proc/locks").read_text().splitlines())
    pids = [fields[4] for fields in held if fields[1] == "FLOCK" and fields[5] == file]
    if not pids:
        return "nobody knows who"
    command = Path(f"/proc/{pids[0]}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return f"pid {pids[0]}, {command.strip() or '?'}"


class Ledger:
    """The things of one run; made by ``Ledger.begin``, ended by ``finish``."""

    def __init__(self, folder: Path, lock: filelock.BaseFileLock) -> None:
        self.folder = folder
        self._lock = lock
        self._file = folder / "ledger.jsonl"

    @classmethod
    def begin(cls, root: Path | None = None) -> Ledger:
        """A new ledger with a state folder of its own (mode 0700), locked as long as this process lives."""
        folder = (root or state_root()) / "runs" / secrets.token_hex(3)
        lock = filelock.FileLock(folder / "owner.lock", timeout=LOCK_TIMEOUT_S)
        with machine_lock(_RUNS_LOCK, root), writing_below(folder.parent):
            folder.mkdir(parents=True, mode=0o700)
            lock.acquire()
        return cls(folder, lock)

    @property
    def run_id(self) -> str:
        return self.folder.name

    def record(self, thing: Thing) -> None:
        """Write ``thing`` down, before it is created. Raises KilonodeError where that is not possible."""
        with writing_below(self.folder), self._file.open("ab") as file:
            file.write(_encoder.encode(thing) + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def record_sysctl(self, key: str) -> tuple[Sysctl, ...]:
        """Remember a sysctl's value; what any run (this one too) remembers is older and so wins.

        Gives what was recorded: nothing when this kernel has no such sysctl.
        """
        others = (thing for run in all_runs(self.folder.parent) for thing in run.things())
        path = PROC_SYS / key
        known = next((thing for thing in others if isinstance(thing, Sysctl) and thing.key == key), None)
        if known is None and path.exists():
            known = Sysctl(key, path.read_text().strip())
        if known is None:
            return ()
        self.record(known)
        return (known,)

    def raise_sysctl(self, key: str, least: int) -> None:
        """Have a numeric sysctl of the host at ``least`` or more, until the last run that wants it ends."""
        for recorded in self.record_sysctl(key):
            if int((PROC_SYS / recorded.key).read_text()) < least:
                (PROC_SYS / recorded.key).write_text(str(least))

    def things(self) -> tuple[Thing, ...]:
        """Everything recorded and not undone yet. A last line that was cut short is passed over."""
        return read_things(self._file)

    def undo(self, things: Sequence[Thing] | None = None) -> tuple[str, ...]:
        """Remove ``things`` (everything when None), newest first; gives what could not be removed."""
        everything = self.things()
        gone = everything if things is None else things
        staying = list(everything)
        for thing in gone:
            staying.remove(thing)
        failures = tuple(filter(None, (self._undo_one(thing, staying) for thing in reversed(gone))))
        if not failures:
            self._rewrite(staying)
        return failures

    def remove(self, things: Sequence[Thing], *, whose: str, where: str) -> None:
        """``undo`` that raises KilonodeError with what could not be removed of ``whose`` things."""
        failures = self.undo(things)
        if failures:
            raise KilonodeError(
                f"{whose} left something behind: {'; '.join(failures)}",
                where=where,
                remedy="run `kilonode clean`",
            )

    def finish(self) -> tuple[str, ...]:
        """Undo everything and, when nothing is left, remove the state folder; gives what is left."""
        failures = self.undo()
        if not failures:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        return failures

    def keep(self) -> None:
        """Leave everything in place when this process ends, until ``kilonode clean``."""
        (self.folder / "kept").touch()
        self._lock.release()

    def _undo_one(self, thing: Thing, staying: Sequence[Thing]) -> str | None:
        if isinstance(thing, Sysctl) and (thing in staying or self._shared(thing)):
            return None
        try:
            thing.undo()
        except (OSError, KilonodeError) as error:
            log.warning("could not remove %s: %s", thing, error)
            return f"{thing}: {error}"
        return None

    def _shared(self, sysctl: Sysctl) -> bool:
        return any(
            isinstance(thing, Sysctl) and thing.key == sysctl.key
            for run in other_runs(self.folder)
            for thing in run.things()
        )

    def _rewrite(self, things: Sequence[Thing]) -> None:
        fresh = self._file.with_suffix(".new")
        fresh.write_bytes(b"".join(_encoder.encode(thing) + b"\n" for thing in things))
        fresh.replace(self._file)


class OtherRun(msgspec.Struct, frozen=True):
    """Another run's state folder. ``state`` is ``kept`` only for a run whose process has ended."""

    folder: Path
    state: Literal["alive", "kept", "dead"]

    @property
    def run_id(self) -> str:
        return self.folder.name

    def things(self) -> tuple[Thing, ...]:
        return read_things(self.folder / "ledger.jsonl")

    def has_engine(self) -> bool:
        """Whether it is a private docker engine's."""
        return any(isinstance(thing, EngineData) for thing in self.things())


def read_things(path: Path) -> tuple[Thing, ...]:
    """The things in a ledger file; a line that was cut short by a crash is passed over."""
    things: list[Thing] = []
    with contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                things.append(_decoder.decode(line))
    return tuple(things)


def other_runs(mine: Path) -> tuple[OtherRun, ...]:
    """Runs beside ``mine`` that live or were kept."""
    return tuple(run for run in all_runs(mine.parent) if run.folder != mine and run.state != "dead")


def all_runs(runs: Path) -> tuple[OtherRun, ...]:
    """Every state folder below ``runs``, with whether its process still lives."""
    folders = sorted(runs.iterdir()) if runs.is_dir() else []
    states = ((folder, _state(folder)) for folder in folders if folder.is_dir())
    return tuple(OtherRun(folder, state) for folder, state in states if state is not None)


def _state(folder: Path) -> Literal["alive", "kept", "dead"] | None:
    """None where the run ended, and its folder went, while it was looked at.

    The lock is tried as filelock has it, by flock(2), but never made: the folder would be back with it.
    """
    try:
        with (folder / "owner.lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return "kept" if (folder / "kept").exists() else "dead"
    except BlockingIOError:
        return "alive"
    except FileNotFoundError:
        return "dead" if folder.is_dir() else None


def clean(root: Path | None = None, *, include_kept: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Remove what runs left whose process is gone; a live run is left alone.

    A private docker engine goes before the runs that have containers in it: those are gone with it, and an
    engine that was killed could not be asked to remove them.

    Gives (run ids removed, what could not be removed).
    """
    removed: list[str] = []
    failures: list[str] = []
    with machine_lock(_RUNS_LOCK, root):
        runs = all_runs((root or state_root()) / "runs")
        for run in sorted(runs, key=lambda run: not run.has_engine()):
            if run.state == "alive" or (run.state == "kept" and not include_kept):
                continue
            left = end_run(run)
            if left is not None:
                failures += left
                removed += [] if left else [run.run_id]
    return tuple(removed), tuple(failures)


def end_run(run: OtherRun) -> tuple[str, ...] | None:
    """Remove what a run left whose process is gone; gives what could not be removed.

    None where somebody else removes it, or it came to life.
    """
    lock = filelock.FileLock(run.folder / "owner.lock", timeout=0)
    try:
        lock.acquire()
    except (filelock.Timeout, FileNotFoundError, FileExistsError):
        return None
    return Ledger(run.folder, lock).finish()
