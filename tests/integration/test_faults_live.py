"""Faults under a run: whatever hurts it, nothing stays behind, nothing written is lost, nothing passes.

Each story is a run of its own in a machine that is counted before it and after the next command; what the
user is told is read in its output and in its run folder. A run that lives beside it must not notice.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest

from framework import RunResult, Verdict, load_run
from framework.cgroup import memory_cgroup
from framework.cluster import EmbeddedCluster
from framework.cluster.control_plane import CONTROLLERS, STORAGE
from framework.guard import FLOOR_BYTES, memory_available_bytes
from framework.ledger import clean, machine_lock
from framework.process import executable_name, run
from framework.report import PhaseName, load_session
from framework.units import KIB, MIB
from framework.wait import wait_until

if TYPE_CHECKING:
    from tests.integration.conftest import Machine, Story

Tell = Callable[..., "Story"]
Count = Callable[[], "Machine"]
PidOf = Callable[["Story", str], int]

MEASURES = """
from framework import Expectation, Watch

def test_story(fleet, real_node, daemonset_service, kube_proxy):
    service = daemonset_service(endpoints=30)
    node = real_node(memory="1GiB", kube_proxy=kube_proxy)
    measurement = node.program(service, Watch(until_s=4.0))
    measurement.expect(Expectation(programming="programmed", ready_throughout=True))
"""
AND_AGAIN = """
def test_later(fleet, real_node, daemonset_service, kube_proxy):
    service = daemonset_service(endpoints=30)
    real_node(memory="1GiB", kube_proxy=kube_proxy)
"""
WITH_FLEET = MEASURES.replace("    service =", "    fleet.grow_to(30)\n    service =")
KILLED_IN = """
import os, signal, threading
from contextlib import contextmanager
from pathlib import Path

import framework.ground
from framework.fleet import Snapshots
from framework.lab import Lab

if {phase!r} == "leases":
    framework.ground.NODES_RESTORED_MIN = 10
    below = Snapshots.below
    Snapshots.below = lambda root: below(Path("cache").absolute())
told = Lab.phase

@contextmanager
def phase(self, name, detail, total=None):
    with told(self, name, detail, total):
        if name == {phase!r}:
            threading.Timer({delay_s}, os.kill, (os.getpid(), signal.SIGKILL)).start()
        yield

Lab.phase = phase
"""
OPTIONS = ("--max-nodes=100", "--endpoint-mode=endpointslices", "--kube-proxy=1.37.2")
THREADS_ENDING = """
import _thread, time
for _ in range({count}):
    while True:
        try:
            _thread.start_new_thread(int, ())
            break
        except RuntimeError:
            time.sleep(0.001)
time.sleep(0.5)
"""
HOLDS = """
import mmap, pathlib, sys, time
pathlib.Path("/proc/self/oom_score_adj").write_text("1000")
held = []
def available_kib():
    meminfo = pathlib.Path("/proc/meminfo").read_text()
    return int(meminfo.partition("MemAvailable:")[2].split()[0])
