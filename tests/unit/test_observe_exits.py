"""Decoding of recorded kernel records, and how forks, execs and exits become processes."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from framework.errors import MissingRequirementError
from framework.observe import exits as exits_module
from framework.observe.exits import ExitBook, open_recorder, peak_slack_bytes
from framework.observe.netlink import Exec, Fork, ThreadExit, decode_exits, decode_process_events
from framework.observe.recorder import ProcReader
from framework.outcome import ProcessExit

RECORDED = Path(__file__).parent / "recorded" / "netlink"
NODE = "/kilonode/run-1/node-1"
SIGKILL = 9


def datagrams(name: str) -> Iterator[bytes]:
    """Recorded datagrams, each after its length."""
    rest = (RECORDED / name).read_bytes()
    while rest:
        (length,) = struct.unpack_from("=I", rest)
        yield rest[4 : 4 + length]
        rest = rest[4 + length :]


def process(pid: int, comm: str, peak_kib: int = 1024, **changes: int | bool) -> ThreadExit:
    record = ThreadExit(
        pid=pid,
        tgid=pid,
        parent_pid=1,
        comm=comm,
        wait_status=0,
        group_ended=True,
        elapsed_us=1_500_000,
        user_us=300_000,
        system_us=200_000,
        memory_kib_peak=peak_kib,
    )
    return record._replace(**changes)  # type: ignore[arg-type]


class RecordedProc:
    """A /proc in a folder, whose processes come and go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.book = ExitBook(ProcReader(folder))
        self.book.watch(NODE, ())

    def runs(self, pid: int, argv: tuple[str, ...], cgroup: str = NODE, version: int = 1) -> None:
        own = self.folder / str(pid)
        own.mkdir(exist_ok=True)
        line = f"4:memory:{cgroup}\n3:cpuset:/\n0::/\n" if version == 1 else f"0::{cgroup}\n"
        (own / "cgroup").write_text(line)
        (own / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in argv))

    def gone(self, pid: int) -> None:
        for file in (self.folder / str(pid)).iterdir():
            file.unlink()
        (self.folder / str(pid)).rmdir()

    def ended(self, record: ThreadExit) -> ProcessExit:
        self.book.exited(record, at_s=7.0)
        return self.book.exits(NODE)[-1]


@pytest.fixture
def proc(tmp_path: Path) -> RecordedProc:
    return RecordedProc(tmp_path)


def test_recorded_exits_of_linux_6_18() -> None:
    records = [record for datagram in datagrams("exits-6.18.bin") for record in decode_exits(datagram)]
    assert [record.comm for record in records] == ["sleep", "sh", "sh", "python", "python"]
    assert [record.wait_status for record in records] == [0, 3 << 8, SIGKILL, 0, 0]
    assert [record.group_ended for record in records] == [True, True, True, False, True]
    thread, leader = records[3:]
    assert thread.tgid == leader.pid == leader.tgid != thread.pid
    assert leader.memory_kib_peak > 40 * 1024 > thread.memory_kib_peak
    assert leader.elapsed_us > 50_000


def test_recorded_process_events_of_linux_6_18() -> None:
    events = [e for d in datagrams("process_events-6.18.bin") for e in decode_process_events(d)]
    assert [type(event) for event in events] == [Fork, Exec] * 4
    assert isinstance(events[0], Fork)
    assert isinstance(events[2], Fork)
    assert events[0].pid == events[2].parent_pid == events[1].pid


@pytest.mark.parametrize(("version", "comm_offset", "tgid_offset"), [(12, 80, 368), (15, 128, 464)])
def test_both_layouts_of_the_record(version: int, comm_offset: int, tgid_offset: int) -> None:
    stats = bytearray(560)
    struct.pack_into("=H2xIB", stats, 0, version, 5 << 8, 0x20)
    struct.pack_into("=32s16xII8xQQQ32xQ", stats, comm_offset, b"nft", 42, 41, 10, 20, 30, 5056)
    struct.pack_into("=I4xQ", stats, tgid_offset, 42, 99)
    nested = struct.pack("=HHI", 8, 1, 42) + struct.pack("=HH", 4 + len(stats), 3) + stats
    body = bytes(4) + struct.pack("=HH", 4 + len(nested), 4) + nested
    (record,) = decode_exits(struct.pack("=IHHII", 16 + len(body), 30, 0, 0, 0) + body)
    assert record == ThreadExit(42, 42, 41, "nft", 5 << 8, True, 99, 20, 30, 5056)


@given(st.binary(max_size=700), st.integers(0, 600))
def test_malformed_datagrams_are_skipped(noise: bytes, cut: int) -> None:
    whole = next(datagrams("exits-6.18.bin"))
    for datagram in (noise, whole[:cut], whole[:cut] + noise):
        list(decode_exits(datagram))
        list(decode_process_events(datagram))


def test_a_daemon_and_the_child_it_forks(proc: RecordedProc) -> None:
    proc.runs(100, ("kube-proxy", "--config", "x"))
    proc.book.executed(Exec(100))
    proc.book.forked(Fork(parent_pid=100, pid=101))
    proc.runs(101, ("nft", "-f", "-"))
    proc.book.executed(Exec(101))
    ended = proc.ended(process(101, "nft", 113_404, wait_status=SIGKILL, parent_pid=100))
    assert ended.argv == ("nft", "-f", "-")
    assert ended.loads_ruleset
    assert (ended.exit_code, ended.signal) == (None, SIGKILL)
    assert ended.memory_bytes_peak == 113_404 * 1024
    assert (ended.at_s, ended.elapsed_s, ended.cpu_user_s, ended.cpu_system_s) == (7.0, 1.5, 0.3, 0.2)
    assert len(proc.book.exits(NODE)) == 1


