"""The memory cgroup of this machine's own kernel: counters, limit, kills, removal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest

from framework.cgroup import MemoryCgroup, detect_mode, memory_cgroup
from framework.errors import KilonodeError
from framework.process import inside
from framework.units import MIB
from framework.wait import wait_until

ALLOCATE_THEN_SLEEP = "b = bytearray({size_bytes}); print('ready', flush=True); import time; time.sleep(60)"


@pytest.fixture
def cgroup() -> Iterator[MemoryCgroup]:
    if os.geteuid() != 0:
        pytest.skip("a memory cgroup needs root; remedy: run the integration tests as root")
    made = memory_cgroup(f"kilonode-test-{uuid.uuid4().hex[:8]}/node-1")
    made.create()
    try:
        yield made
    finally:
        made.remove()
        made.path.parent.rmdir()


def python_inside(cgroup: MemoryCgroup, size_bytes: int) -> subprocess.Popen[bytes]:
    program = [sys.executable, "-S", "-c", ALLOCATE_THEN_SLEEP.format(size_bytes=size_bytes)]
    return subprocess.Popen(inside(program, cgroup_procs=cgroup.procs_path), stdout=subprocess.PIPE)


def test_counters_follow_what_a_process_touches(cgroup: MemoryCgroup) -> None:
    before = cgroup.read()
    assert before.limit_bytes is None
    assert before.oom_kills == 0
    with python_inside(cgroup, 64 * MIB) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert cgroup.pids() == (process.pid,)
        during = cgroup.read()
        assert 64 * MIB < during.anonymous_bytes < 90 * MIB
        assert 0 < during.kernel_bytes < 8 * MIB
        assert during.charged_bytes >= during.anonymous_bytes + during.kernel_bytes
        cgroup.kill_all()
    assert process.returncode == -signal.SIGKILL
    after = cgroup.read()
    assert after.charged_bytes_peak is not None
    assert after.charged_bytes_peak >= during.charged_bytes > after.charged_bytes + 64 * MIB


def test_the_limit_kills_and_the_kill_is_counted_also_from_the_parent(cgroup: MemoryCgroup) -> None:
    cgroup.set_limit(32 * MIB)
    assert cgroup.read().limit_bytes == 32 * MIB
    child = memory_cgroup(f"{cgroup.kernel_path.lstrip('/')}/pod")
    child.create()
    assert cgroup.children == (child,)
    with python_inside(child, 64 * MIB) as process:
        assert process.wait(30) == -signal.SIGKILL
    assert cgroup.read().oom_kills == 1
    assert memory_cgroup(cgroup.kernel_path.lstrip("/")).read().charged_bytes <= 32 * MIB


def test_the_limit_can_be_raised_and_lowered(cgroup: MemoryCgroup) -> None:
    for limit_bytes in (64 * MIB, 256 * MIB, 128 * MIB):
        cgroup.set_limit(limit_bytes)
        assert cgroup.read().limit_bytes == limit_bytes


def test_remove_ends_processes_of_child_cgroups_and_may_be_repeated(cgroup: MemoryCgroup) -> None:
    children = [memory_cgroup(f"{cgroup.kernel_path.lstrip('/')}/pod-{i}") for i in range(3)]
    processes = []
    for child in children:
        child.create()
        processes.append(subprocess.Popen(inside(["sleep", "60"], cgroup_procs=child.procs_path)))
    wait_until(lambda: len(cgroup.pids()) == 3 or None, what="three processes", timeout_s=5)
    cgroup.remove()
    cgroup.remove()
    assert not cgroup.path.exists()
    assert {process.wait(5) for process in processes} == {-signal.SIGKILL}
    assert cgroup.pids() == ()


def test_a_reader_outlives_many_readings_and_names_a_removed_cgroup(cgroup: MemoryCgroup) -> None:
    with cgroup.reader() as reader:
        start_s = time.process_time()
        for _ in range(1000):
            reader.read()
        assert time.process_time() - start_s < 1.0
        cgroup.remove()
        with pytest.raises(KilonodeError, match="was removed"):
            reader.read()


def test_this_machine_has_a_mode() -> None:
    assert detect_mode() in ("v1", "v2")