while (spare_kib := available_kib() - int(sys.argv[1])) > 0:
    held.append(mmap.mmap(-1, max(16 << 20, spare_kib * 1024 // 2)))
    held[-1].madvise(23)  # MADV_POPULATE_WRITE
print(flush=True)
time.sleep(120)
"""
HOLDS_LOCKS = """
import sys, filelock
held = [filelock.FileLock(path).acquire() for path in sys.argv[1:]]
print(flush=True)
input()
"""
RUNS_BYTES = 256 * MIB
LEFT_BYTES = 48 * KIB
MEASURING_TIMEOUT_S = 120.0


@pytest.fixture
def before(cluster: EmbeddedCluster, machine_now: Count) -> Machine:
    """The machine with the run that lives, before the story begins."""
    assert cluster.lost == ()
    return machine_now()


@pytest.fixture
def cleaned(
    before: Machine, machine_now: Count, cluster: EmbeddedCluster, live_state: Path
) -> Callable[[], None]:
    """Asserts that the next command leaves nothing of the story, and what lives or was kept as it is."""

    def check() -> None:
        assert clean(live_state, include_kept=False)[1] == ()
        assert machine_now().beyond(before) == {}
        assert set(cluster.component_pids()) == {*STORAGE, *CONTROLLERS}
        assert all(cluster.component_pids().values())

    return check


@pytest.fixture
def pid_of(runs_now: Callable[[], frozenset[str]], before: Machine) -> PidOf:
    """``pid_of(story, "etcd")``: the process of a story's control plane or node that runs a program."""
    earlier = runs_now()

    def find(story: Story, program: str) -> int:
        assert story.process.poll() is None, story.output
        (run_id,) = runs_now() - earlier
        pids = (pid for part in memory_cgroup(f"kilonode-{run_id}").walk() for pid in part.pids())
        (pid,) = {pid for pid in pids if program in {executable_name(pid), comm_of(pid)}}
        return pid

    return find


def comm_of(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def begun(tell: Tell, source: str = MEASURES, *options: str) -> Story:
    """A story in the middle of its first measurement."""
    story = tell(source, *OPTIONS, *options)
    story.wait_until_measuring()
    return story


def only_result(story: Story) -> tuple[RunResult, Verdict]:
    (result,) = load_run(story.latest)
    assert result.verdict is not None
    return result, result.verdict


def in_one_line(text: str) -> str:
    return " ".join(text.split())


PHASES = {
    "cluster": 1.0,
    "fleet": 0.05,
    "leases": 0.5,
    "workload": 0.0,
    "node": 1.0,
    "baseline": 0.2,
    "programming": 1.0,
    "evidence": 0.0,
    "teardown": 0.2,
}
"""How far into each phase its run is killed, in seconds."""
AT_ONCE = (
    ("cluster", "workload", "programming"),
    ("fleet", "node", "evidence"),
    ("leases", "baseline", "teardown"),
)


@pytest.mark.parametrize("phases", AT_ONCE, ids="-".join)
def test_sigkill_in_each_phase(
    phases: tuple[str, ...], tell: Tell, before: Machine, cleaned: Callable[[], None], machine_now: Count
) -> None:
    """Several runs are killed beside each other, each in a phase of its own."""
    stories = {
        phase: tell(KILLED_IN.format(phase=phase, delay_s=PHASES[phase]) + WITH_FLEET, *OPTIONS, name=phase)
        for phase in phases
    }
    for phase, story in stories.items():
        assert story.end() == -signal.SIGKILL, story.output
        assert f"{phase} started" in story.output
        assert "passed" not in story.output
    left = machine_now().beyond(before)
    assert left.keys() >= {"processes", "netns", "links", "cgroups", "mounts", "files"}
    cleaned()
    for phase, story in stories.items():
        assert load_session(story.latest.resolve()).ended_utc is None
        for result in load_run(story.latest):
            assert result.stage == ("checked" if phase == "teardown" else "started")


def test_every_phase_is_tried() -> None:
    assert sorted(PHASES) == sorted(phase for phases in AT_ONCE for phase in phases)
    assert set(get_args(PhaseName)) - PHASES.keys() == {"trials", "binaries", "profile", "checks"}


class TestControlC:
    @pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
    def test_once_the_run_removes_all_itself(
        self, signum: signal.Signals, tell: Tell, before: Machine, machine_now: Count
    ) -> None:
        """As from a terminal, to the whole group; SIGTERM is what ends a job in CI."""
        story = begun(tell)
        os.killpg(story.process.pid, signum)
        assert story.end() == pytest.ExitCode.INTERRUPTED, story.output
        assert machine_now().beyond(before) == {}
        result, verdict = only_result(story)
        assert (result.stage, verdict.result) == ("started", "unknown")
        assert verdict.reasons == ("it was interrupted",)
        assert load_session(story.latest.resolve()).ended_utc is not None
        assert "it was interrupted" in story.output

    def test_twice_is_answered(self, tell: Tell, before: Machine, machine_now: Count) -> None:
        story = begun(tell)
        os.killpg(story.process.pid, signal.SIGINT)
        self.until_teardown(story)
        os.killpg(story.process.pid, signal.SIGINT)
        assert story.end() == pytest.ExitCode.INTERRUPTED, story.output
        assert "still removing what this run made; Ctrl-C once more leaves the rest to" in story.output
        assert machine_now().beyond(before) == {}

    def test_a_third_one_ends_it(self, tell: Tell, cleaned: Callable[[], None]) -> None:
        story = begun(tell)
        os.killpg(story.process.pid, signal.SIGINT)
        self.until_teardown(story)
        for _ in range(2):
            os.killpg(story.process.pid, signal.SIGINT)
            time.sleep(0.2)
        assert story.end() == pytest.ExitCode.INTERRUPTED, story.output
        assert "the rest is left to `kilonode clean`" in story.output
        assert "Traceback" not in story.output
        cleaned()

    @staticmethod
    def until_teardown(story: Story) -> None:
        wait_until(
            lambda: "teardown started" in story.output or None,
            what="the teardown",
            timeout_s=60.0,
            interval_s=0.02,
            describe=lambda: story.output,
        )


@pytest.mark.parametrize("component", ["etcd", "kube-apiserver"])
def test_a_control_plane_that_is_lost(
    component: str, tell: Tell, pid_of: PidOf, cleaned: Callable[[], None]
) -> None:
    story = begun(tell, MEASURES + AND_AGAIN)
    os.kill(pid_of(story, component), signal.SIGKILL)
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    assert f"the embedded cluster was lost under the run: its {component} ended" in story.output
    assert "the shared environment is broken: the embedded cluster was lost" in in_one_line(story.output)
    assert "Traceback" not in story.output
    _, verdict = only_result(story)
    assert verdict.result == "unknown"
    assert verdict.reasons[0] == f"{component} of the control plane ended"
    assert f"unknown 30 x 1.37.2: {component} of the control plane ended" in story.output
    cleaned()


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (("kwok", signal.SIGKILL), "kwok of the control plane ended"),
        (("kwok", signal.SIGSTOP), "kwok of the control plane was stopped by a signal and stands still"),
        (("kube-controller-manager", signal.SIGKILL), "kube-controller-manager of the control plane ended"),
        (("containerd", signal.SIGKILL), "ended by SIGKILL, and the kernel log has no OOM kill of it"),
    ],
    ids=lambda value: f"{value[0]}-{value[1].name}" if isinstance(value, tuple) else "",
)
def test_what_a_measurement_goes_on_without_is_told(
    fault: tuple[str, signal.Signals], cause: str, tell: Tell, pid_of: PidOf, cleaned: Callable[[], None]
) -> None:
    story = begun(tell)
    program, signum = fault
    os.kill(pid_of(story, program), signum)
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    result, verdict = only_result(story)
    assert (result.stage, verdict.result) == ("checked", "unknown")
    assert cause in verdict.reasons[0]
    assert cause in in_one_line(story.output.partition("Full result:")[2])
    assert result.evidence is not None
    assert result.evidence.exits
    cleaned()


def test_exit_records_that_are_lost(tell: Tell, cleaned: Callable[[], None]) -> None:
    story = begun(tell, MEASURES.replace('programming="programmed"', "nft_bytes_below=100 << 20"))
    story.process.send_signal(signal.SIGSTOP)
    try:
        for _ in range(2):
            subprocess.run([sys.executable, "-c", THREADS_ENDING.format(count=60_000)], check=True)
    finally:
        story.process.send_signal(signal.SIGCONT)
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    result, verdict = only_result(story)
    assert result.evidence is not None
    assert result.evidence.exit_records_lost > 0
    assert verdict.result == "unknown"
    assert "exit records were lost" in verdict.reasons[0]
    cleaned()


def test_a_disk_that_is_full(tell: Tell, tmp_path: Path, before: Machine, machine_now: Count) -> None:
    with small_disk(tmp_path / "small") as disk:
        story = tell(MEASURES, *OPTIONS, f"--runs-dir={disk / 'runs'}")
        wait_until(
            lambda: next(disk.glob("runs/latest/*/result.json"), None),
            what="a measurement",
            timeout_s=MEASURING_TIMEOUT_S,
            describe=lambda: story.output,
        )
        free_bytes = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        (disk / "filled").write_bytes(b"x" * (free_bytes - LEFT_BYTES))
        assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
        assert "nothing more can be written: No space left on device" in story.output
        assert "Remedy: free space on the disk of" in story.output
        assert "Traceback" not in story.output
        (result,) = load_run(disk / "runs" / "latest")
        assert (result.stage, result.evidence) == ("started", None)
        assert result.verdict is not None
        assert result.verdict.result == "unknown"
        assert "No space left" in result.verdict.reasons[0]
    assert machine_now().beyond(before) == {}


@contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    place.mkdir()
    run(["mount", "-t", "tmpfs", "-o", f"size={RUNS_BYTES}", "kilonode-small", str(place)])
    try:
        yield place
    finally:
        run(["umount", "--lazy", str(place)])


@pytest.mark.parametrize("step_s", [120.0, -120.0], ids=["forward", "back"])
def test_a_clock_that_is_set_and_set_back(step_s: float, tell: Tell, cleaned: Callable[[], None]) -> None:
    story = begun(tell)
    with wall_clock_off_by(step_s):
        time.sleep(1.0)
    assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    _, verdict = only_result(story)
    assert verdict.result == "unknown"
    assert verdict.reasons[0].startswith("the machine's clock was set 120.0 s")
    cleaned()


@contextmanager
def wall_clock_off_by(step_s: float) -> Iterator[None]:
    offset_s = time.clock_gettime(time.CLOCK_REALTIME) - time.clock_gettime(time.CLOCK_BOOTTIME)
    time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_BOOTTIME) + offset_s + step_s)
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.clock_gettime(time.CLOCK_BOOTTIME) + offset_s)


