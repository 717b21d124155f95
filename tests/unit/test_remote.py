"""Nodes that a command prefix reaches, tried with prefixes of this machine."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from framework.errors import KilonodeError
from framework.observe import RemoteProcesses, joined, kills_in
from framework.observe.remote_processes import ENDED_AFTER_S, Looks
from framework.outcome import OomKill, ProcessExit
from framework.remote import FIRST_PID_NAMESPACE, LOOK_END, Remote
from framework.units import KIB

AS_DOCKER = ("env",)
AS_SSH = ("sh", "-c", 'exec sh -c "$*"', "ssh")
STAT = "S 40 7 7 0 -1 4194304 5 0 0 0 12 34 0 0 20 0 1 0 {start} 5 6"
DMESG = """\
[  100.000000] nft invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=-997
[  100.100000] [  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name
[  100.100001] [   4242]     0  4242   300000   270000  2400256        0          -997 nft
[  100.200000] oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,\
task_memcg=/kubepods/pod1,task=nft,pid=4242,uid=0
[  100.300000] Out of memory: Killed process 4242 (nft) total-vm:1200000kB, anon-rss:1079000kB, \
file-rss:1000kB, shmem-rss:0kB, UID:0 pgtables:2344kB oom_score_adj:-997
"""


@pytest.mark.parametrize(("command", "splits"), [(AS_DOCKER, False), (AS_SSH, True)])
def test_words_arrive_whole_through_either_kind_of_prefix(command: tuple[str, ...], splits: bool) -> None:
    remote = Remote.ask(command)
    assert remote.splits_words is splits
    assert remote.text_of("printf", "%s|", "a  b", "$HOME", "c'd") == "a  b|$HOME|c'd|"
    assert remote.text_of("false") is None


@pytest.mark.parametrize("command", [("false",), ("sh", "-c", "echo Permission denied >&2; exit 255")])
def test_a_prefix_that_runs_nothing_is_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(KilonodeError, match=r"it did not run echo.*--node-command"):
        Remote.ask(command)


@pytest.mark.parametrize("command", [AS_DOCKER, AS_SSH])
def test_processes_are_seen_with_their_command_line_and_peak(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    nft = tmp_path / "nft"
    shutil.copy2("/bin/sleep", nft)
    remote = Remote.ask(command)
    assert remote.why_no_processes() == ""
    begin_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    with RemoteProcesses(remote, begin_s) as processes:
        with subprocess.Popen([nft, "3"]) as process:
            assert not processes.exits()
            peak_kib = int(
                next(
                    line.split()[1]
                    for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
                    if line.startswith("VmHWM")
                )
            )
        (seen,) = (each for each in processes.exits() if each.pid == process.pid)
        assert processes.lost == 0
    assert seen.argv == (str(nft), "3")
    assert seen.memory_bytes_peak == peak_kib * KIB
    assert (seen.bound, seen.source, seen.signal, seen.loads_ruleset) == ("lower", "poll", None, False)
    assert 0.5 < seen.elapsed_s < 3
    assert 0.5 < seen.at_s < 5


def test_without_a_shell_there_are_no_processes(tmp_path: Path) -> None:
    distroless = tmp_path / "exec"
    distroless.write_text('#!/bin/sh\n[ "$1" = echo ] && exec "$@"\nexit 126\n')
    distroless.chmod(0o700)
    remote = Remote.ask([str(distroless)])
    assert "runs no sh" in remote.why_no_processes()
    assert "container" in remote.why_no_kills()


def test_kills_count_on_the_machine_itself(tmp_path: Path) -> None:
    machine = tmp_path / "exec"
    machine.write_text(
        f'#!/bin/sh\ncase $1 in echo) exec "$@";; readlink) echo "{FIRST_PID_NAMESPACE}";; *) exit 1;; esac\n'
    )
    machine.chmod(0o700)
    assert "may not run dmesg" in Remote.ask([str(machine)]).why_no_kills()


class TestLooks:
    def test_a_process_grows_and_ends(self) -> None:
        looks = Looks(100.0)
        for at_s, kib in ((101.0, 1000), (101.1, 5000), (101.2, 0)):
            looks.feed(f"{kib} 42 (nft) {STAT.format(start=9)}|nft -f - ", at_s)
            looks.feed(LOOK_END, at_s)
        assert not looks.exits
        looks.feed(LOOK_END, 101.3 + ENDED_AFTER_S)
        (ended,) = looks.exits
        assert (ended.pid, ended.parent_pid, ended.memory_bytes_peak) == (42, 40, 5000 * KIB)
        assert ended.loads_ruleset is True
        assert ended.at_s == pytest.approx(1.2)
        assert ended.elapsed_s == pytest.approx(0.2)
        assert (ended.cpu_user_s, ended.cpu_system_s) == (0.12, 0.34)

    def test_a_zombie_that_was_not_met_alive_tells_nothing(self) -> None:
        looks = Looks(0.0)
        looks.feed(f"0 42 (nft) {STAT.format(start=9)}|", 1.0)
        looks.feed(LOOK_END, 9.0)
        assert not looks.exits

    def test_a_pid_that_is_used_again_is_another_process(self) -> None:
        looks = Looks(0.0)
        for start in (9, 10):
            looks.feed(f"10 42 (nft) {STAT.format(start=start)}|nft -f - ", 1.0)
        looks.feed(LOOK_END, 2.0)
        assert len(looks.exits) == 2

    def test_a_time_without_looks_counts(self) -> None:
        looks = Looks(0.0)
        for at_s in (1.0, 1.1, 9.0):
            looks.feed(LOOK_END, at_s)
        assert looks.gaps == 1

    @pytest.mark.parametrize("line", ["", "sh: not found", "12 34 (nft) S|nft", "x 1 (nft) S 1|nft"])
    def test_other_lines_are_nothing(self, line: str) -> None:
        looks = Looks(0.0)
        looks.feed(line, 1.0)
        looks.feed(LOOK_END, 9.0)
        assert not looks.exits


class TestKills:
    def kills(self) -> tuple[OomKill, ...]:
        return kills_in(DMESG, offset_s=-90.0)

    def test_the_nodes_log_tells_who_was_killed(self) -> None:
        (kill,) = self.kills()
        assert (kill.victim_pid, kill.victim_comm) == (4242, "nft")
        assert kill.at_s == pytest.approx(10.3)
        assert kill.victim_cgroup == "/kubepods/pod1"
        assert [candidate.comm for candidate in kill.candidates] == ["nft"]

    def test_a_process_that_it_killed_died_by_sigkill(self) -> None:
        looks = Looks(0.0)
        for pid in (4242, 4243):
            looks.feed(f"10 {pid} (nft) {STAT.format(start=9)}|nft -f - ", 1.0)
        looks.feed(LOOK_END, 9.0)
        ends: tuple[ProcessExit, ...] = joined(looks.exits, self.kills())
        assert [each.signal for each in ends] == [signal.SIGKILL, None]
