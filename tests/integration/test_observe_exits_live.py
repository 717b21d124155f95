"""Exit records of this machine's own kernel, against what the parent of each process knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.observe.exits import ExitRecorder, open_recorder, peak_slack_bytes
from framework.observe.polling import PollingRecorder
from framework.outcome import ProcessExit
from framework.process import inside, run
from framework.units import KIB, MIB
from framework.wait import wait_until

SLACK_BYTES = peak_slack_bytes(os.cpu_count() or 1)


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    if os.geteuid() != 0:
        pytest.skip("exit records need root; remedy: run the integration tests as root")
    made = memory_cgroup(f"kilonode-test-{uuid.uuid4().hex[:8]}")
    made.create()
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def recorder(cgroup: MemoryCgroup) -> Iterator[ExitRecorder]:
    with ExitRecorder(time.clock_gettime(time.CLOCK_BOOTTIME)) as started:
        started.watch(cgroup)
        yield started


def shell(cgroup: MemoryCgroup, script: str, stdin: bytes = b"") -> int:
    """Run a shell in the cgroup and give its exit status; what it starts is forked inside."""
    done = subprocess.run(
        inside(["sh", "-c", script], cgroup_procs=cgroup.procs_path), input=stdin, check=False
    )
    return done.returncode


def only(exits: tuple[ProcessExit, ...], comm: str) -> ProcessExit:
    (found,) = [ended for ended in exits if ended.comm == comm]
    return found


def test_exit_code_signal_argv_and_times(cgroup: MemoryCgroup, recorder: ExitRecorder) -> None:
    before_s = time.monotonic()
    assert shell(cgroup, "sh -c 'sleep 0.2; exit 3'; sh -c 'sleep 0.1; kill -KILL $$'; true") == 0
    elapsed_s = time.monotonic() - before_s
    slept, failed, _, killed, parent = recorder.exits(cgroup)
    assert slept.argv == ("sleep", "0.2")
    assert 0.2 <= slept.elapsed_s < elapsed_s
    assert failed.argv == ("sh", "-c", "sleep 0.2; exit 3")
    assert (failed.exit_code, failed.signal) == (3, None)
    assert (killed.exit_code, killed.signal) == (None, signal.SIGKILL)
    assert (parent.exit_code, parent.signal) == (0, None)
    assert failed.parent_pid == killed.parent_pid == parent.pid
    assert slept.at_s <= failed.at_s <= killed.at_s <= parent.at_s < elapsed_s + 1
    assert recorder.lost == 0
    assert recorder.argv_unknown == 0


def test_nft_reading_a_transaction(cgroup: MemoryCgroup, recorder: ExitRecorder) -> None:
    assert shell(cgroup, "unshare -n nft -f -", b"add table ip kilonode-test\n") == 0
    nft = only(recorder.exits(cgroup), "nft")
    assert nft.argv == ("nft", "-f", "-")
    assert nft.loads_ruleset
    assert nft.exit_code == 0
    assert nft.memory_bytes_peak > MIB


@pytest.mark.parametrize("size_bytes", [400 * MIB, 600 * MIB])
def test_the_peak_is_what_wait4_tells_the_parent(
    cgroup: MemoryCgroup, recorder: ExitRecorder, size_bytes: int
) -> None:
    """Larger than this process's own RSS, which ru_maxrss inherits at vfork and a record does not."""
    program = inside(
        [sys.executable, "-S", "-c", f"b = bytearray({size_bytes}); del b"], cgroup_procs=cgroup.procs_path
    )
    process = subprocess.Popen(program)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    (recorded,) = recorder.exits(cgroup)
    assert recorded.pid == process.pid
    assert abs(recorded.memory_bytes_peak - usage.ru_maxrss * KIB) <= SLACK_BYTES
    assert recorded.cpu_user_s + recorded.cpu_system_s == pytest.approx(
        usage.ru_utime + usage.ru_stime, abs=0.15
    )


def test_many_threads_make_one_process(cgroup: MemoryCgroup, recorder: ExitRecorder) -> None:
    script = (
        "import threading, time, sys\n"
        "threads = [threading.Thread(target=time.sleep, args=(0.05,)) for _ in range(20)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "b = bytearray(400 << 20); sys.exit(7)"
    )
    process = subprocess.Popen(inside([sys.executable, "-c", script], cgroup_procs=cgroup.procs_path))
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    (recorded,) = recorder.exits(cgroup)
    assert recorded.exit_code == 7
    assert recorded.memory_bytes_peak >= 400 * MIB
    assert abs(recorded.memory_bytes_peak - usage.ru_maxrss * KIB) <= SLACK_BYTES