def test_a_lock_whose_holder_was_killed_is_free(live_state: Path, ledger: object) -> None:
    names = ("runs", "network")
    argv = [sys.executable, "-c", HOLDS_LOCKS, *(str(live_state / f"{name}.lock") for name in names)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
    begun_s = time.monotonic()
    for name in names:
        with machine_lock(name, live_state):
            assert time.monotonic() - begun_s < 1.0


def test_a_machine_whose_memory_is_nearly_gone(tell: Tell, cleaned: Callable[[], None]) -> None:
    story = begun(tell, MEASURES.replace("until_s=4.0", "until_s=100.0"))
    with memory_taken(leaving_bytes=FLOOR_BYTES * 7 // 10):
        assert memory_available_bytes() < FLOOR_BYTES
        assert story.end() == pytest.ExitCode.TESTS_FAILED, story.output
    assert "MiB of memory are available on this machine, the run stops below 1,024 MiB" in story.output
    assert "Remedy: use fewer nodes" in story.output
    _, verdict = only_result(story)
    assert verdict.result == "unknown"
    assert "of memory are available on this machine" in verdict.reasons[0]
    cleaned()


@contextmanager
def memory_taken(*, leaving_bytes: int) -> Iterator[None]:
    argv = [sys.executable, "-c", HOLDS, str(leaving_bytes // KIB)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        try:
            yield
        finally:
            holder.kill()
