"""The lab, as far as it goes without a control plane."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from framework import guard
from framework.binaries import Binaries
from framework.errors import KilonodeError, MissingRequirementError
from framework.lab import Lab, LabSettings
from framework.ledger import STATE_ENV, Folder, Ledger, all_runs
from framework.report import PhaseName, RunFolder


class Phases:
    """A reporter that remembers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    def phase_started(self, name: PhaseName, detail: str = "", total: int | None = None) -> None:
        self.seen.append((name, "started"))

    def phase_advanced(self, name: PhaseName, done: int) -> None:
        self.seen.append((name, str(done)))

    def phase_ended(self, name: PhaseName, ok: bool, detail: str = "") -> None:
        self.seen.append((name, "ok" if ok else "failed"))


@pytest.fixture
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("s")
    monkeypatch.setenv(STATE_ENV, str(folder))
    return folder


def a_lab(folder: Path, *, keep: bool = False, max_nodes: int = 100) -> tuple[Lab, Phases]:
    settings = LabSettings(max_nodes=max_nodes, cluster="embedded", mode="native", keep=keep)
    phases = Phases()
    run_folder = RunFolder.create(folder / "runs-of-user", command=["pytest"])
    return Lab(settings, binaries=Binaries(), run_folder=run_folder, reporter=phases), phases


def test_an_unused_lab_leaves_nothing(state: Path, tmp_path: Path) -> None:
    lab, phases = a_lab(tmp_path)
    assert lab.close() == ()
    assert phases.seen == []
    assert list(state.iterdir()) == []


def test_it_removes_what_a_dead_run_left_before_it_begins(state: Path, tmp_path: Path) -> None:
    dead = Ledger.begin(state)
    dead.record(Folder(str(tmp_path / "left")))
    (tmp_path / "left").mkdir()
    (dead.folder / "owner.lock").unlink()
    lab, _ = a_lab(tmp_path)
    mine = lab.ledger
    assert not (tmp_path / "left").exists()
    assert [run.run_id for run in all_runs(state / "runs")] == [mine.run_id]
    assert lab.close() == ()
    assert all_runs(state / "runs") == ()


def test_keeping_keeps_also_where_no_cluster_came_up(
    state: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lab, phases = a_lab(tmp_path, keep=True)
    folder = lab.ledger.folder
    with caplog.at_level(logging.WARNING):
        assert lab.close() == ()
    assert str(folder) in caplog.text
    assert [run.state for run in all_runs(state / "runs")] == ["kept"]
    assert phases.seen == []


def test_a_fleet_beyond_what_was_allowed_is_a_skip_that_starts_nothing(state: Path, tmp_path: Path) -> None:
    lab, phases = a_lab(tmp_path, max_nodes=100)
    with pytest.raises(MissingRequirementError, match=r"1,000 fake nodes are needed and --max-nodes is 100"):
        lab.grow_fleet(1000)
    assert phases.seen == []
    assert list(state.iterdir()) == []


def test_what_broke_the_shared_part_is_the_reason_of_every_later_skip(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down(*arguments: object) -> object:
        raise KilonodeError("etcd ended with status 2", remedy="read its log")

    monkeypatch.setattr("framework.lab.EmbeddedCluster.start", break_down)
    lab, phases = a_lab(tmp_path)
    with pytest.raises(KilonodeError, match="etcd ended") as first:
        lab.grow_fleet(10)
    assert not isinstance(first.value, MissingRequirementError)
    with pytest.raises(MissingRequirementError, match="environment is broken: etcd ended") as later:
        lab.grow_fleet(10)
    assert later.value.remedy == "read its log"
    assert phases.seen == [("cluster", "started"), ("cluster", "failed")]
    assert lab.close() == ()


def test_too_little_memory_is_a_skip_and_breaks_nothing(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, _ = a_lab(tmp_path)
    monkeypatch.setattr(guard, "memory_available_bytes", lambda *_: guard.FLOOR_BYTES)
    for _ in range(2):
        with pytest.raises(MissingRequirementError, match="the control plane needs about"):
            lab.grow_fleet(10)
    assert lab.close() == ()