def test_two_hundred_short_processes_are_all_seen(cgroup: MemoryCgroup, recorder: ExitRecorder) -> None:
    assert shell(cgroup, "i=0; while [ $i -lt 200 ]; do /bin/true $i; i=$((i + 1)); done") == 0
    short = [ended for ended in recorder.exits(cgroup) if ended.comm == "true"]
    assert len({ended.pid for ended in short}) == 200
    assert recorder.lost == 0
    known = [ended.argv for ended in short if ended.argv is not None]
    assert set(known) <= {("/bin/true", str(i)) for i in range(200)}
    assert recorder.argv_unknown == 200 - len(known)


def test_command_lines_are_read_while_this_process_computes(
    cgroup: MemoryCgroup, recorder: ExitRecorder
) -> None:
    """Between two polls, which give the interpreter away, it computes for several lives of a child."""
    script = "for i in $(seq 50); do sleep 0.01; done"
    with subprocess.Popen(inside(["sh", "-c", script], cgroup_procs=cgroup.procs_path)) as process:
        while process.poll() is None:
            for _ in range(500):
                json.loads(json.dumps({str(i): i for i in range(500)}))
    slept = [ended for ended in recorder.exits(cgroup) if ended.comm == "sleep"]
    assert len(slept) == 50
    assert sum(ended.argv is None for ended in slept) <= 5


def test_the_interpreter_is_left_as_it_was(cgroup: MemoryCgroup) -> None:
    before_s = sys.getswitchinterval()
    with ExitRecorder(0.0) as recorder:
        assert sys.getswitchinterval() < before_s
    recorder.close()
    assert sys.getswitchinterval() == before_s


def test_processes_of_other_cgroups_are_not_kept(cgroup: MemoryCgroup, recorder: ExitRecorder) -> None:
    for _ in range(20):
        subprocess.run(["true"], check=True)
    assert recorder.exits(cgroup) == ()
    shell(cgroup, "sleep 0.05; true")
    assert {ended.comm for ended in recorder.exits(cgroup)} == {"sh", "sleep"}
    recorder.forget(cgroup)
    shell(cgroup, "sleep 0.05; true")
    assert recorder.exits(cgroup) == ()


def test_processes_that_ran_before_the_watch_are_recorded(cgroup: MemoryCgroup) -> None:
    early = subprocess.Popen(
        inside(["sh", "-c", "echo; read line; exit 5"], cgroup_procs=cgroup.procs_path),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with early, ExitRecorder(0.0) as recorder:
        assert early.stdout is not None
        early.stdout.readline()
        recorder.watch(cgroup)
        early.communicate(b"\n")
    (recorded,) = recorder.exits(cgroup)
    assert (recorded.pid, recorded.exit_code) == (early.pid, 5)
    assert recorded.argv == ("sh", "-c", "echo; read line; exit 5")


def test_an_overrun_of_a_tiny_buffer_is_counted(cgroup: MemoryCgroup) -> None:
    recorder = ExitRecorder(0.0, receive_buffer_bytes=4096)
    recorder.watch(cgroup)
    try:
        assert shell(cgroup, "for i in $(seq 100); do /bin/true; done") == 0
        assert len(recorder.exits(cgroup)) < 101
        assert recorder.lost >= 1
    finally:
        recorder.close()


def test_the_best_recorder_is_chosen_and_says_so(cgroup: MemoryCgroup) -> None:
    recorder = open_recorder(0.0)
    assert isinstance(recorder, ExitRecorder)
    with recorder:
        assert recorder.measured_by == "exit_record"
        assert recorder.why == ""


def test_outside_the_initial_network_namespace_it_polls_and_says_why() -> None:
    program = (
        "from framework.observe.exits import open_recorder\n"
        "with open_recorder(0.0) as recorder: print(recorder.measured_by, recorder.why)"
    )
    done = run(["unshare", "-n", sys.executable, "-c", program])
    assert done.text.startswith("poll the kernel refuses")
    assert "Remedy: run as root" in done.text


def test_polling_sees_a_lower_bound(cgroup: MemoryCgroup) -> None:
    script = "b = bytearray(48 << 20); import time; time.sleep(0.3)"
    with PollingRecorder(time.clock_gettime(time.CLOCK_BOOTTIME), why="a test") as recorder:
        recorder.watch(cgroup)
        process = subprocess.Popen(inside([sys.executable, "-c", script], cgroup_procs=cgroup.procs_path))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        exits = wait_until(lambda: recorder.exits(cgroup) or None, what="the exit", timeout_s=5)
    seen = exits[-1]
    assert seen.argv == (sys.executable, "-c", script)
    assert (seen.source, seen.bound, seen.exit_code, seen.signal) == ("poll", "lower", None, None)
    assert 48 * MIB <= seen.memory_bytes_peak <= usage.ru_maxrss * KIB + SLACK_BYTES
    assert 0.3 <= seen.elapsed_s < 5