def test_gone_before_the_lookup_keeps_the_inherited_cgroup(proc: RecordedProc) -> None:
    proc.runs(100, ("kube-proxy",))
    proc.book.executed(Exec(100))
    proc.book.forked(Fork(parent_pid=100, pid=101))
    proc.book.executed(Exec(101))
    assert proc.ended(process(101, "nft")).argv is None
    assert proc.book.argv_unknown == 1


def test_an_exiting_process_that_version_1_shows_in_the_root(proc: RecordedProc) -> None:
    proc.runs(100, ("kube-proxy",))
    proc.book.executed(Exec(100))
    proc.book.forked(Fork(parent_pid=100, pid=101))
    proc.runs(101, (), cgroup="/")
    proc.book.executed(Exec(101))
    assert proc.ended(process(101, "nft")).comm == "nft"


def test_a_child_whose_fork_was_lost_is_known_by_its_parent(proc: RecordedProc) -> None:
    proc.runs(100, ("kube-proxy",))
    proc.book.executed(Exec(100))
    ended = proc.ended(process(101, "nft", parent_pid=100))
    assert (ended.pid, ended.argv) == (101, None)


def test_strangers_and_leavers_are_not_kept(proc: RecordedProc) -> None:
    proc.runs(200, ("go", "build"), cgroup="/user")
    proc.book.executed(Exec(200))
    proc.book.exited(process(200, "go"), 1.0)
    proc.runs(201, ("sh",), cgroup=f"{NODE}0")
    proc.book.executed(Exec(201))
    proc.book.exited(process(201, "sh"), 1.0)
    proc.runs(202, ("sh",))
    proc.book.executed(Exec(202))
    proc.runs(202, ("sh",), cgroup="/elsewhere")
    proc.book.executed(Exec(202))
    proc.book.exited(process(202, "sh"), 1.0)
    assert proc.book.exits(NODE) == ()


def test_a_reused_pid_does_not_inherit(proc: RecordedProc) -> None:
    proc.runs(100, ("kube-proxy",))
    proc.book.executed(Exec(100))
    proc.book.forked(Fork(parent_pid=7, pid=100))
    proc.book.exited(process(100, "other"), 1.0)
    assert proc.book.exits(NODE) == ()


def test_threads_are_merged_and_reported_once(proc: RecordedProc) -> None:
    proc.runs(100, ("kubelet",))
    proc.book.executed(Exec(100))
    for tid in (103, 104):
        proc.book.exited(process(tid, "kubelet", 900, tgid=100, group_ended=False), 1.0)
    proc.book.exited(process(100, "kubelet", 5000, group_ended=False, wait_status=3 << 8), 2.0)
    assert proc.book.exits(NODE) == ()
    ended = proc.ended(process(105, "kubelet", 4000, tgid=100))
    assert (ended.pid, ended.exit_code) == (100, 3)
    assert ended.memory_bytes_peak == 5000 * 1024
    assert ended.cpu_user_s == pytest.approx(4 * 0.3)


def test_cgroup_version_2_and_child_cgroups(proc: RecordedProc) -> None:
    proc.runs(100, ("pause",), cgroup=f"{NODE}/pod-1", version=2)
    proc.book.executed(Exec(100))
    proc.book.exited(process(100, "pause"), 1.0)
    assert len(proc.book.exits(NODE)) == len(proc.book.exits(f"{NODE}/pod-1")) == 1
    assert proc.book.exits(f"{NODE}/pod-2") == ()


def test_watching_what_runs_already_and_forgetting(proc: RecordedProc) -> None:
    proc.runs(300, ("kubelet",), cgroup="/other")
    proc.book.watch("/other", (300,))
    proc.book.exited(process(300, "kubelet"), 1.0)
    assert len(proc.book.exits("/other")) == 1
    proc.book.forget("/other")
    assert proc.book.exits("/other") == ()


def test_what_exceeds_the_limit_is_counted_as_lost(
    proc: RecordedProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exits_module, "EXITS_MAX", 1)
    proc.runs(100, ("sh",))
    proc.book.executed(Exec(100))
    for pid in (101, 102):
        proc.book.exited(process(pid, "true", parent_pid=100), 1.0)
    assert (len(proc.book.exits(NODE)), proc.book.overfull) == (1, 1)


def test_a_refusal_falls_back_to_polling_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise MissingRequirementError("the kernel refuses exit records", remedy="run as root")

    monkeypatch.setattr(exits_module, "open_exit_socket", refuse)
    with open_recorder(0.0) as recorder:
        assert recorder.measured_by == "poll"
        assert "refuses exit records" in recorder.why
        assert recorder.lost == recorder.argv_unknown == 0


def test_proc_of_this_very_process() -> None:
    reader = ProcReader()
    argv = reader.argv(os.getpid())
    assert argv is not None
    assert Path(argv[0]).name.startswith(("python", Path(sys.executable).name, "pytest"))
    assert reader.stat(os.getpid())[1] == str(os.getppid())
    assert int(reader.status(os.getpid())["VmHWM"].split()[0]) > 1024


def test_slack_grows_with_the_square_of_many_cpus() -> None:
    page_bytes = os.sysconf("SC_PAGE_SIZE")
    assert peak_slack_bytes(2) == 64 * page_bytes
    assert peak_slack_bytes(64) == 64 * 128 * page_bytes
