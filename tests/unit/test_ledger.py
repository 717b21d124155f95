"""What a run created is written down first, and removed by it or by the next one."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework import ledger as module
from framework.errors import BadInputError, KilonodeError, TimeLimitError
from framework.ledger import (
    STATE_ENV,
    EngineData,
    File,
    Folder,
    Ledger,
    MountPoint,
    Netns,
    Process,
    Sysctl,
    all_runs,
    clean,
    machine_lock,
    mounts_below,
    read_things,
    state_root,
)
from framework.process import start_ticks_of

HOLD = """
import sys, time
from pathlib import Path
from framework.ledger import Folder, Ledger
root = Path(sys.argv[1])
ledger = Ledger.begin(root)
thing = root / "thing-of-the-other"
ledger.record(Folder(str(thing)))
thing.mkdir()
print(ledger.run_id, flush=True)
time.sleep(60)
"""
BEGIN_AND_FINISH = """
import sys
from pathlib import Path
from framework.ledger import Ledger
for _ in range(40):
    ledger = Ledger.begin(Path(sys.argv[1]))
    assert (ledger.folder / "owner.lock").exists(), "cleaned away"
    assert ledger.finish() == ()
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.begin(tmp_path)


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in /proc/sys's place, with two sysctls."""
    folder = tmp_path / "proc-sys"
    for key, value in (("vm/overcommit_memory", "0\n"), ("kernel/panic", "1\n")):
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_text(value)
    monkeypatch.setattr(module, "PROC_SYS", folder)
    return folder


@pytest.fixture
def other_process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A second process with a live run in the same state folder, and the run's id."""
    argv = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def a_folder(ledger: Ledger, path: Path) -> Folder:
    thing = Folder(str(path))
    ledger.record(thing)
    path.mkdir(parents=True)
    return thing


class TestOneRun:
    def test_has_a_closed_folder_of_its_own(self, ledger: Ledger) -> None:
        assert ledger.folder.stat().st_mode & 0o777 == 0o700
        assert Ledger.begin(ledger.folder.parents[1]).run_id != ledger.run_id

    def test_a_thing_is_on_disk_before_it_exists(self, ledger: Ledger, tmp_path: Path) -> None:
        thing = Folder(str(tmp_path / "never-made"))
        ledger.record(thing)
        assert read_things(ledger.folder / "ledger.jsonl") == (thing,)
        assert ledger.finish() == ()

    def test_undoes_the_newest_first(self, ledger: Ledger, tmp_path: Path, sysctls: Path) -> None:
        ledger.record(Sysctl("kernel/panic", "first"))
        ledger.record(Sysctl("kernel/panic", "second"))
        assert ledger.finish() == ()
        assert (sysctls / "kernel/panic").read_text() == "first"

    def test_what_was_undone_is_forgotten_and_the_rest_is_kept(self, ledger: Ledger, tmp_path: Path) -> None:
        first, second = (a_folder(ledger, tmp_path / name) for name in ("first", "second"))
        assert ledger.undo([first]) == ()
        assert ledger.things() == (second,)
        assert not Path(first.path).exists()
        assert Path(second.path).exists()

    def test_a_line_that_was_cut_short_is_passed_over(self, ledger: Ledger, tmp_path: Path) -> None:
        whole = a_folder(ledger, tmp_path / "whole")
        file = ledger.folder / "ledger.jsonl"
        file.write_bytes(file.read_bytes() + b'{"type":"Folder","path":"/ho')
        assert ledger.things() == (whole,)
        assert ledger.finish() == ()
        assert not (tmp_path / "whole").exists()

    def test_who_left_what_is_an_error(self, ledger: Ledger, tmp_path: Path, sysctls: Path) -> None:
        stuck = Sysctl("kernel/no-such-thing", "1")
        ledger.record(stuck)
        with pytest.raises(KilonodeError, match=r"the node left something behind: .*no-such-thing") as caught:
            ledger.remove([stuck], whose="the node", where="real-1")
        assert (caught.value.where, caught.value.remedy) == ("real-1", "run `kilonode clean`")
        assert ledger.things() == (stuck,)

    def test_what_can_not_be_removed_is_told_and_stays_written_down(
        self, ledger: Ledger, tmp_path: Path, sysctls: Path
    ) -> None:
        removable = a_folder(ledger, tmp_path / "removable")
        stuck = Sysctl("kernel/no-such-thing", "1")
        ledger.record(stuck)
        (failure,) = ledger.finish()
        assert "kernel/no-such-thing" in failure
        assert not Path(removable.path).exists()
        assert read_things(ledger.folder / "ledger.jsonl") == (removable, stuck)

    def test_a_file_goes_and_so_does_a_link_that_leads_nowhere(self, ledger: Ledger, tmp_path: Path) -> None:
        for name in ("file", "link", "never-made"):
            ledger.record(File(str(tmp_path / name)))
        (tmp_path / "file").touch()
        (tmp_path / "link").symlink_to("nowhere")
        assert ledger.finish() == ()
        assert not os.path.lexists(tmp_path / "file")
        assert not os.path.lexists(tmp_path / "link")

    def test_a_mount_point_goes_unless_somebody_uses_it_meanwhile(
        self, ledger: Ledger, tmp_path: Path
    ) -> None:
        for name in ("empty", "used", "never-made"):
            ledger.record(MountPoint(str(tmp_path / name)))
        (tmp_path / "empty").mkdir()
        (tmp_path / "used" / "by-others").mkdir(parents=True)
        assert ledger.finish() == ()
        assert not (tmp_path / "empty").exists()
        assert (tmp_path / "used" / "by-others").is_dir()

    def test_a_process_is_killed_but_not_a_stranger_with_its_pid(self, ledger: Ledger) -> None:
        with subprocess.Popen(["sleep", "60"]) as mine, subprocess.Popen(["sleep", "60"]) as stranger:
            ticks = start_ticks_of(mine.pid)
            assert ticks is not None
            ledger.record(Process(mine.pid, ticks))
            ledger.record(Process(stranger.pid, 1))
            try:
                assert ledger.finish() == ()
                assert mine.wait(5) == -9
                assert stranger.poll() is None
            finally:
                mine.kill()
                stranger.kill()


