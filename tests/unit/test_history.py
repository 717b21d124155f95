"""The history of a machine's runs: what a run is compared with, and how little of it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec
import pytest
from test_comparison import elsewhere, measured
from test_report_run_folder import a_checked_result

from framework.errors import BadInputError
from framework.outcome import RunResult
from framework.report import FORMAT, LATEST, RunFolder, Session, keep, last_alike, load_run, load_session

NIGHTS: Final = tuple(f"2025111{day}T030000Z-{digits}" for day, digits in enumerate(("ff", "aa", "cc")))


def a_run(runs: Path, name: str, *results: RunResult) -> Path:
    """A run folder of that name, as a session leaves it."""
    session = Session(
        format=FORMAT, run_id=name, started_utc="2025-11-15T03:00:00+00:00", ended_utc=None, command="pytest"
    )
    folder = RunFolder(runs / name, session)
    folder.path.mkdir(parents=True)
    for result in results:
        folder.start(result).write(result)
    folder.end()
    return folder.path


def of_peak(mib: int) -> RunResult:
    return measured(nft_mib=mib)


def peaks(runs: tuple[tuple[RunResult, ...], ...]) -> list[int]:
    """nft's peak in each of ``runs``, in MiB."""
    return [
        result.outcome.nft_bytes_peak.value >> 20
        for run in runs
        for result in run
        if result.outcome is not None and result.outcome.nft_bytes_peak is not None
    ]


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Three nights, of 100, 101 and 102 MiB, the last of them also as the latest."""
    for number, name in enumerate(NIGHTS):
        a_run(tmp_path / "history", name, of_peak(100 + number))
    (tmp_path / "history" / LATEST).symlink_to(NIGHTS[-1])
    return tmp_path / "history"


class TestLastAlike:
    @pytest.mark.parametrize(("at_most", "expected"), [(1, [102]), (2, [101, 102]), (9, [100, 101, 102])])
    def test_are_the_newest_oldest_first(
        self, history: Path, tmp_path: Path, at_most: int, expected: list[int]
    ) -> None:
        found = last_alike(history, [of_peak(1)], at_most=at_most, apart_from=tmp_path)
        assert peaks(found) == expected

    def test_the_run_itself_is_none_of_them(self, history: Path) -> None:
        found = last_alike(history, [of_peak(1)], at_most=9, apart_from=history / LATEST)
        assert peaks(found) == [100, 101]

    def test_runs_of_other_machines_are_passed_over(self, history: Path, tmp_path: Path) -> None:
        a_run(history, "20251119T030000Z-aa", elsewhere(of_peak(7)))
        a_run(history, "20251119T040000Z-aa", of_peak(8), elsewhere(of_peak(8)))
        assert peaks(last_alike(history, [of_peak(1)], at_most=1, apart_from=tmp_path)) == [102]
        other = [elsewhere(of_peak(1))]
        assert peaks(last_alike(history, other, at_most=9, apart_from=tmp_path)) == [7]

    def test_what_is_damaged_or_empty_or_no_run_is_passed_over(self, history: Path, tmp_path: Path) -> None:
        damaged = a_run(history, "20251119T030000Z-aa", of_peak(7))
        next(damaged.glob("*/result.json")).write_text("{")
        a_run(history, "20251119T040000Z-aa")
        (history / "notes").mkdir()
        assert peaks(last_alike(history, [of_peak(1)], at_most=1, apart_from=tmp_path)) == [102]

    @pytest.mark.parametrize(
        ("folder", "at_most", "message"),
        [("missing", 1, "there is no such folder of runs"), (".", 0, "a baseline of 0 runs is none")],
    )
    def test_what_cannot_be_looked_up_is_refused(
        self, tmp_path: Path, folder: str, at_most: int, message: str
    ) -> None:
        with pytest.raises(BadInputError, match=message):
            last_alike(tmp_path / folder, [of_peak(1)], at_most=at_most, apart_from=tmp_path)


class TestKeep:
    def test_keeps_results_without_evidence_and_logs(self, tmp_path: Path) -> None:
        result = a_checked_result()
        run = a_run(tmp_path / "runs", NIGHTS[0], result)
        (run.parent / LATEST).symlink_to(run.name)
        place = keep(tmp_path / "history", run.parent / LATEST, at_most=30)
        assert place == tmp_path / "history" / NIGHTS[0]
        assert load_run(place) == (msgspec.structs.replace(result, evidence=None),)
        assert load_session(place).run_id == NIGHTS[0]
        assert {path.name for path in place.rglob("*") if path.is_file()} == {"result.json", "session.json"}

    def test_the_oldest_go(self, history: Path, tmp_path: Path) -> None:
        run = a_run(tmp_path / "runs", "20251119T030000Z-aa", of_peak(103))
        keep(history, run, at_most=2)
        assert sorted(path.name for path in history.iterdir()) == [NIGHTS[-1], run.name, LATEST]

    def test_the_runs_own_folder_is_left_as_it_is(self, history: Path) -> None:
        before = sorted(history.rglob("*"))
        assert keep(history, history / NIGHTS[0], at_most=1) == history / NIGHTS[0]
        assert sorted(history.rglob("*")) == before
