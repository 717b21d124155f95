"""The threads of observers: pace, ends, errors, and what they keep."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from framework.cgroup import MemoryCgroup, memory_cgroup
from framework.errors import MissingRequirementError
from framework.observe.follow import Follower
from framework.observe.kernel_log import KernelLog
from framework.observe.polling import PollingRecorder
from framework.observe.recorder import ProcReader
from framework.observe.sampler import CgroupSampler
from framework.ticker import Ticker
from framework.units import KIB, MIB
from framework.wait import wait_until

RECORDED_V2 = Path(__file__).parent / "recorded" / "cgroup_v2"


@pytest.fixture
def node(tmp_path: Path) -> MemoryCgroup:
    shutil.copytree(RECORDED_V2, tmp_path / "cgroup")
    return memory_cgroup("kilonode/node-1", tmp_path / "cgroup")


def eventually(probe: Callable[[], bool]) -> None:
    wait_until(lambda: probe() or None, what="it", timeout_s=5, interval_s=0.005)


def test_a_ticker_does_not_drift_and_skips_what_it_missed() -> None:
    times: list[float] = []

    def act() -> None:
        times.append(time.monotonic())
        if len(times) == 3:
            time.sleep(0.11)

    ticker = Ticker("test", 0.02, act)
    ticker.start()
    eventually(lambda: len(times) >= 10)
    ticker.stop()
    assert times[3] - times[2] >= 0.11
    assert len(times) <= (times[-1] - times[0] - 0.09) / 0.02 + 3
    assert ticker.cpu_s > 0


def test_an_error_in_a_thread_is_raised_by_stop() -> None:
    def fail() -> None:
        raise ValueError("broken")

    ticker = Ticker("test", 0.01, fail)
    ticker.start()
    with pytest.raises(ValueError, match="broken"):
        ticker.stop()
    reader, writer = os.pipe()
    follower = Follower("test", [reader], fail)
    follower.start()
    os.write(writer, b"x")
    eventually(lambda: "test" not in {thread.name for thread in threading.enumerate()})
    with pytest.raises(ValueError, match="broken"):
        follower.stop()
    os.close(reader)
    os.close(writer)


def test_a_follower_that_never_started_stops_twice() -> None:
    follower = Follower("test", [], lambda: None)
    follower.stop()
    follower.stop()


def test_an_urgent_follower_works_with_or_without_the_privilege() -> None:
    reader, writer = os.pipe()
    seen: list[bytes] = []
    follower = Follower("test", [reader], lambda: seen.append(os.read(reader, 10)), urgent=True)
    follower.start()
    os.write(writer, b"x")
    eventually(lambda: seen == [b"x"])
    follower.stop()
    os.close(reader)
    os.close(writer)


def test_samples_and_their_peaks(node: MemoryCgroup) -> None:
    with CgroupSampler(node, 0.0, interval_s=0.005) as sampler:
        eventually(lambda: len(sampler.samples) >= 3)
        assert sampler.sample().charged_bytes == 513 * MIB
    assert [sample.at_s for sample in sampler.samples] == sorted(sample.at_s for sample in sampler.samples)
    assert sampler.unreclaimable_bytes_peak.value == (356 + 94) * MIB
    assert sampler.kernel_bytes_peak.value == 94 * MIB
    assert sampler.unreclaimable_bytes_peak.bound == "lower"


def test_a_long_series_is_thinned_out_and_keeps_its_span(node: MemoryCgroup) -> None:
    with CgroupSampler(node, 0.0, interval_s=0.001, samples_max=8) as sampler:
        eventually(lambda: bool(sampler.samples))
        first = sampler.samples[0]
        time.sleep(0.2)
    assert sampler.samples[0] == first
    assert len(sampler.samples) < 8
    assert sampler.samples[-1].at_s - first.at_s > 0.1


class FakeProc:
    """A /proc and a cgroup whose processes the test starts and ends."""

    def __init__(self, folder: Path, cgroup: MemoryCgroup) -> None:
        self.folder = folder
        self.cgroup = cgroup
        (cgroup.path / "pod" / "cgroup.procs").write_text("")

    def show(self, peaks_kib: dict[int, int], start_ticks: int = 500) -> None:
        for pid, peak_kib in peaks_kib.items():
            own = self.folder / str(pid)
            own.mkdir(parents=True, exist_ok=True)
            (own / "status").write_text(f"Name:\tnft\nPPid:\t7\nVmHWM:\t {peak_kib} kB\n")
            (own / "cmdline").write_bytes(b"nft\0-f\0-\0")
            fields = ["R", "7", *["0"] * 9, "12", "34", *["0"] * 6, str(start_ticks)]
            (own / "stat").write_text(f"{pid} (a ) b) {' '.join(fields)}\n")
        self.cgroup.procs_path.write_text("".join(f"{pid}\n" for pid in peaks_kib))


def test_polling_reports_the_highest_look_once_a_process_is_gone(tmp_path: Path, node: MemoryCgroup) -> None:
    proc = FakeProc(tmp_path / "proc", node)
    proc.show({})
    recorder = PollingRecorder(0.0, why="a test", proc=ProcReader(tmp_path / "proc"))
    recorder.watch(node)
    for peak_kib in (100, 5000, 3000):
        proc.show({41: peak_kib})
        assert recorder.exits(node) == ()
    proc.show({})
    (ended,) = recorder.exits(node)
    assert (ended.pid, ended.parent_pid, ended.comm, ended.argv) == (41, 7, "nft", ("nft", "-f", "-"))
    assert ended.memory_bytes_peak == 5000 * KIB
    assert (ended.source, ended.bound, ended.exit_code, ended.signal) == ("poll", "lower", None, None)
    assert recorder.argv_unknown == 0
    recorder.forget(node)
    assert recorder.exits(node) == ()


def test_polling_tells_a_reused_pid_apart(tmp_path: Path, node: MemoryCgroup) -> None:
    proc = FakeProc(tmp_path / "proc", node)
    recorder = PollingRecorder(0.0, why="a test", proc=ProcReader(tmp_path / "proc"))
    recorder.watch(node)
    proc.show({41: 9000})
    recorder.exits(node)
    proc.show({41: 100}, start_ticks=900)
    (first,) = recorder.exits(node)
    assert first.memory_bytes_peak == 9000 * KIB


def test_a_kernel_log_that_may_not_be_read_names_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(MissingRequirementError, match="dmesg_restrict"):
        KernelLog(0.0, path=str(tmp_path / "none"))


def test_an_overwritten_kernel_log_is_counted_and_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting: list[bytes | OSError] = [OSError(errno.EPIPE, ""), b"6,1,12,-;hello\n", BlockingIOError()]
    answers = iter(waiting)

    def read(_: int, __: int) -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    (tmp_path / "kmsg").touch()
    log = KernelLog(0.0, path=str(tmp_path / "kmsg"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", read)
        assert [line.text for line in log.lines] == ["hello"]
    assert log.overruns == 1
    log.close()
    log.close()
    assert log.kills() == ()
