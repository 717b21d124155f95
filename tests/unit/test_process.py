"""The one way to run a process, on real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework.errors import KilonodeError, MissingRequirementError, TimeLimitError
from framework.process import (
    CAP_SYS_RESOURCE,
    CommandError,
    Completed,
    Daemon,
    describe_exit,
    has_capability,
    inside,
    kill_exactly,
    oom_score_adj_of,
    run,
    start_ticks_of,
)
from framework.wait import wait_until

DEAF = "trap '' TERM; echo listening; while :; do sleep 0.05; done"


@pytest.fixture
def daemons() -> Iterator[list[Daemon]]:
    """Whatever a test appends is killed and reaped after it."""
    started: list[Daemon] = []
    yield started
    for daemon in started:
        daemon.popen.kill()
        daemon.popen.wait(10)


@pytest.fixture
def sleeper(daemons: list[Daemon], tmp_path: Path) -> Daemon:
    daemons.append(Daemon.start("sleeper", ["sleep", "60"], log_path=tmp_path / "logs" / "sleeper.log"))
    return daemons[0]


def shell(daemons: list[Daemon], log_path: Path, script: str) -> Daemon:
    daemons.append(Daemon.start("shell", ["sh", "-c", script], log_path=log_path))
    return daemons[-1]


class TestRun:
    def test_gives_both_outputs(self) -> None:
        completed = run(["sh", "-c", "cat; echo aside >&2"], stdin=b"hello")
        assert (completed.text, completed.stderr, completed.exit_code) == ("hello", b"aside\n", 0)
        assert completed.elapsed_s > 0

    def test_adds_to_the_environment(self, tmp_path: Path) -> None:
        completed = run(["sh", "-c", 'echo "$WHO" "$PWD"; test -n "$PATH"'], env={"WHO": "me"}, cwd=tmp_path)
        assert completed.text == f"me {tmp_path}\n"

    def test_without_input_it_reads_nothing(self) -> None:
        assert run(["cat"], timeout_s=5).stdout == b""

    def test_a_failure_tells_command_output_and_remedy(self) -> None:
        with pytest.raises(CommandError) as caught:
            run(["sh", "-c", "echo no such table >&2; exit 3"], remedy="load the nf_tables module")
        assert str(caught.value) == (
            "sh ended with status 3: no such table (sh -c 'echo no such table >&2; exit 3'). "
            "Remedy: load the nf_tables module"
        )
        assert caught.value.completed.exit_code == 3

    def test_a_failure_may_be_wanted(self) -> None:
        assert run(["false"], check=False).exit_code == 1

    def test_the_time_limit(self) -> None:
        with pytest.raises(TimeLimitError, match=r"sleep did not end within 0\.1 s"):
            run(["sleep", "60"], timeout_s=0.1)

    def test_a_missing_program(self) -> None:
        with pytest.raises(MissingRequirementError, match="there is no program 'kilonode-no-such'"):
            run(["kilonode-no-such"])


class TestCommandError:
    def test_falls_back_to_stdout_and_keeps_the_end(self) -> None:
        completed = Completed(("nft",), 1, b"x" * 9000 + b"the end", b"", 0.1)
        message = str(CommandError(completed, "look"))
        assert "the end (nft)" in message
        assert len(message) < 4200

    def test_says_so_when_there_was_no_output(self) -> None:
        message = str(CommandError(Completed(("nft", "-f", "-"), -9, b"", b"", 0.1), "look"))
        assert message == "nft ended with signal SIGKILL: no output (nft -f -). Remedy: look"


@pytest.mark.parametrize(
    ("exit_code", "words"), [(0, "status 0"), (137, "status 137"), (-15, "signal SIGTERM")]
)
def test_exits_in_words(exit_code: int, words: str) -> None:
    assert describe_exit(exit_code) == words


class TestInside:
    def test_changes_nothing_by_default(self) -> None:
        assert inside(["nft", "-v"]) == ["nft", "-v"]

    def test_enters_the_cgroup_before_the_namespace(self) -> None:
        words = inside(["nft"], cgroup_procs=Path("/cg/cgroup.procs"), netns="node-0")
        assert words[:2] == ["sh", "-c"]
        assert words[3:] == ["/cg/cgroup.procs", "nsenter", "--net=/run/netns/node-0", "--", "nft"]

    def test_makes_mounts_in_a_namespace_of_its_own_after_all_else(self) -> None:
        words = inside(["kubelet"], netns="node-0", binds={Path("/own/var"): Path("/var/x")})
        assert words[:7] == [
            *("nsenter", "--net=/run/netns/node-0", "--"),
            *("unshare", "--mount", "--propagation", "private"),
        ]
        assert words[-5:] == ["bind", "/own/var", "/var/x", "--", "kubelet"]

    def test_keeps_the_pid_and_moves_itself_first(self, tmp_path: Path, daemons: list[Daemon]) -> None:
        procs, log = tmp_path / "cgroup.procs", tmp_path / "log"
        procs.touch()
        daemon = Daemon.start(
            "echo", ["sh", "-c", 'echo $$ "$1"', "-", "a b"], log_path=log, cgroup_procs=procs
        )
        daemons.append(daemon)
        daemon.popen.wait(10)
        assert procs.read_text() == "0\n"
        assert log.read_text() == f"{daemon.pid} a b\n"

    def test_runs_nothing_when_the_cgroup_can_not_be_entered(self, tmp_path: Path) -> None:
        marker = tmp_path / "ran"
        completed = run(inside(["touch", str(marker)], cgroup_procs=tmp_path / "no" / "procs"), check=False)
        assert completed.exit_code != 0
        assert not marker.exists()


class TestWhatAProcessMay:
    def test_its_score_is_the_kernels(self) -> None:
        assert oom_score_adj_of(os.getpid()) == int(Path("/proc/self/oom_score_adj").read_text())
        assert oom_score_adj_of(2**22 + 1) is None

    @pytest.mark.parametrize(("effective", "may"), [("000001fffeffffff", False), ("000001ffffffffff", True)])
    def test_a_capability_is_its_bit(
        self, effective: str, may: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        status = f"Name:\tpytest\nCapPrm:\t0000000000000000\nCapEff:\t{effective}\n"
        monkeypatch.setattr(Path, "read_text", lambda path: status)
        assert has_capability(CAP_SYS_RESOURCE) is may


class TestDaemon:
    def test_stays_until_it_is_stopped(self, sleeper: Daemon) -> None:
        assert sleeper.exit_code is None
        sleeper.require_alive()
        sleeper.stop()
        assert sleeper.exit_code == -signal.SIGTERM

    def test_is_killed_when_it_ignores_term(self, daemons: list[Daemon], tmp_path: Path) -> None:
        daemon = shell(daemons, tmp_path / "log", DEAF)
        wait_until(
            lambda: "listening" in daemon.log_tail() or None, what="the trap", timeout_s=10, interval_s=0.02
        )
        daemon.stop(term_timeout_s=0.2)
        assert daemon.exit_code == -signal.SIGKILL

    def test_may_clean_up_after_term(self, daemons: list[Daemon], tmp_path: Path) -> None:
        script = "trap 'echo bye; exit 7' TERM; echo listening; while :; do sleep 0.05; done"
        daemon = shell(daemons, tmp_path / "log", script)
        wait_until(
            lambda: "listening" in daemon.log_tail() or None, what="the trap", timeout_s=10, interval_s=0.02
        )
        daemon.stop()
        assert (daemon.exit_code, daemon.log_tail()) == (7, "listening\nbye\n")

    def test_stopping_twice_is_harmless(self, sleeper: Daemon) -> None:
        sleeper.stop()
        sleeper.stop()
        assert sleeper.exit_code == -signal.SIGTERM

    def test_that_ended_shows_the_end_of_its_log(self, daemons: list[Daemon], tmp_path: Path) -> None:
        daemon = shell(daemons, tmp_path / "log", "echo failed to find cgroup mounts >&2; exit 1")
        daemon.popen.wait(10)
        with pytest.raises(KilonodeError, match="shell ended with status 1: failed to find cgroup mounts"):
            daemon.require_alive()

    def test_its_log_grows_over_restarts(self, daemons: list[Daemon], tmp_path: Path) -> None:
        for word in ("first", "second"):
            shell(daemons, tmp_path / "log", f"echo {word}").popen.wait(10)
        assert daemons[-1].log_tail() == "first\nsecond\n"
        assert daemons[-1].log_tail(7) == "second\n"


class TestKillExactly:
    def test_kills_the_process_that_was_meant(self, sleeper: Daemon) -> None:
        assert kill_exactly(sleeper.pid, sleeper.start_ticks) is True
        assert sleeper.popen.wait(10) == -signal.SIGKILL

    def test_spares_another_process_with_the_same_pid(self, sleeper: Daemon) -> None:
        assert kill_exactly(sleeper.pid, sleeper.start_ticks - 1) is False
        time.sleep(0.05)
        assert sleeper.exit_code is None

    def test_a_process_that_is_gone(self, sleeper: Daemon) -> None:
        sleeper.stop()
        assert kill_exactly(sleeper.pid, sleeper.start_ticks) is False
        assert start_ticks_of(sleeper.pid) is None

    def test_start_ticks_survive_a_strange_name(self, daemons: list[Daemon], tmp_path: Path) -> None:
        program = tmp_path / "odd) S 1 (name"
        program.symlink_to("/bin/sleep")
        daemon = Daemon.start("odd", [program, "60"], log_path=tmp_path / "log")
        daemons.append(daemon)
        ours = start_ticks_of(daemon.pid)
        assert ours == daemon.start_ticks
        assert ours is not None
        assert ours > 1