class TestCleaning:
    def test_a_live_run_is_left_alone_and_removed_when_it_died(
        self, tmp_path: Path, other_process: tuple[subprocess.Popen[str], str]
    ) -> None:
        process, run_id = other_process
        assert [(run.run_id, run.state) for run in all_runs(tmp_path / "runs")] == [(run_id, "alive")]
        assert clean(tmp_path, include_kept=True) == ((), ())
        assert (tmp_path / "thing-of-the-other").is_dir()
        process.kill()
        process.wait()
        assert clean(tmp_path, include_kept=False) == ((run_id,), ())
        assert not (tmp_path / "thing-of-the-other").exists()
        assert all_runs(tmp_path / "runs") == ()

    def test_the_own_run_is_alive_too(self, ledger: Ledger, tmp_path: Path) -> None:
        assert clean(tmp_path, include_kept=True) == ((), ())
        assert ledger.folder.exists()

    def test_a_kept_run_goes_only_when_that_is_asked(self, ledger: Ledger, tmp_path: Path) -> None:
        a_folder(ledger, tmp_path / "thing")
        ledger.keep()
        assert clean(tmp_path, include_kept=False) == ((), ())
        assert (tmp_path / "thing").exists()
        assert clean(tmp_path, include_kept=True) == ((ledger.run_id,), ())
        assert not (tmp_path / "thing").exists()

    def test_what_is_left_stays_for_the_next_cleaning(
        self, ledger: Ledger, tmp_path: Path, sysctls: Path
    ) -> None:
        ledger.record(Sysctl("kernel/no-such-thing", "1"))
        ledger.finish()
        removed, failures = clean(tmp_path, include_kept=False)
        assert (removed, len(failures)) == ((), 1)
        assert [run.state for run in all_runs(tmp_path / "runs")] == ["dead"]

    def test_a_run_that_begins_is_never_taken_for_a_dead_one(self, tmp_path: Path) -> None:
        argv = [sys.executable, "-c", BEGIN_AND_FINISH, str(tmp_path)]
        cleanings = 0
        with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            while process.poll() is None:
                assert clean(tmp_path, include_kept=True)[1] == ()
                all_runs(tmp_path / "runs")
                cleanings += 1
            assert process.stderr.read() == ""
        assert process.returncode == 0
        assert cleanings > 10

    def test_an_engine_goes_before_the_runs_that_have_containers_in_it(self, tmp_path: Path) -> None:
        begun = [Ledger.begin(tmp_path) for _ in range(5)]
        engine = begun[2]
        engine.record(EngineData(str(tmp_path / "docker")))
        for run in begun:
            run.keep()
        assert clean(tmp_path, include_kept=True)[0][0] == engine.run_id

    def test_nothing_to_clean(self, tmp_path: Path) -> None:
        assert clean(tmp_path, include_kept=True) == ((), ())


