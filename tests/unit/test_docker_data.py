"""Of an engine's data folder images stay; containers, volumes and networks go, without the engine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from framework import network
from framework.docker_data import containers_files, discard_containers, in_use, lock_path

IMAGE, OWN = "a" * 64, "b" * 64
BRIDGE = "br-d24d6ad01d4b"


def a_layer(data: Path, layer_id: str, short: str) -> None:
    layer = data / "overlay2" / layer_id
    (layer / "diff").mkdir(parents=True)
    (layer / "link").write_text(short)
    (data / "overlay2" / "l").mkdir(exist_ok=True)
    (data / "overlay2" / "l" / short).symlink_to(f"../{layer_id}/diff")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What docker 20.10 leaves of one container of one image."""
    folder = tmp_path / "docker"
    for layer_id, short in ((IMAGE, "IMAGE"), (OWN, "OWN"), (f"{OWN}-init", "INIT")):
        a_layer(folder, layer_id, short)
    mount = folder / "image/overlay2/layerdb/mounts/c0ffee"
    mount.mkdir(parents=True)
    for name, content in (("mount-id", OWN), ("init-id", f"{OWN}-init"), ("parent", "sha256:1")):
        (mount / name).write_text(content)
    for name in ("containers/c0ffee", "volumes/v/_data", "network/files", "containerd/daemon"):
        (folder / name).mkdir(parents=True)
    (folder / "network/files/local-kv.db").write_bytes(
        b'\0\0{"AddressIPv4":"172.17.0.1/16","BridgeName":"%s"}\0{"BridgeName":"lan0"}' % BRIDGE.encode()
    )
    return folder


@pytest.fixture
def deleted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Links that were to be deleted; none is."""
    links: list[str] = []
    monkeypatch.setattr(network, "delete_link", links.append)
    return links


@pytest.fixture
def engine(data: Path) -> Iterator[None]:
    """Something that holds the lock as an engine does."""
    with subprocess.Popen(
        ["flock", "--no-fork", lock_path(data), "sh", "-c", "echo; sleep 60"], stdout=-1
    ) as held:
        assert held.stdout is not None
        held.stdout.readline()
        yield
        held.kill()


def test_images_stay_and_all_else_goes(data: Path, deleted: list[str]) -> None:
    discard_containers(data)
    assert sorted(path.name for path in (data / "overlay2").iterdir()) == [IMAGE, "l"]
    assert [path.name for path in (data / "overlay2/l").iterdir()] == ["IMAGE"]
    assert list((data / "image/overlay2/layerdb/mounts").iterdir()) == []
    assert sorted(path.name for path in data.iterdir()) == ["engine.lock", "image", "overlay2"]
    assert containers_files(data) == ()


def test_only_bridges_that_docker_named_are_deleted(data: Path, deleted: list[str]) -> None:
    discard_containers(data)
    assert deleted == [BRIDGE]


@pytest.mark.usefixtures("engine")
def test_what_an_engine_uses_is_left_alone(data: Path, deleted: list[str]) -> None:
    before = containers_files(data)
    assert in_use(data)
    discard_containers(data)
    assert containers_files(data) == before
    assert deleted == []


def test_a_file_that_was_cut_short_costs_no_image(data: Path, deleted: list[str]) -> None:
    (data / "image/overlay2/layerdb/mounts/c0ffee/mount-id").write_text("")
    discard_containers(data)
    assert (data / "overlay2" / IMAGE / "diff").is_dir()
    assert (data / "overlay2/l/IMAGE").is_symlink()


def test_a_folder_that_was_never_made_is_fine(tmp_path: Path, deleted: list[str]) -> None:
    discard_containers(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    assert not in_use(tmp_path / "new")
