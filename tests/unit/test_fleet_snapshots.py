"""Snapshots: whole or refused, never beyond their limit, and gone on with after an interruption."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import filelock
import msgspec
import pytest

from framework.errors import BadInputError, TimeLimitError
from framework.fleet import Snapshot, SnapshotKey, SnapshotRefusedError, Snapshots
from framework.units import MIB

KEY = SnapshotKey(nodes=5000, etcd="3.7.0 (aa)", kube_apiserver="1.37.2 (bb)", shape="cc")


@pytest.fixture
def store(tmp_path: Path) -> Snapshots:
    return Snapshots(tmp_path / "snapshots", 10 * MIB)


def write_etcd(data: Path, size_bytes: int = 1000) -> None:
    (data / "member" / "snap").mkdir(parents=True, exist_ok=True)
    (data / "member" / "snap" / "db").write_bytes(os.urandom(size_bytes))
    (data / "member" / "wal.1").write_bytes(b"log")


def saved(store: Snapshots, key: SnapshotKey = KEY, size_bytes: int = 1000) -> Snapshot:
    with store.draft(key) as draft:
        write_etcd(draft.data, size_bytes)
        return store.save(draft, registered_s=12.34)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_is_restored_is_what_was_saved(store: Snapshots, tmp_path: Path) -> None:
    made = saved(store)
    found = store.find(KEY)
    assert found is not None
    assert found.manifest == made.manifest
    assert found.manifest.registered_s == 12.3
    found.restore(tmp_path / "etcd")
    assert files(tmp_path / "etcd") == files(made.folder / "etcd")
    assert set(files(tmp_path / "etcd")) == {"member/snap/db", "member/wal.1"}
    assert (tmp_path / "etcd").stat().st_mode & 0o077 == 0


def test_the_original_stays_as_it_was_while_a_copy_is_used(store: Snapshots, tmp_path: Path) -> None:
    made = saved(store)
    before = files(made.folder / "etcd")
    made.restore(tmp_path / "etcd")
    (tmp_path / "etcd" / "member" / "snap" / "db").write_bytes(b"used")
    assert files(made.folder / "etcd") == before


@pytest.mark.parametrize(
    "changed", [{"nodes": 5001}, {"etcd": "3.7.1"}, {"kube_apiserver": "x"}, {"shape": "x"}]
)
def test_everything_that_shapes_a_fleet_is_told_apart(store: Snapshots, changed: dict[str, object]) -> None:
    saved(store)
    assert store.find(msgspec.structs.replace(KEY, **changed)) is None
    assert store.find(KEY) is not None


def test_what_differs_is_said(store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
    saved(store)
    with caplog.at_level(logging.INFO):
        store.find(msgspec.structs.replace(KEY, etcd="3.7.1 (dd)"))
    assert "does not fit: etcd is 3.7.0 (aa), needed is 3.7.1 (dd)" in caplog.text


class TestRefused:
    def refused(self, store: Snapshots, caplog: pytest.LogCaptureFixture) -> str:
        with caplog.at_level(logging.WARNING):
            assert store.find(KEY) is None
        assert not (store.root / KEY.name).exists()
        return caplog.text

    def test_foreign(self, store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
        other = saved(store, msgspec.structs.replace(KEY, kube_apiserver="1.36.1 (ee)"))
        other.folder.rename(store.root / KEY.name)
        text = self.refused(store, caplog)
        assert "made for something else: kube_apiserver is 1.36.1 (ee), needed is 1.37.2 (bb)" in text

    def test_a_manifest_that_is_no_manifest(self, store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
        (saved(store).folder / "manifest.json").write_text('{"format": 1, "key": 7}')
        assert "its manifest can't be read" in self.refused(store, caplog)

    def test_no_manifest(self, store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
        (saved(store).folder / "manifest.json").unlink()
        assert "its manifest can't be read" in self.refused(store, caplog)

    def test_another_format(self, store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
        manifest = saved(store).folder / "manifest.json"
        manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
        assert "it has format 2, this version reads format 1" in self.refused(store, caplog)

    @pytest.mark.parametrize("harm", ["changed", "shortened", "missing"])
    def test_damaged(self, store: Snapshots, tmp_path: Path, harm: str) -> None:
        made = saved(store)
        db = made.folder / "etcd" / "member" / "snap" / "db"
        content = db.read_bytes()
        if harm == "missing":
            db.unlink()
        else:
            db.write_bytes(content[:-1] if harm == "shortened" else b"\0" + content[1:])
        with pytest.raises(SnapshotRefusedError, match=f"member/snap/db is .*{harm[:4]}|damaged") as refusal:
            made.restore(tmp_path / "etcd")
        assert not (tmp_path / "etcd").exists()
        store.refuse(made.folder, refusal.value)
        assert store.find(KEY) is None


class TestDraft:
    def test_an_interrupted_registration_is_gone_on_with(self, store: Snapshots) -> None:
        with store.draft(KEY) as draft:
            assert list(draft.data.iterdir()) == []
            write_etcd(draft.data)
        assert store.find(KEY) is None
        assert store.all() == ()
        with store.draft(KEY) as again:
            assert list(again.data.rglob("db"))
            store.save(again, registered_s=1)
        assert store.find(KEY) is not None
        assert not again.folder.exists()

    def test_two_runs_do_not_make_the_same_one(
        self, store: Snapshots, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("framework.fleet.snapshots.LOCK_TIMEOUT_S", 0.1)
        with (
            store.draft(KEY),
            pytest.raises(TimeLimitError, match="another run is still making"),
            store.draft(KEY),
        ):
            pass


class TestLimit:
    def test_what_was_used_longest_ago_goes_first(self, store: Snapshots, tmp_path: Path) -> None:
        keys = [msgspec.structs.replace(KEY, nodes=nodes) for nodes in (2000, 3000, 4000)]
        for age_s, key in zip((300, 200, 100), keys, strict=True):
            made = saved(store, key, 3 * MIB)
            stamp = made.used_utc.timestamp() - age_s
            os.utime(made.folder / "manifest.json", (stamp, stamp))
        oldest = store.find(keys[0])
        assert oldest is not None
        oldest.restore(tmp_path / "etcd")
        saved(store, KEY, 3 * MIB)
        assert [store.find(key) is not None for key in (*keys, KEY)] == [True, False, True, True]

    def test_one_that_is_larger_by_itself_stays_alone(self, store: Snapshots) -> None:
        saved(store, msgspec.structs.replace(KEY, nodes=2000))
        saved(store, KEY, 11 * MIB)
        assert [snapshot.manifest.key.nodes for snapshot in store.all()] == [5000]

    def test_is_an_environment_variable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("KILONODE_SNAPSHOTS_MAX", "1GiB")
        assert Snapshots.below(tmp_path).limit_bytes == 1024 * MIB
        monkeypatch.setenv("KILONODE_SNAPSHOTS_MAX", "much")
        with pytest.raises(BadInputError, match="KILONODE_SNAPSHOTS_MAX"):
            Snapshots.below(tmp_path)


def test_clearing_leaves_what_a_run_is_making(store: Snapshots, caplog: pytest.LogCaptureFixture) -> None:
    made = saved(store)
    busy = msgspec.structs.replace(KEY, nodes=9000)
    with store.draft(busy) as draft:
        write_etcd(draft.data)
        with caplog.at_level(logging.WARNING):
            assert store.clear() >= made.manifest.size_bytes
        assert draft.data.is_dir()
    assert "is being made by a run" in caplog.text
    assert store.all() == ()
    store.clear()
    assert [path.suffix for path in store.root.iterdir()] in ([], [".lock", ".lock"])


def test_a_lock_that_nobody_holds_is_no_obstacle(store: Snapshots) -> None:
    store.root.mkdir()
    with filelock.FileLock(store.root / f"{KEY.name}.lock"):
        pass
    assert saved(store).manifest.key == KEY