class TestSysctls:
    def test_are_restored_and_those_the_kernel_lacks_are_passed_over(
        self, ledger: Ledger, sysctls: Path
    ) -> None:
        assert ledger.record_sysctl("kernel/panic") == (Sysctl("kernel/panic", "1"),)
        assert ledger.record_sysctl("kernel/no-such-thing") == ()
        (sysctls / "kernel/panic").write_text("10\n")
        assert ledger.finish() == ()
        assert (sysctls / "kernel/panic").read_text() == "1"

    @pytest.mark.parametrize(("least", "found"), [(5, "5"), (1, "1\n"), (0, "1\n")])
    def test_are_raised_where_they_are_lower(
        self, ledger: Ledger, sysctls: Path, least: int, found: str
    ) -> None:
        panic = sysctls / "kernel/panic"
        before = panic.read_text()
        assert before == "1\n"
        ledger.raise_sysctl("kernel/panic", least)
        ledger.raise_sysctl("kernel/no-such-thing", least)
        assert panic.read_text() == found
        assert ledger.finish() == ()
        assert panic.read_text().strip() == before.strip()

    def test_are_handed_on_and_restored_by_the_last(self, tmp_path: Path, sysctls: Path) -> None:
        overcommit = sysctls / "vm/overcommit_memory"
        first, second, third = (Ledger.begin(tmp_path) for _ in range(3))
        for run in (first, second, third):
            run.record_sysctl("vm/overcommit_memory")
            overcommit.write_text("1\n")
        for run in (first, third):
            assert run.finish() == ()
            assert overcommit.read_text() == "1\n"
        assert second.finish() == ()
        assert overcommit.read_text() == "0"

    def test_two_nodes_of_one_run_restore_once_in_any_order(self, ledger: Ledger, sysctls: Path) -> None:
        first = ledger.record_sysctl("kernel/panic")
        (sysctls / "kernel/panic").write_text("10\n")
        second = ledger.record_sysctl("kernel/panic")
        assert ledger.undo(first) == ()
        assert (sysctls / "kernel/panic").read_text() == "10\n"
        assert ledger.undo(second) == ()
        assert (sysctls / "kernel/panic").read_text() == "1"

    def test_a_dead_run_still_knows_best(self, tmp_path: Path, sysctls: Path) -> None:
        dead, alive = Ledger.begin(tmp_path), Ledger.begin(tmp_path)
        dead.record_sysctl("kernel/panic")
        (sysctls / "kernel/panic").write_text("10\n")
        (dead.folder / "owner.lock").unlink()
        alive.record_sysctl("kernel/panic")
        assert clean(tmp_path, include_kept=False) == ((dead.run_id,), ())
        assert (sysctls / "kernel/panic").read_text() == "10\n"
        assert alive.finish() == ()
        assert (sysctls / "kernel/panic").read_text() == "1"


class TestMounts:
    MOUNTS = (
        "proc /proc proc rw 0 0\n"
        "tmpfs /state/run tmpfs rw 0 0\n"
        "tmpfs /state/run/a\\040b/deep tmpfs rw 0 0\n"
        "tmpfs /state/run/a\\040b tmpfs rw 0 0\n"
        "tmpfs /state/runs tmpfs rw 0 0\n"
        "tmpfs /state/run tmpfs rw 0 0\n"
    )

    @pytest.mark.parametrize("folder", ["/state/run", "/state/run/"])
    def test_below_a_folder_innermost_first(self, folder: str) -> None:
        below = ("/state/run/a b/deep", "/state/run/a b", "/state/run", "/state/run")
        assert mounts_below(folder, self.MOUNTS) == below

    def test_a_neighbour_with_a_longer_name_is_not_below(self) -> None:
        assert "/state/runs" not in mounts_below("/state/run", self.MOUNTS)
        assert mounts_below("/state/other", self.MOUNTS) == ()

    def test_every_escape_of_the_kernel_is_read(self) -> None:
        assert mounts_below("/s", "tmpfs /s/a\\011b\\134c\\012d tmpfs rw 0 0\n") == ("/s/a\tb\\c\nd",)


class TestStateRoot:
    @pytest.mark.parametrize("given", ["/short/state", "state"])
    def test_is_where_the_variable_says(self, given: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(STATE_ENV, given)
        monkeypatch.chdir("/")
        assert state_root() == Path("/", given)

    @pytest.mark.parametrize(("length", "sound"), [(57, True), (58, False)])
    def test_leaves_room_for_unix_sockets(
        self, length: int, sound: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = "/" + "x" * (length - 1)
        assert len(os.fsencode(path)) == length
        monkeypatch.setenv(STATE_ENV, path)
        if sound:
            assert state_root() == Path(path)
        else:
            with pytest.raises(BadInputError, match="too long a path for unix sockets") as caught:
                state_root()
            assert caught.value.where == STATE_ENV

    def test_a_machine_lock_is_exclusive_between_processes(self, tmp_path: Path) -> None:
        held = "import sys, filelock; filelock.FileLock(sys.argv[1], timeout=0).acquire()"
        argv = [sys.executable, "-c", held, str(tmp_path / "state" / "network.lock")]
        with machine_lock("network", tmp_path / "state"):
            assert subprocess.run(argv, stderr=subprocess.DEVNULL, check=False).returncode == 1
        assert subprocess.run(argv, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def test_who_holds_a_machine_lock_too_long_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("framework.ledger.LOCK_TIMEOUT_S", 0.2)
        held = (
            "import sys, filelock; a = filelock.FileLock(sys.argv[1]).acquire(); print(flush=True); input()"
        )
        lock = tmp_path / "network.lock"
        argv = [sys.executable, "-c", held, str(lock)]
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            with pytest.raises(TimeLimitError, match=rf"held the lock .* pid {holder.pid}, ") as caught:
                machine_lock("network", tmp_path).__enter__()
            holder.kill()
        assert caught.value.where == str(lock)
        with machine_lock("network", tmp_path):
            assert lock.exists()

    def test_what_can_not_be_written_down_is_not_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ledger = Ledger.begin(tmp_path)

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(KilonodeError, match=r"No space left on device .*Remedy: free space"):
            ledger.record(Netns("kilonode-test"))
