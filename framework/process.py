"""The one way to run a process.

``run`` is for commands that end by themselves, ``Daemon`` for those that stay. A daemon enters its memory
cgroup and namespaces *before* its program is executed, so that every byte from exec on is charged: a small
``sh`` moves itself into the cgroup, ``nsenter`` enters the network namespace, ``unshare`` makes a mount
namespace, and exec replaces them all. The pid therefore stays the same from the first instruction to the
last.

Interruption follows INT, TERM, KILL with named time limits, on a pidfd, so that a reused pid is never hit.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from framework.errors import KilonodeError, MissingRequirementError, TimeLimitError

TERM_TIMEOUT_S: Final = 5.0
KILL_TIMEOUT_S: Final = 10.0
DEFAULT_TIMEOUT_S: Final = 60.0
ERROR_TAIL_CHARS: Final = 4000
CAP_SYS_RESOURCE: Final = 24
"""Lowers oom_score_adj and raises resource limits (capabilities(7)); many containers lack it."""
_ENTER_CGROUP: Final = 'echo 0 > "$0" && exec "$@"'
_SET_OOM_SCORE: Final = 'echo "$0" > /proc/self/oom_score_adj && exec "$@"'
_BIND: Final = """\
while [ "$1" != -- ]; do mkdir -p "$1" "$2" && mount --bind "$1" "$2" || exit; shift 2; done
shift
exec "$@"
"""


@dataclass(frozen=True)
class Completed:
    """What a command that ended did. ``exit_code`` is negative for a signal, as in subprocess."""

    argv: tuple[str, ...]
    exit_code: int
    stdout: bytes
    stderr: bytes
    elapsed_s: float

    @property
    def text(self) -> str:
        return self.stdout.decode(errors="replace")


class CommandError(KilonodeError):
    """A command ended with a status other than 0; ``completed`` has its output."""

    def __init__(self, completed: Completed, remedy: str) -> None:
        self.completed = completed
        output = (completed.stderr or completed.stdout).decode(errors="replace").strip()
        super().__init__(
            f"{completed.argv[0]} ended with {describe_exit(completed.exit_code)}: "
            f"{output[-ERROR_TAIL_CHARS:] or 'no output'}",
            where=shlex.join(completed.argv),
            remedy=remedy,
        )


def describe_exit(exit_code: int) -> str:
    """``status 1`` or ``signal SIGKILL`` for an exit code as subprocess gives it."""
    if exit_code < 0:
        return f"signal {signal.Signals(-exit_code).name}"
    return f"status {exit_code}"


def inside(
    argv: Sequence[str],
    *,
    cgroup_procs: Path | None = None,
    netns: str | None = None,
    oom_score_adj: int | None = None,
    binds: Mapping[Path, Path] | None = None,
) -> list[str]:
    """``argv`` wrapped so that it runs in a cgroup and a named network namespace, with an oom_score_adj.

    ``cgroup_procs`` is the path of the cgroup's ``cgroup.procs``. The namespace is entered with nsenter:
    ``ip netns exec`` would remount /sys and hide the cgroup file systems from kubelet. ``binds`` are folders
    that the program sees elsewhere, below a host path that it has built in: they are mounted in a mount
    namespace of its own, which ends with its last process, and with it every mount that was made in it.
    """
    wrapped = list(argv)
    if binds:
        pairs = [str(path) for pair in binds.items() for path in pair]
        private = ["unshare", "--mount", "--propagation", "private", "--"]
        wrapped = [*private, "sh", "-c", _BIND, "bind", *pairs, "--", *wrapped]
    if netns is not None:
        wrapped = ["nsenter", f"--net=/run/netns/{netns}", "--", *wrapped]
    if oom_score_adj is not None:
        wrapped = ["sh", "-c", _SET_OOM_SCORE, str(oom_score_adj), *wrapped]
    if cgroup_procs is not None:
        wrapped = ["sh", "-c", _ENTER_CGROUP, str(cgroup_procs), *wrapped]
    return wrapped


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    check: bool = True,
    remedy: str = "read the output above",
) -> Completed:
    """Run a command to its end and give its output.

    ``env`` is added to this process's environment. A terminal's Ctrl-C does not reach it: whoever called
    decides what becomes of it. Raises CommandError for a status other than 0 (unless
    ``check`` is false), TimeLimitError when ``timeout_s`` runs out (the process is killed), and
    MissingRequirementError when there is no such program.
    """
    words = tuple(str(word) for word in argv)
    start_s = time.monotonic()
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
            env={**os.environ, **env} if env else None,
            cwd=cwd,
            check=False,
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise MissingRequirementError(
            f"there is no program {error.filename!r}", remedy=f"install {words[0]} or put it on PATH"
        ) from None
    except subprocess.TimeoutExpired as error:
        raise TimeLimitError(
            f"{words[0]} did not end within {timeout_s:g} s", where=shlex.join(words), remedy=remedy
        ) from error
    completed = Completed(words, done.returncode, done.stdout, done.stderr, time.monotonic() - start_s)
    if check and completed.exit_code != 0:
        raise CommandError(completed, remedy)
    return completed


@dataclass
class Daemon:
    """A process that stays, with its output kept in a file."""

    name: str
    argv: tuple[str, ...]
    log_path: Path
    popen: subprocess.Popen[bytes]
    start_ticks: int

    @classmethod
    def start(
        cls,
        name: str,
        argv: Sequence[str | Path],
        *,
        log_path: Path,
        cgroup_procs: Path | None = None,
        netns: str | None = None,
        oom_score_adj: int | None = None,
        binds: Mapping[Path, Path] | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Daemon:
        """Start ``argv`` with both outputs appended to ``log_path``; see ``inside`` for the rest."""
        words = tuple(str(word) for word in argv)
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("ab") as output:
            popen = subprocess.Popen(
                inside(
                    words, cgroup_procs=cgroup_procs, netns=netns, oom_score_adj=oom_score_adj, binds=binds
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env} if env else None,
                cwd=cwd,
                start_new_session=True,
            )
        return cls(name, words, log_path, popen, start_ticks_of(popen.pid) or 0)

    @property
    def pid(self) -> int:
        return self.popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self.popen.poll()

    def log_tail(self, chars: int = ERROR_TAIL_CHARS) -> str:
        """The last ``chars`` characters of its output."""
        return end_of(self.log_path, chars).decode(errors="replace")

    def require_alive(self) -> None:
        """Raises KilonodeError with the end of its output when it has ended."""
        if self.exit_code is not None:
            raise KilonodeError(
                f"{self.name} ended with {describe_exit(self.exit_code)}: {self.log_tail().strip()[-1500:]}",
                where=str(self.log_path),
                remedy="read its log",
            )

    def stop(self, *, term_timeout_s: float = TERM_TIMEOUT_S) -> None:
        """TERM, then KILL after ``term_timeout_s``; returns when it is reaped."""
        for signum, timeout_s in ((signal.SIGTERM, term_timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
            if self.popen.poll() is not None:
                return
            self.popen.send_signal(signum)
            try:
                self.popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue
        self.popen.wait(0)


def end_of(path: Path, size_bytes: int) -> bytes:
    """The last ``size_bytes`` of a file, or all that it has."""
    with path.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - size_bytes))
        return file.read(size_bytes)


def start_ticks_of(pid: int) -> int | None:
    """Start time of a process in clock ticks since boot, which with the pid names it for ever.

    It is field 22 of /proc/PID/stat (proc(5)). None when there is no such process.
    """
    fields = _stat_of(pid)
    return int(fields[19]) if fields else None


def executable_of(pid: int) -> Path | None:
    """The file that a process runs, by its own root (proc(5)); None when there is no such process."""
    try:
        return Path(f"/proc/{pid}/exe").readlink()
    except OSError:
        return None


def executable_name(pid: int) -> str | None:
    """The name of the file that a process runs; None when it is gone."""
    executable = executable_of(pid)
    return executable.name if executable is not None else None


def cpu_s_of(pid: int) -> float:
    """User and system CPU time of a process so far, its waited-for children excluded (proc(5)).

    0 when there is no such process.
    """
    fields = _stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else 0.0


def is_stopped(pid: int) -> bool:
    """Whether a signal stopped a process (SIGSTOP), and none let it go on; not where there is none."""
    fields = _stat_of(pid)
    return bool(fields) and fields[0] == "T"


def _stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold anything; none when there is no process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()


def oom_score_adj_of(pid: int) -> int | None:
    """A process's oom_score_adj; None when there is no such process (proc(5))."""
    try:
        return int(Path(f"/proc/{pid}/oom_score_adj").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return None


def has_capability(number: int, proc: Path = Path("/proc/self")) -> bool:
    """Whether this process has a capability in effect, by its number in capability.h."""
    status = (proc / "status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective.split()[1], 16) >> number & 1)


def memory_bytes_of(pid: int) -> int:
    """Resident memory of a process; 0 when there is no such process (proc(5): statm counts pages)."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (FileNotFoundError, ProcessLookupError):
        return 0


def kill_exactly(pid: int, start_ticks: int, *, timeout_s: float = KILL_TIMEOUT_S) -> bool:
    """SIGKILL process ``pid`` if it still is the one that started at ``start_ticks``.

    True when it was killed, false when it had gone. Raises TimeLimitError when it survives ``timeout_s``.
    """
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if start_ticks_of(pid) != start_ticks:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        ended, _, _ = select.select([pidfd], [], [], timeout_s)
    finally:
        os.close(pidfd)
    if not ended:
        raise TimeLimitError(
            f"process {pid} did not end within {timeout_s:g} s of SIGKILL", remedy="see `ps -o stat,wchan`"
        )
    return True
