"""A run folder is readable at any moment, and says clearly when it isn't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from test_analysis_outcomes import an_evidence

from framework.analysis import derive_outcome
from framework.errors import BadInputError, KilonodeError
from framework.outcome import Component, Environment, FidelityItem, RunResult, Verdict
from framework.report import FORMAT, RunFolder, load_run, load_session, slug
from framework.units import GIB

TEST_ID = "scenarios/test_ladder.py::test_daemonset_service[10k-1.35.0]"
ENVIRONMENT = Environment(
    kernel="6.18.0",
    cgroup_mode="v1",
    cpus=2,
    memory_bytes=24 * GIB,
    python="3.11.7",
    distribution="Debian 12",
    components=(
        Component(name="nft", version="1.0.6", source="path", toolchain="", sha256="0" * 64),
        Component(name="kube-apiserver", version="v1.37.2", source="go", toolchain="go1.26", sha256="0" * 64),
    ),
)


def a_result(**changes: Any) -> RunResult:
    result = RunResult(
        format=FORMAT,
        run_id="20251115T101500Z-1a2b3c",
        test_id=TEST_ID,
        started_utc="2025-11-15T10:15:00+00:00",
        stage="started",
        parameters={"endpoints": 100_000, "kube_proxy": "1.37.2", "memory_bytes": 2 * GIB},
        environment=ENVIRONMENT,
        fidelity=(FidelityItem(id="cgroup-v1", what="v1", effect="differs"),),
    )
    return msgspec.structs.replace(result, **changes)


def a_checked_result(**changes: Any) -> RunResult:
    evidence = an_evidence()
    checked: dict[str, Any] = {
        "stage": "checked",
        "evidence": evidence,
        "outcome": derive_outcome(evidence),
        "verdict": Verdict(result="pass"),
    }
    return a_result(**(checked | changes))


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", command=["pytest", "-k", "ladder and 10k"])


class TestSession:
    def test_latest_points_to_the_newest(self, tmp_path: Path) -> None:
        runs = tmp_path / "runs"
        folders = [RunFolder.create(runs, command=["pytest"]) for _ in range(2)]
        latest = runs / "latest"
        assert latest.is_symlink()
        assert not latest.readlink().is_absolute()
        assert latest.resolve() == folders[1].path.resolve()
        assert sorted(path.name for path in runs.iterdir()) == sorted(
            ["latest", *(folder.path.name for folder in folders)]
        )

    def test_is_kept_with_its_command(self, folder: RunFolder) -> None:
        session = load_session(folder.path)
        assert session.command == "pytest -k 'ladder and 10k'"
        assert session.run_id == folder.path.name
        assert session.ended_utc is None
        folder.end()
        assert load_session(folder.path).ended_utc is not None

    def test_something_in_the_place_of_latest_is_not_removed(self, tmp_path: Path) -> None:
        (tmp_path / "latest").mkdir()
        with pytest.raises(KilonodeError, match="remove what is there"):
            RunFolder.create(tmp_path, command=["pytest"])
        assert (tmp_path / "latest").is_dir()

    def test_keeps_the_ends_of_the_control_planes_logs(
        self, folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("framework.report.run_folder.LOG_BYTES_MAX", 5)
        (tmp_path / "etcd.log").write_text("started, ended")
        (tmp_path / "etcd.1.log").write_text("gone")
        folder.keep_logs(tmp_path)
        kept = {path.name: path.read_text() for path in (folder.path / "control-plane").iterdir()}
        assert kept == {"etcd.log": "ended", "etcd.1.log": "gone"}


class TestMeasurement:
    def test_is_readable_from_its_start(self, folder: RunFolder) -> None:
        measurement = folder.start(a_result())
        assert load_run(folder.path) == (a_result(),)
        assert measurement.logs.is_dir()

    def test_comes_back_whole(self, folder: RunFolder) -> None:
        measurement = folder.start(a_result())
        measurement.write(a_checked_result(stage="measured", verdict=None))
        measurement.write(a_checked_result())
        assert load_run(folder.path) == (a_checked_result(),)
        assert load_run(measurement.path) == (a_checked_result(),)

    def test_evidence_has_a_file_of_its_own(self, folder: RunFolder) -> None:
        measurement = folder.start(a_result())
        measurement.write(a_checked_result())
        result = json.loads((measurement.path / "result.json").read_text())
        assert result["evidence"] is None
        assert result["outcome"]["programming"] == "programmed"
        assert len((measurement.path / "result.json").read_text().splitlines()) > 20
        assert sorted(path.name for path in measurement.path.iterdir()) == [
            "evidence.json",
            "logs",
            "result.json",
        ]

    def test_a_later_write_without_evidence_keeps_it(self, folder: RunFolder) -> None:
        measurement = folder.start(a_result())
        measurement.write(a_checked_result())
        measurement.write(a_checked_result(evidence=None))
        assert load_run(folder.path) == (a_checked_result(),)

    def test_the_same_test_may_measure_twice(self, folder: RunFolder) -> None:
        paths = {folder.start(a_result()).path.name for _ in range(3)}
        assert paths == {slug(TEST_ID), f"{slug(TEST_ID)}-2", f"{slug(TEST_ID)}-3"}
        assert len(load_run(folder.path)) == 3

    def test_oldest_first(self, folder: RunFolder) -> None:
        late = a_result(test_id="a", started_utc="2025-11-15T11:00:00+00:00")
        early = a_result(test_id="b", started_utc="2025-11-15T10:00:00+00:00")
        folder.start(late)
        folder.start(early)
        assert [result.test_id for result in load_run(folder.path)] == ["b", "a"]

    def test_a_failed_write_leaves_the_old_file(
        self, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        measurement = folder.start(a_result())

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(KilonodeError, match=r"No space left on device .*Remedy: free space"):
            measurement.write(a_checked_result())
        assert load_run(folder.path) == (a_result(),)
        assert not list(measurement.path.glob(".*"))


class TestLoading:
    def test_a_session_without_measurements(self, folder: RunFolder) -> None:
        assert load_run(folder.path) == ()

    def test_a_folder_that_was_only_just_made_is_passed_over(self, folder: RunFolder) -> None:
        (folder.path / "scenarios-test_x").mkdir()
        folder.start(a_result())
        assert len(load_run(folder.path)) == 1

    @pytest.mark.parametrize("name", ["", "missing"])
    def test_no_run(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(BadInputError, match="there is no run here"):
            load_run(tmp_path / name)

    @pytest.mark.parametrize(
        "text", [b"", b'{"format": 1', b"\xff\xfe", b"[]", b'{"format": 1, "run_id": 5}']
    )
    def test_a_damaged_file(self, folder: RunFolder, text: bytes) -> None:
        path = folder.start(a_result()).path / "result.json"
        path.write_bytes(text)
        with pytest.raises(BadInputError, match="the file is damaged") as caught:
            load_run(folder.path)
        assert caught.value.where == str(path)

    @pytest.mark.parametrize("name", ["result.json", "evidence.json"])
    def test_another_format(self, folder: RunFolder, name: str) -> None:
        measurement = folder.start(a_result())
        measurement.write(a_checked_result())
        (measurement.path / name).write_text('{"format": 99, "unheard_of": true}')
        with pytest.raises(BadInputError, match="has format 99, this kilonode reads 1, 2, 3"):
            load_run(folder.path)

    def test_no_session(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="can't be read: No such file"):
            load_session(tmp_path)


class TestSlug:
    @pytest.mark.parametrize(
        ("test_id", "expected"),
        [
            (TEST_ID, "scenarios-test_ladder.py-test_daemonset_service-10k-1.35.0"),
            ("../../etc", "etc"),
            ("..", "measurement"),
            ("", "measurement"),
        ],
        ids=["a test id", "a path", "dots", "nothing"],
    )
    def test_is_a_plain_name(self, test_id: str, expected: str) -> None:
        assert slug(test_id) == expected

    def test_long_ones_stay_distinct(self) -> None:
        slugs = {slug("x" * 500 + end) for end in "ab"}
        assert len(slugs) == 2
        assert all(len(name) == 120 for name in slugs)


@pytest.mark.parametrize("earlier", [1, 2])
def test_a_run_of_an_earlier_format_is_read_and_means_the_same(earlier: int) -> None:
    """Real ones of November 2026: 10 endpoints, kube-proxy 1.37.2."""
    (result,) = load_run(Path(__file__).parent / "recorded" / f"run-format-{earlier}")
    assert result.format == earlier
    assert result.asked is None
    assert result.evidence is not None
    assert result.outcome is not None
    again = derive_outcome(result.evidence)
    assert again.programming == result.outcome.programming == "programmed"
    assert again.nft_bytes_peak == result.outcome.nft_bytes_peak
    assert [seen.fate for seen in again.fates] == ["programmed"]
    assert again.served == "fully"
